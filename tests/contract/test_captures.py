"""A capture from files to pictures, through the commands that a person would use."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.scripts.eval import ComputePSNR
from PIL import Image

from dataparsers.multiview_human import MultiviewHumanDataParserConfig
from dataparsers.zju_mocap import ZjuMocapDataParserConfig
from nerfstudio_ext.cli.human import Check, Fit, Make, Meshes, Orbit, Repose, Walk
from nerfstudio_ext.cli.human_convert import Convert
from nerfstudio_ext.cli.human_official import PADDING, Official
from nerfstudio_ext.engine.checkpoints import relocate_run
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.runs import open_run
from nerfstudio_ext.human.body_model import anny_keypoints
from nerfstudio_ext.human.body_motion import read_body, write_body
from nerfstudio_ext.human.keypoints import SKELETONS
from nerfstudio_ext.human.zju_layout import read_layout
from tests.contract.runs import SIDE, Run, tiny_config, train
from tests.contract.test_reload import change_checkpoint
from tests.fields.test_official_weights import official_net, write

pytestmark = [pytest.mark.extra("anny"), pytest.mark.extra("embreex"), pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two frames from three cameras, as the drawn scene of all runs has them."""
    place = tmp_path_factory.mktemp("capture") / "person"
    Make(place, frames=2, cameras=3, size=SIDE).main()
    return place


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Pictures large enough for outlines to be compared."""
    place = tmp_path_factory.mktemp("large") / "person"
    Make(place, frames=2, cameras=3, size=96).main()
    return place


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory) -> Run:
    config = tiny_config("neural-body-tiny", tmp_path_factory.mktemp("zju"))
    config.pipeline.datamanager.dataparser = ZjuMocapDataParserConfig(data=folder)
    return train(config)


@pytest.fixture(scope="module")
def direct(tmp_path_factory) -> Run:
    """The same, without files between."""
    return train(tiny_config("neural-body-tiny", tmp_path_factory.mktemp("direct")))


def solid(run: Run, tmp_path: Path) -> Path:
    """The run with everything near the body opaque: two steps make nothing so."""
    moved = Path(shutil.copytree(run.folder, tmp_path / "solid"))
    change_checkpoint(moved, lambda state: state["_model.field.density_head.bias"].fill_(60.0))
    return relocate_run(moved)


def test_a_written_capture_trains_like_the_drawn_one(run: Run, direct: Run) -> None:
    """Pixels, rays and codes are the same; the colours differ by what JPEG rounds."""
    assert len(direct.losses) == len(run.losses) == 2
    np.testing.assert_allclose(run.losses, direct.losses, atol=1e-3)


def test_the_neutral_layout_trains_like_the_one_that_it_was_made_of(run: Run, folder: Path, tmp_path: Path) -> None:
    Convert(folder, tmp_path / "neutral").main()
    config = tiny_config("neural-body-tiny", tmp_path)
    config.pipeline.datamanager.dataparser = MultiviewHumanDataParserConfig(data=tmp_path / "neutral")
    neutral = train(config)
    np.testing.assert_allclose(neutral.losses, run.losses, atol=1e-4)
    assert neutral.open().model.num_frames == 2


def test_scores_say_what_they_count(run: Run, tmp_path: Path) -> None:
    pipeline = run.open()
    scores = pipeline.get_average_eval_image_metrics()
    assert {"psnr", "psnr_box", "psnr_masked", "mask_iou"} <= set(scores)
    assert not [key for key in scores if key.startswith("novel_pose_")]
    json.dumps(scores, allow_nan=False)


def test_held_out_poses_have_scores_of_their_own(tmp_path: Path) -> None:
    """ns-eval's JSON of a run whose last frame was never trained on; the others' poses were refined."""
    config = tiny_config("neural-body-tiny", tmp_path)
    config.pipeline.model.refine_poses = config.pipeline.model.random_background = True
    config.pipeline.datamanager.dataparser.frames = 3
    config.pipeline.datamanager.dataparser.novel_frames = 1
    run = train(config)
    ComputePSNR(run.config_path, tmp_path / "scores.json").main()
    scores = json.loads((tmp_path / "scores.json").read_text())["results"]
    names = {"psnr", "psnr_box", "psnr_masked", "mask_iou", "depth_error", "ssim", "ssim_zju"}
    assert names | {f"novel_pose_{name}" for name in names} <= set(scores)
    assert scores["novel_pose_psnr_box"] != scores["psnr_box"]
    model = run.open().model
    assert len(model.field.latents) == 2 and model.num_frames == 3
    assert torch.equal(model.latent_of(2), model.field.latents[1]), "an unseen pose takes the last code"
    assert model.refinement.shifts.shape == (2, 3) and bool((model.refinement.shifts != 0).any())


def test_orbit_and_new_poses_are_filmed(run: Run, folder: Path, tmp_path: Path, capsys) -> None:
    Orbit(run.folder, tmp_path / "orbit.mp4", pictures=3, size=24, output_name="body").main()
    Walk(folder / "body.npz", tmp_path / "walk.npz", frames=3).main()
    Repose(run.folder, tmp_path / "walk.npz", tmp_path / "walk.mp4", pictures=3, size=24).main()
    assert all((tmp_path / f"{name}{end}").is_file() for name in ("orbit", "walk") for end in (".mp4", "_sheet.png"))
    assert "3 pictures" in capsys.readouterr().out
    walk, drawn = read_body(tmp_path / "walk.npz"), read_body(folder / "body.npz")
    middles = [0.5 * (m.vertices[0].amin(0) + m.vertices[0].amax(0)) for m in (walk, drawn)]
    np.testing.assert_allclose(middles[0], middles[1], atol=1e-4)
    heights = [float(np.ptp(m.vertices[0, :, 2].numpy())) for m in (walk, drawn)]
    assert heights[0] == pytest.approx(heights[1], rel=0.05)
    Meshes(solid(run, tmp_path), tmp_path / "meshes", resolution=40).main()
    for number in range(2):
        mesh = trimesh.load(tmp_path / "meshes" / f"frame_{number:04d}.ply")
        low, high = mesh.bounds
        box = drawn.vertices[number].amin(0).numpy(), drawn.vertices[number].amax(0).numpy()
        # As far as samples are decoded at all, which is two voxels of 8 cm and a part of a third.
        assert (np.abs(low - box[0]) < 0.4).all() and (np.abs(high - box[1]) < 0.4).all()
    with pytest.raises(InputError, match="none of the 2 frames"):
        Orbit(run.folder, tmp_path / "orbit.mp4", freeze=2).main()


def test_a_run_walks_in_its_own_build(direct: Run, run: Run, folder: Path, tmp_path: Path, capsys) -> None:
    """Without any file of the body; one that does not know its build says so."""
    Walk(direct.folder, tmp_path / "walk.npz", frames=2).main()
    assert f"repose {direct.folder}" in capsys.readouterr().out
    Repose(direct.folder, tmp_path / "walk.npz", tmp_path / "walk.mp4", pictures=2, size=24).main()
    assert (tmp_path / "walk.mp4").is_file()
    with pytest.raises(InputError, match="does not say which build"):
        Walk(run.folder, tmp_path / "other.npz").main()


def test_options_that_cannot_be_are_refused_before_the_work(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    body, kept = folder / "body.npz", (folder / "body.npz").read_bytes()
    for command, message in [
        (Walk(body, tmp_path / "walk.npz", frames=0), "--frames 0"),
        (Walk(body, body), "would be lost"),
        (Fit(folder, tmp_path / "body"), r"must end in \.npz"),
        (Fit(folder, tmp_path / "file" / "body.npz"), "cannot be written"),
        (Orbit(run.folder, tmp_path / "orbit.mp4", pictures=0), "--pictures 0"),
    ]:
        with pytest.raises(InputError, match=message):
            command.main()
    assert body.read_bytes() == kept


def test_check_shows_the_body_and_says_what_is_wrong(large: Path, tmp_path: Path, capsys) -> None:
    assert Check(large, tmp_path / "good").main() == 0
    assert len(list((tmp_path / "good").glob("camera_*.jpg"))) == 3
    assert Image.open(tmp_path / "good" / "camera_00.jpg").size == (2 * 96, 96)
    assert "Body and masks agree" in capsys.readouterr().out
    motion = read_body(large / "body.npz")
    up = torch.tensor([1.0, 1.0, -1.0]) * motion.vertices[..., [0, 2, 1]]
    write_body(replace(motion, vertices=up), tmp_path / "up.npz")
    assert Check(large, tmp_path / "bad", body=tmp_path / "up.npz").main() == 1
    assert "It would fit if the vertices have y up" in capsys.readouterr().out
    write_body(replace(motion, vertices=motion.vertices + torch.tensor([0.0, 0.0, 0.3])), tmp_path / "high.npz")
    assert Check(large, tmp_path / "bad", body=tmp_path / "high.npz").main() == 1
    assert re.search(r"if the body stood (28|29|30|31) cm .*, z -(28|29|30|31) cm", capsys.readouterr().out)


def test_key_points_become_a_body(large: Path, tmp_path: Path, capsys) -> None:
    """Exact key points of the drawn person, projected into its cameras."""
    layout, motion = read_layout(large), read_body(large / "body.npz")
    weights, names = anny_keypoints(), SKELETONS["coco17"]
    joints = np.stack([(weights[name] @ motion.vertices).double().numpy() for name in names], axis=1)
    pixels = np.stack([camera.project(joints) for camera in layout.cameras])
    assert layout.keypoints is not None
    np.testing.assert_allclose(layout.keypoints[..., :2], pixels.transpose(1, 0, 2, 3), atol=1e-6)
    np.testing.assert_allclose(np.load(large / "kpts3d.npy"), joints, atol=1e-6)
    found = np.concatenate([2 * pixels, np.ones((*pixels.shape[:-1], 1))], axis=-1)
    np.savez(tmp_path / "found.npz", kpts2d=found)
    command = Fit(large, tmp_path / "fit" / "body.npz", keypoints=tmp_path / "found.npz", keypoint_scale=0.5, steps=120)
    command.main()
    told = capsys.readouterr().out
    assert "100% of 34 joints found, from 3.0 views" in told and "Body and masks agree" in told
    fitted = read_body(tmp_path / "fit" / "body.npz")
    assert float((fitted.vertices - motion.vertices).norm(dim=-1).mean()) < 0.06
    assert len(list((tmp_path / "fit" / "body").glob("camera_*.jpg"))) == 3
    with pytest.raises(InputError, match="asks for frame 4"):
        Fit(large, tmp_path / "x.npz", keypoints=tmp_path / "found.npz", keypoint_step=4).main()
    # Those that were drawn with it lie where they are looked for.
    Fit(large, tmp_path / "own.npz", steps=5, weight=0.4).main()
    told = capsys.readouterr().out
    assert "100% of 34 joints found, from 3.0 views on average; median reprojection error 0.0 pixels" in told
    shutil.copytree(large, tmp_path / "bare")
    annots = np.load(large / "annots.npy", allow_pickle=True).item()
    annots["ims"][1].pop("kpts2d")
    np.save(tmp_path / "bare" / "annots.npy", annots, allow_pickle=True)
    with pytest.raises(InputError, match="holds no kpts2d"):
        Fit(tmp_path / "bare", tmp_path / "x.npz").main()


def test_a_published_checkpoint_becomes_a_run(folder: Path, tmp_path: Path, capsys) -> None:
    """Weights in the form of the release, for the drawn body; a person sees them through the stock commands."""
    motion = read_body(folder / "body.npz")
    weights = write(tmp_path / "latest.pth", official_net(motion.vertices.shape[1], frames=1))
    with pytest.raises(InputError, match="has no vertices/"):
        Official(weights, folder, tmp_path / "run").main()
    assert "later fit" not in capsys.readouterr().out
    Official(weights, folder, tmp_path / "run", novel_frames=1, fit="new").main()
    assert "published was trained with the first" in capsys.readouterr().out
    config, pipeline = open_run(tmp_path / "run", "test")
    model = pipeline.model.eval()
    assert config.pipeline.model.field.level_mapping == "official"
    low, high = model._frames[0].box
    around = torch.tensor(PADDING)
    torch.testing.assert_close(torch.stack([low + around, high - around]), torch.stack([
        motion.vertices[0].amin(0), motion.vertices[0].amax(0)]))  # fmt: skip
    assert torch.equal(pipeline.datamanager.eval_dataset._padding, around), "scored by the box that it was trained in"
    theirs = torch.load(weights)["net"]
    assert torch.equal(model.field.codes.detach(), theirs["c.weight"]) and model.num_frames == 2
    outputs = model.get_outputs_for_camera(pipeline.datamanager.eval_dataset.cameras[:1])
    assert float(outputs["accumulation"].max()) > 0.5 and bool(torch.isfinite(outputs["rgb"]).all())
    other = write(tmp_path / "other.pth", official_net(70, frames=1))
    with pytest.raises(InputError, match="codes for 70 vertices"):
        Official(other, folder, tmp_path / "none", fit="new").main()
