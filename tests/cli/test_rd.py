"""`ns-ext video rd` on a small clip: the table, the picture, the source's own rate, files of another clip, and sizes
that are trained, also after a stop."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from nerfstudio_ext.cli.rd import RateDistortion
from nerfstudio_ext.cli.series import Series, train_all
from nerfstudio_ext.engine.errors import InputError
from tests.fuzz.test_corpus import SEEDS

pytestmark = pytest.mark.extra("constriction")


def test_table_and_picture(tiny_clip, tmp_path, capsys):
    RateDistortion(tiny_clip, presets=("ultrafast",), output=tmp_path / "rd").main()
    rows = list(csv.DictReader((tmp_path / "rd" / "rd.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 5
    assert {row["name"] for row in rows} == {f"x26{c} ultrafast {f}" for c in "45" for f in ("420", "444")}
    assert (tmp_path / "rd" / "rd.png").stat().st_size > 5000
    assert f"{tiny_clip.stat().st_size} bytes" in capsys.readouterr().out


def test_files_of_another_clip_are_refused(tiny_clip, tmp_path):
    with pytest.raises(InputError, match="3 frames of 14x9"):
        RateDistortion(tiny_clip, files=(SEEDS[0],), output=tmp_path).main()


SERIES = Series(Path("clip.mp4"), "hnerv-tiny", ("--last-frame", "5"), 3, 2, 4.0, Path("rd"))


@pytest.fixture
def series(tiny_clip, tmp_path):
    return replace(SERIES, data=tiny_clip, folder=tmp_path / "rd")


class Recorder:
    """Stands for the programs: notes what it is asked to run, leaves the files they leave, and fails once when told."""

    def __init__(self, folder, fail_at=None):
        self.run = folder / "clip" / "hnerv-tiny"
        self.asked, self.fail_at = [], fail_at

    def __call__(self, command):
        self.asked.append(command)
        stage = "first" if command[0] == "ns-train" else "second" if command[2] == "compress" else None
        if stage is not None:
            (self.run / stage / "nerfstudio_models").mkdir(parents=True, exist_ok=True)
            (self.run / stage / "nerfstudio_models" / "step-000000001.ckpt").touch()
        if len(self.asked) == self.fail_at:
            raise SystemExit(130)
        if stage is None:
            Path(command[-1]).touch()


@pytest.mark.parametrize("stopped_in", [1, 2, 3])
def test_a_stopped_series_goes_on(series, stopped_in):
    folder = series.folder / "50000"
    stopped, second = Recorder(folder, stopped_in), Recorder(folder)
    with pytest.raises(SystemExit):
        series.train(50000, stopped)
    assert stopped.asked[0][10:12] == ["--pipeline.model.target-params", "50000"]
    assert "--load-dir" not in stopped.asked[0]
    assert series.train(50000, second) == folder / "clip.bnrv"
    assert second.asked[0][-5:] == ["video-data", "--data", str(series.data), "--last-frame", "5"]
    assert str(folder / "clip" / "hnerv-tiny" / "first") in second.asked[0]  # goes on, or finds itself complete
    assert ("--epochs" in second.asked[1]) == (stopped_in == 1)
    done = Recorder(folder)
    assert series.train(50000, done).is_file() and done.asked == []


def test_a_series_of_other_settings_is_refused(series):
    series.train(50000, Recorder(series.folder / "50000"))
    with pytest.raises(InputError, match="other settings"):
        replace(series, epochs=4).train(50000, Recorder(series.folder / "50000"))


@pytest.mark.slow
def test_trains_sizes_and_measures_them(tiny_clip, tmp_path, capfd):
    options = dict(method="hnerv-tiny", epochs=1, compress_epochs=1, presets=("ultrafast",), output=tmp_path / "rd")
    RateDistortion(tiny_clip, sizes=(40000, 60000), **options).main()
    rows = list(csv.DictReader((tmp_path / "rd" / "rd.csv").read_text().splitlines()))
    ours = [row for row in rows if row["name"] == "hnerv-tiny .bnrv"]
    assert len(ours) == 2 and float(ours[0]["bpp"]) < float(ours[1]["bpp"])
    capfd.readouterr()
    RateDistortion(tiny_clip, sizes=(40000,), **options).main()
    assert "ns-train" not in capfd.readouterr().out


def test_a_method_without_frames_is_refused(tiny_clip, tmp_path):
    with pytest.raises(InputError, match="no video representation"):
        RateDistortion(tiny_clip, sizes=(40000,), method="volsdf-tiny", output=tmp_path).main()


@pytest.mark.slow
@pytest.mark.extra("ray")
def test_files_of_tasks_come_in_the_order_of_the_sizes(series, ray_here):
    """The files are there, so that no task trains."""
    for size in (100, 200, 300):
        series.file(size).parent.mkdir(parents=True)
        series.file(size).touch()
    assert train_all(series, (200, 100, 300), on_ray=True) == [series.file(size) for size in (200, 100, 300)]
