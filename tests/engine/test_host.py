"""The process is ready for nerfstudio: numpy scalars load safely, ffmpeg is found."""

import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nerfstudio_ext.engine import host


def test_checkpoints_with_numpy_scalars_load_safely():
    file = io.BytesIO()
    torch.save({"lr": np.float64(0.1), "step": np.int64(3), "flag": np.bool_(True)}, file)
    host.prepare_host()
    host.prepare_host()
    file.seek(0)
    assert torch.load(file, weights_only=True) == {"lr": 0.1, "step": 3, "flag": True}


@pytest.mark.parametrize("path", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_both_numpy_generations_are_read(path, tmp_path):
    """A file that the other numpy generation wrote names the same function by another path."""
    if torch.__version__ < "2.6":
        pytest.skip("torch before 2.6 does not know renamed globals")
    host.prepare_host()
    from torch._weights_only_unpickler import _get_user_allowed_globals

    assert _get_user_allowed_globals()[f"{path}.scalar"] is np.float64(0).__reduce__()[0]


@pytest.fixture
def no_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path / "cache"))
    carried = tmp_path / "ffmpeg-linux-v7"
    carried.write_text("#!/bin/sh\necho carried\n")
    carried.chmod(carried.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(host, "carried_ffmpeg", lambda: carried)
    return carried


def test_carried_ffmpeg_becomes_a_program_called_ffmpeg(no_ffmpeg, tmp_path):
    found = host.ensure_ffmpeg()
    assert found == tmp_path / "cache" / "bin" / "ffmpeg"
    assert subprocess.run(["ffmpeg"], capture_output=True, text=True, check=True).stdout == "carried\n"
    before = os.environ["PATH"]
    assert host.ensure_ffmpeg() == found and os.environ["PATH"] == before


def test_a_link_to_a_package_that_is_gone_is_renewed(no_ffmpeg, tmp_path):
    link = tmp_path / "cache" / "bin" / "ffmpeg"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "gone")
    assert host.ensure_ffmpeg() == link and link.resolve() == no_ffmpeg


def test_ffmpeg_on_path_is_left_alone(no_ffmpeg, monkeypatch, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "ffmpeg").symlink_to(no_ffmpeg)
    monkeypatch.setenv("PATH", str(own))
    assert host.ensure_ffmpeg() == own / "ffmpeg"
    assert os.environ["PATH"] == str(own) and not (tmp_path / "cache").exists()


def test_none_anywhere(no_ffmpeg, monkeypatch):
    monkeypatch.setattr(host, "carried_ffmpeg", lambda: None)
    assert host.ensure_ffmpeg() is None


def test_cache_folder_of_the_user(monkeypatch):
    monkeypatch.delenv("NERFSTUDIO_EXT_CACHE", raising=False)
    assert host.cache_dir() == Path.home() / ".cache" / "nerfstudio-ext"


FAULTS = """
import ctypes, resource, sys
import torch
from nerfstudio_ext.engine.host import prepare_host

PR_SET_THP_DISABLE = 41  # huge pages, where the kernel has some to spare, hide what is counted
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
if sys.argv[1] == "prepared":
    prepare_host()
frame = torch.ones(1, 16, 180, 320)


def use_and_free():
    return sum(float(frame_again[0, 0, 0, 0]) for frame_again in [frame + k for k in range(6)])


use_and_free(), use_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use_and_free()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the page faults are glibc's")
def test_freed_frames_are_not_handed_back_to_the_kernel():
    def page_faults(how: str) -> int:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert page_faults("prepared") < 0.3 * page_faults("as it is")
