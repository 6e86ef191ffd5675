"""Work on Ray: results by their number, a failure in one sentence, and a hint where Ray is missing."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.ray_tasks import ray_results


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"nerfstudio-ext\[ray\]"):
        list(ray_results(divmod, [(1, 2)], "A piece"))


@pytest.mark.parametrize(
    "on_gpu, there, asked", [(True, {"CPU": 4.0, "GPU": 2.0}, 1), (True, {"CPU": 4.0}, 0), (False, {"GPU": 2.0}, 0)]
)
def test_a_gpu_is_asked_for_where_there_is_one(monkeypatch, on_gpu, there, asked):
    """With a stand-in for Ray, since no machine that tests has to have a GPU."""
    given = {}
    ray = ModuleType("ray")
    ray.__spec__ = ModuleSpec("ray", None)
    task = SimpleNamespace(options=lambda **options: given.update(options) or task, remote=lambda *call: call)
    ray.is_initialized, ray.cluster_resources, ray.remote = lambda: True, lambda: there, lambda work: task
    ray.wait, ray.get = lambda waiting: (waiting[:1], waiting[1:]), lambda call: sum(call)
    exceptions = ModuleType("ray.exceptions")
    exceptions.RayTaskError = RuntimeError
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    assert list(ray_results(divmod, [(7, 2), (9, 4)], "A piece", on_gpu)) == [(0, 9), (1, 13)]
    assert given == {"num_gpus": asked}


@pytest.mark.slow
@pytest.mark.extra("ray")
def test_results_and_failures(ray_here):
    def halves(a, b):  # inside, so that it is sent along: workers cannot import tests
        return divmod(a, b)

    assert sorted(ray_results(halves, [(7, 2), (9, 4)], "A piece")) == [(0, (3, 1)), (1, (2, 1))]
    with pytest.raises(InputError, match=r"A piece failed on Ray \(.*zero.*others are kept"):
        list(ray_results(halves, [(7, 0)], "A piece"))
