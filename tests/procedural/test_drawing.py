"""People drawn ahead: once, by several processes or tasks, as one alone would draw them."""

import pytest
import torch

from nerfstudio_ext.cli.data import People
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.drawing import draw_ahead
from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople

OPTIONS = PeopleOptions(cameras=2, size=16)
pytestmark = [pytest.mark.extra("anny"), pytest.mark.extra("embreex"), pytest.mark.slow]


@pytest.fixture
def people(tmp_path, monkeypatch):
    monkeypatch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path / "cache"))
    return ProceduralPeople(OPTIONS, 2, 1)


def same_pictures(people, alone):
    for index in range(len(people)):
        one, other = people.subject(index), alone.subject(index)
        assert torch.equal(one.rgb, other.rgb) and torch.equal(one.keypoints, other.keypoints)


@pytest.fixture
def alone(tmp_path_factory, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path_factory.mktemp("alone")))
        store = ProceduralPeople(OPTIONS, 2, 1)
    return store


def test_who_is_there_is_not_drawn_again(people, monkeypatch):
    people.subject(1)
    assert list(draw_ahead(people, 1, on_ray=False)) == [0, 2]
    monkeypatch.setattr(ProceduralPeople, "draw", lambda *_: pytest.fail("drawn again"))
    assert not people.undrawn() and list(draw_ahead(people, 1, on_ray=False)) == []


def test_processes_draw_what_one_would(people, alone, capsys):
    people.keep(0, people.draw(0))
    People(people=2, test_people=1, cameras=2, size=16, workers=2).main()
    assert "2 of 3 people drawn" in capsys.readouterr().out and not people.undrawn()
    same_pictures(people, alone)


@pytest.mark.extra("ray")
def test_ray_draws_what_one_would(people, alone, ray_here, capsys):
    People(people=2, test_people=1, cameras=2, size=16, ray=True).main()
    assert "3 of 3 people drawn" in capsys.readouterr().out
    same_pictures(people, alone)


def test_nobody_draws_nothing():
    with pytest.raises(InputError, match="somebody has to draw"):
        People(workers=0).main()
