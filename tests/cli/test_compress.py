"""`ns-ext video compress` on a tiny run: a run that opens, stopping and going on, and refusals."""

import shutil
from pathlib import Path

import pytest
import torch

from nerfstudio_ext.cli.compress import Compress
from nerfstudio_ext.cli.run_folders import read_config
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
    folder = compressed(printed)
    onward, anew = (line.split(":  ")[1] for line in printed.splitlines() if ":  ns-ext" in line)
    assert ", not the 3 aimed at" in printed and onward == f"ns-ext video compress {folder} --epochs 4"
    assert anew == f"ns-ext video compress {run} --epochs 2 --bits 3 --rate-loss-mult 0.1"
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


def test_goes_on_for_more_epochs(run, tmp_path, capsys):
    Compress(run, epochs=1, timestamp="second", output_dir=tmp_path / "old", vis="tensorboard").main()
    folder = tmp_path / "moved" / "old" / "clip" / "hnerv-boost-tiny" / "second"
    shutil.copytree(tmp_path / "old", tmp_path / "moved" / "old")
    (checkpoint,) = (folder / "nerfstudio_models").iterdir()
    kept = checkpoint.read_bytes()
    for flags, told in (
        ({"bits": 2.0}, r"--bits 4, and that stays: .*give the run that it started from"),
        ({"rate_loss_mult": 1.0}, "--rate-loss-mult 0.05"),
        ({"lr": 1e-3}, "--lr 0.0005"),
        ({"timestamp": "third"}, "--timestamp names a new run"),
        ({"output_dir": tmp_path}, "--output-dir names a new run"),
        ({"epochs": 0}, "has done 1 epochs of 1"),
    ):
        with pytest.raises(InputError, match=told):
            Compress(folder, vis="tensorboard", **flags).main()
    Compress(folder, epochs=1, bits=4.0, vis="tensorboard").main()
    assert "This run is complete" in (printed := capsys.readouterr().out) and "with --epochs." in printed
    assert checkpoint.read_bytes() == kept

    Compress(folder, epochs=2, vis="tensorboard").main()
    printed = capsys.readouterr().out
    assert "1 epochs are done, and there will be 2" in printed and compressed(printed) == folder
    (checkpoint,) = (folder / "nerfstudio_models").iterdir()
    stopped = tmp_path / folder.relative_to(tmp_path / "moved") / "nerfstudio_models" / "step-000000005.ckpt"
    assert checkpoint.name == "step-000000011.ckpt"
    before, after = (torch.load(path)["pipeline"] for path in (stopped, checkpoint))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
    config, pipeline = open_run(folder)
    assert (config.epochs, config.max_num_iterations) == (2, 12) and pipeline.model.quantizer is not None


def test_a_run_is_never_written_over(run):
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="is not empty: choose another --timestamp"):
        Compress(run, timestamp=run.name).main()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == kept


def test_without_the_source_nothing_is_begun(tiny_clip, tmp_path):
    run = train(tiny_config("hnerv-tiny", tmp_path / "runs", data=tiny_clip)).folder
    tiny_clip.unlink()
    with pytest.raises(InputError, match=r"clip\.mp4 is gone: bring it back"):
        Compress(run, vis="tensorboard").main()
    assert list(run.parent.iterdir()) == [run]


@pytest.mark.parametrize(
    "flags, told",
    [
        ({"bits": 0.0}, "--bits"),
        ({"epochs": 0}, "--epochs"),
        ({"lr": 0.0}, "--lr"),
        ({"rate_loss_mult": -3.0}, "--rate-loss-mult"),
        ({"rate_loss_mult": float("nan")}, "--rate-loss-mult"),
    ],
)
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
