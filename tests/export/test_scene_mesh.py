import numpy as np
import pytest
import torch
import trimesh

from nerfstudio_ext.cli.export import ExportMesh
from nerfstudio_ext.engine.errors import InputError


class Rod(torch.nn.Module):
    """A thin rod of matter; its density says nothing about how far it is."""

    device = torch.device("cpu")

    def density(self, points):
        return 100 * ((points[:, :2].norm(dim=-1) < 0.08) & (points[:, 2].abs() < 0.9)).float()

    def surface_colours(self, points, directions):
        return torch.full_like(points, 0.5)


def test_thin_parts_of_a_density_are_found(tmp_path, monkeypatch):
    class Pipeline:
        model = Rod()

    monkeypatch.setattr("nerfstudio_ext.engine.runs.open_run", lambda run: (None, Pipeline))
    ExportMesh(tmp_path, tmp_path / "rod.ply", resolution=64, normalised=True).main()
    mesh = trimesh.load(tmp_path / "rod.ply")
    low, high = np.asarray(mesh.vertices).min(0), np.asarray(mesh.vertices).max(0)
    assert low[2] < -0.85 and high[2] > 0.85, "from end to end"


class Plate(torch.nn.Module):
    """A ball, and a thin plate beside it that is dense without being solid anywhere, as after a short training."""

    device = torch.device("cpu")

    class density:
        beta = torch.tensor(0.02)

    def signed_distance(self, points):
        plate = torch.cat([(points[:, :1] - 0.8).abs(), points[:, 1:].abs() - 0.3], dim=-1).amax(-1) + 0.01
        return torch.minimum(points.norm(dim=-1) - 0.5, plate)

    def surface_colours(self, points, directions):
        return torch.full_like(points, 0.5)


def test_dense_parts_that_are_not_solid(tmp_path, monkeypatch, capsys):
    class Pipeline:
        model = Plate()

    monkeypatch.setattr("nerfstudio_ext.engine.runs.open_run", lambda run: (None, Pipeline))
    for options, reach in (({}, 0.5), ({"offset": 1.0}, 0.81), ({"offset": 1.0, "smallest_part": 1.0}, 0.52)):
        options = {"resolution": 200, "half_side": 1.0, "coarse": False, "normalised": True, **options}
        ExportMesh(tmp_path, tmp_path / "m.ply", **options).main()
        mesh = trimesh.load(tmp_path / "m.ply")
        assert abs(np.asarray(mesh.vertices)[:, 0].max() - reach) < 0.01
    assert "1 small part left out" in capsys.readouterr().out


def test_numbers_that_are_no_share_are_refused(tmp_path):
    for options in ({"smallest_part": 1.5}, {"offset": float("nan")}):
        with pytest.raises(InputError, match="--smallest-part is a share"):
            ExportMesh(tmp_path, tmp_path / "m.ply", **options).main()
