"""What the dataparsers share: which views train, pictures, the frame of surface methods, drawn cameras."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Literal, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from PIL import Image
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg")


@dataclass
class ObjectDataParserConfig(DataParserConfig):
    """A folder of pictures around one object."""

    data: Optional[Path] = None
    """The folder."""
    train_views: Optional[str] = None
    """Views to train on, as indices with commas (3,17,40), counted over the sorted pictures."""
    num_views: Optional[int] = None
    """How many views to train on; all others are held out. Neither given: every 8th is held out."""
    pick: Literal["even", "farthest"] = "farthest"
    """How num-views chooses: evenly over the indices, or far from one another."""
    max_test_views: Optional[int] = None
    """Most views to evaluate on; none: all that are held out."""


@dataclass
class ViewSplit:
    """Indices of the views that train and of those that are held out, both in ascending order."""

    train: List[int]
    test: List[int]


def split_views(
    positions: Float[Tensor, "views 3"],
    train_views: Union[str, Sequence[int], None],
    num_views: Optional[int],
    pick: Literal["even", "farthest"],
    max_test_views: Optional[int],
    source: str,
) -> ViewSplit:
    """Choose the training views; all others are held out, evenly thinned to a number.

    Args:
        positions: Camera centres.
        train_views: Indices counted from 0, as text with commas or as numbers.
        num_views: How many views to choose; none, like `train_views`: every 8th is held out and the others train.
        pick: As `choose_views`.
        max_test_views: Most held-out views to keep; none: all.
        source: What the views belong to, for messages.

    Raises:
        InputError: As `choose_views`; or no view is left to test, or shall be.
    """
    count = len(positions)
    if train_views is None and num_views is None:
        train = [k for k in range(count) if k % 8 or count == 1]
    elif train_views is None and num_views is not None and not 1 <= num_views < count:
        raise InputError(
            f"--num-views {num_views} does not fit {source}, which has {count} views: choose 1 to {count - 1}, so "
            "that at least one is left to test."
        )
    else:
        train = choose_views(positions, train_views, num_views, pick, source)
    if max_test_views is not None and max_test_views < 1:
        raise InputError(f"--max-test-views {max_test_views} leaves no view to test: 1 at least.")
    test = sorted(set(range(count)) - set(train))
    if not test:
        raise InputError(f"All {count} views of {source} train and none is left to test: leave at least one out.")
    if max_test_views is not None and len(test) > max_test_views:
        test = [test[k * len(test) // max_test_views] for k in range(max_test_views)]
    return ViewSplit(train, test)


def choose_views(
    positions: Float[Tensor, "views 3"],
    train_views: Union[str, Sequence[int], None],
    num_views: Optional[int],
    pick: Literal["even", "farthest"],
    source: str,
) -> List[int]:
    """Indices of the named views, or of so many, in ascending order; all views may be chosen.

    Args:
        positions: Camera centres.
        train_views: Indices counted from 0, as text with commas or as numbers.
        num_views: How many views to choose; this or `train_views` is given.
        pick: ``even`` over the indices, or ``farthest``: one after the other, each far from those chosen before.
        source: What the views belong to, for messages.

    Raises:
        InputError: Both choices are made; or an index is out of range, twice there or no number.
    """
    count = len(positions)
    if train_views is not None and num_views is not None:
        raise InputError("--train-views and --num-views each choose the views that train: give one of them.")
    if train_views is not None:
        return sorted(_parse_views(train_views, count, source) if isinstance(train_views, str) else train_views)
    assert num_views is not None
    if not 1 <= num_views <= count:
        raise InputError(
            f"--num-views {num_views} does not fit {source}, which has {count} views: choose 1 to {count}."
        )
    if pick == "farthest":
        return sorted(_farthest(positions, num_views))
    return [k * count // num_views for k in range(num_views)]


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


def pictures_in(folder: Path, layout: str) -> List[Path]:
    """Pictures of a folder in the alphabetical order of their names.

    Raises:
        InputError: There is none; `layout` says what the data then is not.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise InputError(f"{folder} holds no pictures ({', '.join(ENDINGS)}): the data is not in {layout} layout.")
    return paths


def final_number(path: Path) -> Optional[int]:
    """The last number in a picture's name, as 7 of img_0007.png; None where there is none."""
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else None


def numbered(paths: List[Path]) -> Optional[Dict[int, Path]]:
    """Paths by the last number of their names; None where one has none, or two have the same."""
    found = {number: path for path in paths if (number := final_number(path)) is not None}
    return found if len(found) == len(paths) else None


def open_picture(path: Path) -> Image.Image:
    """A picture whose pixels are read when they are first needed.

    Raises:
        InputError: It is missing or no picture.
    """
    if not path.is_file():
        raise InputError(f"There is no picture {path}, which the data names: bring it, or take it out of the list.")
    try:
        return Image.open(path)
    except OSError as error:
        raise InputError(f"{path} is no picture: replace it, or take it out of the folder.") from error


def read_pixels(path: Path, mode: Optional[str] = None, size: Optional[Tuple[int, int]] = None) -> np.ndarray:
    """Pixels of a picture, uint8.

    Args:
        path: The picture.
        mode: Pillow's name of the channels to convert to; none: as they are.
        size: Width and height to resize to; none: as it is.

    Raises:
        InputError: It is missing, no picture, or ends too early.
    """
    picture = open_picture(path)
    try:
        picture = picture if mode is None else picture.convert(mode)
        picture = picture if size is None else picture.resize(size, resample=Image.Resampling.BILINEAR)
        return np.array(picture, dtype=np.uint8)
    except (OSError, SyntaxError) as error:  # the latter is Pillow's for a damaged PNG
        raise InputError(f"{path} cannot be read to its end ({error}): bring the whole picture.") from error


def picture_size(images: List[Path]) -> Tuple[int, int]:
    """Width and height that all pictures have.

    Raises:
        InputError: They differ, or one is no picture.
    """
    size = open_picture(images[0]).size
    for image in images:
        if open_picture(image).size != size:
            raise InputError(f"{image} is not {size[0]}x{size[1]} as {images[0].name} is: give pictures of one size.")
    return size


def object_outputs(
    images: List[Path],
    masks: Optional[List[Path]],
    poses: Float[Tensor, "views 3 4"],
    intrinsics: Float[Tensor, "views 4"],
    size: Tuple[int, int],
    chosen: List[int],
) -> DataparserOutputs:
    """The chosen views as nerfstudio has them; `metadata["fg_mask_filenames"]` lists their masks where there are any.

    Args:
        images: All pictures.
        masks: All masks.
        poses: Camera to world, OpenGL axes.
        intrinsics: fx, fy, cx, cy in pixels, pixel centres at one half.
        size: Width and height in pixels.
        chosen: Indices of the views to keep.
    """
    fx, fy, cx, cy = intrinsics[chosen].float().split(1, dim=1)
    cameras = Cameras(
        camera_to_worlds=poses[chosen].float(),
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        width=size[0],
        height=size[1],
        camera_type=CameraType.PERSPECTIVE,
    )
    return DataparserOutputs(
        image_filenames=[images[k] for k in chosen],
        cameras=cameras,
        scene_box=SceneBox(aabb=torch.tensor([[-1.5, -1.5, -1.5], [1.5, 1.5, 1.5]])),
        metadata={} if masks is None else {"fg_mask_filenames": [masks[k] for k in chosen]},
    )
