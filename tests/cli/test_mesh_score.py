"""`ns-ext mesh score` from files to figures."""

import json

import numpy as np
import pytest
import trimesh
from scipy.io import savemat

from nerfstudio_ext.cli.main import main


def run(*words):
    with pytest.raises(SystemExit) as ended:
        main(["mesh", "score", *map(str, words)])
    return ended.value.code


@pytest.fixture
def files(tmp_path):
    """A ball of radius 11, one of 10 as a mesh and as a cloud, and DTU's files of a scan that saw all of it."""
    for name, radius in (("ours", 11), ("scan", 10)):
        mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
        mesh.export(tmp_path / f"{name}.ply")
    trimesh.PointCloud(trimesh.sample.sample_surface(mesh, 4000, seed=0)[0]).export(tmp_path / "cloud.ply")
    box = {"ObsMask": np.ones((25, 25, 25), np.uint8), "BB": np.array([[-12.0] * 3, [12.0] * 3]), "Res": 1.0}
    savemat(tmp_path / "ObsMask1_10.mat", box)
    savemat(tmp_path / "Plane1.mat", {"P": np.array([[0.0], [0], [1], [5]])})
    return tmp_path


@pytest.mark.parametrize("scan", ["scan.ply", "cloud.ply"])
def test_scores_of_a_mesh(files, capsys, scan):
    words = (files / "ours.ply", files / scan, "--spacing", 0.5, "--threshold", 2, "--output", files / "s.json")
    assert run(*words) == 0
    told = capsys.readouterr().out
    assert "0.5 apart" in told and "completeness" in told and "f_score        1" in told
    content = json.loads((files / "s.json").read_text())
    assert content["results"]["accuracy"] == pytest.approx(1, abs=0.1)
    assert content["settings"] == {"spacing": 0.5, "farthest": None, "threshold": 2.0, "observed_volume": False}


def test_dtu_by_its_files(files, capsys):
    words = ("--observed", files / "ObsMask1_10.mat", "--plane", files / "Plane1.mat", "--output", files / "s.json")
    assert run(files / "ours.ply", files / "cloud.ply", *words) == 0
    content = json.loads((files / "s.json").read_text())
    assert content["settings"]["spacing"] == 0.2 and content["settings"]["farthest"] == 20
    assert content["results"]["completeness"] == pytest.approx(1, abs=0.1)


def test_mistakes(files, capsys):
    (files / "empty.ply").write_text("ply\n")
    for words, message in (
        ((files / "gone.ply", files / "scan.ply"), "gone.ply cannot be read as a mesh"),
        ((files / "ours.ply", files / "empty.ply"), "empty.ply cannot be read as points or as a mesh"),
        ((files / "ours.ply", files / "scan.ply", "--spacing", -1), "--spacing -1 is no length"),
        ((files / "ours.ply", files / "scan.ply", "--plane", files / "Plane1.mat"), "belongs to --observed"),
        ((files / "ours.ply", files / "scan.ply", "--output", files / "no" / "s.json"), "There is no folder"),
        ((files / "ours.ply", files / "scan.ply", "--spacing", 1, "--farthest", 0.1), "No point is within 0.1"),
    ):
        assert run(*words) == 1
        assert message in capsys.readouterr().err
