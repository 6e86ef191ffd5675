"""What only methods with a surface at rest can do: new views, point clouds and meshes, through stock commands."""

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Callable

import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.scripts import render

from nerfstudio_ext.cli.export import ExportMesh
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.surface.isosurface import extract_mesh
from nerfstudio_ext.surface.mesh import largest_component
from tests.contract.registered import SURFACE_METHODS
from tests.contract.runs import SIDE, TEST_VIEWS, TRAIN_VIEWS, Run
from tests.contract.test_commands import pictures

TINY = [name for name in SURFACE_METHODS if name.endswith("-tiny")]
POSE = [[0.0, 0.0, 1.0, 2.6], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture
def run(name: str, device: str, trained: Callable[[str, str], Run]) -> Run:
    return trained(name, device)


@pytest.mark.parametrize("name", SURFACE_METHODS)
def test_render_dataset(run: Run, opened, device: str, tmp_path: Path) -> None:
    render.DatasetRender(run.config_path, tmp_path, image_format="png").main()
    folders = {folder.name for folder in (tmp_path / "test").iterdir()}
    assert folders >= {"rgb", "gt-rgb", "accumulation", "depth", "normals", "foreground", "background"}
    pipeline = opened(run.name, device)
    cameras = pipeline.datamanager.eval_dataset.cameras.to(pipeline.device)
    for k, picture in enumerate(pictures(tmp_path / "test" / "rgb")):
        shown = pipeline.model.get_outputs_for_camera(cameras[k : k + 1])["rgb"].cpu().numpy()
        assert np.abs(picture - 255 * shown).max() <= 1.01
    source = [pipeline.datamanager.eval_dataset.get_numpy_image(k) for k in range(TEST_VIEWS)]
    assert np.array_equal(pictures(tmp_path / "test" / "gt-rgb"), np.stack(source))


@pytest.mark.parametrize("name", TINY)
def test_render_camera_path(run: Run, tmp_path: Path) -> None:
    key = {"camera_to_world": [value for row in POSE for value in row], "fov": 50, "aspect": 1.0}
    sizes = {"render_height": SIDE, "render_width": SIDE, "camera_type": "perspective"}
    (tmp_path / "path.json").write_text(json.dumps({**sizes, "seconds": 1.0, "fps": 2, "camera_path": [key, key]}))
    options = dict(camera_path_filename=tmp_path / "path.json", output_format="images", image_format="png")
    render.RenderCameraPath(run.config_path, tmp_path / "clip.mp4", **options).main()
    one, other = pictures(tmp_path / "clip")
    assert np.array_equal(one, other) and one.shape == (SIDE, SIDE, 3) and one.std() > 0


@pytest.mark.parametrize("name", TINY)
def test_export_pointcloud(run: Run, exporter: ModuleType, tmp_path: Path) -> None:
    """Its loop never ends where nothing is opaque; the initial sphere is."""
    exporter.ExportPointCloud(
        run.config_path, tmp_path, num_points=200, remove_outliers=False, save_world_frame=True
    ).main()
    cloud = trimesh.load(tmp_path / "point_cloud.ply")
    assert len(cloud.vertices) >= 200 and np.isfinite(cloud.vertices).all()


@pytest.mark.parametrize("name", TINY)
def test_export_poisson(run: Run, exporter: ModuleType, tmp_path: Path) -> None:
    options = dict(num_points=600, remove_outliers=False, texture_method="point_cloud")
    exporter.ExportPoissonMesh(run.config_path, tmp_path, **options).main()
    assert len(trimesh.load(tmp_path / "poisson_mesh.ply").faces) > 20


@pytest.mark.parametrize("name", TINY)
def test_export_tsdf(run: Run, exporter: ModuleType, tmp_path: Path) -> None:
    options = dict(resolution=[24, 24, 24], downscale_factor=1, batch_size=2, texture_method="tsdf")
    exporter.ExportTSDFMesh(run.config_path, tmp_path, **options).main()
    assert len(trimesh.load(tmp_path / "tsdf_mesh.ply").faces) > 20


@pytest.mark.parametrize("name", TINY)
def test_mesh_of_the_initial_sphere(run: Run, opened, device: str, tmp_path: Path) -> None:
    """After two steps the surface still is about the sphere that training starts from."""
    ExportMesh(run.config_path, tmp_path / "mesh.ply", resolution=48).main()
    mesh = trimesh.load(tmp_path / "mesh.ply", process=False)
    model = opened(run.name, device).model
    same, _ = extract_mesh(model.signed_distance, 48, 1.5, model.device)
    same_part = largest_component(same)
    assert np.abs(mesh.vertices - same_part.verts).max() < 1e-5, "baking changes nothing"
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert 0.3 < radii.mean() < 1.1
    shown = np.asarray(mesh.visual.vertex_colors)[:, :3]
    assert shown.std(axis=0).max() > 0.5, "in steps of 255"
    points, field, context = torch.from_numpy(same_part.verts).to(model.device), model.field, model.field.context()
    _, feature, gradient = field.sdf_gradient(points, context)
    inwards = -torch.from_numpy(np.array(mesh.vertex_normals)).to(points)
    wanted = field.colour(points, inwards, gradient, feature, context).detach().cpu().numpy()
    assert np.abs(shown - 255 * wanted).max() < (2 if field.grid is None else 4), "normals may be weighted otherwise"


def test_mesh_of_an_unknown_format_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out\.stl names no mesh format"):
        ExportMesh(tmp_path / "no run is opened", tmp_path / "out.stl").main()


@pytest.mark.parametrize("name", TINY)
def test_mesh_without_a_surface_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="never changes its sign"):
        ExportMesh(run.folder, tmp_path / "mesh.ply", resolution=16, half_side=0.01).main()
    assert not (tmp_path / "mesh.ply").exists()


@pytest.mark.parametrize("name", SURFACE_METHODS)
def test_cameras_outside_the_sphere_see_something_finite(name: str, device: str, opened) -> None:
    pipeline = opened(name, device)
    for distance in (2.6, 5.0, 10.0):
        camera = pipeline.datamanager.eval_dataset.cameras[:1].to(pipeline.device)
        camera.camera_to_worlds = camera.camera_to_worlds.clone()
        camera.camera_to_worlds[..., 3] *= distance / 2.6
        outputs = pipeline.model.get_outputs_for_camera(camera)
        assert all(torch.isfinite(value).all() for value in outputs.values())
        assert (outputs["normals"] >= 0).all() and (outputs["normals"] <= 1).all()
        middle = float(outputs["depth"][SIDE // 2, SIDE // 2])
        assert math.isclose(middle, distance, abs_tol=1.5)


@pytest.mark.parametrize("name", TINY)
def test_training_views_stay_in_training(name: str, device: str, opened) -> None:
    manager = opened(name, device).datamanager
    assert len(manager.train_dataset) == TRAIN_VIEWS and len(manager.eval_dataset) == TEST_VIEWS
    assert not set(manager.train_dataset.image_filenames) & set(manager.eval_dataset.image_filenames)
