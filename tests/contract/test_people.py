"""What methods that know many people do: one of them through stock commands, and somebody else from photographs."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Callable, Tuple

import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.scripts import render
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.utils.eval_utils import eval_setup

from method_configs.keypoint_nerf import tiny_field
from nerfstudio_ext.cli.condition import Condition, Weights
from nerfstudio_ext.cli.data import Person
from nerfstudio_ext.cli.export import ExportMesh
from nerfstudio_ext.cli.human import Make
from nerfstudio_ext.cli.photos import Orbit, Photos
from nerfstudio_ext.engine.checkpoints import relocate_run
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.weights import read_safetensors, write_safetensors
from nerfstudio_ext.fields import keypoint_nerf_field
from nerfstudio_ext.human.body_model import anny_keypoints
from nerfstudio_ext.human.body_motion import read_body
from nerfstudio_ext.human.keypoints import SKELETONS
from nerfstudio_ext.human.zju_layout import read_layout
from nerfstudio_ext.procedural.face import FACE_KEYPOINTS
from nerfstudio_ext.procedural.person import BODY_KEYPOINTS
from tests.contract.registered import PEOPLE_METHODS
from tests.contract.runs import SIDE, TEST_VIEWS, TRAIN_VIEWS, Run, tiny_config, train
from tests.contract.test_commands import pictures
from tests.contract.test_reload import change_checkpoint

TINY = [name for name in PEOPLE_METHODS if name.endswith("-tiny")]
POSE = [[0.0, 0.0, 1.0, 2.8], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture
def run(name: str, device: str, trained: Callable[[str, str], Run]) -> Run:
    return trained(name, device)


@pytest.fixture
def solid(run: Run, tmp_path: Path) -> Path:
    """The run's config.yml, with everything in the hull of the masks opaque: two steps make nothing so."""
    moved = Path(shutil.copytree(run.folder, tmp_path / "solid"))
    change_checkpoint(moved, lambda state: state["_model.field.density_head.bias"].fill_(60.0))
    return relocate_run(moved)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs of somebody whom no run has seen."""
    Person(tmp_path / "photos", number=1, views="0,1,3", cameras=4, size=2 * SIDE).main()
    return tmp_path / "photos"


@pytest.mark.parametrize("name", PEOPLE_METHODS)
def test_render_dataset(run: Run, opened, device: str, tmp_path: Path) -> None:
    render.DatasetRender(run.config_path, tmp_path, image_format="png").main()
    names = {"rgb", "gt-rgb", "accumulation", "depth", "sources"}
    assert {folder.name for folder in (tmp_path / "test").iterdir()} >= names
    dataset = opened(run.name, device).datamanager.eval_dataset
    source = [dataset.get_numpy_image(k) for k in range(TEST_VIEWS)]
    assert np.array_equal(pictures(tmp_path / "test" / "gt-rgb"), np.stack(source))


@pytest.mark.parametrize("name", TINY)
def test_render_camera_path(run: Run, tmp_path: Path) -> None:
    key = {"camera_to_world": [v for row in POSE for v in row], "fov": 46, "aspect": 1.0}
    sizes = {"render_height": SIDE, "render_width": SIDE, "camera_type": "perspective"}
    (tmp_path / "path.json").write_text(json.dumps({**sizes, "seconds": 1.0, "fps": 2, "camera_path": [key, key]}))
    options = dict(camera_path_filename=tmp_path / "path.json", output_format="images", image_format="png")
    render.RenderCameraPath(run.config_path, tmp_path / "clip.mp4", **options).main()
    one, other = pictures(tmp_path / "clip")
    assert np.array_equal(one, other) and one.shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("kind", ["interpolate", "spiral"])
def test_other_renders(run: Run, kind: str, tmp_path: Path) -> None:
    if kind == "interpolate":
        options = dict(interpolation_steps=2, output_format="images", image_format="png")
        render.RenderInterpolated(run.config_path, tmp_path / "clip.mp4", **options).main()
        assert len(pictures(tmp_path / "clip")) == 2 * (TEST_VIEWS - 1)
    else:
        render.SpiralRender(run.config_path, tmp_path / "clip.mp4", seconds=0.2, frame_rate=10).main()
        assert (tmp_path / "clip.mp4").stat().st_size > 0


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
def test_mesh_is_a_person_in_metres(solid: Path, tmp_path: Path) -> None:
    ExportMesh(solid, tmp_path / "mesh.ply", resolution=48).main()
    low, high = trimesh.load(tmp_path / "mesh.ply").bounds
    assert 1.2 < high[2] - low[2] < 2.4


@pytest.mark.parametrize("name", TINY)
def test_people_to_test_with_stay_out_of_training(name: str, device: str, opened) -> None:
    manager = opened(name, device).datamanager
    assert len(manager.train_dataset) == TRAIN_VIEWS and len(manager.eval_dataset) == TEST_VIEWS
    parts = [manager.dataparser.get_dataparser_outputs(split) for split in ("train", "test")]
    of = [{index for index, _ in part.metadata["views"]} for part in parts]
    assert not of[0] & of[1]
    shown = {index for index, _ in manager.train_dataset.metadata["views"]}
    assert shown <= of[1], "opened for rendering, the frames around the scene are of the person that is shown"


@pytest.mark.parametrize("name", TINY)
def test_photographs_make_a_run_like_any_other(solid: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    """ns-eval, ns-render and a mesh of a derived run, from another directory."""
    Condition(solid.parent, photos=photos, output=tmp_path / "derived", sources="0,2").main()
    config = tmp_path / "derived" / "config.yml"
    monkeypatch.chdir(tmp_path)
    ComputePSNR(config, tmp_path / "scores.json").main()
    assert json.loads((tmp_path / "scores.json").read_text())["results"]["mask_iou"] > 0.3
    render.RenderInterpolated(config, tmp_path / "clip.mp4", pose_source="train", interpolation_steps=2).main()
    assert (tmp_path / "clip.mp4").stat().st_size > 0
    ExportMesh(config, tmp_path / "mesh.ply", resolution=24).main()
    assert len(trimesh.load(tmp_path / "mesh.ply").faces) > 20
    _, pipeline, _, _ = eval_setup(config, test_mode="inference")
    assert pipeline.model.shown == (0, (0, 2))
    before = eval_setup(solid)[1]
    for key, value in before.model.field.state_dict().items():
        assert torch.equal(pipeline.model.field.state_dict()[key], value), key


@pytest.mark.parametrize("name", TINY)
def test_photographs_of_several_people(solid: Path, photos: Path, tmp_path: Path, capsys) -> None:
    """A folder for each, with more photos of one than of the other: both are scored, and either is filmed."""
    shutil.move(photos, tmp_path / "all" / "anna")
    Person(tmp_path / "all" / "ben", number=0, views="0,3", cameras=4, size=2 * SIDE).main()
    derived = tmp_path / "derived"
    Condition(solid.parent, photos=tmp_path / "all", folders="people", output=derived, sources="2").main()
    pipeline = eval_setup(derived / "config.yml")[1]
    assert not pipeline.datamanager.includes_time and len(pipeline.model.moments) == 1
    assert [index for index, _ in pipeline.datamanager.eval_dataset.metadata["views"]] == [0, 1, 1]
    Orbit(derived, tmp_path / "ben.mp4", pictures=2, size=SIDE, person=1).main()
    assert "2 pictures" in capsys.readouterr().out
    with pytest.raises(InputError, match="no person 2"):
        Orbit(derived, tmp_path / "none.mp4", person=2).main()


@pytest.mark.parametrize("name", TINY)
def test_photographs_become_a_point_cloud(solid: Path, photos: Path, exporter: ModuleType, tmp_path: Path) -> None:
    Condition(solid.parent, photos=photos, output=tmp_path / "derived").main()
    options = dict(num_points=200, remove_outliers=False, normal_method="open3d", save_world_frame=True)
    exporter.ExportPointCloud(tmp_path / "derived" / "config.yml", tmp_path, **options).main()
    assert len(trimesh.load(tmp_path / "point_cloud.ply").vertices) >= 200


@pytest.fixture
def recording(tmp_path: Path) -> Tuple[Path, Path]:
    """A drawn person who walks, two frames in the layout of ZJU-MoCap, and what a detector would find in it."""
    Make(tmp_path / "walk", frames=2, cameras=4, size=64).main()
    layout = read_layout(tmp_path / "walk")
    vertices = read_body(tmp_path / "walk" / "body.npz").vertices
    found = np.zeros((4, 2, len(SKELETONS["body25b"]), 3))
    for k, name in enumerate(SKELETONS["body25b"]):
        if name in anny_keypoints():
            points = (anny_keypoints()[name] @ vertices).double().numpy()
            found[:, :, k, :2] = [camera.project(points) for camera in layout.cameras]
            found[:, :, k, 2] = 1.0
    np.savez(tmp_path / "found.npz", kpts2d=found)
    return tmp_path / "walk", tmp_path / "found.npz"


@pytest.mark.slow
@pytest.mark.extra("anny")
@pytest.mark.parametrize("name", TINY)
def test_a_recording_becomes_a_film_of_an_unseen_person(solid: Path, recording, tmp_path: Path, capsys) -> None:
    """From 2-D key points to an orbit in which time passes; every moment is made from its own photos."""
    data, found = recording
    photos, derived = tmp_path / "moments", tmp_path / "derived"
    Photos(data, photos, frames=(0, 1), keypoints=found, skeleton="body25b", steps=60).main()
    assert (photos / "000001" / "overlay.jpg").is_file()
    Condition(solid.parent, photos=photos, output=derived, sources="0,1,3").main()
    Orbit(derived, tmp_path / "orbit.mp4", pictures=4, size=SIDE).main()
    assert "4 pictures" in capsys.readouterr().out and (tmp_path / "orbit.mp4").stat().st_size > 0
    pipeline = eval_setup(derived / "config.yml")[1]
    assert pipeline.datamanager.includes_time, "the viewer has a slider"
    assert [len(views) for views in (pipeline.datamanager.train_dataset, pipeline.datamanager.eval_dataset)] == [4, 2]
    keypoints = [pipeline.model._store.subject(k).keypoints for k in (0, 1)]
    assert float((keypoints[0] - keypoints[1]).norm(dim=-1).mean()) > 0.1, "the person has turned"
    body = read_body(data / "body.npz").vertices
    for moment, points in enumerate(keypoints):
        assert float(torch.cdist(points, body[moment]).amin(1).max()) < 0.15, "joints are inside the true body"
    with pytest.raises(InputError, match="none of the 2 moments"):
        Orbit(derived, tmp_path / "orbit.mp4", freeze=2).main()
    with pytest.raises(InputError, match="none of the 2 frames"):
        Photos(data, tmp_path / "none", frames=(0, 2), keypoints=found, skeleton="body25b").main()


@pytest.mark.parametrize("name", TINY)
def test_weights_are_cut_out_in_half_precision(run: Run, tmp_path: Path) -> None:
    Weights(run.folder, tmp_path / "w.safetensors", note="two steps").main()
    tensors, metadata = read_safetensors(tmp_path / "w.safetensors")
    state = torch.load(run.checkpoint, map_location="cpu")["pipeline"]
    assert metadata["note"] == "two steps" and metadata["keypoints"].count(",") == 23
    for name, value in tensors.items():
        assert torch.equal(value, state[f"_model.field.{name}"].half().float())
    with pytest.raises(InputError, match="that ending"):
        Weights(run.folder, tmp_path / "w.bin").main()


@pytest.mark.parametrize("name", TINY)
def test_wrong_conditions_are_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not empty"):
        Condition(run.folder, photos=photos, output=photos).main()
    with pytest.raises(InputError, match="two views at least"):
        Condition(run.folder, photos=photos, output=tmp_path / "out", sources="1").main()
    with pytest.raises(InputError, match="not a trained run"):
        Condition(tmp_path / "none", photos=photos, output=tmp_path / "out").main()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.extra("anny")
@pytest.mark.parametrize("name", TINY)
def test_a_network_of_faces_knows_its_keypoints(name: str, device: str, photos: Path, tmp_path: Path) -> None:
    """Trained on close-ups; a face in photographs makes a run of it, a whole person does not, nor the other way."""
    config = tiny_config(name, tmp_path / "runs", device=device)
    config.pipeline.datamanager.dataparser.subjects = "faces"
    run = train(config)
    assert run.losses and torch.isfinite(torch.tensor(run.losses)).all()
    names = torch.load(run.checkpoint, map_location="cpu")["pipeline"]["_model.keypoint_set"]
    assert bytes(names.tolist()).decode().split(",") == list(FACE_KEYPOINTS)
    Person(tmp_path / "face", views="3", cameras=4, size=2 * SIDE, subjects="faces").main()
    Condition(run.folder, photos=tmp_path / "face", output=tmp_path / "derived", sources="0,1").main()
    ComputePSNR(tmp_path / "derived" / "config.yml", tmp_path / "scores.json").main()
    assert json.loads((tmp_path / "scores.json").read_text())["results"]["psnr"] > 0
    with pytest.raises(InputError, match="trained with: left_eye_outer"):
        Condition(run.folder, photos=photos, output=tmp_path / "wrong").main()
    with pytest.raises(InputError, match="trained with: pelvis"):
        Condition(Path("default"), photos=tmp_path / "face", output=tmp_path / "wrong").main()


@pytest.mark.extra("anny")
def test_weights_that_come_with_the_suite(photos: Path, tmp_path: Path, monkeypatch) -> None:
    """A file in the place of the shipped weights is what `default` shows people with; without one it says so."""
    monkeypatch.setattr(keypoint_nerf_field, "DEFAULT_WEIGHTS", tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"no trained weights at .*w\.safetensors"):
        Condition(Path("default"), photos=photos, output=tmp_path / "derived").main()
    field = tiny_field.setup(num_keypoints=len(BODY_KEYPOINTS))
    write_safetensors(field.state_dict(), tmp_path / "w.safetensors", {"keypoints": ",".join(BODY_KEYPOINTS)})
    Condition(Path("default"), photos=photos, output=tmp_path / "derived").main()
    pipeline = eval_setup(tmp_path / "derived" / "config.yml")[1]
    for key, value in pipeline.model.field.state_dict().items():
        assert torch.equal(value.cpu(), field.state_dict()[key].half().float()), key
