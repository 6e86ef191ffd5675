"""Lessons of scanned people: labels are those of the scan, and a scan with a hole is refused."""

from pathlib import Path

import pytest
import torch
import trimesh

from nerfstudio_ext.data.scanned import ScannedPeople
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.icon_layout import IconLayout
from tests.human.test_icon_layout import RADIUS, write_layout


@pytest.mark.extra("embreex")
def test_lessons_of_scanned_people_have_true_labels(tmp_path: Path):
    people = ScannedPeople(IconLayout(write_layout(tmp_path), "thuman2"), 24, 3000)
    scan = people[0]
    assert scan.rgb.shape == scan.normals.shape == (1, 3, 24, 24) and len(people) == 1
    radius = (scan.points - torch.tensor([0.3, 0.2, 1.1])).norm(dim=-1)
    sure = (radius - RADIUS).abs() > 0.02
    assert torch.equal(scan.inside[sure] > 0, radius[sure] < RADIUS)
    assert 0.2 < float(scan.inside.mean()) < 0.8


@pytest.mark.extra("embreex")
def test_scans_with_holes_are_refused_and_seams_are_none(tmp_path: Path):
    folder = write_layout(tmp_path)
    path = folder / "scans" / "0007" / "0007.obj"
    ball = trimesh.load_mesh(path)
    seams = trimesh.Trimesh(ball.triangles.reshape(-1, 3), torch.arange(3 * len(ball.faces)).view(-1, 3), process=False)
    seams.export(path)
    ScannedPeople(IconLayout(folder, "thuman2"), 24, 300)[0]
    ball.update_faces(ball.triangles_center[:, 1] < ball.bounds[1, 1] - 0.1)
    ball.export(path)
    with pytest.raises(InputError, match="The scan of 0007 is open"):
        ScannedPeople(IconLayout(folder, "thuman2"), 24, 300)[0]
