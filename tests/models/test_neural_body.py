import copy

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox

from method_configs.neural_body import neural_body_tiny
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion

FRAMES = 3


def capsule():
    """A body-sized upright ellipsoid that slides and turns."""
    torch.manual_seed(3)
    local = torch.nn.functional.normalize(torch.randn(400, 3), dim=-1) * torch.tensor([0.3, 0.2, 0.8])
    shift = torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]])
    turn = torch.tensor([[0.0, 0, 0], [0, 0, 0.5], [0, 0, 1.0]])
    return BodyMotion(local + shift[:, None], torch.tensor([[0, 1, 2]]), turn, shift)


def build(seed=0, **changes):
    torch.manual_seed(seed)
    config = copy.deepcopy(neural_body_tiny.config.pipeline.model)
    config.field.channels, config.field.width, config.field.code_width = (8, 8, 8, 8), 16, 4
    config.voxel_size, config.num_samples = 0.05, 24
    for key, value in changes.items():
        setattr(config, key, value)
    metadata = {"body_motion": capsule()}
    return config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata=metadata, device="cpu")


def rays(count=64, times=None):
    """From the front, at the body and beside it."""
    torch.manual_seed(1)
    targets = torch.rand(count, 3) * torch.tensor([2.0, 0.0, 2.0]) - torch.tensor([0.8, 0.0, 1.0])
    origins = torch.tensor([0.0, -3.0, 0.0]).expand(count, 3)
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    ones = torch.ones(count, 1)
    return RayBundle(origins, directions, ones, camera_indices=torch.zeros_like(ones).long(), times=times)


def opaque(model):
    """The density head's bias says what is dense: wherever a sample is decoded."""
    model.field.density_head.bias.data.fill_(50.0)
    return model.eval()


def test_outputs_are_finite_and_rays_beside_the_body_see_black():
    model = opaque(build())
    outputs = model.get_outputs(rays())
    assert list(outputs) == ["rgb", "accumulation", "depth"]
    assert all(bool(torch.isfinite(value).all()) for value in outputs.values())
    hit = outputs["accumulation"][:, 0] > 0.5
    assert 5 < int(hit.sum()) < 60
    assert not bool(outputs["rgb"][outputs["accumulation"][:, 0] == 0].any())
    assert bool(((outputs["depth"][hit] > 2) & (outputs["depth"][hit] < 4)).all())


def test_time_chooses_the_frame_and_mixed_bundles_keep_their_order():
    model = opaque(build())
    times = torch.tensor([0.0, 0.5, 1.0]).repeat(22)[:64, None]
    mixed = model.get_outputs(rays(times=times))
    for frame in range(FRAMES):
        alone = model.get_outputs(rays(times=torch.full((64, 1), frame / 2)))
        here = times[:, 0] == frame / 2
        for key, value in alone.items():
            torch.testing.assert_close(mixed[key][here], value[here])
    first, last = (model.get_outputs(rays(times=torch.full((64, 1), t)))["accumulation"] for t in (0.0, 1.0))
    assert float((first - last).abs().max()) > 0.5
    torch.testing.assert_close(model.get_outputs(rays())["accumulation"], first)


def test_pruning_is_the_same_in_training_and_evaluation():
    """What is never decoded has no density, whatever the mode: only the stratified offset differs."""
    model = opaque(build())
    bundle = rays()
    evaluated = model.get_outputs(bundle)["accumulation"] > 0
    model.train()
    trained = torch.stack([model.get_outputs(bundle)["accumulation"] > 0 for _ in range(5)]).any(0)
    assert float((evaluated != trained).float().mean()) < 0.15
    wide = opaque(build(reach=20)).get_outputs(bundle)["accumulation"] > 0
    assert bool((wide | ~evaluated).all())


def test_volumes_are_worked_out_once_per_picture(monkeypatch):
    model = opaque(build(eval_num_rays_per_chunk=8))
    calls = []
    original = model.field.volumes
    monkeypatch.setattr(model.field, "volumes", lambda frame: calls.append(1) or original(frame))
    bundle = rays()
    picture = model.get_outputs_for_camera_ray_bundle(bundle.reshape((8, 8)))
    assert len(calls) == 1
    torch.testing.assert_close(picture["rgb"].reshape(-1, 3), model.get_outputs(bundle)["rgb"])


def test_gradients_are_cut():
    model = build(gradient_limit=1e-6).train()
    outputs = model.get_outputs(rays())
    batch = {"image": torch.rand(64, 3), "fg_mask": torch.ones(64, 1)}
    sum(model.get_loss_dict(outputs, batch).values()).backward()
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) <= 1.01e-6


def learn(model, steps=60):
    """Fit the middle and last frame to a red body on black; return the error in the first frame, never seen."""
    truth = opaque(build(seed=5))
    # A rectifier that starts at nothing everywhere never learns, and a network this narrow may.
    model.field.density_head.bias.data.fill_(1.0)
    optimizer = torch.optim.Adam(model.get_param_groups()["field"], lr=1e-2)
    model.train()
    for step in range(steps):
        bundle = rays(times=torch.full((64, 1), 0.5 + 0.5 * (step % 2)))
        with torch.no_grad():
            mask = truth.get_outputs(bundle)["accumulation"]
        batch = {"image": mask * torch.tensor([0.9, 0.1, 0.1]), "fg_mask": mask}
        optimizer.zero_grad()
        sum(model.get_loss_dict(model.get_outputs(bundle), batch).values()).backward()
        optimizer.step()
    model.eval()
    bundle = rays()
    with torch.no_grad():
        wanted = truth.get_outputs(bundle)["accumulation"] * torch.tensor([0.9, 0.1, 0.1])
        return float((model.get_outputs(bundle)["rgb"] - wanted).square().mean())


def test_what_two_frames_teach_serves_a_third():
    """The point of codes that live on the body: a frame in which nothing was seen is drawn, too."""
    untrained = learn(build(), steps=0)
    assert learn(build()) < 0.25 * untrained


def test_density_for_meshes_is_that_of_the_first_frame():
    model = opaque(build())
    inside = capsule().vertices[0]
    assert float(model.density(inside).min()) > 10
    assert not bool(model.density(inside + 5).any())


def test_without_a_body_the_dataparser_is_named():
    config = copy.deepcopy(neural_body_tiny.config.pipeline.model)
    with pytest.raises(InputError, match="procedural-human-data"):
        config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata={}, device="cpu")
