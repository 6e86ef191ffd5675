"""`ns-ext run relocate` from the command line; what it does to the files is tested with the checkpoints."""

from pathlib import Path

import pytest
import yaml

from nerfstudio_ext.cli.main import main
from nerfstudio_ext.engine.checkpoints import atomic_save, write_config
from tests.toys import toy_config


def test_relocate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = toy_config(Path("outputs"))
    atomic_save({"step": 1, "pipeline": {}}, config.get_checkpoint_dir() / "step-000000001.ckpt")
    write_config(config, config.get_base_dir() / "config.yml")
    config.get_base_dir().rename("kept run")
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(SystemExit) as stop:
        main(["run", "relocate", "kept run", "--data", "clip.mp4"])
    assert not stop.value.code
    assert f"ns-eval --load-config '{tmp_path}/kept run/config.yml'" in capsys.readouterr().out
    config = yaml.load((tmp_path / "kept run" / "config.yml").read_text(), Loader=yaml.Loader)
    assert config.get_checkpoint_dir() == tmp_path / "kept run" / "nerfstudio_models"
    assert config.data == tmp_path / "clip.mp4"


def test_mistake(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "relocate", str(tmp_path)])
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"Error: {tmp_path} is not a run folder: it has no config.yml.\n"
