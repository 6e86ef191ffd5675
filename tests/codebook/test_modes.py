import pytest
import torch

from nerfstudio_ext.codebook.modes import codebook_for
from nerfstudio_ext.codebook.table import DEFAULT_CODEBOOK, load_codebook, randomised, shuffled, write_codebook
from nerfstudio_ext.engine.errors import InputError


class Pictures:
    def training_pictures(self):
        generator = torch.Generator().manual_seed(2)
        return [torch.rand(48, 48, 3, generator=generator)]


def test_default_is_the_shipped_table():
    table, attends = codebook_for("default", False, False, None)
    assert attends and torch.equal(table, load_codebook(DEFAULT_CODEBOOK))


@pytest.mark.parametrize(("mode", "attends"), [("free", True), ("none", False)])
def test_modes_without_a_table(mode, attends):
    assert codebook_for(mode, False, False, None) == (None, attends)


@pytest.mark.parametrize("mode", ["random", "shuffle"])
def test_null_tables_are_the_same_when_opened_again(mode):
    table = codebook_for(mode, False, False, None)[0]
    assert table.shape == (1024, 64) and not torch.equal(table, load_codebook(DEFAULT_CODEBOOK))
    assert torch.equal(table, codebook_for(mode, False, False, None)[0])
    assert not torch.equal(table, codebook_for(mode, False, False, None, seed=1)[0])


@pytest.mark.parametrize(("word", "null"), [("random", randomised), ("shuffle", shuffled)])
def test_null_tables_of_a_file(word, null, tmp_path, capsys):
    write_codebook(torch.randn(20, 30, generator=torch.Generator().manual_seed(0)), tmp_path / "t.safetensors")
    table = codebook_for(f"{word}:{tmp_path / 't.safetensors'}", False, False, None, seed=3)[0]
    assert torch.equal(table, null(load_codebook(tmp_path / "t.safetensors"), 3))
    assert "fewer rows than columns (20x30)" in capsys.readouterr().out
    assert torch.equal(
        codebook_for(f"{word}:default", False, False, None)[0], codebook_for(word, False, False, None)[0]
    )
    with pytest.raises(InputError, match=r"no codebook gone\.pt"):
        codebook_for(f"{word}:gone.pt", False, False, None)


def test_scene_learns_from_the_training_views():
    assert codebook_for("scene", False, False, Pictures())[0].shape == (256, 64)
    with pytest.raises(InputError, match="needs training pictures"):
        codebook_for("scene", False, False, None)


def test_stored_tables_need_no_file():
    for mode in ("gone.pt", "scene", "default"):
        table, attends = codebook_for(mode, False, False, None, stored=True)
        assert attends and len(table) == 0
    assert codebook_for("none", False, False, None, stored=True) == (None, False)


def test_path_is_read_and_pruned(tmp_path, capsys):
    table = torch.cat([torch.randn(10, 20), torch.zeros(90, 20)])
    write_codebook(table, tmp_path / "t.safetensors")
    assert len(codebook_for(str(tmp_path / "t.safetensors"), True, False, None)[0]) == 11
    assert "90 dead" in capsys.readouterr().out
    with pytest.raises(InputError, match="no codebook"):
        codebook_for(str(tmp_path / "gone.pt"), False, False, None)
