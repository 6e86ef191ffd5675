import copy
from dataclasses import replace

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from skimage.metrics import structural_similarity

from method_configs.neural_body import neural_body_tiny
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion, write_body
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.human.sparse_conv import sample

FRAMES = 3


def capsule():
    """A body-sized upright ellipsoid that slides and turns."""
    torch.manual_seed(3)
    local = torch.nn.functional.normalize(torch.randn(400, 3), dim=-1) * torch.tensor([0.3, 0.2, 0.8])
    shift = torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]])
    turn = torch.tensor([[0.0, 0, 0], [0, 0, 0.5], [0, 0, 1.0]])
    return BodyMotion(local + shift[:, None], torch.tensor([[0, 1, 2]]), turn, shift)


MOTION_PARTS = ("vertices", "faces", "root_rotation", "root_translation")


def build(seed=0, motion=None, trained=None, **changes):
    torch.manual_seed(seed)
    config = copy.deepcopy(neural_body_tiny.config.pipeline.model)
    config.field.channels, config.field.width, config.field.code_width = (8, 8, 8, 8), 16, 4
    config.voxel_size, config.num_samples = 0.05, 24
    for key, value in changes.items():
        setattr(config, key, value)
    metadata = {"body_motion": motion or capsule()}
    if trained is not None:
        metadata["trained_frames"] = trained
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
    model = build(gradient_limit=1e-6, refine_poses=True).train()
    outputs = model.get_outputs(rays())
    batch = {"image": torch.rand(64, 3), "fg_mask": torch.ones(64, 1)}
    sum(model.get_loss_dict(outputs, batch).values()).backward()
    assert bool(model.refinement.shifts.grad.any())
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


def test_a_body_that_was_fitted_beside_the_person_finds_back():
    """One frame's body is 4 cm off: with the weights of the truth, its correction alone leads there."""
    truth = build(seed=5)
    for parameter in truth.field.density_head.parameters():
        parameter.data *= 40  # neither nothing nor opaque, so that edges of the body show where it is
    motion, off = capsule(), torch.tensor([[0.0, 0, 0], [0.04, 0, 0], [0.0, 0, 0]])
    wrong = BodyMotion(
        motion.vertices + off[:, None], motion.faces, motion.root_rotation, motion.root_translation + off
    )
    model = build(seed=5, motion=wrong, refine_poses=True)
    model.load_state_dict(truth.state_dict(), strict=False)
    assert "poses" in model.get_param_groups() and "poses" not in truth.get_param_groups()
    optimizer = torch.optim.Adam(model.get_param_groups()["poses"], lr=4e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.94)
    bundle = rays(200, times=torch.full((200, 1), 0.5))
    with torch.no_grad():
        wanted = truth.eval().get_outputs(bundle)
    errors = []
    for _ in range(60):
        optimizer.zero_grad()
        found = model.eval().get_outputs(bundle)
        error = sum((found[key] - wanted[key]).square().mean() for key in ("rgb", "accumulation"))
        error.backward()
        optimizer.step()
        schedule.step()
        errors.append(float(error.detach()))
    shifts = model.refinement.shifts.detach()
    assert errors[-1] < 0.1 * errors[0]
    # Sideways; up and down such a body hardly shows where it is.
    assert float(shifts[1, 0]) == pytest.approx(-0.04, abs=0.01)
    assert not bool(shifts[[0, 2]].any()), "frames that were not seen stay where they are"
    # The overlay and new poses: the one shows what was learned, the others know nothing of it.
    assert torch.equal(model._frame(1).translation, model._frames[1].translation + shifts[1])
    model.set_motion(motion)
    assert model._frame(1) is model._frames[1]


def test_random_background_tells_black_clothes_from_nothing():
    """Black and transparent on black: no error without the option, one with it, but none in what is right."""
    for option, seen in ((False, False), (True, True)):
        model = build(random_background=option).train()
        for accumulation, mask, differs in ((0.0, 1.0, True), (1.0, 1.0, False), (0.0, 0.0, False)):
            outputs = {"rgb": torch.zeros(64, 3), "accumulation": torch.full((64, 1), accumulation)}
            batch = {"image": torch.zeros(64, 3), "fg_mask": torch.full((64, 1), mask)}
            loss = float(model.get_loss_dict(outputs, batch)["rgb_loss"])
            assert (loss > 0.2) == (differs and seen) and (loss == 0) == (not (differs and seen))


def test_density_for_meshes_is_that_of_the_first_frame():
    model = opaque(build())
    inside = capsule().vertices[0]
    assert float(model.density(inside).min()) > 10
    assert not bool(model.density(inside + 5).any())


def test_without_a_body_the_dataparser_is_named():
    config = copy.deepcopy(neural_body_tiny.config.pipeline.model)
    with pytest.raises(InputError, match="procedural-human-data"):
        config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata={}, device="cpu")


def test_frames_that_were_not_trained_take_their_latent_by_policy():
    config = copy.deepcopy(neural_body_tiny.config.pipeline.model)
    config.field.channels, config.field.width, config.voxel_size = (8, 8, 8, 8), 16, 0.05
    metadata = {"body_motion": capsule(), "trained_frames": [0, 1]}
    model = config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata=metadata, device="cpu")
    latents = model.field.latents
    assert len(latents) == 2 and torch.equal(model.latent_of(1), latents[1])
    wanted = {"last": latents[1], "mean": latents.mean(0), "zero": 0 * latents[0]}
    for policy, latent in wanted.items():
        model.config.novel_pose_latent = policy
        assert torch.equal(model.latent_of(2), latent)
    # Scores of such a frame have names of their own.
    outputs = {"rgb": torch.zeros(64, 64, 3), "accumulation": torch.zeros(64, 64, 1), "depth": torch.zeros(64, 64, 1)}
    batch = {
        "image": torch.ones(64, 64, 3) / 2,
        "fg_mask": torch.ones(64, 64, 1),
        "box_mask": torch.ones(64, 64, 1) > 0,
    }
    for frame, prefix in ((0, ""), (2, "novel_pose_")):
        metrics, _ = model.get_image_metrics_and_images(outputs, {**batch, "frame": frame})
        assert metrics[f"{prefix}psnr_box"] == pytest.approx(6.02, abs=0.01)
        assert all(key.startswith("novel_pose_") == bool(prefix) for key in metrics)


def test_the_nearest_pose_lends_its_latent_code():
    """Nearest in the body's own frame: wherever it stands, and in a motion file, too."""
    motion, turn = capsule(), torch.tensor([[0.0, 0, 0], [0, 0, 0.5], [0, 0, 2.0]])
    again = motion.from_body()[0] @ rotation_matrix(turn[2]).T + motion.root_translation[2]
    motion = replace(motion, vertices=torch.stack([*motion.vertices[:2], again]), root_rotation=turn)
    model = build(motion=motion, trained=[0, 1], novel_pose_latent="nearest")
    latents = model.field.latents
    assert torch.equal(model.latent_of(1), latents[1]) and torch.equal(model.latent_of(2), latents[0])
    model.set_motion(motion.at([2, 1]))
    assert torch.equal(model.latent_of(0), latents[0]) and torch.equal(model.latent_of(1), latents[1])


def test_the_box_metric_is_lower_by_the_share_of_the_box():
    """Card C8: outside the box both pictures are black, so only the number of pixels differs."""
    model, image = build(), torch.zeros(64, 64, 3)
    box = torch.zeros(64, 64, 1, dtype=torch.bool)
    box[10:30, 20:60] = True
    outputs = {"rgb": image.clone(), "accumulation": torch.zeros(64, 64, 1), "depth": torch.zeros(64, 64, 1)}
    outputs["rgb"][12:20, 25:50] = 0.4
    batch = {"image": image, "fg_mask": box.float(), "box_mask": box}
    metrics, _ = model.get_image_metrics_and_images(outputs, batch)
    apart = 10 * torch.log10(torch.tensor(64 * 64 / (20 * 40)))
    assert metrics["psnr"] - metrics["psnr_box"] == pytest.approx(float(apart), abs=1e-3)
    rectangle = [x[10:30, 20:60].double().numpy() for x in (outputs["rgb"], image)]
    official = structural_similarity(*rectangle, channel_axis=2, data_range=2)
    assert metrics["ssim_zju"] == pytest.approx(official, abs=1e-6)
    assert metrics["ssim_box"] < metrics["ssim_zju"] < metrics["ssim"] + 0.5


def test_the_official_places_of_levels_are_those_of_align_corners():
    """Card 2.2: the published code passes 2 q / shape - 1 to grid_sample with align_corners, for every level alike."""
    model = build()
    field, frame = model.field, model._frames[0]
    field.config.level_mapping = "official"
    points = capsule().vertices[0, :50] + 0.03
    grid = frame.tables.rows[2]
    features = torch.randn(frame.tables.counts[2], 3)
    padded = torch.cat([features, features.new_zeros(1, 3)])
    dense = padded[grid[1:-1, 1:-1, 1:-1].long()].permute(3, 0, 1, 2)[None]
    shape = 4 * torch.tensor(dense.shape[2:])
    places = 2 * frame.voxels(points) / shape - 1
    wanted = torch.nn.functional.grid_sample(dense, places.flip(-1)[None, None, None], align_corners=True)
    ours = sample(features, grid, field._place(frame.voxels(points), grid, 2))
    torch.testing.assert_close(ours, wanted[0, :, 0, 0].T, rtol=0, atol=1e-5)
    shift = frame.voxels(points) / 4 - field._place(frame.voxels(points), grid, 2)
    assert 0 < float(shift.max()) < 1, "less than one voxel of the level, and most at the far side"


def test_another_motion_takes_the_place_of_the_captured_one():
    model = opaque(build())
    before = model.get_outputs(rays())["accumulation"]
    moved = capsule()
    moved = BodyMotion(moved.vertices + 0.6, moved.faces, moved.root_rotation, moved.root_translation + 0.6)
    model.set_motion(moved)
    after = model.get_outputs(rays())["accumulation"]
    assert float((before - after).abs().max()) > 0.5
    assert torch.equal(model.latent_of(0), model.field.latents[-1]), "no frame of it was trained on"
    with pytest.raises(InputError, match="7 vertices, but the model's codes live on 400"):
        model.set_motion(BodyMotion(torch.zeros(1, 7, 3), moved.faces, torch.zeros(1, 3), torch.zeros(1, 3)))


def test_poses_are_chosen_by_source(tmp_path):
    """Captured ones keep their latent codes; a file's and the pose at rest follow the policy."""
    motion = capsule()
    model = opaque(build(motion=replace(motion, rest=motion.vertices[0] * torch.tensor([1.0, 1.0, 0.5]))))
    controls = model.pose_controls
    assert controls.source.options == ["captured", "rest", "motion file"]
    before = model.get_outputs(rays())["accumulation"]
    assert model.choose_poses("rest", "") == "at rest" and model.num_frames == 1
    assert torch.equal(model.latent_of(0), model.field.latents[-1])
    squat = model.get_outputs(rays())["accumulation"]
    assert float(squat.sum()) < 0.8 * float(before.sum())
    write_body(BodyMotion(*(getattr(motion.at([1, 2]), n) for n in MOTION_PARTS)), tmp_path / "two.npz")
    assert model.choose_poses("motion file", f" {tmp_path / 'two.npz'} ") == "2 frames of two.npz"
    assert torch.equal(model.motion.vertices, motion.vertices[1:])
    for path, message in (("", "Name the motion file"), (str(tmp_path / "none.npz"), "There is no")):
        with pytest.raises(InputError, match=message):
            model.choose_poses("motion file", path)
    assert model.num_frames == 2, "a refused file changes nothing"
    assert model.choose_poses("captured", "") == "3 captured frames"
    torch.testing.assert_close(model.get_outputs(rays())["accumulation"], before)
    assert torch.equal(model.latent_of(1), model.field.latents[1])
    assert build().pose_controls.source.options == ["captured", "motion file"], "no rest is known"


def test_poses_stay_the_captured_ones_while_training():
    model = build()
    (ended,) = model.get_training_callbacks(None)
    with pytest.raises(InputError, match="when it has ended"):
        model.choose_poses("captured", "")
    ended.run_callback_at_location(step=3, location=TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
    with pytest.raises(InputError, match="when it has ended"):
        model.choose_poses("captured", "")
    ended.run_callback_at_location(step=3, location=TrainingCallbackLocation.AFTER_TRAIN)
    assert model.choose_poses("captured", "") == "3 captured frames"


def test_a_field_that_starts_shut_is_opened():
    """Behind a rectifier that is shut at every point there is no gradient; a field that is open stays as it is."""
    model = build()
    frame, points = model._frames[0], capsule().vertices[0]
    bias = model.field.density_head.bias
    bias.data.fill_(5.0)
    model.field.wake(points, frame)
    assert float(bias.detach()) == 5.0
    bias.data.fill_(-50.0)
    model.field.wake(points, frame)
    raw = model.field.density_head(model.field.hidden(points, frame, model.field.volumes(frame)))
    assert float((raw > 0).float().mean()) >= 0.5 and float(raw.median().detach()) == pytest.approx(0.1, abs=1e-3)


def test_the_body_overlay_covers_the_body():
    model = build().eval()
    camera = Cameras(
        camera_to_worlds=torch.tensor([[[1.0, 0, 0, 0], [0, 0, -1, -3], [0, 1, 0, 0]]]),
        fx=40.0, fy=40.0, cx=16.0, cy=16.0, width=32, height=32, times=torch.zeros(1, 1),
    )  # fmt: skip
    outputs = model.get_outputs_for_camera(camera)
    assert list(outputs) == ["rgb", "accumulation", "depth", "body"]
    tinted = (outputs["body"] != outputs["rgb"]).any(-1)
    rows, columns = torch.nonzero(tinted).float().mean(0).tolist()
    assert rows == pytest.approx(15.5, abs=1.5) and columns == pytest.approx(15.5, abs=1.5)
    height = torch.nonzero(tinted.any(1)).flatten()
    assert int(height.max() - height.min()) == pytest.approx(1.6 * 40 / 3, abs=4), "0.8 m up and down, at 3 m"


def test_in_the_frame_of_the_body_colours_do_not_depend_on_where_it_stands():
    """A person who is turned by a quarter and moved, seen by rays that are turned and moved alike."""
    quarter, away = rotation_matrix(torch.tensor([0.0, 0.0, torch.pi / 2])), torch.tensor([2.0, -1.0, 0.5])
    motion, bundle = capsule(), rays()
    moved = replace(
        motion,
        vertices=motion.vertices @ quarter.T + away,
        root_rotation=motion.root_rotation + torch.tensor([0.0, 0.0, torch.pi / 2]),
        root_translation=motion.root_translation @ quarter.T + away,
    )
    turned = replace(rays(), origins=bundle.origins @ quarter.T + away, directions=bundle.directions @ quarter.T)
    apart = {}
    for frame in ("body", "world"):
        model = opaque(build(colour_frame=frame, trained=range(FRAMES)))
        here = model.get_outputs(bundle)
        model.set_motion(moved, range(FRAMES))
        there = model.get_outputs(turned)
        torch.testing.assert_close(there["accumulation"], here["accumulation"], atol=1e-4, rtol=0)
        apart[frame] = float((there["rgb"] - here["rgb"]).abs().max())
    assert apart["body"] < 1e-4 and apart["world"] > 1e-3


@pytest.mark.parametrize(
    "changes,message",
    [
        (dict(voxel_size=0.0), "voxel size of a body's grid is 0"),
        (dict(voxel_size=-0.01), "voxel size of a body's grid is -0.01"),
        (dict(voxel_size=float("nan")), "voxel size of a body's grid is nan"),
        (dict(voxel_size=0.0003), "Voxels of 0.0003 m make a grid of .* take larger ones"),
        (dict(box_padding=-0.05), "box padding about a body is -0.05"),
        (dict(box_padding=(0.0, -0.1, 0.05)), r"box padding about a body is \(0.0, -0.1, 0.05\)"),
        (dict(reach=-1), "reach of a body's codes is -1"),
        (dict(cached_frames=0), "cached_frames. are 0"),
        (dict(num_samples=0), "num_samples is 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused_at_construction(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)
