"""What methods that make a surface of one photograph do: through stock commands, and straight from a photo."""

import dataclasses
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
from PIL import Image

from nerfstudio_ext.cli.data import Person
from nerfstudio_ext.cli.export import ExportMesh
from nerfstudio_ext.cli.fitted_photos import FromFit
from nerfstudio_ext.cli.reconstruct import IconWeights, Reconstruct
from nerfstudio_ext.engine.checkpoints import relocate_run
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.weights import read_safetensors
from nerfstudio_ext.export.human_scene import write_human_scene
from nerfstudio_ext.fields.keypoint_icon_field import KeypointIconFieldConfig
from nerfstudio_ext.human.body_motion import write_body
from nerfstudio_ext.human.single_photo import read_photo
from nerfstudio_ext.human.zju_layout import read_layout, read_zju_body
from nerfstudio_ext.procedural.human import HumanSceneOptions, human_scene
from nerfstudio_ext.procedural.person import BODY_KEYPOINTS
from tests.contract.registered import PHOTO_METHODS
from tests.contract.runs import SIDE, TEST_VIEWS, Run, tiny_config, train
from tests.contract.test_commands import pictures
from tests.contract.test_reload import change_checkpoint
from tests.export.test_video import decode

TINY = [name for name in PHOTO_METHODS if name.endswith("-tiny")]
POSE = [[0.0, 0.0, 1.0, 2.8], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture
def run(name: str, device: str, trained: Callable[[str, str], Run]) -> Run:
    return trained(name, device)


@pytest.fixture
def solid(run: Run, tmp_path: Path) -> Path:
    """The run's config.yml, with everything that projects into the mask inside: two steps make no person."""
    moved = Path(shutil.copytree(run.folder, tmp_path / "solid"))
    change_checkpoint(moved, lambda state: state["_model.field.layers.3.bias"].fill_(60.0))
    return relocate_run(moved)


@pytest.mark.parametrize("name", PHOTO_METHODS)
def test_render_dataset(run: Run, opened, device: str, tmp_path: Path) -> None:
    render.DatasetRender(run.config_path, tmp_path, image_format="png").main()
    names = {"rgb", "gt-rgb", "accumulation", "depth", "normals"}
    assert {folder.name for folder in (tmp_path / "test").iterdir()} >= names
    dataset = opened(run.name, device).datamanager.eval_dataset
    source = [dataset.get_numpy_image(k) for k in range(TEST_VIEWS)]
    assert np.array_equal(pictures(tmp_path / "test" / "gt-rgb"), np.stack(source))


@pytest.mark.parametrize("name", TINY)
def test_both_stages_took_part(run: Run) -> None:
    state = torch.load(run.checkpoint, weights_only=False)["optimizers"]
    assert all(len(state[name]["state"]) > 0 for name in ("sides", "field"))


@pytest.mark.parametrize("name", TINY)
def test_a_run_that_stopped_in_its_first_stage_goes_on_into_the_second(name: str, tmp_path: Path) -> None:
    """Two steps for the sides, one of them before the stop; then two for the rest."""
    steps = {"sides": [], "field": []}
    folder = None
    for place, count in (("first", 1), ("second", 4)):
        config = tiny_config(name, tmp_path / place, steps=count)
        config.pipeline.model.normal_steps, config.load_dir = 2, folder
        found = train(config)
        folder = found.checkpoint.parent
        state = torch.load(found.checkpoint, weights_only=False)["optimizers"]
        for key in steps:
            steps[key].append(max((int(x["step"]) for x in state[key]["state"].values()), default=0))
    assert steps == {"sides": [1, 2], "field": [0, 2]}


@pytest.mark.parametrize("name", TINY)
def test_render_camera_path(solid: Path, tmp_path: Path) -> None:
    key = {"camera_to_world": [v for row in POSE for v in row], "fov": 46, "aspect": 1.0}
    sizes = {"render_height": SIDE, "render_width": SIDE, "camera_type": "perspective"}
    (tmp_path / "path.json").write_text(json.dumps({**sizes, "seconds": 1.0, "fps": 2, "camera_path": [key, key]}))
    options = dict(camera_path_filename=tmp_path / "path.json", output_format="images", image_format="png")
    render.RenderCameraPath(solid, tmp_path / "clip.mp4", **options).main()
    one, other = pictures(tmp_path / "clip")
    assert np.array_equal(one, other) and one.shape == (SIDE, SIDE, 3) and one.std() > 0


@pytest.mark.parametrize("name", TINY)
def test_exports(solid: Path, exporter: ModuleType, tmp_path: Path) -> None:
    options = dict(num_points=200, remove_outliers=False, save_world_frame=True)
    exporter.ExportPointCloud(solid, tmp_path, **options).main()
    cloud = trimesh.load(tmp_path / "point_cloud.ply")
    assert len(cloud.vertices) >= 200 and np.abs(cloud.vertices).max() < 1.5
    options = dict(num_points=600, remove_outliers=False, texture_method="point_cloud")
    exporter.ExportPoissonMesh(solid, tmp_path, **options).main()
    assert len(trimesh.load(tmp_path / "poisson_mesh.ply").faces) > 20
    options = dict(resolution=[24, 24, 24], downscale_factor=1, batch_size=2, texture_method="tsdf")
    exporter.ExportTSDFMesh(solid, tmp_path, **options).main()
    assert (tmp_path / "tsdf_mesh.ply").stat().st_size > 0
    ExportMesh(solid, tmp_path / "mesh.ply", resolution=48).main()
    low, high = trimesh.load(tmp_path / "mesh.ply").bounds
    assert 1.2 < high[2] - low[2] < 2.4


@pytest.mark.parametrize("name", TINY)
def test_a_photo_becomes_a_mesh_in_metres(solid: Path, run: Run, tmp_path: Path) -> None:
    """From a calibrated photo of somebody whom no run has seen, and from the same without its calibration."""
    folder, mesh = tmp_path / "photos", tmp_path / "out" / "person.glb"
    Person(folder, number=1, views="0,1", cameras=4, size=2 * SIDE).main()
    options = dict(mask=folder / "masks/00.png", run=solid.parent, resolution=65)
    Reconstruct(folder / "images/00.png", mesh, keypoints=folder / "transforms.json", **options).main()
    shape = trimesh.load(mesh, force="mesh")
    height = np.ptp(shape.bounds[:, 2])
    assert 1.2 < height < 2.4 and shape.is_watertight
    film = decode(tmp_path / "out" / "person_turntable.mp4")
    assert film.shape == (48, 320, 640, 3) and np.abs(film[0].astype(float) - film[24]).mean() > 0.5
    sheet = np.asarray(Image.open(tmp_path / "out" / "person_sheet.png"))
    assert sheet.shape == (512, 8 * 256, 3) and sheet.std() > 10

    found = json.loads((folder / "transforms.json").read_text())
    frame = found["frames"][0]
    pose = np.array(frame["transform_matrix"])
    local = (np.array(found["keypoints3d"]) - pose[:3, 3]) @ pose[:3, :3]
    scale = frame["fl_x"] / -local[:, 2].mean()
    pixels = np.stack([local[:, 0] * scale + SIDE, -local[:, 1] * scale + SIDE, -local[:, 2] * scale], axis=1)
    loose = {"keypoint_names": found["keypoint_names"], "keypoints": pixels.tolist()}
    (tmp_path / "loose.json").write_text(json.dumps(loose))
    Reconstruct(
        folder / "images/00.png", mesh, keypoints=tmp_path / "loose.json", sheet=False, turntable=False, **options
    ).main()
    assert abs(np.ptp(trimesh.load(mesh, force="mesh").bounds[:, 2]) - height) < 0.35

    change_checkpoint(solid.parent, lambda state: state["_model.field.layers.3.bias"].fill_(-60.0))
    mesh.unlink()
    with pytest.raises(InputError, match="nowhere above"):
        Reconstruct(folder / "images/00.png", mesh, keypoints=tmp_path / "loose.json", **options).main()
    assert not mesh.exists()


@pytest.mark.parametrize("name", TINY)
def test_weights_are_cut_out_whole(run: Run, opened, device: str, tmp_path: Path) -> None:
    IconWeights(run.folder, tmp_path / "weights.safetensors", note="two steps").main()
    weights, metadata = read_safetensors(tmp_path / "weights.safetensors")
    own = opened(run.name, device).model.field.state_dict()
    assert set(weights) == set(own) and metadata["note"] == "two steps"
    settings = json.loads(metadata["field"])
    assert settings.keys() == {field.name for field in dataclasses.fields(KeypointIconFieldConfig)} - {"_target"}
    rebuilt = KeypointIconFieldConfig(**settings).setup(num_keypoints=len(BODY_KEYPOINTS))
    rebuilt.load_state_dict(weights)
    for key, value in weights.items():
        torch.testing.assert_close(value, own[key].cpu(), atol=1e-3, rtol=1e-3)


@pytest.mark.extra("anny")
def test_the_network_that_comes_with_the_suite(tmp_path: Path) -> None:
    """Somebody whom it has never seen is about as tall as in truth, and as voluminous as people are."""
    folder, mesh = tmp_path / "photos", tmp_path / "person.ply"
    Person(folder, number=0, views="0,1", cameras=8, size=128).main()
    options = dict(mask=folder / "masks/00.png", resolution=65, sheet=False, turntable=False)
    Reconstruct(folder / "images/00.png", mesh, keypoints=folder / "transforms.json", **options).main()
    points = np.array(json.loads((folder / "transforms.json").read_text())["keypoints3d"])
    shape = trimesh.load(mesh)
    assert 0 < np.ptp(shape.bounds[:, 2]) - np.ptp(points[:, 2]) < 0.4
    assert 0.03 < shape.volume < 0.2


@pytest.mark.extra("anny")
def test_photos_of_a_fitted_capture_bring_its_joints(tmp_path: Path) -> None:
    """A drawn person in the layout of a capture, whose exact body stands for a fit."""
    scene = human_scene(HumanSceneOptions(2, 3, 96, 30.0))
    write_human_scene(scene, tmp_path / "capture")
    layout = read_layout(tmp_path / "capture")
    write_body(read_zju_body(layout, "auto", range(2)), tmp_path / "body.npz")
    FromFit(tmp_path / "capture", tmp_path / "body.npz", tmp_path / "photos", frame=1).main()
    names = tuple(BODY_KEYPOINTS)
    for number in range(3):
        photo = tmp_path / f"photos/images/{number:02d}.png"
        found, _ = read_photo(
            photo, tmp_path / "photos/transforms.json", tmp_path / f"photos/masks/{number:02d}.png", names, 64
        )
        places = found.camera.project(found.camera.local(found.keypoints))
        near = torch.nn.functional.max_pool2d(found.mask, 5, 1, 2)
        seen = torch.nn.functional.grid_sample(near, places[:, None], align_corners=False)
        assert float((seen > 0.5).float().mean()) > 0.9
    with pytest.raises(InputError, match="share the frames 0 to 1"):
        FromFit(tmp_path / "capture", tmp_path / "body.npz", tmp_path / "other", frame=2).main()
