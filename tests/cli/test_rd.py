"""`ns-ext video rd` on a small clip: the table, the picture, the source's own rate, and files of another clip."""

import csv

import pytest

from nerfstudio_ext.cli.rd import RateDistortion
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
