"""`ns-ext video anchors` on tiny runs with holes and with missing frames, and its refusals."""

import json

import pytest
import torch
from nerfstudio.scripts.eval import ComputePSNR
from PIL import Image

from nerfstudio_ext.cli.anchors import Anchors
from nerfstudio_ext.engine.errors import InputError
from tests.contract.runs import FRAMES, WIDTH, tiny_config, train


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def run_with(folder, method="hnerv-boost-tiny", **options):
    config = tiny_config(method, folder)
    for name, value in options.items():
        setattr(config.pipeline.datamanager.dataparser, name, value)
    return train(config)


@pytest.fixture
def bars(monkeypatch):
    """Names of the progress bars that were shown."""
    shown = []

    def track(items, name, **options):
        shown.append(name)
        return items

    monkeypatch.setattr("rich.progress.track", track)
    return shown


def table(printed):
    """Rows of the printed table: name -> numbers."""
    rows = [line for line in printed.splitlines() if line[24:].strip() and line[24:].split()[0][0].isdigit()]
    return {line[:24].strip(): [float(number) for number in line[24:].split()] for line in rows}


@pytest.mark.parametrize("moving", [False, True])
def test_holes(tmp_path, capsys, bars, moving):
    mask = "disperse"
    if moving:
        mask = str(tmp_path / "masks")
        (tmp_path / "masks").mkdir()
        for k in range(FRAMES):
            picture = Image.new("L", (WIDTH, 46), 255)
            picture.paste(0, (8 * k, 10, 8 * k + 12, 30))
            picture.save(tmp_path / "masks" / f"{k}.png")
    run = run_with(tmp_path, mask=mask)
    capsys.readouterr()
    Anchors(run.folder).main()
    printed = capsys.readouterr().out
    rows = table(printed)
    assert set(rows) == {"hnerv-boost-tiny", "Telea", *(["temporal median"] if moving else [])}
    assert bars == [*list(rows)[1:], "Decoding", "Scoring"]
    assert ("holes never move" in printed) != moving
    assert rows["Telea"][2] == 90 and rows["Telea"][1] < 60
    assert Image.open(run.folder / "renders" / "anchors.png").width > (4 + moving) * WIDTH
    # The network's row is what ns-eval says, up to the rounding to 8 bits.
    ComputePSNR(run.config_path, tmp_path / "scores.json").main()
    results = json.loads((tmp_path / "scores.json").read_text())["results"]
    for value, name in zip(rows["hnerv-boost-tiny"], ("psnr", "psnr_in_mask", "psnr_out_of_mask")):
        assert value == pytest.approx(results[name], abs=0.05)


def test_missing_frames(tmp_path, capsys):
    run = run_with(tmp_path, "hnerv-boost-interp-tiny", task="interpolation")
    capsys.readouterr()
    Anchors(run.config_path, tmp_path / "picture.png").main()
    rows = table(capsys.readouterr().out)
    assert set(rows) == {"hnerv-boost-interp-tiny", "neighbour mean", "repeat"}
    assert all(len(numbers) == 1 for numbers in rows.values()) and (tmp_path / "picture.png").is_file()


def test_a_plain_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither holes nor missing frames"):
        Anchors(run_with(tmp_path).folder).main()
