"""Every stock command, on every preset, does what the support matrix says: it works, or refuses in one sentence."""

import _thread
import json
import math
import sys
import threading
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, List

import av
import numpy as np
import pytest
from nerfstudio.scripts import render
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.viewer.run_viewer import RunViewer, ViewerConfigWithoutNumRays
from PIL import Image

from dataparsers.video_frames import SCREEN_CAMERA_TO_WORLD
from nerfstudio_ext.engine.errors import install_excepthook
from tests.contract.registered import METHODS, RAY_METHODS, SURFACE_METHODS, VIDEO_METHODS
from tests.contract.runs import (
    FRAMES,
    HEIGHT,
    LEARNED,
    TEST_VIEWS,
    TRAIN_VIEWS,
    WIDTH,
    Run,
    free_port,
    nearest_frames,
)
from tests.contract.support_matrix import COMMANDS, REFUSES, support

GetRun = Callable[[str, str], Run]


@pytest.fixture
def run(name: str, device: str, trained: GetRun) -> Run:
    return trained(name, device)


def camera_path(times: List[float], with_time: bool = True) -> Dict[str, Any]:
    """A path as the viewer saves it, standing at the dataset camera and running through these times."""
    pose = [*SCREEN_CAMERA_TO_WORLD.flatten().tolist(), 0.0, 0.0, 0.0, 1.0]
    fov = math.degrees(2 * math.atan(HEIGHT / WIDTH / 2))
    keys = [{"camera_to_world": pose, "fov": fov, "aspect": WIDTH / HEIGHT} for _ in times]
    if with_time:
        keys = [{**key, "render_time": time} for key, time in zip(keys, times)]
    sizes = {"render_height": HEIGHT, "render_width": WIDTH, "camera_type": "perspective"}
    return {**sizes, "seconds": 1.0, "fps": len(times), "camera_path": keys}


def pictures(folder: Path) -> np.ndarray:
    """PNG files of a folder in the order of their names, [files, height, width, 3], 0 to 255."""
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]).astype(int)


def decoded(pipeline, frames: List[int]) -> np.ndarray:
    """What the network decodes, as `pictures` returns it."""
    return np.stack([(pipeline.model.decode_frame(k).permute(1, 2, 0).cpu().numpy() * 255) for k in frames])


@pytest.mark.parametrize("name", METHODS)
def test_eval_writes_strict_json(run: Run, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    ComputePSNR(run.config_path, tmp_path / "scores.json", tmp_path / "pictures").main()
    scores = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    results = scores["results"]
    assert scores["method_name"] == run.name
    assert {"psnr", "psnr_8bit", "ssim", "ms_ssim", "fps", "num_rays_per_sec"} <= results.keys()
    if run.name in VIDEO_METHODS:
        assert results["num_stored"] == results["num_decoder"] + results["num_embeddings"] > 0
        assert results["decode_fps"] > 0
    else:
        assert {"psnr_masked", "mask_iou", "depth_error", "num_parameters"} <= results.keys()
        assert "ssim_masked" in results
    assert ("normal_error" in results) == ("chamfer" in results) == (run.name in SURFACE_METHODS)
    assert abs(results["psnr"] - results["psnr_8bit"]) < 0.1
    assert all(f"{key}_std" in results for key in ("psnr", "ssim", "ms_ssim"))
    written = FRAMES if run.name in VIDEO_METHODS else 2 * TEST_VIEWS
    assert len(list((tmp_path / "pictures").glob("*.png"))) == written


@pytest.mark.parametrize("name", VIDEO_METHODS)
def test_render_dataset(run: Run, opened, device: str, tmp_path: Path) -> None:
    render.DatasetRender(run.config_path, tmp_path, image_format="png").main()
    pipeline = opened(run.name, device)
    assert {folder.name for folder in (tmp_path / "test").iterdir()} >= {"rgb", "gt", "error", "accumulation", "depth"}
    assert np.abs(pictures(tmp_path / "test" / "rgb") - decoded(pipeline, list(range(FRAMES)))).max() <= 1
    source = pipeline.datamanager.eval_dataset.frames
    for folder in ("gt", "gt-rgb"):
        assert np.array_equal(pictures(tmp_path / "test" / folder), np.stack([source[k] for k in range(FRAMES)]))


@pytest.mark.parametrize("name", VIDEO_METHODS)
def test_render_camera_path_in_time(run: Run, opened, device: str, tmp_path: Path) -> None:
    order = [FRAMES - 1, 0, 2, 2, 1]
    path = tmp_path / "path.json"
    path.write_text(json.dumps(camera_path([k / (FRAMES - 1) for k in order])))
    output = tmp_path / "clip.mp4"
    options = dict(camera_path_filename=path, output_format="images", image_format="png")
    render.RenderCameraPath(run.config_path, output, **options).main()
    assert np.abs(pictures(tmp_path / "clip") - decoded(opened(run.name, device), order)).max() <= 1


@pytest.mark.parametrize("name", LEARNED)
def test_rendered_video_plays_in_order(name: str, device: str, learned: Callable[[str], Run], tmp_path: Path) -> None:
    run = learned(name)
    clip = run.open().datamanager.train_dataset.frames
    source = np.stack([clip[k] for k in range(len(clip))])
    order = [*reversed(range(len(clip))), 0, 2]
    path = tmp_path / "path.json"
    path.write_text(json.dumps(camera_path([k / (len(clip) - 1) for k in order])))
    render.RenderCameraPath(run.config_path, tmp_path / "clip.mp4", camera_path_filename=path).main()
    with av.open(str(tmp_path / "clip.mp4")) as video:
        assert video.streams.video[0].average_rate == len(order)  # the path asks for one second
        played = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    assert nearest_frames(played, source) == order


@pytest.mark.parametrize("name", VIDEO_METHODS)
def test_render_camera_path_without_time(run: Run, opened, device: str, tmp_path: Path) -> None:
    path = tmp_path / "path.json"
    path.write_text(json.dumps(camera_path([0.0, 0.5, 1.0], with_time=False)))
    options = dict(camera_path_filename=path, output_format="images", image_format="png")
    render.RenderCameraPath(run.config_path, tmp_path / "clip.mp4", **options).main()
    assert np.abs(pictures(tmp_path / "clip") - decoded(opened(run.name, device), [0, 0, 0])).max() <= 1


@pytest.mark.parametrize("name", VIDEO_METHODS)
def test_render_interpolate(run: Run, opened, device: str, tmp_path: Path) -> None:
    options = dict(interpolation_steps=2, output_format="images", image_format="png")
    render.RenderInterpolated(run.config_path, tmp_path / "clip.mp4", **options).main()
    rendered = pictures(tmp_path / "clip")
    first = decoded(opened(run.name, device), [0])
    # The poses between equal cameras are equal up to rounding, and the stock command drops time.
    assert len(rendered) == 2 * (FRAMES - 1)
    assert np.abs(rendered - first).max() <= 2


@pytest.mark.parametrize("name", [name for name in RAY_METHODS if name.endswith("-tiny")])
@pytest.mark.parametrize("kind", ["interpolate", "spiral"])
def test_render_between_and_around_views(run: Run, kind: str, tmp_path: Path) -> None:
    if kind == "interpolate":
        options = dict(interpolation_steps=2, output_format="images", image_format="png")
        render.RenderInterpolated(run.config_path, tmp_path / "clip.mp4", **options).main()
        assert len(pictures(tmp_path / "clip")) == 2 * (TEST_VIEWS - 1)
    else:
        render.SpiralRender(run.config_path, tmp_path / "clip.mp4", seconds=0.2, frame_rate=10).main()
        assert (tmp_path / "clip.mp4").stat().st_size > 0


@pytest.mark.parametrize("name", METHODS)
def test_export_cameras(run: Run, exporter: ModuleType, tmp_path: Path) -> None:
    exporter.ExportCameraPoses(run.config_path, tmp_path).main()
    counts = {"train": TRAIN_VIEWS, "eval": TEST_VIEWS}
    for split in ("train", "eval"):
        poses = json.loads((tmp_path / f"transforms_{split}.json").read_text())
        assert len(poses) == (FRAMES if run.name in VIDEO_METHODS else counts[split])


@pytest.mark.parametrize("name", METHODS)
def test_viewer_opens_the_run(run: Run, tmp_path: Path) -> None:
    """ns-viewer until its page is served; it ends as a person ends it."""
    served: List[int] = []

    def visit(port: int) -> None:
        try:
            for _ in range(1200):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as page:
                        served.append(page.status)
                    return
                except OSError:
                    threading.Event().wait(0.05)
        finally:
            _thread.interrupt_main()

    port = free_port()
    viewer = ViewerConfigWithoutNumRays(websocket_host="127.0.0.1", websocket_port=port)
    visitor = threading.Thread(target=visit, args=(port,))
    visitor.start()
    with pytest.raises(KeyboardInterrupt):
        RunViewer(run.config_path, viewer).main()
    visitor.join()
    assert served == [200]


def _export(kind: str, **options) -> Callable[[ModuleType, Path, Path], Any]:
    return lambda exporter, config, out: getattr(exporter, kind)(config, out, **options)


REFUSING: Dict[str, List[Callable[[ModuleType, Path, Path], Any]]] = {
    "ns-render spiral": [lambda exporter, config, out: render.SpiralRender(config, out / "spiral.mp4")],
    "ns-export pointcloud": [_export("ExportPointCloud"), _export("ExportPointCloud", normal_method="open3d")],
    "ns-export poisson": [_export("ExportPoissonMesh"), _export("ExportPoissonMesh", normal_method="open3d")],
    "ns-export tsdf": [_export("ExportTSDFMesh", resolution=[4, 4, 4])],
    "ns-export marching-cubes": [_export("ExportMarchingCubesMesh")],
    "ns-export gaussian-splat": [_export("ExportGaussianSplat")],
}


@pytest.mark.parametrize(
    "name, command", [(n, c) for n in METHODS for c in REFUSING if support(n, c, "cpu") == REFUSES]
)
def test_refusal_is_one_sentence(
    name: str, command: str, device: str, trained: GetRun, exporter: ModuleType, tmp_path: Path, capsys
) -> None:
    install_excepthook()
    for build in REFUSING[command]:
        with pytest.raises(Exception) as refusal:
            build(exporter, trained(name, device).config_path, tmp_path).main()
        capsys.readouterr()
        # What Python does with an exception that nobody catches.
        sys.excepthook(refusal.type, refusal.value, refusal.tb)
        said = capsys.readouterr().err
        assert said.startswith("Error: ") and said.count("\n") == 1, said
        assert "Traceback" not in said


def test_every_command_is_tried() -> None:
    """A command that the matrix gains must gain a test here."""
    tried = {
        "ns-train",
        "ns-viewer",
        "ns-eval",
        "ns-render dataset",
        "ns-render camera-path",
        "ns-render interpolate",
        "ns-export cameras",
    }
    assert tried | set(REFUSING) == set(COMMANDS)
