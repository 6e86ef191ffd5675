"""Checkpoints in the form of Neural Body's published code, made here of random numbers: no licensed weights.

The published network is written out once more with torch's own dense layers, in its own names, and must give the same.
"""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.official_weights import read_official
from nerfstudio_ext.human.body_grid import BodyFrames
from nerfstudio_ext.human.body_motion import BodyMotion

VERTICES, FRAMES, VOXEL = 40, 2, 0.05
WIDTHS = (16, 32, 64, 128, 128)
HEADS = {"fc_0": (352, 256), "fc_1": (256, 256), "fc_2": (256, 256), "alpha_fc": (256, 1), "feature_fc": (256, 256),
         "latent_fc": (384, 256), "view_fc": (346, 128), "rgb_fc": (128, 3)}  # fmt: skip


def official_net(vertices=VERTICES, frames=FRAMES):
    """Names and sizes of the published network; kernels as spconv 1.x has them."""
    torch.manual_seed(0)
    net = {"c.weight": torch.randn(vertices, 16), "latent.weight": torch.randn(frames, 128)}

    def block(name, k, inputs, outputs):
        net[f"xyzc_net.{name}.{3 * k}.weight"] = torch.randn(3, 3, 3, inputs, outputs) / math.sqrt(2 * inputs)
        net[f"xyzc_net.{name}.{3 * k + 1}.weight"] = 1 + 0.1 * torch.randn(outputs)
        net[f"xyzc_net.{name}.{3 * k + 1}.bias"] = 0.1 * torch.randn(outputs)
        net[f"xyzc_net.{name}.{3 * k + 1}.running_mean"] = 0.1 * torch.randn(outputs)
        net[f"xyzc_net.{name}.{3 * k + 1}.running_var"] = 1 + torch.rand(outputs)
        net[f"xyzc_net.{name}.{3 * k + 1}.num_batches_tracked"] = torch.tensor(9)

    for level, (width, repeats) in enumerate(zip(WIDTHS, (2, 2, 3, 3, 3))):
        for k in range(repeats):
            block(f"conv{level}", k, width, width)
        if level < 4:
            block(f"down{level}", 0, width, WIDTHS[level + 1])
    for name, (inputs, outputs) in HEADS.items():
        net[f"{name}.weight"] = torch.randn(outputs, inputs, 1) * math.sqrt(3 / inputs)
        net[f"{name}.bias"] = 0.1 * torch.randn(outputs)
    net["alpha_fc.weight"] = net["alpha_fc.weight"].abs()  # of what is never negative: some density everywhere
    return net


def spconv2(net):
    """The same kernels as spconv 2.x stores them."""
    return {
        name: value.permute(4, 0, 1, 2, 3).contiguous() if value.ndim == 5 else value for name, value in net.items()
    }


def write(path: Path, net, **more) -> Path:
    torch.save({"net": net, "optim": {"state": {}, "param_groups": []}, "epoch": 399, **more}, path)
    return path


def dense_volumes(net, coords, shape):
    """The tower by masked dense convolutions."""
    x, mask = torch.zeros(1, 16, *shape), torch.zeros(1, 1, *shape)
    x[0, :, coords[:, 0], coords[:, 1], coords[:, 2]] = net["c.weight"].T
    mask[0, 0, coords[:, 0], coords[:, 1], coords[:, 2]] = 1

    def layer(x, mask, name, k, stride):
        theirs = f"xyzc_net.{name}."
        y = F.conv3d(x, net[f"{theirs}{3 * k}.weight"].permute(4, 3, 0, 1, 2), stride=stride, padding=1)
        mean, var, weight, bias = (
            net[f"{theirs}{3 * k + 1}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(y, mean, var, weight, bias, eps=1e-3)) * mask

    volumes = []
    for level, repeats in enumerate((2, 2, 3, 3, 3)):
        for k in range(repeats):
            x = layer(x, mask, f"conv{level}", k, 1)
        if level:
            volumes.append(x)
        if level < 4:
            mask = F.max_pool3d(mask, 3, 2, 1)
            x = layer(x, mask, f"down{level}", 0, 2)
    return volumes


def encoded(x, octaves):
    return torch.cat([x, *(f(2**k * x) for k in range(octaves) for f in (torch.sin, torch.cos))], dim=-1)


def published(net, motion, points, directions, frame):
    """Density and colour as the published network has them, from its own names."""
    rotation = torch.linalg.matrix_exp(
        torch.stack([torch.cross(motion.root_rotation[frame], axis, dim=0) for axis in torch.eye(3)], dim=1)
    )
    body = (motion.vertices[frame] - motion.root_translation[frame]) @ rotation
    low, high = body.amin(0) - 0.05, body.amax(0) + 0.05
    coords = ((body - low).flip(-1) / VOXEL).round().long()
    assert len(torch.unique(coords, dim=0)) == len(coords), "collisions are resolved differently on purpose"
    shape = [(int(n) | 31) + 1 for n in torch.ceil((high - low).flip(-1) / VOXEL)]
    where = ((points - motion.root_translation[frame]) @ rotation - low).flip(-1) / VOXEL
    places = (2 * where / torch.tensor(shape) - 1).flip(-1)[None, None, None]
    volumes = dense_volumes(net, coords, shape)
    sampled = [F.grid_sample(volume, places, align_corners=True)[0, :, 0, 0] for volume in volumes]

    def linear(name, x):
        return F.conv1d(x[None], net[f"{name}.weight"], net[f"{name}.bias"])[0]

    hidden = torch.cat(sampled)
    for name in ("fc_0", "fc_1", "fc_2"):
        hidden = F.relu(linear(name, hidden))
    latent = net["latent.weight"][frame][:, None].expand(-1, len(points))
    mixed = linear("latent_fc", torch.cat([linear("feature_fc", hidden), latent]))
    view = F.relu(linear("view_fc", torch.cat([mixed, encoded(directions, 4).T, encoded(points, 10).T])))
    return F.relu(linear("alpha_fc", hidden))[0], torch.sigmoid(linear("rgb_fc", view)).T


@pytest.mark.parametrize("layout", ["spconv 1.x", "spconv 2.x"])
def test_published_numbers_come_out_of_our_field(layout, tmp_path):
    net = official_net()
    torch.manual_seed(1)
    vertices = torch.rand(FRAMES, VERTICES, 3) * torch.tensor([0.9, 0.7, 1.6])
    motion = BodyMotion(vertices, torch.zeros(0, 3).long(), 0.4 * torch.randn(FRAMES, 3), torch.rand(FRAMES, 3))
    field, unused = read_official(write(tmp_path / "latest.pth", net if layout == "spconv 1.x" else spconv2(net)))
    field.eval()
    points = vertices[1, torch.randint(VERTICES, (100,))] + 0.1 * torch.randn(100, 3)
    directions = F.normalize(torch.randn(100, 3), dim=-1)
    frame = BodyFrames(motion, VOXEL, 0.05, 16)[1]
    with torch.no_grad():
        hidden = field.hidden(points, frame, field.volumes(frame))
        density, colour = field.density(hidden), field.colour(hidden, points, directions, field.latents[1])
    wanted = published(net, motion, points, directions, 1)
    assert float(wanted[0].std()) > 0.1 * float(wanted[0].mean()) and float(wanted[1].std()) > 0.01
    torch.testing.assert_close(density, wanted[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(colour, wanted[1], rtol=0, atol=1e-4)
    assert unused == []


def test_all_4_33_million_numbers_find_a_place():
    """Card 2.1: the parts of the published network sum up to its size, 128 a frame not counted."""
    sizes = {name: value.numel() for name, value in official_net(6890).items() if "running" not in name}
    counted = sum(size for name, size in sizes.items() if "latent.w" not in name and "tracked" not in name)
    assert counted == 110_240 + 3_787_776 + 2_816 + 431_364


def test_other_files_are_refused(tmp_path):
    net = official_net()
    with pytest.raises(InputError, match="There is no"):
        read_official(tmp_path / "gone.pth")
    torch.save({"net": net, "recorder": Path("a")}, tmp_path / "runs.pth")
    with pytest.raises(InputError, match="cannot be read as numbers alone"):
        read_official(tmp_path / "runs.pth")
    torch.save({"pipeline": net}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="has no 'net'"):
        read_official(tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"lacks xyzc_net\.down2\.1\.running_mean"):
        read_official(write(tmp_path / "part.pth", {k: v for k, v in net.items() if "down2.1.running_mean" not in k}))
    net["fc_0.weight"] = torch.zeros(256, 300, 1)
    with pytest.raises(InputError, match="other sizes than the published"):
        read_official(write(tmp_path / "sizes.pth", net))
    more = {**official_net(), "smpl.extra": torch.zeros(3)}
    assert read_official(write(tmp_path / "more.pth", more))[1] == ["smpl.extra"]
