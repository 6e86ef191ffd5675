"""What the contract tests share: every preset trained once per session, on the devices that are there."""

import os
from pathlib import Path
from types import ModuleType
from typing import Callable, Dict, Iterator, Tuple

import pytest
import torch
from nerfstudio.pipelines.base_pipeline import Pipeline

from nerfstudio_ext.engine.host import ensure_ffmpeg
from tests.contract.offline import network_blocked
from tests.contract.runs import Run, tiny_config, train


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are quicker on one thread, by far so when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _offline() -> Iterator[None]:
    """No contract test may reach for the network."""
    with network_blocked() as tried:
        yield
    assert not tried


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a test trains and opens runs; nerfstudio's commands take CUDA when it is there, so "cpu" hides it."""
    if request.param == "cpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield request.param


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Run]:
    """`trained(name, device)`: the preset's run of two steps. Do not change its folder."""
    runs: Dict[Tuple[str, str], Run] = {}

    def get(name: str, device: str) -> Run:
        if (name, device) not in runs:
            ensure_ffmpeg()
            folder: Path = tmp_path_factory.mktemp(f"{name}-{device}")
            runs[name, device] = train(tiny_config(name, folder, device=device))
        return runs[name, device]

    return get


@pytest.fixture(scope="session")
def opened(trained: Callable[[str, str], Run]) -> Callable[[str, str], Pipeline]:
    """`opened(name, device)`: that run as ns-eval opens it. Do not change its weights."""
    pipelines: Dict[Tuple[str, str], Pipeline] = {}

    def get(name: str, device: str) -> Pipeline:
        if (name, device) not in pipelines:
            pipelines[name, device] = trained(name, device).open()
        return pipelines[name, device]

    return get


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """`learned(name)`: a run that has learned four very different frames well enough to tell them apart."""
    runs: Dict[str, Run] = {}

    def get(name: str) -> Run:
        if name not in runs:
            ensure_ffmpeg()
            config = tiny_config(name, tmp_path_factory.mktemp(f"{name}-learned"), steps=80)
            parser = config.pipeline.datamanager.dataparser
            parser.procedural_frames, parser.frame_step = 48, 12
            for group in config.optimizers.values():
                group["optimizer"].lr *= 1.5  # a preset's own rate is for hundreds of steps
            runs[name] = train(config)
        return runs[name]

    return get


@pytest.fixture(scope="session")
def exporter() -> ModuleType:
    """nerfstudio's export script. Its mesh libraries need parts of the system that CI installs and others may lack."""
    try:
        from nerfstudio.scripts import exporter
    except ImportError as error:
        message = (
            f"ns-export cannot start here: {error} (Debian: apt-get install libgl1 libopengl0 libegl1 libusb-1.0-0)"
        )
        if os.environ.get("NS_EXT_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    return exporter
