"""Fills without a network against slow loops and known pictures; none may look into a hole."""

import numpy as np
import pytest
import torch

from nerfstudio_ext.video import fills
from nerfstudio_ext.video.masks import Masks, center_mask

HEIGHT, WIDTH, NUM_FRAMES = 20, 30, 5


@pytest.fixture
def clip():
    return [np.random.randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8) for _ in range(NUM_FRAMES)]


@pytest.fixture
def moving():
    """A hole that moves, but never off the top left corner."""
    keeps = [np.ones((HEIGHT, WIDTH), bool) for _ in range(NUM_FRAMES)]
    for k, keep in enumerate(keeps):
        keep[4:9, 3 * k : 3 * k + 6] = False
        keep[:2, :2] = False
    return keeps


def test_telea_fills_from_the_edges_and_touches_nothing_else():
    keep = center_mask(HEIGHT, WIDTH)
    frame = np.full((HEIGHT, WIDTH, 3), (200, 90, 20), np.uint8)
    spoiled = np.where(keep[..., None], frame, 0).astype(np.uint8)
    assert np.abs(fills.telea(spoiled, keep).astype(int) - frame).max() <= 3
    noise = np.random.randint(0, 256, frame.shape).astype(np.uint8)
    assert np.array_equal(fills.telea(noise, keep)[keep], noise[keep])


@pytest.mark.parametrize("strip_bytes", [1, 2**26])
def test_median_is_that_of_what_is_seen(clip, moving, strip_bytes, monkeypatch):
    monkeypatch.setattr(fills, "_STRIP_BYTES", strip_bytes)
    median = fills.TemporalMedian(clip, moving)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            seen = [frame[y, x] for frame, keep in zip(clip, moving) if keep[y, x]]
            assert median.seen[y, x] == bool(seen)
            if seen:
                assert np.array_equal(median.picture[y, x], np.median(seen, axis=0).round().astype(np.uint8))
    filled = median(clip[2], moving[2])
    assert np.array_equal(filled[moving[2]], clip[2][moving[2]])
    inside = ~moving[2] & median.seen
    assert inside.any() and np.array_equal(filled[inside], median.picture[inside])


def test_no_fill_looks_into_a_hole(clip, moving):
    masks = Masks(None, MaskStore(moving))
    hidden = [np.where(keep[..., None], frame, 77).astype(np.uint8) for frame, keep in zip(clip, moving)]
    ours, theirs = fills.inpainted(clip, masks), fills.inpainted(hidden, masks)
    assert set(ours) == {"Telea", "temporal median"}
    for name, filled in ours.items():
        assert all(np.array_equal(a, b) for a, b in zip(filled, theirs[name]))


class MaskStore:
    """Mask pictures as `Masks` takes them."""

    def __init__(self, keeps):
        self._keeps = torch.from_numpy(np.stack(keeps)).float()

    def batch(self, indices, device):
        return self._keeps[indices][:, None].expand(-1, 3, -1, -1)


def test_a_hole_that_stays_has_no_median(clip):
    assert set(fills.inpainted(clip, Masks(center_mask(HEIGHT, WIDTH)))) == {"Telea"}


def test_interpolated_frames_are_the_odd_ones(clip):
    made = fills.interpolated(clip)
    assert [len(frames) for frames in made.values()] == [2, 2]
    for place, k in enumerate((1, 3)):
        assert np.array_equal(made["repeat"][place], clip[k - 1])
        mean = (clip[k - 1].astype(float) + clip[k + 1]) / 2
        assert np.abs(made["neighbour mean"][place] - mean).max() <= 0.5


def test_scores_inside_outside_and_everywhere(clip):
    keep = center_mask(HEIGHT, WIDTH)
    truth = [np.full((HEIGHT, WIDTH, 3), 100, np.uint8)] * 2
    shown = [np.where(keep[..., None], 110, 150).astype(np.uint8)] * 2
    found = fills.scores(shown, truth, [keep] * 2)
    assert found["psnr_out_of_mask"] == pytest.approx(-20 * np.log10(10 / 255), abs=1e-3)
    assert found["psnr_in_mask"] == pytest.approx(-20 * np.log10(50 / 255), abs=1e-3)
    share = 1 - keep.mean()
    assert found["psnr"] == pytest.approx(-10 * np.log10((share * 50**2 + (1 - share) * 10**2) / 255**2), abs=1e-3)
    assert set(fills.scores(shown, truth)) == {"psnr"}
