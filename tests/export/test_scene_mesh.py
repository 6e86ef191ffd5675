import numpy as np
import torch
import trimesh

from nerfstudio_ext.cli.export import ExportMesh


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
