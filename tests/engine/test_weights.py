import pytest
import torch

from nerfstudio_ext.engine import checkpoints
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.weights import read_safetensors, write_safetensors


def test_tensors_come_back_in_half_precision(tmp_path):
    tensors = {"b": torch.randn(3, 4), "a": torch.tensor(0.25), "empty": torch.zeros(0, 2)}
    write_safetensors(tensors, tmp_path / "x" / "w.safetensors", {"made": "here"})
    found, metadata = read_safetensors(tmp_path / "x" / "w.safetensors")
    assert metadata == {"made": "here"} and found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(found[name], value.half().float())


def test_other_programs_can_read_it(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    write_safetensors({"w": torch.arange(6.0).reshape(2, 3)}, tmp_path / "w.safetensors")
    assert torch.equal(safetensors.load_file(tmp_path / "w.safetensors")["w"].float(), torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_floats_of_every_kind_are_read(tmp_path, dtype):
    safetensors = pytest.importorskip("safetensors.torch")
    values = torch.randn(5, 3).to(getattr(torch, dtype))
    safetensors.save_file({"w": values, "count": torch.arange(3)}, tmp_path / "w.safetensors")
    assert torch.equal(read_safetensors(tmp_path / "w.safetensors")[0]["w"], values.float())


def test_other_numbers_are_named(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"w": torch.zeros(4, 2, dtype=torch.int8)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w\.safetensors holds numbers of the kind I8 only.*BF16"):
        read_safetensors(tmp_path / "w.safetensors")


def test_a_short_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    write_safetensors({"w": torch.randn(50)}, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="ends in the middle of 'w'"):
        read_safetensors(path)


def test_old_weights_stay_until_the_new_ones_are_whole(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_safetensors({"a": torch.zeros(3)}, path)
    before = path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(checkpoints.os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(InputError, match=r"w\.safetensors"):
            write_safetensors({"a": torch.ones(3)}, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    write_safetensors({"a": torch.ones(3)}, path)
    assert path.read_bytes() != before
