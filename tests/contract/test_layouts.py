"""Surface methods on files: folders in the layouts that people have, from training to scores."""

import copy
import json
import math
from pathlib import Path
from typing import Callable, Optional, Set, Tuple

import numpy as np
import pytest
import torch
import trimesh
import yaml
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.scripts.eval import ComputePSNR
from PIL import Image

from dataparsers.blended_mvs import BlendedMvsDataParserConfig
from dataparsers.idr import IdrDataParserConfig
from dataparsers.llff import LlffDataParserConfig
from nerfstudio_ext.cli.export import ExportMesh
from nerfstudio_ext.codebook.table import DEFAULT_CODEBOOK
from nerfstudio_ext.data import normalise
from nerfstudio_ext.engine.checkpoints import read_checkpoint
from nerfstudio_ext.export.object_scene import write_object_scene
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions
from tests.contract.runs import SIDE, Run, tiny_config, train

SCORES = {"psnr", "ssim", "psnr_masked", "ssim_masked", "mask_iou"}
TRUTH = {"depth_error", "normal_error", "chamfer", "f_score"}


def scores(run: Run, folder: Path) -> dict:
    ComputePSNR(run.config_path, folder / "scores.json").main()
    return json.loads((folder / "scores.json").read_text())["results"]


@pytest.fixture(scope="module")
def scene() -> ObjectScene:
    return ObjectScene(ObjectSceneOptions("torus-box", num_views=8, size=SIDE, rig="hemisphere", radius=4.0))


def test_idr_from_files_to_scores(scene: ObjectScene, tmp_path: Path) -> None:
    """With its masks, what `data make` writes besides, gains, grids, and a codebook whose file is gone when the run is
    opened."""
    write_object_scene(scene, tmp_path / "it")
    table = tmp_path / "table.safetensors"
    table.write_bytes(DEFAULT_CODEBOOK.read_bytes())
    config = tiny_config("coco-inr-tiny", tmp_path / "out")
    config.pipeline.datamanager.dataparser = IdrDataParserConfig(data=tmp_path / "it", num_views=4, max_test_views=2)
    config.pipeline.model.mask_loss_mult, config.pipeline.model.codebook = 0.1, str(table)
    config.pipeline.model.picture_gains, config.pipeline.model.field.grid_sizes = True, (4, 8)
    config.pipeline.model.final_beta, config.pipeline.datamanager.object_share = 0.03, 0.5
    run = train(config)
    table.unlink()
    assert float(run.open().model.density.beta) == pytest.approx(0.03)
    assert np.isfinite(run.losses).all()
    assert scores(run, tmp_path).keys() >= SCORES | TRUTH | {"cc_psnr", "cc_psnr_masked"}


def test_llff_from_files_to_scores(scene: ObjectScene, tmp_path: Path) -> None:
    rows = []
    for k, pose in enumerate(scene.poses.double().numpy()):
        right, up, backward, position = pose.T
        matrix = np.stack([-up, right, backward, position, [SIDE, SIDE, scene.focals[k]]], axis=1)
        rows.append([*matrix.reshape(-1), 2.0, 6.0])
        view = scene.view(k)
        for name, picture in (("images", view.rgb), ("masks", view.mask[..., None].expand(-1, -1, 3).float())):
            (tmp_path / "it" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray((picture.numpy() * 255).astype(np.uint8)).save(tmp_path / "it" / name / f"{k}.png")
    np.save(tmp_path / "it" / "poses_bounds.npy", np.array(rows))
    config = tiny_config("volsdf-tiny", tmp_path / "out")
    config.pipeline.datamanager.dataparser = LlffDataParserConfig(data=tmp_path / "it", num_views=4, max_test_views=2)
    run = train(config)
    assert np.isfinite(run.losses).all()
    found = scores(run, tmp_path).keys()
    assert found >= SCORES and not TRUTH & found


def save(path: Path, picture: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture.numpy() * 255).round().astype(np.uint8)).save(path)


def idr(scene: ObjectScene, folder: Path) -> DataParserConfig:
    write_object_scene(scene, folder)
    return IdrDataParserConfig(data=folder, num_views=4, max_test_views=2)


def blended_mvs(scene: ObjectScene, folder: Path) -> DataParserConfig:
    """As it is published, and with masks."""
    (folder / "cams").mkdir(parents=True)
    for k, pose in enumerate(scene.poses.double().numpy()):
        view, name = scene.view(k), f"{k:08d}"
        save(folder / "blended_images" / f"{name}.jpg", view.rgb)
        save(folder / "mask" / f"{name}.png", view.mask.float())
        rotation = (pose[:, :3] * [1.0, -1.0, -1.0]).T
        world = np.eye(4)
        world[:3] = np.concatenate([rotation, -rotation @ pose[:, 3:]], axis=1)
        rows = "\n".join(" ".join(map(str, row)) for row in world)
        focal, middle = scene.focals[k], SIDE / 2 - 0.5
        text = f"extrinsic\n{rows}\n\nintrinsic\n{focal} 0 {middle}\n0 {focal} {middle}\n0 0 1\n\n1 0.1 128 9\n"
        (folder / "cams" / f"{name}_cam.txt").write_text(text)
    return BlendedMvsDataParserConfig(data=folder, num_views=4, max_test_views=2)


def blender(scene: ObjectScene, folder: Path) -> DataParserConfig:
    """Six views to train on and two to test with; what is beside the object is hidden."""
    for split, views in (("train", range(6)), ("val", (6,)), ("test", (6, 7))):
        frames = []
        for k in views:
            view = scene.view(k)
            save(folder / split / f"r_{k}.png", torch.cat([view.rgb, view.mask[..., None].float()], dim=-1))
            matrix = torch.cat([scene.poses[k], torch.tensor([[0.0, 0, 0, 1]])]).tolist()
            frames.append({"file_path": f"./{split}/r_{k}", "transform_matrix": matrix})
        angle = 2 * math.atan(SIDE / 2 / scene.focals[0])
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    return BlenderDataParserConfig(data=folder)


@pytest.mark.parametrize(
    ("write", "codebook", "num_views"),
    [
        pytest.param(blended_mvs, "default", None, id="blended-mvs-data"),
        pytest.param(blender, "default", 6, id="blender-data with all its training views"),
        pytest.param(idr, "scene", None, id="codebook of the scene"),
    ],
)
def test_other_data_from_files_to_scores(
    write: Callable[[ObjectScene, Path], DataParserConfig],
    codebook: str,
    num_views: Optional[int],
    scene: ObjectScene,
    tmp_path: Path,
) -> None:
    config = tiny_config("coco-inr-tiny", tmp_path / "out")
    config.pipeline.datamanager.dataparser = write(scene, tmp_path / "it")
    config.pipeline.datamanager.num_views = num_views
    config.pipeline.model.mask_loss_mult, config.pipeline.model.codebook = 0.1, codebook
    run = train(config)
    assert np.isfinite(run.losses).all()
    datamanager = run.open().datamanager
    assert (len(datamanager.train_dataset), len(datamanager.eval_dataset)) == (num_views or 4, 2)
    radii = datamanager.train_dataset.cameras.camera_to_worlds[:, :, 3].norm(dim=-1)
    assert float(radii.max()) == pytest.approx(3 / 1.1, rel=0.01), "they were normalised"
    found = scores(run, tmp_path)
    assert found.keys() >= SCORES and all(np.isfinite(found[name]) for name in SCORES)


def test_a_codebook_of_the_scene_sees_training_views_only(scene: ObjectScene, tmp_path: Path) -> None:
    """Noise in all held-out pictures does not change it, and in one training picture does."""
    config = tiny_config("coco-inr-tiny", tmp_path / "out")
    config.pipeline.datamanager.dataparser = idr(scene, tmp_path / "it")
    config.pipeline.model.codebook = "scene"

    def learned() -> Tuple[torch.Tensor, Set[str]]:
        pipeline = config.pipeline.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
        return pipeline.model.field.codebook, {path.name for path in pipeline.datamanager.train_dataset.image_filenames}

    before, training = learned()
    assert len(training) == 4 and before.shape == (256, 64)
    for path in (tmp_path / "it" / "image").iterdir():
        if path.name not in training:
            save(path, torch.rand(SIDE, SIDE, 3))
    assert torch.equal(learned()[0], before)
    save(tmp_path / "it" / "image" / min(training), torch.rand(SIDE, SIDE, 3))
    assert not torch.equal(learned()[0], before)


def test_run_keeps_the_frame_it_was_trained_in(scene: ObjectScene, tmp_path: Path, monkeypatch, capsys) -> None:
    """Rule and choice of views change after training, and the mesh stays where it was in the units of the data."""
    write_object_scene(scene, tmp_path / "it")
    config = tiny_config("volsdf-tiny", tmp_path / "out")
    config.pipeline.datamanager.dataparser = IdrDataParserConfig(data=tmp_path / "it", num_views=4, max_test_views=2)
    run = train(config)

    def opened() -> np.ndarray:
        capsys.readouterr()
        ExportMesh(run.folder, tmp_path / "mesh.ply", resolution=16).main()
        return trimesh.load(tmp_path / "mesh.ply", process=False).vertices

    def rendered() -> np.ndarray:
        datamanager = run.open().datamanager
        camera = datamanager.eval_dataset.cameras[:1]
        assert torch.equal(datamanager.fixed_indices_eval_dataloader.cameras[:1].camera_to_worlds,
                           camera.camera_to_worlds), "what evaluates stands with the data"  # fmt: skip
        anew = datamanager.config.setup(test_mode="test", device="cpu")  # as ns-render does it
        assert yaml.dump(datamanager.config) == yaml.dump(copy.deepcopy(datamanager.config)), "settings and no tensor"
        assert "tensor" not in yaml.dump(datamanager.config)
        assert torch.equal(anew.eval_dataset.cameras[:1].camera_to_worlds, camera.camera_to_worlds)
        return camera.camera_to_worlds.numpy()

    before, cameras = opened(), rendered()
    assert "keeps the frame" not in capsys.readouterr().out
    text = run.config_path.read_text()
    assert text.count("num_views: 4") == 1
    monkeypatch.setattr(normalise, "MARGIN", 1.5)
    assert np.allclose(opened(), before, atol=1e-4)
    assert "The run keeps the frame that it was trained in" in capsys.readouterr().out
    assert np.allclose(rendered(), cameras, atol=1e-4)
    run.config_path.write_text(text.replace("num_views: 4", "num_views: 3"))
    assert np.allclose(opened(), before, atol=1e-4)

    state = read_checkpoint(run.checkpoint)
    del state["pipeline"]["datamanager.frame"]  # as it was saved earlier
    torch.save(state, run.checkpoint)
    assert not np.allclose(opened(), before, atol=0.05)
    assert "was saved before runs kept their frame" in capsys.readouterr().out


def test_training_goes_on_in_its_frame(scene: ObjectScene, tmp_path: Path, capsys) -> None:
    write_object_scene(scene, tmp_path / "it")
    config = tiny_config("volsdf-tiny", tmp_path / "out")
    config.pipeline.datamanager.dataparser = IdrDataParserConfig(data=tmp_path / "it", num_views=4, max_test_views=2)
    run = train(config)
    frame = read_checkpoint(run.checkpoint)["pipeline"]["datamanager.frame"]
    assert frame[0, 0] == pytest.approx(3 / 1.1 / 4, rel=1e-3)
    config = tiny_config("volsdf-tiny", tmp_path / "on", steps=3)
    config.pipeline.datamanager.dataparser = IdrDataParserConfig(data=tmp_path / "it", num_views=4, max_test_views=2)
    config.pipeline.datamanager.normalise, config.load_dir = "file", run.folder
    on = train(config)
    assert "The run keeps the frame that it was trained in" in capsys.readouterr().out
    assert torch.equal(read_checkpoint(on.checkpoint)["pipeline"]["datamanager.frame"], frame)
    written = json.loads((on.folder / "dataparser_transforms.json").read_text())
    assert written["scale"] == pytest.approx(3 / 1.1 / 4, rel=1e-3)
