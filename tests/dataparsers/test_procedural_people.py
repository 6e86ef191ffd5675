from pathlib import Path

import pytest
import torch

from dataparsers._people import source_views
from dataparsers.procedural_people import ProceduralPeopleDataParserConfig
from nerfstudio_ext.engine.errors import InputError


def parse(split="train", **changes):
    config = ProceduralPeopleDataParserConfig(**{"people": 3, "test_people": 2, "cameras": 5, "size": 32, **changes})
    return config.setup().get_dataparser_outputs(split)


def test_test_people_are_other_people_and_their_sources_are_no_targets():
    train, test = parse(), parse("val")
    assert {index for index, _ in train.metadata["views"]} == {0, 1, 2}
    assert {index for index, _ in test.metadata["views"]} == {3, 4}
    assert not set(train.image_filenames) & set(test.image_filenames)
    assert test.metadata["sources"][3] == (0, 1, 3) and {camera for _, camera in test.metadata["views"]} == {2, 4}
    assert test.metadata["shown"] == 3


def test_rays_know_whose_they_are():
    cameras = parse("val").cameras
    rays = cameras.generate_rays(camera_indices=2)
    assert rays.metadata["subject"].shape[-1] == 1 and rays.metadata["sources"].shape[-1] == 3
    assert rays.metadata["subject"].unique().tolist() == [4]
    assert rays.metadata["sources"].reshape(-1, 3).unique(dim=0).tolist() == [[0, 1, 3]]
    one = cameras[2:3].generate_rays(camera_indices=0, keep_shape=True)
    assert torch.equal(one.metadata["subject"].flatten().unique(), torch.tensor([4]))


def test_sources_of_faces_leave_the_ends_of_the_arc_for_comparing():
    outputs = parse("val", subjects="faces", cameras=8)
    assert outputs.metadata["sources"][3] == (1, 4, 6) and "nose_tip" in outputs.metadata["subjects"].keypoint_names
    assert "pelvis" in parse().metadata["subjects"].keypoint_names
    assert source_views("2", 8, "--sources", ring=False) == (2, 6)


@pytest.mark.parametrize("text,views", [("3", (0, 2, 5)), ("4", (0, 2, 4, 6)), ("1,4", (1, 4))])
def test_source_views(text, views):
    assert source_views(text, 8, "--sources") == views


@pytest.mark.parametrize(
    "changes,message",
    [
        (dict(data=Path("x")), "reads no files"),
        (dict(sources="1"), "two views at least"),
        (dict(sources="0,9"), "different ones, 0 to 4"),
        (dict(sources="2,2"), "different ones"),
        (dict(sources="front"), "not 'front'"),
        (dict(sources="5"), "leave one"),
        (dict(people=0), "one to train on"),
    ],
)
def test_wrong_options_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        parse(**changes)
