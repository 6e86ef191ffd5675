import shlex

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from nerfstudio_ext.cli.codebook import Inspect, Learn, LearnOptionsFlags, Load
from nerfstudio_ext.codebook.table import DEFAULT_CODEBOOK, load_codebook, read_safetensors
from nerfstudio_ext.engine.errors import InputError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    generator = torch.Generator().manual_seed(0)
    for k in range(3):
        noise = (torch.rand(72, 72, 3, generator=generator) * 255).byte().numpy()
        Image.fromarray(noise).save(tmp_path / "pictures" / f"{k}.png")
    return tmp_path / "pictures"


@pytest.mark.slow
def test_the_shipped_file_is_what_its_recipe_makes(tmp_path):
    command = read_safetensors(DEFAULT_CODEBOOK)[1]["command"]
    assert command == "ns-ext codebook learn --route patches --codes 1024 --width 64 --seed 0"
    Learn(tmp_path / "again.safetensors").main()
    assert (tmp_path / "again.safetensors").read_bytes() == DEFAULT_CODEBOOK.read_bytes()


@pytest.mark.parametrize("route", ["patches", "autoencoder"])
def test_learning_from_a_folder(route, folder, capsys):
    output = folder / "table.safetensors"
    options = LearnOptionsFlags(codes=16, width=8)
    Learn(output, images=folder, route=route, steps=2, options=options).main()
    assert load_codebook(output).shape == (16, 8)
    printed = capsys.readouterr().out
    assert f"--route {route}" in printed and "3 pictures" in printed and "gain_over_flat_db" in printed


def test_recipe_makes_the_table_again(folder):
    one, other = folder / "one.safetensors", folder / "other.safetensors"
    Learn(one, images=folder, options=LearnOptionsFlags(codes=16, width=8, seed=3)).main()
    command = shlex.split(read_safetensors(one)[1]["command"])
    assert command[:3] == ["ns-ext", "codebook", "learn"]
    tyro.cli(Learn, args=[str(other), *command[3:]]).main()
    assert one.read_bytes() == other.read_bytes()


def test_poor_tables_are_told(folder, capsys):
    Learn(folder / "good.safetensors", images=folder, options=LearnOptionsFlags(codes=16, width=8)).main()
    good = read_safetensors(folder / "good.safetensors")[1]
    (folder / "flat").mkdir()
    picture = np.zeros((72, 72, 3), np.uint8)
    picture[:, ::2] = 255
    Image.fromarray(picture).save(folder / "flat" / "stripes.png")
    capsys.readouterr()
    Learn(folder / "poor.safetensors", images=folder / "flat", options=LearnOptionsFlags(codes=16, width=8)).main()
    assert "below the gate" in capsys.readouterr().out
    assert "usage is" in read_safetensors(folder / "poor.safetensors")[1]["below_gate"]
    assert "effective_rank_share is" not in good.get("below_gate", "")


def test_load_and_inspect(tmp_path, capsys):
    torch.save({"quantize.embedding.weight": torch.randn(30, 20)}, tmp_path / "vq.bin")
    Load(tmp_path / "vq.bin", tmp_path / "vq.safetensors").main()
    Inspect(tmp_path / "vq.safetensors", histogram=tmp_path / "h.png").main()
    assert "30 codes of width 20, 0 of them dead" in capsys.readouterr().out
    assert Image.open(tmp_path / "h.png").size == (480, 240)


def test_mistakes(tmp_path):
    with pytest.raises(InputError, match="needs that ending"):
        Learn(tmp_path / "table.npy").main()
    with pytest.raises(InputError, match="holds no pictures"):
        Learn(tmp_path / "t.safetensors", images=tmp_path).main()
    (tmp_path / "half.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"half\.png"):
        Learn(tmp_path / "t.safetensors", images=tmp_path).main()
