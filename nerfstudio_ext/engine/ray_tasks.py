"""Independent pieces of work as tasks of a Ray cluster, or of the local machine where there is none."""

import os
from typing import Any, Callable, Dict, Iterator, Sequence, Tuple

from nerfstudio_ext.engine.errors import InputError


def ray_results(work: Callable[..., Any], calls: Sequence[Tuple[Any, ...]], what: str) -> Iterator[Tuple[int, Any]]:
    """Number and result of each call, in the order in which they are done; the suite is installed on all machines.

    Args:
        work: A function of a module, which each machine imports by its name.
        calls: Arguments of each call.
        what: One piece of the work, for messages.

    Raises:
        InputError: Ray is not installed, or a task failed; the results before are those that were there.
    """
    # Nothing here talks to the outside without being asked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayTaskError  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError("--ray needs the package ray: pip install 'nerfstudio-ext[ray]'.") from None
    task: Any = ray.remote(work)
    waiting: Dict[Any, int] = {task.remote(*call): k for k, call in enumerate(calls)}
    while waiting:
        done, _ = ray.wait(list(waiting))
        for reference in done:
            try:
                yield waiting.pop(reference), ray.get(reference)
            except RayTaskError as error:
                raise InputError(f"{what} failed on Ray ({error.cause}); the others are kept.") from None
