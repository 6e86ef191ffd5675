"""A photograph and its mask as files: upright and in 8 bits, whichever camera or program wrote them."""

from pathlib import Path
from typing import Optional, Tuple

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps, UnidentifiedImageError

from nerfstudio_ext.engine.errors import InputError


def read_cut_out(photo: Path, mask: Optional[Path]) -> Tuple[Image.Image, Bool[np.ndarray, "height width"]]:
    """A photo and where the person is in it.

    Args:
        photo: Any picture; its transparency is its mask where no other one is given.
        mask: White where the person is, or a cut-out with transparency; as large as the photo.

    Raises:
        InputError: A file cannot be read, the two differ in size, or nothing says where the person is.
    """
    picture = open_picture(photo)
    if mask is None:
        person = _opaque(picture)
        if person is None:
            raise InputError(f"{photo} does not say where the person is: give --mask, or cut it out (transparency).")
        return picture, person
    cut = open_picture(mask)
    if cut.size != picture.size:
        (w, h), (width, height) = cut.size, picture.size
        raise InputError(f"{photo} is {width}x{height} when it stands upright, but its mask {mask} {w}x{h}: make them "
                         "alike.")  # fmt: skip
    person = _opaque(cut)
    return picture, np.asarray(cut.convert("L")) > 127 if person is None else person


def open_picture(path: Path) -> Image.Image:
    """A picture as people see it: turned as its camera was held (EXIF), 16 bits cut to 8.

    Raises:
        InputError: It cannot be read, or is larger than Pillow opens.
    """
    try:
        picture = Image.open(path)
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
    except FileNotFoundError:
        raise InputError(f"There is no {path}.") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise InputError(f"{path} has more than {most} million pixels: make it smaller first.") from None
    # Broken PNG files are a SyntaxError to Pillow.
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is no picture that can be read: {error}.") from error
    if picture.mode == "F":
        raise InputError(f"{path} holds fractions, whose white nobody knows: save it with 8 bits a colour.")
    if picture.mode.startswith("I"):  # Pillow would call everything above 255 white
        values = np.asarray(picture)
        picture = Image.fromarray((values >> 8 if values.max() > 255 else values).clip(0, 255).astype(np.uint8))
    return picture


def _opaque(picture: Image.Image) -> Optional[Bool[np.ndarray, "height width"]]:
    """Where a picture is opaque; none where it is throughout."""
    if not picture.has_transparency_data:
        return None
    alpha = picture if "A" in picture.getbands() else picture.convert("RGBA")
    opaque = np.asarray(alpha.getchannel("A")) > 127
    return None if opaque.all() else opaque
