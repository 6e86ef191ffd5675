"""The layouts of THuman2.0 and CAPE as ICON's authors prepare them, with a ball for everybody: its pictures, its depth
and its place in the cube are known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.icon_layout import IconLayout

SIZE, RADIUS = 48, 0.6
CENTRE = np.array([0.3, 1.1, -0.2])
"""Of the ball in the scan's world, metres, +y up."""
YAWS = (0, 90)


def write_layout(root: Path, smplx: bool = True) -> Path:
    """One person, "0007", at two yaws; the cube is 102.4 cm to each side of a place beside the ball."""
    folder, views = root / "thuman2", root / "thuman2_36views" / "0007"
    scans = folder / "scans" / "0007" if smplx else folder / "scans"
    scans.mkdir(parents=True)
    ball = trimesh.creation.icosphere(3, RADIUS)
    trimesh.Trimesh(ball.vertices + CENTRE, ball.faces).export(scans / "0007.obj")
    joints = np.random.default_rng(0).uniform(-0.3, 0.3, (127 if smplx else 24, 3)) + CENTRE
    joints[68 if smplx else 22] = CENTRE + [0, 0.5, 0]
    (folder / ("smplx" if smplx else "smpl")).mkdir()
    np.save(folder / ("smplx" if smplx else "smpl") / "0007.npy", joints)
    (folder / "all.txt").write_text("thuman2/0007\n")
    for yaw in YAWS:
        angle = math.radians(yaw)
        turn = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
        middle = turn @ (100 * CENTRE) + [10.0, 20.0, 5.0]
        extrinsic, intrinsic = np.eye(4), np.diag([1 / 102.4, -1 / 102.4, 1 / 102.4, 1.0])
        extrinsic[:3, :3], extrinsic[:3, 3] = turn, -middle
        (views / "calib").mkdir(parents=True, exist_ok=True)
        np.savetxt(views / "calib" / f"{yaw:03d}.txt", np.concatenate([extrinsic, intrinsic]))
        for name, picture in ball_pictures(np.array([-10.0, 20.0]) / 102.4, 100 * RADIUS / 102.4).items():
            (views / name).mkdir(exist_ok=True)
            Image.fromarray(picture).save(views / name / f"{yaw:03d}.png")
    return folder


def ball_pictures(middle: np.ndarray, radius: float):
    """Colours and normals of a ball in the cube, whose y runs down in the picture."""
    axis = (np.arange(SIZE) + 0.5) * 2 / SIZE - 1
    v, u = np.meshgrid(axis, axis, indexing="ij")
    x, y = (u - middle[0]) / radius, (v - middle[1]) / radius
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    alpha = 255.0 * (x**2 + y**2 < 1)
    pictures = {"render": np.stack([x * 0 + 200, x * 0 + 50, x * 0 + 20, alpha], -1)}
    for name, sign in (("normal_F", 1), ("normal_B", -1)):
        pictures[name] = np.concatenate([(np.stack([x, -y, sign * z], -1) + 1) * 127.5, alpha[..., None]], -1)
    return {name: picture.clip(0, 255).round().astype(np.uint8) for name, picture in pictures.items()}


@pytest.mark.parametrize("smplx", [True, False])
def test_pictures_joints_and_scan_belong_together(tmp_path: Path, smplx: bool):
    layout = IconLayout(write_layout(tmp_path, smplx), "thuman2" if smplx else "cape")
    assert layout.names == ["0007"] and layout.yaws(0) == ["000", "090"]
    vertices, _ = layout.mesh(0)
    place = vertices.mean(0)
    torch.testing.assert_close(place, torch.tensor([0.3, 0.2, 1.1]), atol=1e-4, rtol=0)
    assert float(layout.keypoints(0)[22, 2] - place[2]) == pytest.approx(0.5, abs=1e-4), "up is +z"
    for yaw in layout.yaws(0):
        view = layout.view(0, yaw)
        local = view.camera.local(vertices[None])
        where = view.camera.project(local)
        assert float((torch.nn.functional.grid_sample(view.mask[None], where[:, None]) > 0.2).float().mean()) > 0.98
        # A normal of the near side, times the radius, leads from the ball's middle to the pixel it is in.
        origins, _ = view.camera.rays(SIZE)
        middle = view.camera.local(place[None, None])[0, 0]
        pixels = view.camera.local(origins)[0]
        inside = (view.mask[0] > 0).flatten()
        for normals, side in ((view.normals, -1), (view.back_normals, 1)):
            found = normals.flatten(1).T[inside]
            apart = (pixels - middle)[inside] / RADIUS
            torch.testing.assert_close(found[:, :2], apart[:, :2], atol=0.03, rtol=0)
            assert float((found[:, 2] * side).min()) > -0.02


def test_what_lacks_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="no train"):
        IconLayout(tmp_path, "thuman2")
    folder = write_layout(tmp_path)
    (folder / "smplx" / "0007.npy").unlink()
    with pytest.raises(InputError, match="export the joints"):
        IconLayout(folder, "thuman2").keypoints(0)
    calib = tmp_path / "thuman2_36views" / "0007" / "calib" / "000.txt"
    np.savetxt(calib, np.ones((8, 4)))
    with pytest.raises(InputError, match="no scaled rotation"):
        IconLayout(folder, "thuman2").view(0, "000")
    (tmp_path / "thuman2_36views" / "0007" / "render" / "090.png").unlink()
    with pytest.raises(InputError, match="There is no"):
        IconLayout(folder, "thuman2").view(0, "090")


def test_masks_beside_renders_without_transparency_are_read(tmp_path: Path):
    """CAPE, as the plan gives it; without either, nobody knows where the person is."""
    folder, views = write_layout(tmp_path, smplx=False), tmp_path / "thuman2_36views" / "0007"
    wanted = IconLayout(folder, "cape").view(0, "000")
    (views / "mask").mkdir()
    picture = Image.open(views / "render" / "000.png")
    picture.convert("RGB").save(views / "render" / "000.png")
    with pytest.raises(InputError, match="does not say where the person is"):
        IconLayout(folder, "cape").view(0, "000")
    picture.getchannel("A").save(views / "mask" / "000.png")
    found = IconLayout(folder, "cape").view(0, "000")
    assert torch.equal(found.mask, wanted.mask) and torch.equal(found.rgb, wanted.rgb)


def test_the_pictures_with_most_views_are_taken(tmp_path: Path):
    folder = write_layout(tmp_path)
    (tmp_path / "thuman2_3views").mkdir()
    (tmp_path / "thuman2_oldviews").mkdir()
    assert IconLayout(folder, "thuman2").yaws(0) == ["000", "090"]
