from pathlib import Path

import pytest
import torch

from dataparsers.procedural_human import ProceduralHumanDataParserConfig
from nerfstudio_ext.engine.errors import InputError


def parse(split="train", **changes):
    config = ProceduralHumanDataParserConfig(frames=3, cameras=3, size=48, **changes)
    return config.setup().get_dataparser_outputs(split)


@pytest.mark.extra("anny")
@pytest.mark.extra("embreex")
@pytest.mark.slow
def test_one_camera_is_held_out_and_times_count_frames():
    train, test = parse(held_out=1), parse("val", held_out=1)
    assert sorted({camera for _, camera in train.metadata["views"]}) == [0, 2]
    assert [camera for _, camera in test.metadata["views"]] == [1, 1, 1]
    assert test.cameras.times.flatten().tolist() == [0.0, 0.5, 1.0]
    scene = train.metadata["human_scene"]
    for k, (_, camera) in enumerate(train.metadata["views"]):
        torch.testing.assert_close(train.cameras.camera_to_worlds[k], scene.poses[camera])


@pytest.mark.extra("anny")
@pytest.mark.extra("embreex")
@pytest.mark.slow
def test_cameras_see_the_person_where_the_pictures_show_it():
    """Depth along nerfstudio's own rays ends on the body."""
    outputs = parse("val")
    scene, (frame, camera) = outputs.metadata["human_scene"], outputs.metadata["views"][1]
    rays = outputs.cameras.generate_rays(camera_indices=1)
    mask = scene.mask[frame, camera]
    points = (rays.origins + rays.directions * scene.depth[frame, camera, ..., None])[mask]
    gaps = torch.cdist(points, scene.motion.vertices[frame]).amin(1)
    assert float(gaps.max()) < 0.05


@pytest.mark.extra("anny")
@pytest.mark.extra("embreex")
@pytest.mark.slow
def test_the_last_frames_may_be_novel_poses():
    train, test = parse(novel_frames=1), parse("val", novel_frames=1)
    assert {frame for frame, _ in train.metadata["views"]} == {0, 1} == set(train.metadata["trained_frames"])
    assert [frame for frame, _ in test.metadata["views"]] == [0, 1, 2]
    assert train.cameras.times.max() == 0.5 and test.cameras.times.max() == 1.0, "one clock for both"


@pytest.mark.parametrize(
    "changes,message",
    [
        (dict(data=Path("x")), "reads no files"),
        (dict(held_out=3), "3 cameras"),
        (dict(novel_frames=3), "one frame at least"),
    ],
)
def test_wrong_options_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        parse(**changes)
