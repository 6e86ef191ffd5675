"""What methods of a moving person do: views at chosen times, point clouds and meshes, through stock commands."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Callable

import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.scripts import render

from nerfstudio_ext.cli.export import ExportMesh
from nerfstudio_ext.engine.checkpoints import relocate_run
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.runs import open_run
from tests.contract.registered import HUMAN_METHODS
from tests.contract.runs import SIDE, TEST_VIEWS, TRAIN_VIEWS, Run
from tests.contract.test_commands import pictures
from tests.contract.test_reload import change_checkpoint

TINY = [name for name in HUMAN_METHODS if name.endswith("-tiny")]
POSE = [[0.0, 0.0, 1.0, 2.8], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture
def run(name: str, device: str, trained: Callable[[str, str], Run]) -> Run:
    return trained(name, device)


@pytest.fixture
def solid(run: Run, tmp_path: Path) -> Path:
    """The run's config.yml, with everything near the body opaque in its checkpoint: two steps make nothing so."""
    moved = Path(shutil.copytree(run.folder, tmp_path / "solid"))
    change_checkpoint(moved, lambda state: state["_model.field.density_head.bias"].fill_(60.0))
    return relocate_run(moved)


@pytest.mark.parametrize("name", HUMAN_METHODS)
def test_render_dataset(run: Run, opened, device: str, tmp_path: Path) -> None:
    render.DatasetRender(run.config_path, tmp_path, image_format="png").main()
    assert {folder.name for folder in (tmp_path / "test").iterdir()} >= {"rgb", "gt-rgb", "accumulation", "depth"}
    dataset = opened(run.name, device).datamanager.eval_dataset
    source = [dataset.get_numpy_image(k) for k in range(TEST_VIEWS)]
    assert np.array_equal(pictures(tmp_path / "test" / "gt-rgb"), np.stack(source))


@pytest.mark.parametrize("name", TINY)
def test_camera_path_goes_through_time(solid: Path, tmp_path: Path) -> None:
    keys = [
        {"camera_to_world": [v for row in POSE for v in row], "fov": 42, "aspect": 1.0, "render_time": time}
        for time in (0.0, 1.0, 1.0)
    ]
    sizes = {"render_height": SIDE, "render_width": SIDE, "camera_type": "perspective"}
    (tmp_path / "path.json").write_text(json.dumps({**sizes, "seconds": 1.0, "fps": 3, "camera_path": keys}))
    options = dict(camera_path_filename=tmp_path / "path.json", output_format="images", image_format="png")
    options["rendered_output_names"] = ["accumulation"]
    render.RenderCameraPath(solid, tmp_path / "clip.mp4", **options).main()
    first, last, again = pictures(tmp_path / "clip")
    assert np.array_equal(last, again) and not np.array_equal(first, last)


@pytest.mark.parametrize("name", TINY)
def test_export_pointcloud(solid: Path, exporter: ModuleType, tmp_path: Path) -> None:
    options = dict(num_points=200, remove_outliers=False, normal_method="open3d", save_world_frame=True)
    exporter.ExportPointCloud(solid, tmp_path, **options).main()
    cloud = trimesh.load(tmp_path / "point_cloud.ply")
    assert len(cloud.vertices) >= 200 and np.abs(cloud.vertices).max() < 1.5


@pytest.mark.parametrize("name", TINY)
def test_export_poisson(solid: Path, exporter: ModuleType, tmp_path: Path) -> None:
    options = dict(num_points=600, remove_outliers=False, normal_method="open3d", texture_method="point_cloud")
    exporter.ExportPoissonMesh(solid, tmp_path, **options).main()
    assert len(trimesh.load(tmp_path / "poisson_mesh.ply").faces) > 20


@pytest.mark.parametrize("name", TINY)
def test_export_tsdf(solid: Path, exporter: ModuleType, tmp_path: Path) -> None:
    options = dict(resolution=[24, 24, 24], downscale_factor=1, batch_size=2, texture_method="tsdf")
    exporter.ExportTSDFMesh(solid, tmp_path, **options).main()
    assert (tmp_path / "tsdf_mesh.ply").stat().st_size > 0


@pytest.mark.parametrize("name", TINY)
def test_mesh_stands_where_the_body_does(solid: Path, tmp_path: Path) -> None:
    ExportMesh(solid, tmp_path / "mesh.ply", resolution=48).main()
    mesh = trimesh.load(tmp_path / "mesh.ply")
    low, high = mesh.bounds
    assert 1.5 < high[2] - low[2] < 2.3, "a person in metres, and a few voxels around"
    # The last frame, searched about its own body.
    model = open_run(solid)[1].model
    ExportMesh(solid, tmp_path / "last.ply", resolution=48, frame=1).main()
    wanted = model.motion.vertices[1].double().numpy()
    for found, body in zip(trimesh.load(tmp_path / "last.ply").bounds, (wanted.min(0), wanted.max(0))):
        assert np.abs(found - body).max() < 0.4, "as far as samples are decoded at all"
    first = trimesh.load(tmp_path / "mesh.ply").bounds
    assert np.abs(trimesh.load(tmp_path / "last.ply").bounds - first).max() > 0.02, "the person has moved"
    with pytest.raises(InputError, match="--frame 2 is none of the 2 frames"):
        ExportMesh(solid, tmp_path / "none.ply", resolution=16, frame=2).main()


@pytest.mark.parametrize("name", TINY)
def test_the_held_out_camera_stays_out_of_training(name: str, device: str, opened) -> None:
    manager = opened(name, device).datamanager
    assert len(manager.train_dataset) == TRAIN_VIEWS and len(manager.eval_dataset) == TEST_VIEWS
    assert not set(manager.train_dataset.image_filenames) & set(manager.eval_dataset.image_filenames)
    _, batch = manager.next_train(0)
    assert len(torch.unique(batch["indices"][:, 0])) == 1, "one picture a step"
    assert float(batch["fg_mask"].mean()) >= 0.5
