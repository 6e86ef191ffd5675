"""From drawn photos to a derived run: what the commands print holds."""

import copy
import re
from pathlib import Path

import pytest
from nerfstudio.configs.method_configs import all_methods

from dataparsers._people import source_views
from nerfstudio_ext.cli import condition
from nerfstudio_ext.cli.condition import Condition
from nerfstudio_ext.cli.data import Person
from nerfstudio_ext.human.photos import write_photos
from nerfstudio_ext.procedural import people
from tests.human.toy_person import photographed

NAMES = tuple("abcdef")


class ToyPeople:
    """Stands for the drawn people, who take long to draw."""

    keypoint_names = NAMES

    def __init__(self, options, train, test):
        self.options = options

    def subject(self, index):
        return photographed(self.options.cameras)


@pytest.mark.parametrize("views,count,subjects", [("8", 8, "bodies"), ("2", 2, "bodies"), ("0,3,5", 3, "faces")])
def test_the_hint_fits_what_was_written(tmp_path, monkeypatch, capsys, views, count, subjects):
    monkeypatch.setattr(people, "ProceduralPeople", ToyPeople)
    Person(tmp_path / "photos", views=views, subjects=subjects).main()
    files = sorted(path.name for path in (tmp_path / "photos" / "images").iterdir())
    assert files == [f"{number:02d}.png" for number in range(count)], "numbered as sources are"
    hint = capsys.readouterr().out
    run = "default" if subjects == "bodies" else "RUN"
    assert f"condition {run} --photos {tmp_path / 'photos'}" in hint
    sources = re.search(r"--sources (\d+)", hint)
    assert (sources is None) == (count == 2)
    if sources:
        assert 2 <= len(source_views(sources[1], count, "--sources")) < count


def test_what_ns_eval_would_score_is_said(tmp_path, monkeypatch, capsys):
    checkpoint = {"step": 0, "pipeline": {}}
    config = all_methods["keypoint-nerf-tiny"]
    monkeypatch.setattr(condition, "_default", lambda: (copy.deepcopy(config), NAMES, checkpoint))
    write_photos(photographed(4), range(4), NAMES, tmp_path / "photos")
    Condition(Path("default"), photos=tmp_path / "photos", output=tmp_path / "all").main()
    assert "no photo is held out" in capsys.readouterr().out
    Condition(Path("default"), photos=tmp_path / "photos", output=tmp_path / "some", sources="0,2,3").main()
    assert "no photo is held out" not in capsys.readouterr().out
