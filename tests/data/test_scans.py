"""Lessons from files: who is trained on comes from the folder, who is tested is drawn."""

from pathlib import Path

import pytest
import torch

from dataparsers.procedural_people import ProceduralPeopleDataParserConfig
from nerfstudio_ext.data.scans import ScanDataManagerConfig
from nerfstudio_ext.engine.errors import InputError
from tests.human.test_icon_layout import CENTRE, write_layout

CONFIG = dict(photos_per_step=3, points_per_photo=64, photo_size=24, points_per_person=2000, keypoint_noise=0.0)


@pytest.mark.extra("anny")
def test_scanned_people_are_trained_on(tmp_path: Path) -> None:
    parser = ProceduralPeopleDataParserConfig(people=1, test_people=1, cameras=4, size=16, sources="2")
    config = ScanDataManagerConfig(dataparser=parser, scans=write_layout(tmp_path), **CONFIG)
    manager = config.setup(device="cpu", test_mode="val")
    lesson, batch = manager.next_train(0)
    assert batch["lesson"] is lesson and lesson.points.shape == (1, 64, 3)
    assert float(lesson.inside.mean()) == 0.5 and not bool(lesson.photo.camera.perspective.any())
    middle = torch.tensor([CENTRE[0], -CENTRE[2], CENTRE[1]]).float()
    assert float((lesson.photo.keypoints[0] - middle).abs().max()) < 0.6
    places = lesson.photo.camera.project(lesson.photo.camera.local(lesson.points[lesson.inside > 0][None]))
    on = torch.nn.functional.grid_sample(lesson.photo.mask, places[:, None], align_corners=False)
    assert float((on > 0.2).float().mean()) > 0.95
    drawn, _ = manager.next_eval(0)
    assert float(drawn.photo.keypoints[0].norm(dim=-1).max()) < 1.5 and not torch.equal(
        drawn.photo.keypoints, lesson.photo.keypoints
    )
    config.bodies = True
    with pytest.raises(InputError, match="no body without clothes"):
        config.setup(device="cpu", test_mode="val")
