"""`ns-ext video compress` on a tiny run: a run that opens, stopping and going on, and refusals."""

from pathlib import Path

import pytest
import torch

from nerfstudio_ext.cli.compress import Compress, read_config
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.runs import open_run
from nerfstudio_ext.engine.trainer import ExtTrainer
from tests.contract.runs import tiny_config, train, writer
from tests.toys import interrupt_after, toy_config


@pytest.fixture(autouse=True)
def _fresh_writers(monkeypatch):
    """Writers are global in nerfstudio, and commands use what device there is."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    writer.EVENT_WRITERS.clear()
    writer.GLOBAL_BUFFER.clear()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tiny_config("hnerv-boost-tiny", tmp_path_factory.mktemp("first"))).folder


LAST_LINE = "compressed run: "


def compressed(printed):
    """Folder that the command printed last."""
    (line,) = [line for line in printed.splitlines() if line.startswith(LAST_LINE)]
    return Path(line.removeprefix(LAST_LINE))


def test_gives_a_run_that_opens(run, tmp_path, capsys):
    Compress(run, epochs=2, bits=3.0, output_dir=tmp_path, vis="tensorboard").main()
    printed = capsys.readouterr().out
    assert ", not the 3 aimed at: give more --epochs" in printed
    folder = compressed(printed)
    assert folder.is_relative_to(tmp_path)
    config, pipeline = open_run(folder)
    settings = config.pipeline.model.compression
    assert (settings.bits, settings.rate_loss_mult, settings.start_run) == (3.0, 0.05, run)
    assert config.optimizers["field"]["optimizer"].lr == 5e-4
    assert pipeline.model.quantizer is not None and pipeline.model.get_run_metrics()["bpp"] > 0
    stage_one = open_run(run)[1].model
    difference = (pipeline.model.decode_frame(2) - stage_one.decode_frame(2)).abs()
    assert float(difference.mean()) < 0.05


def test_goes_on_after_an_interruption(run, tmp_path, capsys, monkeypatch):
    set_up = ExtTrainer.setup

    def stop_soon(trainer, *args):
        set_up(trainer, *args)
        interrupt_after(trainer, 3)

    with monkeypatch.context() as patch:
        patch.setattr(ExtTrainer, "setup", stop_soon)
        with pytest.raises(SystemExit) as stop:
            Compress(run, epochs=2, output_dir=tmp_path, vis="tensorboard").main()
    assert stop.value.code == 130
    printed = capsys.readouterr().out
    (folder,) = tmp_path.glob("*/*/*")
    assert f"ns-ext video compress {folder}" in printed
    Compress(folder, vis="tensorboard").main()
    assert compressed(capsys.readouterr().out) == folder
    assert (folder / "nerfstudio_models" / "step-000000011.ckpt").is_file()


@pytest.mark.parametrize("flags, told", [({"bits": 0.0}, "--bits"), ({"epochs": 0}, "--epochs"), ({"lr": 0.0}, "--lr")])
def test_numbers_out_of_range(run, tmp_path, flags, told):
    with pytest.raises(InputError, match=told):
        Compress(run, output_dir=tmp_path, **flags).main()


def test_what_is_no_video_run(tmp_path):
    with pytest.raises(InputError, match="not a trained run"):
        read_config(tmp_path)
    config = toy_config(tmp_path)
    config.save_config()
    with pytest.raises(InputError, match="not a video representation"):
        Compress(config.get_base_dir()).main()
