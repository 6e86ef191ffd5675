"""Which mask belongs to which picture, and whether white is the object in it."""

from pathlib import Path
from typing import Dict, List, Optional, Set, Tuple

import numpy as np
from jaxtyping import Bool

from dataparsers._common import numbered, pictures_in, read_pixels
from nerfstudio_ext.engine.errors import InputError

MASKS_CHECKED = 8
"""Masks that are opened to tell white objects from black ones."""
RIM, RIM_ABOVE_MIDDLE = 0.6, 0.2
"""Where so much of the rim is white, and the middle by so much less, background is white. Objects that fill the picture
are as white in the middle."""


def foreground_masks(folder: Path, images: List[Path], layout: str, named: bool = False) -> Optional[List[Path]]:
    """Masks, white for the object, in the order of their pictures; None where the folder is missing.

    The mask of a.jpg is named after it: a.png, a_mask.png, mask_a.png, or a.jpg.png as COLMAP has it. If names are
    others, it belongs to the picture whose name ends in the same number.

    Args:
        folder: Where the masks are.
        images: The pictures.
        layout: Whose folder this is, for messages.
        named: The user asked for this folder, by another name than ``none``: there it must be.

    Raises:
        InputError: A picture has two masks or none, one belongs to no picture, they look inverted, or a named folder is
            missing.
    """
    if not folder.is_dir():
        if named and folder.name != "none":
            raise InputError(
                f"There is no folder of masks {folder}: give the name of the one that there is (--masks), or --masks "
                "none to train without."
            )
        return None
    found = pictures_in(folder, layout)
    masks = _by_name(images, found)
    if masks is None:
        if len(found) != len(images):
            raise InputError(
                f"{folder} holds {len(found)} masks for {len(images)} pictures: one each is needed, or no such folder."
            )
        masks = _by_number(images, found)
    seen = [read_pixels(path, "L") > 127 for path in looked_at(masks)]
    require_upright(seen, f"The masks in {folder}", "remove the folder to train without")
    return masks


def _by_name(images: List[Path], masks: List[Path]) -> Optional[List[Path]]:
    """The mask that is named after each picture; None where one has none, or some mask is none of them."""
    by_stem: Dict[str, Path] = {mask.stem: mask for mask in masks}
    stems = [image.stem for image in images]
    if len(by_stem) == len(masks) == len(images) and set(by_stem) == set(stems):
        return [by_stem[stem] for stem in stems]
    chosen: List[Path] = []
    for image in images:
        names = _names(image)
        of_it = [mask for mask in masks if mask.stem in names]
        if len(of_it) > 1:
            raise InputError(f"{of_it[0]} and {of_it[1].name} could both be the mask of {image.name}: keep one there.")
        chosen += of_it
    if len(set(chosen)) < len(chosen):
        twice = next(mask for mask in chosen if chosen.count(mask) > 1)
        raise InputError(
            f"{twice} could be the mask of two pictures, which differ in their endings only: name the masks after the "
            "whole names, as in a.jpg.png."
        )
    return chosen if len(chosen) == len(images) == len(masks) else None


def _names(image: Path) -> Set[str]:
    """What the mask of a picture may be called, without its own ending."""
    return {image.stem, image.name, f"{image.stem}_mask", f"mask_{image.stem}"}


def _by_number(images: List[Path], masks: List[Path]) -> List[Path]:
    """The mask whose name ends in the same number, for each picture."""
    by_number, wanted = numbered(masks), numbered(images)
    if by_number is not None and wanted is not None and set(by_number) == set(wanted):
        place = {image: number for number, image in wanted.items()}
        return [by_number[place[image]] for image in images]
    named = set().union(*(_names(image) for image in images))
    stranger = next((mask for mask in masks if mask.stem not in named), masks[0])
    raise InputError(
        f"{stranger} belongs to no picture in {images[0].parent}, neither by its name nor by its number: name every "
        "mask as its picture is named."
    )


def looked_at(masks: List[Path]) -> List[Path]:
    """Some of the masks, evenly chosen: enough to tell white objects from black ones."""
    return masks[:: -(-len(masks) // MASKS_CHECKED)]


def require_upright(masks: List[Bool[np.ndarray, "height width"]], what: str, otherwise: str) -> None:
    """Refuse masks in which black is the object.

    Args:
        masks: Some of the masks, true where they are white.
        what: The masks, for the message.
        otherwise: What else the user may do, for the message.

    Raises:
        InputError: Hardly anything is white, or nearly everything, or the rims of the pictures rather than the middle.
    """
    share = float(np.mean([mask.mean() for mask in masks]))
    middle, rim = np.mean([_middle_and_rim(mask) for mask in masks], axis=0)
    if not 0.001 < share < 0.95:
        found = f"call {share:.0%} of all pixels object"
    elif rim > RIM and middle < rim - RIM_ABOVE_MIDDLE:
        found = f"call {rim:.0%} of the pictures' rims object and {middle:.0%} of their middle"
    else:
        return
    raise InputError(f"{what} {found}: white must be the object; invert them, or {otherwise}.")


def _middle_and_rim(mask: Bool[np.ndarray, "height width"]) -> Tuple[float, float]:
    """White part of the middle, half as high and as wide as the picture, and of its outermost sixteenth."""
    (high, wide), (y, x) = mask.shape, (max(1, side // 16) for side in mask.shape)
    middle = mask[high // 4 : high - high // 4, wide // 4 : wide - wide // 4]
    inner = mask[y : high - y, x : wide - x]
    return float(middle.mean()), float((mask.sum() - inner.sum()) / max(1, mask.size - inner.size))
