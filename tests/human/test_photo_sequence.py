import shutil

import pytest
import torch

from dataparsers.person_photos import PersonPhotosDataParserConfig
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photo_sequence import PhotoSequence, read_person
from nerfstudio_ext.human.photos import PhotoStore, write_photos
from tests.human.toy_person import photographed

NAMES = tuple("abcdef")


@pytest.fixture
def folder(tmp_path):
    """Three moments with other pictures and keypoints each, and something that is none."""
    for moment in range(3):
        write_photos(photographed(seed=moment), range(4), NAMES, tmp_path / f"{moment:02d}")
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_moments_are_people_of_the_store(folder):
    store = read_person(folder, 32, NAMES)
    assert [store.name(k) for k in range(len(store))] == ["00", "01", "02"]
    for moment in (2, 0, 1):
        wanted = PhotoStore(folder / f"{moment:02d}", 32, NAMES)
        found = store.subject(moment)
        assert torch.equal(found.rgb, wanted.subject(0).rgb) and torch.equal(
            found.keypoints, wanted.subject(0).keypoints
        )
        assert torch.equal(store.cameras(moment).fx, wanted.cameras(0).fx)
        assert store.version(moment) == wanted.version(0)
    assert not torch.equal(store.subject(0).rgb, store.subject(1).rgb)


def test_changed_photos_of_one_moment_are_noticed(folder):
    store = read_person(folder, 32, NAMES)
    before = [store.version(k) for k in range(3)]
    write_photos(photographed(seed=9), range(4), NAMES, folder / "01")
    assert [store.version(k) == before[k] for k in range(3)] == [True, False, True]


def test_pictures_of_few_moments_stay_in_memory(folder, monkeypatch):
    for moment in range(3, 7):
        shutil.copytree(folder / "00", folder / f"{moment:02d}")
    store = read_person(folder, 32, NAMES)
    assert isinstance(store, PhotoSequence) and store._moment.cache_info().currsize == 4 < len(store)


def test_one_folder_is_one_person(folder):
    assert isinstance(read_person(folder / "00", 32, NAMES), PhotoStore)
    with pytest.raises(InputError, match=r"no .*notes/transforms\.json"):
        read_person(folder / "notes", 32, NAMES)


def test_every_moment_needs_the_same_cameras(folder):
    shutil.rmtree(folder / "02")
    write_photos(photographed(), range(3), NAMES, folder / "02")
    with pytest.raises(InputError, match="02 has 3 photos, but 00 4"):
        read_person(folder, 32, NAMES)


def test_cameras_carry_moment_and_time(folder):
    parser = PersonPhotosDataParserConfig(data=folder, size=32, sources="0,2,3", keypoint_names=NAMES).setup()
    outputs = parser.get_dataparser_outputs("train")
    assert outputs.metadata["moments"] and outputs.metadata["sources"][2] == (0, 2, 3)
    assert outputs.cameras.metadata["subject"].flatten().tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert outputs.cameras.times.flatten().tolist() == [0.0] * 4 + [0.5] * 4 + [1.0] * 4
    held_out = parser.get_dataparser_outputs("test")
    assert held_out.metadata["views"] == [(0, 1), (1, 1), (2, 1)]
    single = PersonPhotosDataParserConfig(data=folder / "00", size=32, keypoint_names=NAMES).setup()
    outputs = single.get_dataparser_outputs("train")
    assert outputs.cameras.times is None and not outputs.metadata["moments"]


def test_people_have_cameras_of_their_own(folder):
    """As people, folders may differ in their photos, are reconstructed from as many each, and know no time."""
    shutil.rmtree(folder / "02")
    write_photos(photographed(), range(3), NAMES, folder / "02")

    def parse(split, **options):
        config = PersonPhotosDataParserConfig(data=folder, size=32, keypoint_names=NAMES, folders="people", **options)
        return config.setup().get_dataparser_outputs(split)

    outputs = parse("test", sources="2")
    assert outputs.metadata["sources"] == {0: (0, 2), 1: (0, 2), 2: (0, 1)}
    assert outputs.metadata["views"] == [(0, 1), (0, 3), (1, 1), (1, 3), (2, 2)]
    assert not outputs.metadata["moments"] and outputs.cameras.times is None
    assert len(parse("train", sources="2").cameras) == 11
    with pytest.raises(InputError, match=r"have 3 to 4 photos.*say --sources 3"):
        parse("train")
    with pytest.raises(InputError, match="02: --sources 0,3 does not fit 3 cameras"):
        parse("train", sources="0,3")
    with pytest.raises(InputError, match="--folders people"):
        PersonPhotosDataParserConfig(data=folder, size=32, keypoint_names=NAMES).setup().get_dataparser_outputs("train")
