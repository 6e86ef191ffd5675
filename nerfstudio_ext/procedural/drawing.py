"""Drawing many people ahead, several at a time: in processes of this machine, or on the machines of a Ray cluster."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Iterator, Tuple

import torch

from nerfstudio_ext.engine.ray_tasks import ray_results
from nerfstudio_ext.procedural.people import PeopleOptions, ProceduralPeople


def draw_ahead(people: ProceduralPeople, workers: int, on_ray: bool) -> Iterator[int]:
    """Draw everybody who is not in the user's cache yet, and yield each when it is there.

    Drawings come back to this process, which alone writes: machines need no common folder.

    Args:
        people: Whom to draw.
        workers: Processes of this machine; 1 draws in this one.
        on_ray: Tasks of a Ray cluster instead, as many at a time as it has cores.

    Raises:
        InputError: A package is missing, or a drawing failed; those before it are kept.
    """
    missing = people.undrawn()
    calls = [(people.options, people.train, people.test, index) for index in missing]
    for position, drawing in _drawings(calls, workers, on_ray):
        people.keep(missing[position], drawing)
        yield missing[position]


def _drawings(calls, workers: int, on_ray: bool) -> Iterator[Tuple[int, bytes]]:
    if on_ray:
        yield from ray_results(_draw, calls, "A person")
    elif workers == 1:
        for position, call in enumerate(calls):
            yield position, _draw(*call)
    else:
        # Not forked: torch's threads do not survive it.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
            waiting = {pool.submit(_draw, *call): position for position, call in enumerate(calls)}
            for future in as_completed(waiting):
                yield waiting.pop(future), future.result()


def _draw(options: PeopleOptions, train: int, test: int, index: int) -> bytes:
    return ProceduralPeople(options, train, test).draw(index)
