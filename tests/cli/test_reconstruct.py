"""What is in the way of a mesh is said before the work for it begins."""

from pathlib import Path

import pytest
import torch

from nerfstudio_ext.cli.reconstruct import Reconstruct
from nerfstudio_ext.engine.errors import InputError


def asked(output: Path, **options) -> None:
    Reconstruct(output.parent / "none.png", output, keypoints=output.parent / "none.json", **options).main()


def test_folders_are_not_replaced(tmp_path: Path):
    (tmp_path / "person.obj").mkdir()
    with pytest.raises(InputError, match=r"person\.obj in .* is a folder: name another mesh"):
        asked(tmp_path / "person.obj")


def test_places_that_cannot_be_written_are_said_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        asked(tmp_path / "file" / "person.glb")
    with pytest.raises(InputError, match="names no mesh format"):
        asked(tmp_path / "person.stl")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(InputError, match="no CUDA device"):
        asked(tmp_path / "person.glb", device="cuda", sheet=False, turntable=False)
