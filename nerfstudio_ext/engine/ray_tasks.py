"""Independent pieces of work as tasks of a Ray cluster, or of the local machine where there is none."""

import os
from typing import Any, Callable, Dict, Iterator, Sequence, Tuple

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.packages import require_packages


def ray_results(
    work: Callable[..., Any], calls: Sequence[Tuple[Any, ...]], what: str, on_gpu: bool = False
) -> Iterator[Tuple[int, Any]]:
    """Number and result of each call, in the order in which they are done; the suite is installed on all machines.

    Args:
        work: A function of a module, which each machine imports by its name.
        calls: Arguments of each call.
        what: One piece of the work, for messages.
        on_gpu: Each call takes a GPU of its own where the cluster has any; without this Ray hides them from it.

    Raises:
        InputError: Ray is not installed, or a task failed; the results before are those that were there.
    """
    # Nothing here talks to the outside without being asked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    require_packages("--ray", "ray", "ray")
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayTaskError  # pyright: ignore[reportMissingImports]

    if not ray.is_initialized():
        ray.init()
    num_gpus = 1 if on_gpu and ray.cluster_resources().get("GPU", 0) >= 1 else 0
    task: Any = ray.remote(work).options(num_gpus=num_gpus)
    waiting: Dict[Any, int] = {task.remote(*call): k for k, call in enumerate(calls)}
    while waiting:
        done, _ = ray.wait(list(waiting))
        for reference in done:
            try:
                yield waiting.pop(reference), ray.get(reference)
            except RayTaskError as error:
                raise InputError(f"{what} failed on Ray ({error.cause}); the others are kept.") from None
