"""Fixtures of the whole suite: seeds, small real clips, the shared data, the registered presets, a browser."""

import importlib.util
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Callable, Dict, Iterator, Tuple

import av
import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Importing the host starts worker processes of torch's compiler; nothing here compiles.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# Tiny networks gain nothing from more, and the suite shares its machine.
torch.set_num_threads(min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
# A suite started in the background inherits an ignored Ctrl-C, and so would the commands that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with a reason, what this machine cannot run."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for marker in item.iter_markers("extra"):
        if importlib.util.find_spec(marker.args[0]) is None:
            if item.get_closest_marker("browser") and os.environ.get("NS_EXT_REQUIRE_BROWSER"):
                pytest.fail(f"the browser test is required here and needs {marker.args[0]}")
            pytest.skip(f"needs the optional package {marker.args[0]}")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep frame caches of the tests, and of the commands they start, out of the user's cache."""
    os.environ["NERFSTUDIO_EXT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A Ray of this machine with one core, without dashboard; for tests that carry `extra("ray")`."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_agent_register_timeout_ms", "30000")  # half of that crashes it on a busy machine
        patch.setenv("RAY_worker_niceness", "0")  # Ray's own 15 waits for everybody else on a busy machine
        patch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)  # what is tested, whatever is installed
        try:
            ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
        except Exception as error:  # of no class of its own
            if "timed out" not in str(error):
                raise
            pytest.skip("Ray did not start within its 30 seconds; the machine is too busy")
    yield
    ray.shutdown()


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Writer of small real videos: `make_clip("name.mp4", frames=8, size=(48, 80), fps=10)` returns the path.

    A bright square moves over a gradient, so that frames differ and their order can be told.
    """

    def write(name: str = "clip.mp4", frames: int = 8, size: Tuple[int, int] = (48, 80), fps: int = 10) -> Path:
        path = tmp_path / name
        height, width = size
        rows, columns = np.mgrid[:height, :width]
        side = max(2, min(size) // 4)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "10"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for index in range(frames):
                image = np.stack([255 * rows / height, 255 * columns / width, 0 * rows + 64], axis=-1).astype(np.uint8)
                left = index * (width - side) // max(1, frames - 1)
                image[height // 2 : height // 2 + side, left : left + side] = 250
                for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        return path

    return write


@pytest.fixture
def tiny_clip(make_clip: Callable[..., Path]) -> Path:
    """An H.264 mp4 of 8 frames, 48 x 80 pixels (height, width), 10 frames per second."""
    return make_clip()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs beside a developer's checkout; skips only where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the shared data folder beside the checkout")
    return folder


@pytest.fixture(scope="session")
def all_methods() -> Dict:
    """Every registered method of host and plugins: name -> TrainerConfig. Copy before you change one."""
    from nerfstudio.configs.method_configs import all_methods

    return all_methods


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the system's Chromium. CI sets NS_EXT_REQUIRE_BROWSER, so that there a missing browser fails."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    message = "no Chromium on PATH (Debian: apt-get install chromium)"
    if os.environ.get("NS_EXT_REQUIRE_BROWSER"):
        pytest.fail(message)
    pytest.skip(message)
