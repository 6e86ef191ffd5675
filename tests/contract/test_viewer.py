"""What nerfstudio's viewer expects of a method, without a browser: test_browser has one."""

import threading
import time
from dataclasses import replace
from itertools import pairwise
from typing import Callable, Iterator

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils import colormaps
from nerfstudio.viewer.utils import CameraState, get_camera, parse_object
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerElement

from dataparsers.video_frames import SCREEN_CAMERA_TO_WORLD
from nerfstudio_ext.human.body_motion import write_body
from tests.contract.registered import HUMAN_METHODS, METHODS, VIDEO_METHODS
from tests.contract.runs import FRAMES, LEARNED, Run, free_port


def viewer_camera(time: float):
    """A camera as the viewer makes it of what the browser reports."""
    return get_camera(CameraState(1.0, 1.5, SCREEN_CAMERA_TO_WORLD, CameraType.PERSPECTIVE, time), 60, 90)


@pytest.mark.parametrize("name", METHODS)
def test_outputs(name: str, device: str, opened: Callable[[str, str], Pipeline]) -> None:
    pipeline = opened(name, device)
    outputs = pipeline.model.get_outputs_for_camera(camera=viewer_camera(0.4).to(pipeline.device), obb_box=None)
    assert list(outputs)[:3] == ["rgb", "accumulation", "depth"], "the viewer shows the first output"
    for key, value in outputs.items():
        single = ("accumulation", "depth", "error", "prototype_entropy")
        assert value.shape == (60, 90, 1 if key in single else 3), key
        assert value.dtype == torch.float32 and torch.isfinite(value).all()
        assert colormaps.apply_colormap(value).shape == (60, 90, 3)


@pytest.mark.parametrize("name", METHODS)
def test_viewer_binds_to_loopback(name: str, all_methods) -> None:
    assert all_methods[name].viewer.websocket_host == "127.0.0.1"


@pytest.mark.parametrize("name", METHODS)
def test_walk_over_attributes(name: str, device: str, opened: Callable[[str, str], Pipeline]) -> None:
    """The viewer reads every public attribute at its start: none may raise, and none may decode or train anything."""
    pipeline = opened(name, device)
    start = time.perf_counter()
    elements = {path.split("/")[-1]: element for path, element in parse_object(pipeline, ViewerElement, "Custom")}
    assert time.perf_counter() - start < 1
    if name not in VIDEO_METHODS:
        return
    assert {"frame", "play"} <= elements.keys()
    assert (elements["frame"].min, elements["frame"].max, elements["frame"].step) == (0, FRAMES - 1, 1)
    assert parse_object(pipeline, ViewerControl, "Custom")


@pytest.fixture(scope="module")
def open_viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Run], Viewer]]:
    viewers = []

    def build(run: Run) -> Viewer:
        config = ViewerConfig(websocket_host="127.0.0.1", websocket_port=free_port())
        folder = tmp_path_factory.mktemp("viewer")
        # A lock is what the trainer gives it, too: controls are called under it, renders wait for it.
        viewer = Viewer(config, folder / "viewer.log", folder, run.open(), train_lock=threading.Lock())
        viewers.append(viewer)
        return viewer

    yield build
    for viewer in viewers:
        viewer.viser_server.stop()


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something holds within some seconds: viser calls back from threads of its own."""
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


class _Person:
    """The event that viser hands to callbacks when somebody has moved a control in a browser."""

    client_id = 0


@pytest.mark.parametrize("name", LEARNED)
def test_frame_and_time_move_each_other(name: str, learned: Callable[[str], Run], open_viewer) -> None:
    viewer = open_viewer(learned(name))
    model, time_slider = viewer.pipeline.model, viewer.control_panel._time
    controls = model.frame_controls
    last = model._num_frames - 1

    def shown() -> int:
        (frame,) = model.frame_indices(viewer_camera(viewer.control_panel.time)).tolist()
        return frame

    for frame in (2, 1, last, 0):
        controls.frame.value = frame
        assert eventually(lambda frame=frame: shown() == frame)
    for position in (0.99, 0.4, 0.01):
        handle = time_slider.gui_handle
        handle._impl.value = position
        for callback in handle._impl.update_cb:
            callback(_Person)
        frame = round(position * last)
        assert eventually(lambda frame=frame: controls.frame.value == frame)
        time.sleep(0.1)  # callbacks of the frame slider come from another thread
        assert shown() == frame and time_slider.value == position, "a slider that a person holds must not jump"


@pytest.mark.parametrize("name", [name for name in HUMAN_METHODS if name.endswith("-tiny")])
def test_poses_come_from_a_source(name: str, device: str, trained: Callable[[str, str], Run], open_viewer, tmp_path):
    """What is chosen in the panel is shown, the viewer is asked to render anew, and mistakes are told beside it."""
    viewer = open_viewer(trained(name, device))
    model = viewer.pipeline.model
    model.field.density_head.bias.data.fill_(60.0)  # two steps make nothing dense
    controls, asked = model.pose_controls, []
    viewer._trigger_rerender = lambda: asked.append(controls.source.value)
    camera = viewer_camera(0.0).to(model.device)

    def shown() -> np.ndarray:
        return model.get_outputs_for_camera(camera)["body"].cpu().numpy()

    captured = shown()
    controls.source.value = "rest"
    assert eventually(lambda: controls.status.value == "at rest") and eventually(lambda: "rest" in asked)
    assert model.num_frames == 1 and np.abs(shown() - captured).max() > 0.1
    controls.source.value = "motion file"
    assert eventually(lambda: controls.status.value == "Name the motion file.")
    assert model.num_frames == 1, "what was shown stays"
    write_body(replace(model._captured, vertices=model._captured.vertices + 0.2), tmp_path / "moved.npz")
    controls.motion.value = str(tmp_path / "moved.npz")
    assert eventually(lambda: controls.status.value == "2 frames of moved.npz")
    moved = shown()
    controls.source.value = "captured"
    assert eventually(lambda: controls.status.value == "2 captured frames")
    assert np.array_equal(shown(), captured) and np.abs(moved - captured).max() > 0.1


@pytest.mark.parametrize("name", LEARNED[:1])
def test_playback_runs_and_stops(name: str, learned: Callable[[str], Run], open_viewer) -> None:
    viewer = open_viewer(learned(name))
    controls = viewer.pipeline.model.frame_controls
    seen = set()
    controls.play.value = True
    assert eventually(lambda: seen.add(int(controls.frame.value)) or len(seen) == viewer.pipeline.model._num_frames)
    controls.play.value = False
    assert eventually(lambda: controls._stop.is_set())
    time.sleep(0.1)
    resting = controls.frame.value
    time.sleep(1)  # two frames at the clip's speed
    assert controls.frame.value == resting


@pytest.mark.parametrize("name", LEARNED)
def test_what_the_viewer_renders_changes_with_time(name: str, learned: Callable[[str], Run]) -> None:
    model = learned(name).open().model
    pictures = [
        model.get_outputs_for_camera(viewer_camera(t).to(model.device))["rgb"].cpu().numpy() for t in (0.0, 0.5, 1.0)
    ]
    assert all(np.abs(one - other).mean() > 0.02 for one, other in pairwise(pictures))
