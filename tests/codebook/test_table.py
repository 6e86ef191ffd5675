import struct

import msgpack
import numpy as np
import pytest
import torch

from nerfstudio_ext.codebook.table import (
    DEFAULT_CODEBOOK,
    dead_codes,
    effective_rank,
    load_codebook,
    prune_dead,
    randomised,
    read_safetensors,
    shuffled,
    write_codebook,
)
from nerfstudio_ext.engine.errors import InputError

TABLE = torch.randn(20, 24, generator=torch.Generator().manual_seed(3))


class Stranger:
    """What Lightning puts beside the weights."""


def lightning(path):
    torch.save({"state_dict": {"encoder.conv": torch.zeros(3, 3), "quantize.embedding.weight": TABLE}, "step": 4}, path)


def gumbel(path):
    torch.save({"state_dict": {"a": torch.zeros(2, 2), "quantize.embed.weight": TABLE}}, path)


def diffusers(path):
    torch.save({"quantize.embedding.weight": TABLE, "decoder.w": torch.zeros(4, 4)}, path)


def flax(path):
    def array(x):
        return msgpack.ExtType(1, msgpack.packb((x.shape, x.dtype.name, x.tobytes()), use_bin_type=True))

    tree = {"quantize": {"embedding": {"embedding": array(TABLE.numpy())}}, "x": array(np.zeros((2, 2), np.float32))}
    path.write_bytes(msgpack.packb(tree, use_bin_type=True))


SOURCES = {
    "vqgan.ckpt": lightning,
    "gumbel.pt": gumbel,
    "diffusion_pytorch_model.bin": diffusers,
    "flax_model.msgpack": flax,
    "table.npy": lambda path: np.save(path, TABLE.numpy()),
    "table.npz": lambda path: np.savez(path, codebook=TABLE.numpy(), other=np.zeros((3, 3))),
    "table.pth": lambda path: torch.save(TABLE, path),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_table(name, tmp_path):
    SOURCES[name](tmp_path / name)
    assert torch.equal(load_codebook(tmp_path / name), TABLE)


def test_written_table_comes_back(tmp_path):
    write_codebook(TABLE, tmp_path / "a" / "t.safetensors", {"command": "made here"})
    assert torch.equal(load_codebook(tmp_path / "a" / "t.safetensors"), TABLE.half().float())
    assert read_safetensors(tmp_path / "a" / "t.safetensors")[1] == {"command": "made here"}


def test_pickles_need_the_flag(tmp_path):
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": {"quantize.embedding.weight": TABLE}, "callbacks": Stranger()}, path)
    with pytest.raises(InputError, match="--allow-pickle"):
        load_codebook(path)
    assert torch.equal(load_codebook(path, allow_pickle=True), TABLE)


def half(path):
    write_codebook(TABLE, path)
    path.write_bytes(path.read_bytes()[:-100])


def half_torch(path):
    torch.save(TABLE, path)
    path.write_bytes(path.read_bytes()[:400])


def page(path):
    path.write_text("<!DOCTYPE html><html><head><title>404: pickle not found</title></head></html>" * 9)


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("gone.npy", lambda path: None, "There is no codebook"),
        ("half.safetensors", half, "ends in the middle of 'codebook'"),
        ("half.pt", half_torch, "damaged or only half downloaded"),
        ("page.ckpt", page, "begins with '<!DOCTYPE html>.*error page"),
        ("page.bin", page, "begins with '<!DOCTYPE html>"),
        ("page.npy", page, "no .npy file"),
        ("page.npz", page, "no .npz file"),
        ("page.safetensors", page, "damaged or only half downloaded"),
        ("empty.pt", lambda path: path.touch(), "is empty"),
        ("objects.npy", lambda path: np.save(path, np.array([None, "x"])), "damaged or only half downloaded"),
        ("short.safetensors", lambda path: path.write_bytes(struct.pack("<Q", 900)), "damaged"),
        ("t.xyz", lambda path: path.write_text("x"), "no known kind"),
        ("two.npz", lambda p: np.savez(p, a=np.zeros((3, 3)), b=np.zeros((4, 4))), r"only a \(3, 3\), b \(4, 4\)"),
        ("none.npz", lambda path: np.savez(path, a=np.zeros(3)), "no table at all"),
        ("thin.npy", lambda path: np.save(path, np.zeros((30, 0), np.float32)), r"\(30x0\) has too few rows"),
        ("zeros.npy", lambda path: np.save(path, np.zeros((30, 8), np.float32)), "All rows .* are the same"),
        ("nan.npy", lambda path: np.save(path, np.full((4, 20), np.nan)), "not finite"),
    ],
)
def test_bad_files_are_told_in_a_sentence(name, make, sentence, tmp_path):
    make(tmp_path / name)
    with pytest.raises(InputError, match=sentence) as refusal:
        load_codebook(tmp_path / name)
    assert "--allow-pickle" not in str(refusal.value), "that would not help"


def test_dead_codes_leave_one_null():
    table = torch.cat([TABLE, torch.rand(180, 24) / 200])
    assert dead_codes(table).sum() == 180
    pruned = prune_dead(table)
    assert len(pruned) == 21 and torch.equal(pruned[:20], TABLE)


def test_null_hypotheses_keep_what_they_should():
    table = load_codebook(DEFAULT_CODEBOOK)
    mixed = shuffled(table, 0)
    assert torch.equal(mixed.sort(0).values, table.sort(0).values) and not torch.equal(mixed, table)
    noise = randomised(table, 0)
    assert (noise.mean(0) - table.mean(0)).abs().max() < 0.2
    assert torch.allclose(torch.cov(noise.T), torch.cov(table.T), atol=0.35)
    assert torch.equal(noise, randomised(table, 0)) and not torch.equal(noise, randomised(table, 1))


def test_rank_of_a_line_and_of_noise():
    line = torch.linspace(0, 1, 50)[:, None] * torch.ones(1, 8)
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-2)
    assert effective_rank(torch.randn(4000, 8)) > 7.9
