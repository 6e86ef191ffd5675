"""Photos and masks as files come out upright and in 8 bits, or are refused in a sentence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.photo_pictures import open_picture, read_cut_out

GRAY = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (12, 1))
PERSON = np.zeros(GRAY.shape, bool)
PERSON[2:9, 5:15] = True


def test_photos_stand_as_their_camera_was_held(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(GRAY).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "turned.png")), np.rot90(GRAY, -1))


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_keep_their_shades(tmp_path: Path, mode: str):
    dtype = {"I;16": np.uint16, "I": np.int32}[mode]
    Image.fromarray(GRAY.astype(dtype) * 256).save(tmp_path / "deep.tiff")
    assert np.array_equal(np.asarray(open_picture(tmp_path / "deep.tiff")), GRAY)


@pytest.mark.parametrize("kind", ["L", "RGBA", "LA", "1", "I;16"])
def test_masks_are_white_or_cut_out(tmp_path: Path, kind: str):
    """A cut-out of a dark person is no empty mask."""
    Image.fromarray(GRAY).save(tmp_path / "photo.png")
    white = Image.fromarray(PERSON.astype(np.uint8) * 255)
    if kind in ("RGBA", "LA"):
        mask = Image.new(kind, white.size)
        mask.putalpha(white)
    elif kind == "I;16":
        mask = Image.fromarray(PERSON.astype(np.uint16) * 65535)
    else:
        mask = white.convert(kind)
    mask.save(tmp_path / "mask.png")
    assert np.array_equal(read_cut_out(tmp_path / "photo.png", tmp_path / "mask.png")[1], PERSON)


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.fromarray(GRAY).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match="There is no"):
        open_picture(tmp_path / "none.png")
    with pytest.raises(InputError, match="no picture"):
        open_picture(tmp_path)
    (tmp_path / "cut.png").write_bytes((tmp_path / "photo.png").read_bytes()[:45])
    with pytest.raises(InputError, match="no picture"):
        open_picture(tmp_path / "cut.png")
    Image.fromarray(GRAY.astype(np.float32)).save(tmp_path / "fractions.tiff")
    with pytest.raises(InputError, match="8 bits"):
        open_picture(tmp_path / "fractions.tiff")
    Image.fromarray(PERSON.T).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"24x12 when it stands upright, but its mask .* 12x24"):
        read_cut_out(tmp_path / "photo.png", tmp_path / "mask.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="make it smaller"):
        open_picture(tmp_path / "photo.png")
