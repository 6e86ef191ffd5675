import time

import numpy as np

from nerfstudio_ext.procedural.clip import draw_frame, procedural_clip


def test_clip_is_deterministic_and_every_frame_differs():
    clip = procedural_clip(48, 96, 160)
    assert clip.shape == (48, 96, 160, 3) and clip.dtype == np.uint8
    assert np.array_equal(clip, procedural_clip(48, 96, 160))
    assert len({frame.tobytes() for frame in clip}) == 48


def test_long_tiny_clip_never_repeats():
    assert len({frame.tobytes() for frame in procedural_clip(600, 16, 16)}) == 600


def test_frame_does_not_depend_on_clip_length():
    assert np.array_equal(procedural_clip(3, 20, 30)[2], draw_frame(2, 20, 30))


def test_clip_moves_and_has_texture():
    """Neighbouring frames are alike, distant ones are not, and no frame is flat."""
    clip = procedural_clip(48, 96, 160).astype(float)
    near = np.abs(clip[1:] - clip[:-1]).mean()
    far = np.abs(clip[24:] - clip[:24]).mean()
    assert 0.5 < near < 0.5 * far
    assert clip.std(axis=(1, 2)).min() > 20


def test_drawing_is_fast():
    start = time.process_time()
    procedural_clip(48, 96, 160)
    assert time.process_time() - start < 2
