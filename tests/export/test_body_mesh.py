from types import SimpleNamespace

import torch

from nerfstudio_ext.export.body_mesh import body_mesh
from nerfstudio_ext.human.body_motion import BodyMotion


def test_a_thin_limb_is_kept():
    """A trunk and a thin arm far from it, which lies between the centres of the blocks that are looked at first."""
    vertices = torch.tensor([[-0.2, -0.2, -0.9], [0.2, 0.2, 0.9], [0.9, 0.0, 0.3]])[None]

    def density(points, number):
        x, y, z = points.unbind(-1)
        trunk = (x.abs() < 0.2) & (y.abs() < 0.2) & (z.abs() < 0.9)
        arm = (x > 0) & (x < 0.85) & (y.abs() < 0.03) & ((z - 0.3).abs() < 0.03)
        return 50.0 * (trunk | arm).float()

    def colours(points, views):
        return torch.full_like(points, 0.5)

    zeros = torch.zeros(1, 3)
    motion = BodyMotion(vertices, torch.tensor([[0, 1, 2]]), zeros, zeros)
    model = SimpleNamespace(motion=motion, density=density, surface_colours=colours, device=torch.device("cpu"))
    mesh = body_mesh(model, 0, 100, 10.0)
    low, high = mesh.verts.min(0), mesh.verts.max(0)
    assert abs(high[0] - 0.85) < 0.03 and abs(low[0] + 0.2) < 0.03 and abs(high[2] - 0.9) < 0.03
    assert mesh.colours is not None and (mesh.colours == 128).all()
