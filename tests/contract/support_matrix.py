"""Which of nerfstudio's commands work with which method on which device: what test_commands tries and README shows.

``python -m tests.contract.support_matrix`` prints the table for the README.
"""

from typing import Dict, List

from tests.contract.registered import METHODS

WORKS = "works"
REFUSES = "refuses"
"""Ends with one sentence that says why."""
FIRST_FRAME = "first frame"
"""Works, but the host drops the times of its cameras, so that a video stands still."""
UNTESTED = "untested"
"""The same code and the same tests, but no such device has run them yet."""

DEVICES = ("cpu", "cuda")

Column = Dict[str, Dict[str, str]]
"""Command -> device -> support."""


def _everywhere(support: str) -> Dict[str, str]:
    """A refusal does not depend on the device; what works has been seen to on CPU only."""
    return {"cpu": support, "cuda": REFUSES if support == REFUSES else UNTESTED}


# A video has frames and a screen in space, but neither rays nor a surface.
_VIDEO: Column = {
    "ns-train": _everywhere(WORKS),
    "ns-viewer": _everywhere(WORKS),
    "ns-eval": _everywhere(WORKS),
    "ns-render dataset": _everywhere(WORKS),
    "ns-render camera-path": _everywhere(WORKS),
    "ns-render interpolate": _everywhere(FIRST_FRAME),
    "ns-render spiral": _everywhere(REFUSES),
    "ns-export cameras": _everywhere(WORKS),
    "ns-export pointcloud": _everywhere(REFUSES),
    "ns-export poisson": _everywhere(REFUSES),
    "ns-export tsdf": _everywhere(REFUSES),
    "ns-export marching-cubes": _everywhere(REFUSES),
    "ns-export gaussian-splat": _everywhere(REFUSES),
}

COMMANDS = tuple(_VIDEO)

# A surface seen along rays. The stock marching cubes insist on CUDA and on the host's own field: `ns-ext export mesh`.
_SURFACE: Column = {
    **{command: _everywhere(WORKS) for command in COMMANDS},
    "ns-export marching-cubes": _everywhere(REFUSES),
    "ns-export gaussian-splat": _everywhere(REFUSES),
}

# A person in motion: without a time, commands show the first frame. There are no normals, so Poisson needs
# `--normal-method open3d`.
_HUMAN: Column = dict(_SURFACE)

# A person from photographs: cameras that do not say whom they look at see the one that is shown. Again no normals.
_PEOPLE: Column = dict(_SURFACE)

# A person from one photograph: the same, with normals.
_PHOTO: Column = dict(_SURFACE)

_BY_METHOD: Dict[str, Column] = {
    "nerv": _VIDEO,
    "nerv-boost": _VIDEO,
    "e-nerv": _VIDEO,
    "e-nerv-boost": _VIDEO,
    "hnerv": _VIDEO,
    "hnerv-boost": _VIDEO,
    "coco-inr": _SURFACE,
    "volsdf": _SURFACE,
    "neural-body": _HUMAN,
    "keypoint-nerf": _PEOPLE,
    "keypoint-icon": _PHOTO,
}


def support(method: str, command: str, device: str) -> str:
    """What this preset does with that command; a `-tiny`, `-interp` or `-photos` preset does what its method does.

    Raises:
        KeyError: The matrix does not know the method.
    """
    return _BY_METHOD[method.removesuffix("-tiny").removesuffix("-interp").removesuffix("-photos")][command][device]


def markdown() -> str:
    """The table as README has it: a row for each command, a column for each method."""
    methods = [name for name in _BY_METHOD if name in METHODS]
    rows = [["command", *(f"`{name}`" for name in methods)], ["---", *(":---:" for _ in methods)]]
    for command in COMMANDS:
        rows.append([f"`{command}`", *(_cell(method, command) for method in methods)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(method: str, command: str) -> str:
    working: List[str] = [device.upper() for device in DEVICES if support(method, command, device) == WORKS]
    return ", ".join(working) or support(method, command, "cpu")


if __name__ == "__main__":
    print(markdown())
