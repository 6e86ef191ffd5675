"""Surface methods on files: folders in the layouts that people have, from training to scores."""

import json
from pathlib import Path

import numpy as np
import pytest
from nerfstudio.scripts.eval import ComputePSNR
from PIL import Image

from dataparsers.idr import IdrDataParserConfig
from dataparsers.llff import LlffDataParserConfig
from nerfstudio_ext.codebook.table import DEFAULT_CODEBOOK
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
    """With its masks, what `data make` writes besides, and a codebook whose file is gone when the run is opened."""
    write_object_scene(scene, tmp_path / "it")
    table = tmp_path / "table.safetensors"
    table.write_bytes(DEFAULT_CODEBOOK.read_bytes())
    config = tiny_config("coco-inr-tiny", tmp_path / "out")
    config.pipeline.datamanager.dataparser = IdrDataParserConfig(data=tmp_path / "it", num_views=4, max_test_views=2)
    config.pipeline.model.mask_loss_mult, config.pipeline.model.codebook = 0.1, str(table)
    run = train(config)
    table.unlink()
    assert np.isfinite(run.losses).all()
    assert scores(run, tmp_path).keys() >= SCORES | TRUTH


def test_llff_from_files_to_scores(scene: ObjectScene, tmp_path: Path) -> None:
    rows = []
    for k, pose in enumerate(scene.poses.double().numpy()):
        right, up, backward, position = pose.T
        matrix = np.stack([-up, right, backward, position, [SIDE, SIDE, scene.focal]], axis=1)
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
