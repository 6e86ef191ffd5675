"""What the dataparsers share: which views train, the frame that surface methods work in, cameras of drawn scenes."""

from dataclasses import dataclass
from typing import List, Literal, Optional, Tuple

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError


@dataclass
class ViewSplit:
    """Indices of the views that train and of those that are held out, both in ascending order."""

    train: List[int]
    test: List[int]


def split_views(
    positions: Float[Tensor, "views 3"],
    train_views: Optional[str],
    num_views: Optional[int],
    pick: Literal["even", "farthest"],
    max_test_views: Optional[int],
    source: str,
) -> ViewSplit:
    """Choose the training views; all others are held out, evenly thinned to a number.

    Args:
        positions: Camera centres.
        train_views: Comma-separated indices, counted from 0; overrides `num_views`.
        num_views: How many views to choose; none: every 8th is held out and the others train.
        pick: ``even`` over the indices, or ``farthest``: one after the other, each far from those chosen before.
        max_test_views: Most held-out views to keep; none: all.
        source: What the views belong to, for messages.

    Raises:
        InputError: An index is out of range, twice there or no number; or no view is left to test.
    """
    count = len(positions)
    if train_views is not None:
        train = _parse_views(train_views, count, source)
    elif num_views is not None:
        if not 1 <= num_views < count:
            raise InputError(
                f"--num-views {num_views} does not fit {source}, which has {count} views: choose 1 to {count - 1}, so "
                "that at least one is left to test."
            )
        train = (
            _farthest(positions, num_views)
            if pick == "farthest"
            else [k * count // num_views for k in range(num_views)]
        )
    else:
        train = [k for k in range(count) if k % 8 or count == 1]
    test = sorted(set(range(count)) - set(train))
    if not test:
        raise InputError(f"All {count} views of {source} train and none is left to test: leave at least one out.")
    if max_test_views is not None and len(test) > max_test_views:
        test = [test[k * len(test) // max_test_views] for k in range(max_test_views)]
    return ViewSplit(sorted(train), test)


def _parse_views(text: str, count: int, source: str) -> List[int]:
    try:
        views = [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"--train-views wants indices with commas, as in 3,17,40, not '{text}'.") from None
    for view in views:
        if not 0 <= view < count:
            raise InputError(f"--train-views names view {view}, but {source} has views 0 to {count - 1}.")
    if len(set(views)) < len(views):
        raise InputError(f"--train-views names a view twice: {text}.")
    return views


def _farthest(positions: Float[Tensor, "views 3"], number: int) -> List[int]:
    chosen = [0]
    distance = (positions - positions[0]).norm(dim=-1)
    while len(chosen) < number:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (positions - positions[chosen[-1]]).norm(dim=-1))
    return chosen


def meeting_point(
    positions: Float[Tensor, "views 3"], forward: Float[Tensor, "views 3"]
) -> Tuple[Float[Tensor, "3"], bool]:
    """Least-squares meeting point of the optical axes.

    Returns:
        The point, and whether the axes are far enough from parallel to determine it; where they are not, the point
        lies in front of the cameras at a distance of three times their spread.
    """
    positions, forward = positions.double(), torch.nn.functional.normalize(forward.double(), dim=-1)
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    matrix = across.sum(0)
    if torch.linalg.cond(matrix) < 1e3:
        return torch.linalg.solve(matrix, (across @ positions[:, :, None]).sum(0))[:, 0].float(), True
    centre = positions.mean(0)
    reach = 3 * (positions - centre).norm(dim=-1).max().clamp(min=1.0)
    return (centre + reach * torch.nn.functional.normalize(forward.mean(0), dim=0)).float(), False


def square_cameras(
    poses: Float[Tensor, "views 3 4"], focal: float, side: int, times: Optional[Float[Tensor, "views 1"]] = None
) -> Cameras:
    """Pinhole cameras of square pictures, their principal point in the middle; focal length and side in pixels."""
    return Cameras(
        camera_to_worlds=poses,
        fx=focal,
        fy=focal,
        cx=side / 2,
        cy=side / 2,
        width=side,
        height=side,
        camera_type=CameraType.PERSPECTIVE,
        times=times,
    )
