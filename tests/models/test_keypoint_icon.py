import dataclasses
import json
import math
from pathlib import Path
from typing import Dict

import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.cameras.rays import RayBundle
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.photo_surface import PhotoSurface
from nerfstudio_ext.human.photo import Lesson, Photo, Sides
from nerfstudio_ext.human.photo_camera import PhotoCamera
from nerfstudio_ext.models.keypoint_icon import KeypointIconModel, KeypointIconModelConfig
from nerfstudio_ext.surface.mesh import mesh_of_occupancy
from tests.fields.test_keypoint_icon_field import SMALL
from tests.human.toy_person import ToyStore, toy_outputs

RADIUS = 0.5


def make_model(**changes) -> KeypointIconModel:
    torch.manual_seed(0)
    outputs = toy_outputs(ToyStore(), range(3))
    settings = {"photo_size": 32, "lattice_levels": 1, "normal_steps": 2, **changes}
    config = KeypointIconModelConfig(field=dataclasses.replace(SMALL, raw_normals=True), **settings)
    return config.setup(scene_box=outputs.scene_box, num_train_data=1, metadata=outputs.metadata, device="cpu")


def make_ball(monkeypatch, model: KeypointIconModel) -> None:
    """A network that has learned one thing: everybody is a ball about the origin."""
    monkeypatch.setattr(model.field, "logits", lambda encoded, points: 40 * (RADIUS - points.norm(dim=-1))[None])


def balls(batch: int = 2, size: int = 32, points: int = 400) -> Lesson:
    """Photographs of a ball in weak perspective, with everything that is true of it."""
    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    depth = (RADIUS**2 - u**2 - v**2).clamp(min=0).sqrt()
    mask = (depth > 0).float()[None, None].expand(batch, 1, -1, -1)
    near = torch.stack([u, v, -depth])[None] * mask / RADIUS
    far = torch.stack([u, v, depth])[None] * mask / RADIUS
    motion = torch.eye(3, 4).expand(batch, 3, 4)
    camera = PhotoCamera(motion, torch.ones(batch, 1), torch.zeros(batch, 2), torch.zeros(batch, 1) > 0)
    keypoints = 0.2 * torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1.0], [0, 0, -1]])
    rgb = mask * torch.tensor([0.7, 0.3, 0.2])[:, None, None]
    places = torch.rand(batch, points, 3) * 1.6 - 0.8
    photo = Photo(rgb, mask, camera, keypoints.expand(batch, -1, -1))
    return Lesson(photo, Sides(near, far, rgb), places, (places.norm(dim=-1) < RADIUS).float())


def train(model: KeypointIconModel, steps: int):
    groups = model.get_param_groups()
    optimizers = [torch.optim.Adam(groups[name], lr=1e-2) for name in ("sides", "field")]
    model.train()
    for step in range(steps):
        model._step = step
        lesson = balls(batch=1)
        for optimizer in optimizers:
            optimizer.zero_grad()
        outputs = model.get_outputs(lesson)
        sum(model.get_loss_dict(outputs, {"lesson": lesson}).values()).backward()
        for optimizer in optimizers:
            optimizer.step()
    return model


@pytest.mark.parametrize("source", ["gt", "pred", "mix"])
def test_each_stage_trains_its_own_networks(source):
    model, lesson = make_model(normal_source=source).train(), balls()
    for step, trained in ((0, "sides"), (2, "field")):
        model._step = step
        model.zero_grad()
        outputs = model.get_outputs(lesson)
        sum(model.get_loss_dict(outputs, {"lesson": lesson}).values()).backward()
        for name, parameters in model.get_param_groups().items():
            found = [p.grad is not None and bool(p.grad.any()) for p in parameters]
            assert any(found) == (name == trained)
        assert all(math.isfinite(float(v)) for v in model.get_metrics_dict(outputs, {"lesson": lesson}).values())


def test_balls_are_learned_sides_first():
    model = train(make_model(normal_steps=30, normal_source="pred"), 70)
    lesson = balls()
    model._step = 0
    angles = model.get_metrics_dict(model.get_outputs(lesson), {"lesson": lesson})
    assert float(angles["normals_degrees"]) < 25 and float(angles["back_normals_degrees"]) < 25
    model._step = 70
    assert float(model.get_metrics_dict(model.get_outputs(lesson), {"lesson": lesson})["points_right"]) > 0.93


def test_rays_meet_the_surface_where_it_is(monkeypatch):
    model = make_model(lattice_levels=2).eval()
    make_ball(monkeypatch, model)
    cameras = toy_outputs(model._store, [0]).cameras
    outputs = model.get_outputs_for_camera(cameras[1:2])
    assert list(outputs)[:3] == ["rgb", "accumulation", "depth"]
    solid = outputs["accumulation"][..., 0] > 0.5
    assert 0.1 < float(solid.float().mean()) < 0.9
    rays = cameras[1:2].generate_rays(camera_indices=0, keep_shape=True)
    ways = torch.nn.functional.normalize(rays.directions, dim=-1)
    points = (rays.origins + outputs["depth"] * ways)[solid]
    inner = points.abs().amax(-1) < 0.45  # the box around the keypoints may cut the ball
    assert float((points.norm(dim=-1) - RADIUS)[inner].abs().max()) < 0.02
    normals = 2 * outputs["normals"][solid] - 1
    cosine = (normals * torch.nn.functional.normalize(points, dim=-1)).sum(-1)
    assert float(cosine[inner].mean()) > 0.9
    assert not outputs["rgb"][~solid].any() and outputs["rgb"][solid].max() > 0


def test_surfaces_are_kept_until_weights_or_people_change(monkeypatch):
    model, count = make_model().eval(), []
    encode = model.field.encode
    monkeypatch.setattr(model.field, "encode", lambda photo, sides: count.append(1) or encode(photo, sides))
    for who in ((0, 0), (0, 0), (0, 2), (1, 0), (0, 0)):
        model.surface(who)
    assert len(count) == 3
    with torch.no_grad():
        model.field.layers[-1].bias.add_(1.0)
    model.surface((0, 0))
    assert len(count) == 4


def test_colours_are_the_photos_in_front_and_the_far_sides_behind(monkeypatch):
    model = make_model().eval()
    make_ball(monkeypatch, model)
    surface = model.surface((0, 0))
    sides = surface._encoded.sides
    photo = surface._encoded.photo
    object.__setattr__(
        sides, "back_rgb", torch.ones_like(sides.back_rgb) * torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    )
    object.__setattr__(photo, "rgb", torch.ones_like(photo.rgb) * torch.tensor([1.0, 0.0, 0.0])[:, None, None])
    centre = -(photo.camera.world_to_camera[0, :, :3].T @ photo.camera.world_to_camera[0, :, 3])
    towards = torch.nn.functional.normalize(centre, dim=0) * RADIUS * 0.98
    points = torch.stack([towards, -towards])
    box = surface.box
    assert ((points > box[0]) & (points < box[1])).all()
    front, back = surface.colours(points)
    torch.testing.assert_close(front, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(back, torch.tensor([0.0, 1.0, 0.0]))


def test_density_for_meshes_is_at_ten_on_the_surface(monkeypatch):
    model = make_model().eval()
    make_ball(monkeypatch, model)
    points = torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, 3.0]])
    inside, outside = model.density(points).tolist()
    assert inside > 10 and outside == 0


def test_a_mesh_of_a_lattice_is_closed_and_where_it_should_be():
    box = torch.tensor([[-1.0, -1.0, -0.2], [1.0, 1.0, 1.0]])
    axes = [torch.linspace(float(a), float(b), 33) for a, b in zip(*box)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    import trimesh

    mesh = mesh_of_occupancy(torch.sigmoid(20 * (RADIUS - grid.norm(dim=-1))), box, 0.5)
    shape = trimesh.Trimesh(mesh.verts, mesh.faces)
    assert shape.is_watertight and shape.volume > 0
    assert abs(float(mesh.verts[:, 0].max()) - RADIUS) < 0.01 and float(mesh.verts[:, 2].min()) > -0.3
    with pytest.raises(InputError, match="nowhere above"):
        mesh_of_occupancy(torch.zeros(4, 4, 4), box, 0.5)


def test_without_people_the_dataparser_is_named():
    config = KeypointIconModelConfig(field=SMALL)
    with pytest.raises(InputError, match="procedural-people-data"):
        config.setup(scene_box=toy_outputs(ToyStore(), [0]).scene_box, num_train_data=1, metadata={}, device="cpu")


def written_photo(folder: Path, shift: float) -> Dict[str, Path]:
    """A photo of somebody far from the origin, taken from 3 m away, with its mask and keypoints."""
    mask = np.zeros((64, 64), np.uint8)
    mask[14:50, 16:48] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(np.stack([mask, mask // 2, mask // 4], axis=-1)).save(folder / "photo.png")
    pose = [[1, 0, 0, shift], [0, 1, 0, shift], [0, 0, 1, 3 + shift], [0, 0, 0, 1]]
    points = np.random.default_rng(0).uniform(-0.45, 0.45, (6, 3)) + shift
    frame = {"file_path": "photo.png", "transform_matrix": pose, "fl_x": 100.0, "cx": 32.0, "cy": 32.0}
    found = {"keypoint_names": list("abcdef"), "keypoints3d": points.tolist(), "frames": [frame]}
    (folder / "transforms.json").write_text(json.dumps(found))
    return {"photo": folder / "photo.png", "keypoints": folder / "transforms.json", "mask": folder / "mask.png"}


def test_the_viewer_loads_a_photo_and_shows_it_about_the_origin(monkeypatch, tmp_path: Path):
    model = make_model(lattice_levels=2).eval()
    make_ball(monkeypatch, model)
    controls, files = model.photo_controls, written_photo(tmp_path, shift=5.0)
    controls._asked(controls.reconstruct)
    assert "first" in controls.status.value and model.shown[0] == 2
    for name, path in files.items():
        getattr(controls, name).value = str(path)
    controls._asked(controls.reconstruct)
    assert controls.status.value.startswith("photo.png, ")
    rays = RayBundle(
        torch.tensor([[0.0, 0.0, 3.0]] * 2), torch.tensor([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), torch.ones(2, 1)
    )
    outputs = model.get_outputs(rays)
    assert outputs["accumulation"][:, 0].tolist() == [1, 0]
    assert float(outputs["depth"][0]) == pytest.approx(3 - RADIUS, abs=0.02)
    red, green, blue = outputs["rgb"][0].tolist()
    assert red > 0.9 and green == pytest.approx(0.5, abs=0.03) and blue == pytest.approx(0.25, abs=0.03)
    assert 1 < model.scene_span() < 3

    assert "touches the edge" not in controls.status.value

    controls.mask.value = str(tmp_path / "none.png")
    controls._asked(controls.reconstruct)
    assert "There is no" in controls.status.value and model.shown[0] < 0
    monkeypatch.setattr(model.field, "logits", lambda encoded, points: torch.full((1, 1, points.shape[1]), -9.0))
    controls.mask.value = str(files["mask"])
    controls._asked(controls.reconstruct)
    assert "no surface" in controls.status.value
    controls.person.value = "toy_1"
    controls._chosen(controls.person)
    assert model.shown == (1, 0) and controls.status.value == "toy_1"


@pytest.mark.extra("embreex")
def test_people_whose_surface_is_known_are_scored_by_it(monkeypatch, capsys):
    """A ball of half a metre where the truth is one of 48 cm, in a box of keypoints that holds both."""
    model = make_model(lattice_levels=2).eval()
    make_ball(monkeypatch, model)
    wide = 0.3 * torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1.0], [0, 0, -1]])
    subject = model._store.subject
    monkeypatch.setattr(model._store, "subject", lambda k: dataclasses.replace(subject(k), keypoints=wide))
    ball = trimesh.creation.icosphere(4, 0.48)
    truth = (torch.tensor(ball.vertices).float(), torch.tensor(ball.faces))
    monkeypatch.setattr(model._store, "mesh", lambda index: truth if index == 1 else None)
    model.prepare_eval()
    assert set(model.get_run_metrics()) == {"num_parameters"}
    for cameras in (toy_outputs(model._store, [index]).cameras[:1] for index in (0, 1)):
        model.get_outputs_for_camera(cameras)
    found = model.get_run_metrics()
    assert found["chamfer_cm"] == pytest.approx(2, abs=0.3) and found["p2s_cm"] == pytest.approx(2, abs=0.3)
    assert "toy_1 from photo 0: chamfer" in capsys.readouterr().out.replace("\n", " ")


def test_a_mesh_must_cover_the_person_of_the_photo(monkeypatch):
    """Somebody who is a ball of half a metre, found as large, nearly as large, and much too small."""
    model = make_model(lattice_levels=2).eval()
    lesson = balls(batch=1)
    photo = dataclasses.replace(lesson.photo, keypoints=lesson.photo.keypoints * 2)
    for radius, enough in ((RADIUS, True), (0.45, True), (0.3, False)):
        monkeypatch.setattr(
            model.field, "logits", lambda encoded, points, r=radius: 40 * (r - points.norm(dim=-1))[None]
        )
        surface = PhotoSurface.of(model.field, photo, 2, 0.5)
        if enough:
            surface.require_person(surface.mesh())
        else:
            with pytest.raises(InputError, match=r"covers only [34]\d%"):
                surface.require_person(surface.mesh())
