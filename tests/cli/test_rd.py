"""`ns-ext video rd` on a small clip: the table, the picture, the source's own rate, files of another clip, and sizes
that are trained, also after a stop."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import rich.progress
from PIL import Image

from nerfstudio_ext.cli.rd import RateDistortion
from nerfstudio_ext.cli.series import Series, train_all
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.packages import MissingPackageError
from nerfstudio_ext.export import anchors
from nerfstudio_ext.models.stored_video import read_video
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


def test_files_are_scored_with_a_bar(tmp_path, monkeypatch, capsys):
    bars = []
    monkeypatch.setattr(rich.progress, "track", lambda items, name, *_, **__: bars.append(name) or items)
    # Frames this small are none for x265.
    monkeypatch.setattr(anchors, "classical_point", lambda *_: anchors.RatePoint("x264", 1.0, 30.0))
    (tmp_path / "clip").mkdir()
    for k, frame in enumerate(read_video(SEEDS[0])):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{k}.png")
    RateDistortion(tmp_path / "clip", files=(SEEDS[0],), presets=("ultrafast",), output=tmp_path / "rd").main()
    assert bars == [f"Scoring {SEEDS[0].name}", "Anchors"]
    assert " 90.00 dB" in capsys.readouterr().out


@pytest.mark.parametrize("given", [{"sizes": (40000, 50000, 60000, 70000)}, {"files": (SEEDS[0],) * 4}])
@pytest.mark.parametrize("package", ["bjontegaard", "constriction", "matplotlib"])
def test_packages_are_looked_for_first(tiny_clip, tmp_path, monkeypatch, given, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"package {package}: pip install .*\[video\]"):
        RateDistortion(tiny_clip, output=tmp_path / "rd", **given).main()
    assert not (tmp_path / "rd").exists()


@pytest.mark.parametrize(
    "flags, told",
    [
        ({"files": (Path("none.bnrv"),)}, "none.bnrv cannot be read"),
        ({"presets": ("hasty",)}, "hasty"),
        ({"bits": 20.0}, "--bits"),
        ({"epochs": 0}, "--epochs"),
        ({"compress_epochs": 0}, "--compress-epochs"),
    ],
)
def test_nothing_is_trained_for_what_fails_later(tiny_clip, tmp_path, flags, told):
    with pytest.raises(InputError, match=told):
        RateDistortion(tiny_clip, sizes=(40000,), method="hnerv-tiny", output=tmp_path / "rd", **flags).main()
    assert not (tmp_path / "rd").exists()


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


def test_what_a_compression_left_before_its_first_save_is_removed(series):
    left = series.folder / "50000" / "clip" / "hnerv-tiny" / "second" / "config.yml"
    left.parent.mkdir(parents=True)
    left.touch()
    series.train(50000, Recorder(series.folder / "50000"))
    assert left.parent.is_dir() and not left.exists()


def test_a_series_of_other_settings_is_refused(series):
    series.train(50000, Recorder(series.folder / "50000"))
    with pytest.raises(InputError, match="other settings"):
        replace(series, epochs=4).train(50000, Recorder(series.folder / "50000"))


@pytest.mark.slow
def test_a_size_is_trained_once_and_measured(tiny_clip, tmp_path, capfd):
    options = dict(method="hnerv-tiny", epochs=1, compress_epochs=1, presets=("ultrafast",), output=tmp_path / "rd")
    for told in (True, False):
        RateDistortion(tiny_clip, sizes=(40000,), **options).main()
        assert ("$ ns-train" in capfd.readouterr().out) == told
        rows = list(csv.DictReader((tmp_path / "rd" / "rd.csv").read_text().splitlines()))
        assert len([row for row in rows if row["name"] == "hnerv-tiny .bnrv"]) == 1


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


@pytest.mark.slow
@pytest.mark.extra("ray")
def test_a_task_trains_and_a_failure_is_told(series, ray_here):
    short = replace(series, clip=("--last-frame", "1", "--max-side", "32"), epochs=1, compress_epochs=1)
    (file,) = train_all(short, (20000,), on_ray=True)
    assert len(read_video(file)) == 2
    assert (file.parent / "log.txt").read_text().count("$ ns-") == 3
    with pytest.raises(InputError, match=r"failed on Ray \(.* was made with other settings.*; the others are kept"):
        train_all(replace(short, epochs=2), (20000,), on_ray=True)
