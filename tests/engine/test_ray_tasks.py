"""Work on Ray: results by their number, a failure in one sentence, and a hint where Ray is missing."""

import sys

import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.ray_tasks import ray_results


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"nerfstudio-ext\[ray\]"):
        list(ray_results(divmod, [(1, 2)], "A piece"))


@pytest.mark.slow
@pytest.mark.extra("ray")
def test_results_and_failures(ray_here):
    def halves(a, b):  # inside, so that it is sent along: workers cannot import tests
        return divmod(a, b)

    assert sorted(ray_results(halves, [(7, 2), (9, 4)], "A piece")) == [(0, (3, 1)), (1, (2, 1))]
    with pytest.raises(InputError, match=r"A piece failed on Ray \(.*zero.*others are kept"):
        list(ray_results(halves, [(7, 0)], "A piece"))
