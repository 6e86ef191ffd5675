"""`ns-ext video prune` on a tiny run: a run that opens with its weights gone, that goes on, and what is refused."""

import pytest
import torch

from nerfstudio_ext.cli.prune import Prune
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.runs import open_run
from tests.contract.runs import tiny_config, train, writer


@pytest.fixture(autouse=True)
def _fresh_writers(monkeypatch):
    """Writers are global in nerfstudio, and commands use what device there is."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    writer.EVENT_WRITERS.clear()
    writer.GLOBAL_BUFFER.clear()


def test_gives_a_run_that_opens_and_goes_on(tmp_path, capsys):
    run = train(tiny_config("nerv-tiny", tmp_path)).folder
    Prune(run, keep=0.25, epochs=1, timestamp="pruned", vis="tensorboard").main()
    folder = run.with_name("pruned")
    assert f"pruned run: {folder}" in capsys.readouterr().out
    config, pipeline = open_run(folder)
    assert config.pipeline.model.pruning.keep == 0.25 and config.optimizers["field"]["optimizer"].lr == 4e-3
    weights = [w for w in pipeline.model.field.decoder_parameters().values() if w.dim() > 1]
    gone = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    assert gone == pytest.approx(0.75, abs=0.01)
    Prune(folder, keep=0.25, vis="tensorboard").main()
    assert "This run is complete" in capsys.readouterr().out

    Prune(folder, keep=0.1, epochs=1, timestamp="again", vis="tensorboard").main()
    again = open_run(run.with_name("again"))
    assert again[0].pipeline.model.pruning.start_run == folder
    smaller = [w for w in again[1].model.field.decoder_parameters().values() if w.dim() > 1]
    assert sum(int((w == 0).sum()) for w in smaller) / sum(w.numel() for w in smaller) == pytest.approx(0.9, abs=0.01)
    assert all(bool((after[before == 0] == 0).all()) for before, after in zip(weights, smaller))
    for flags, told in (({"keep": 0.5}, "do not come back"), ({"lr": 1.0}, "--lr 0.004, and that stays")):
        with pytest.raises(InputError, match=told):
            Prune(folder, vis="tensorboard", **flags).main()


def test_numbers_out_of_range(tmp_path):
    run = train(tiny_config("nerv-tiny", tmp_path)).folder
    for flags, told in (({"keep": 0.0}, "--keep"), ({"epochs": 0}, "--epochs"), ({"lr": 0.0}, "--lr")):
        with pytest.raises(InputError, match=told):
            Prune(run, **flags).main()
