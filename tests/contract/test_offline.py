"""On a machine without a network, and without anything cached, every command works from the first import on."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.contract.offline import network_blocked

COMMANDS = """
import sys
from tests.contract.offline import network_blocked

with network_blocked() as tried:
    from nerfstudio.scripts import eval, render, train
    from tests.contract.runs import FRAMES, HEIGHT, WIDTH

    def call(script, *arguments):
        sys.argv = ["ns", *map(str, arguments)]
        script.entrypoint()

    method = sys.argv[1]
    options = "--output-dir runs --experiment-name clip --timestamp run --vis tensorboard --max-num-iterations 2"
    clip = ["video-data", "--procedural-frames", FRAMES, "--procedural-size", WIDTH, HEIGHT]
    call(train, method, *options.split(), "--pipeline.model.width", 8, *clip)
    config = f"runs/clip/{method}/run/config.yml"
    call(eval, "--load-config", config, "--output-path", "scores.json")
    call(render, "dataset", "--load-config", config, "--output-path", "pictures", "--image-format", "png")
    call(render, "interpolate", "--load-config", config, "--output-path", "clip.mp4", "--interpolation-steps", 1)
    try:
        from nerfstudio.scripts import exporter
    except ImportError as error:
        print(error)  # its mesh libraries need parts of the system; the fixture `exporter` says which
    else:
        call(exporter, "cameras", "--load-config", config, "--output-dir", "cameras")
print(f"tried to reach {tried}")
"""


def test_the_blocker_blocks() -> None:
    with network_blocked() as tried:
        with pytest.raises(OSError, match="blocked"):
            socket.getaddrinfo("example.org", 80)
        with pytest.raises(OSError, match="blocked"), socket.socket() as outside:
            outside.connect(("192.0.2.1", 80))
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect(server.getsockname())
    assert tried == ["example.org", "192.0.2.1"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_commands_without_a_network(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", COMMANDS, "hnerv-boost-tiny"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "tried to reach []"
    results = json.loads((tmp_path / "scores.json").read_text())["results"]
    assert results["psnr"] > 0 and "lpips" not in results
    assert len(list((tmp_path / "pictures/test/rgb").glob("*.png"))) == 6
    assert (tmp_path / "clip.mp4").stat().st_size > 0
