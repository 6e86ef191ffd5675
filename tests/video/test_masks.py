"""Holes: the two published masks by their measures, and masks of the user's own as pictures and video."""

import numpy as np
import pytest
import torch
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.video import write_video
from nerfstudio_ext.video.frames import ClipOptions
from nerfstudio_ext.video.masks import center_mask, disperse_mask, open_masks

HEIGHT, WIDTH, FRAMES = 32, 48, 6
OPTIONS = ClipOptions(None)


def batch(name, indices=(0,), options=OPTIONS, size=(HEIGHT, WIDTH)):
    return open_masks(str(name), options, FRAMES, *size).batch(torch.tensor(indices), "cpu")


def picture(path, left=0):
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[4:20, left : left + 16] = 0
    Image.fromarray(mask).save(path)
    return path


def test_center_is_a_sixteenth_of_the_frame():
    keep = center_mask(720, 1280)
    rows, columns = np.nonzero(~keep)
    assert (~keep).sum() == 720 * 1280 // 16
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (270, 449, 480, 799)


def test_disperse_is_five_squares_of_fifty_pixels():
    keep = disperse_mask(1080, 1920)
    assert (~keep).sum() == 5 * 50 * 50
    for row, column in ((540, 960), (270, 480), (270, 1440), (810, 480), (810, 1440)):
        assert not keep[row - 25 : row + 25, column - 25 : column + 25].any()
    assert (~disperse_mask(180, 320)).sum() == 5 * 8 * 8


@pytest.mark.parametrize("name", ["center", "disperse"])
def test_built_in_masks_are_the_same_in_every_frame(name):
    masks = batch(name, (0, 3, 5))
    assert masks.shape == (3, 1, HEIGHT, WIDTH) and torch.equal(masks[0], masks[2])
    assert set(masks.unique().tolist()) == {0.0, 1.0}


def test_one_picture_for_all_frames(tmp_path):
    masks = batch(picture(tmp_path / "mask.png", 8), (0, 5), ClipOptions(None, first_frame=2, frame_step=3))
    expected = torch.ones(HEIGHT, WIDTH)
    expected[4:20, 8:24] = 0
    assert torch.equal(masks[0, 0], expected) and torch.equal(masks[1, 0], expected)


def test_pictures_and_video_go_frame_by_frame(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    files = [picture(folder / f"{k:03d}.png", 4 * k) for k in range(FRAMES)]
    write_video([np.asarray(Image.open(file).convert("RGB")) for file in files], tmp_path / "masks.mp4", 10)
    for source in (folder, tmp_path / "masks.mp4"):
        masks = batch(source, (5, 1))
        assert float(masks[0, 0, 10, 20:36].max()) == 0 and float(masks[0, 0, 10, :18].min()) == 1
        assert float(masks[1, 0, 10, 5:19].max()) == 0 and float(masks[1, 0, 10, 22:].min()) == 1


def test_masks_take_the_size_of_the_frames(tmp_path):
    assert batch(picture(tmp_path / "mask.png"), size=(16, 24)).shape == (1, 1, 16, 24)


def test_mistakes(tmp_path):
    with pytest.raises(InputError, match="There is no mask centre"):
        batch("centre")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(InputError, match="keeps no pixel"):
        batch(tmp_path / "black.png")
    folder = tmp_path / "masks"
    folder.mkdir()
    for k in range(3):
        picture(folder / f"{k}.png")
    with pytest.raises(InputError, match="has 3 of the chosen frames"):
        batch(folder)
