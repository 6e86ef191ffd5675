"""A moving picture that the suite draws itself: no file, no network, the same on every run."""

import math

import numpy as np
from jaxtyping import Float, UInt8

# Radius and orbit in units of the frame height, orbits per frame, phase, colour, square or disc.
# The orbit rates have no common period, so that no frame comes twice.
_SHAPES = (
    (0.24, 0.30, 0.0131, 0.00, (0.95, 0.35, 0.20), False),
    (0.16, 0.38, -0.0173, 0.30, (0.20, 0.55, 0.95), False),
    (0.15, 0.26, 0.0217, 0.55, (0.98, 0.85, 0.25), True),
    (0.10, 0.42, -0.0119, 0.80, (0.35, 0.85, 0.45), True),
)


def draw_frame(index: int, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Draw one frame: textured discs and squares orbit over a panning checker on a colour gradient.

    Args:
        index: Frame number; a frame looks the same however long its clip is.
        height: Height in pixels.
        width: Width in pixels.
    """
    # Pixel centres in frame heights, origin in the middle; 1 / height is the width of an anti-aliased edge.
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height - 0.5)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / height)[None, :]
    aspect = width / height

    across, down = x / aspect + 0.5, y + 0.5
    picture = np.stack(np.broadcast_arrays(0.25 + 0.4 * across, 0.3 + 0.3 * down, 0.6 - 0.3 * across * down), axis=-1)
    checker = np.sin(14 * (x + 0.0037 * index)) * np.sin(14 * (y + 0.0023 * index))
    picture = picture + 0.10 * np.clip(checker * height / 16, -1, 1)[..., None]

    for radius, orbit, rate, phase, colour, is_square in _SHAPES:
        angle = 2 * math.pi * (rate * index + phase)
        dx, dy = x - aspect * orbit * math.cos(angle), y - orbit * math.sin(1.3 * angle + phase)
        picture = _paint(picture, dx, dy, radius, 1.7 * angle, colour, is_square, edge=1 / height)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def procedural_clip(num_frames: int, height: int, width: int) -> UInt8[np.ndarray, "frames height width 3"]:
    """Draw the whole clip, frame 0 to `num_frames` - 1."""
    return np.stack([draw_frame(index, height, width) for index in range(num_frames)])


def _paint(
    picture: Float[np.ndarray, "height width 3"],
    dx: Float[np.ndarray, "1 width"],
    dy: Float[np.ndarray, "height 1"],
    radius: float,
    turn: float,
    colour: tuple,
    is_square: bool,
    edge: float,
) -> Float[np.ndarray, "height width 3"]:
    """Lay one striped, turning shape over the picture; `dx`, `dy` are offsets from its centre."""
    u = dx * math.cos(turn) + dy * math.sin(turn)
    v = dy * math.cos(turn) - dx * math.sin(turn)
    distance = np.maximum(abs(u), abs(v)) if is_square else np.hypot(u, v)
    cover = np.clip((radius - distance) / edge + 0.5, 0, 1)[..., None]
    stripes = 0.75 + 0.25 * np.sin(9 * u / radius) * np.cos(4 * v / radius)
    return picture + cover * (stripes[..., None] * np.array(colour, np.float32) - picture)
