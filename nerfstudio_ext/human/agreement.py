"""Does the body stand where the pictures show the person? Silhouettes, overlays, and guesses at what went wrong."""

from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from nerfstudio_ext.human.capture import CaptureCamera, Size

DOT = 0.015
"""Radius in metres of the disc that stands for a vertex where a body has no faces."""
OVERLAY = (255, 60, 200)
CELLS = 40
"""Squares along a picture's longer side in which silhouettes are compared."""
FARTHEST = 0.5
"""Metres along each axis that a body is looked for beside where it is."""
LEAST_SHIFT, SHIFT_GAIN = 0.07, 0.1
"""Metres that a displaced body is off at least, and the overlap that moving it back gains; bodies that stand right, in
loose clothes, with hidden legs or with a calibration that is off by 13 pixels, moved by 5 cm and gained 0.03."""


@dataclass(frozen=True)
class Agreement:
    """How body and mask of one picture agree."""

    in_picture: float
    """Share of the vertices that fall inside the picture."""
    in_mask: float
    """Share of the vertices that fall on the mask."""
    iou: float
    """Intersection over union of the body's silhouette and the mask."""


def silhouette(
    camera: CaptureCamera,
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    size: Size,
) -> Bool[np.ndarray, "height width"]:
    """Pixels that the body covers; without faces every vertex is a small disc."""
    drawn = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels = camera.project(vertices)
    seen = np.isfinite(pixels).all(-1) & (np.abs(pixels) < 1e4).all(-1)
    if len(faces):
        for corners in np.round(pixels[faces[seen[faces].all(1)]] * 16).astype(np.int32):
            cv2.fillConvexPoly(drawn, corners, (1,), shift=4)
    else:
        radii = DOT * camera.calibration[0, 0] / camera.local(vertices)[seen, 2]
        for (x, y), radius in zip(pixels[seen], radii):
            cv2.circle(drawn, (round(x), round(y)), max(1, round(radius)), (1,), -1)
    return drawn > 0


def agreement(
    camera: CaptureCamera,
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    mask: Bool[np.ndarray, "height width"],
) -> Agreement:
    """Compare a body with a mask."""
    drawn = silhouette(camera, vertices, faces, (mask.shape[1], mask.shape[0]))
    both, either = float((drawn & mask).sum()), float((drawn | mask).sum())
    inside, on_mask = on_person(camera, vertices, mask)
    return Agreement(inside, on_mask, both / max(either, 1.0))


def on_person(
    camera: CaptureCamera, vertices: Float[np.ndarray, "vertices 3"], mask: Bool[np.ndarray, "height width"]
) -> Tuple[float, float]:
    """Shares of the vertices that fall inside the picture, and on the mask."""
    x, y = _inside(camera, vertices, mask).T
    return len(x) / len(vertices), float(mask[y, x].sum() / len(vertices))


def coarse_overlap(
    camera: CaptureCamera,
    vertices: Float[np.ndarray, "vertices 3"],
    mask: Bool[np.ndarray, "height width"],
    cells: int = CELLS,
) -> float:
    """Intersection over union of vertices and mask in squares, so many along the picture's longer side; quick."""
    person = _cells(np.stack(np.nonzero(mask)[::-1], axis=-1), mask, cells)
    body = _cells(_inside(camera, vertices, mask), mask, cells)
    return float((body & person).sum() / max((body | person).sum(), 1))


def _cells(pixels: Int[np.ndarray, "n 2"], mask: np.ndarray, cells: int) -> Bool[np.ndarray, "cells cells"]:
    """Squares of a picture that some of its pixels (x, y) fall in."""
    found = np.zeros((cells + 1, cells + 1), dtype=bool)
    columns, rows = (pixels.T / (max(mask.shape) / cells)).astype(int)
    found[rows, columns] = True
    return found


def _inside(camera: CaptureCamera, vertices: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Rounded pixels of the vertices that fall inside the picture."""
    pixels = np.nan_to_num(camera.project(vertices), nan=-1.0).clip(-1, 1e6).round().astype(int)
    return pixels[((pixels >= 0) & (pixels < (mask.shape[1], mask.shape[0]))).all(1)]


def best_shift(
    cameras: Sequence[CaptureCamera],
    vertices: Float[np.ndarray, "vertices 3"],
    masks: Sequence[Bool[np.ndarray, "height width"]],
) -> Tuple[Float[np.ndarray, "3"], float]:
    """The shift of the body, at most `FARTHEST` along each axis of the world, that lays it best over the masks of one
    frame, metres, and the mean coarse overlap of all vertices there."""
    persons = [_cells(np.stack(np.nonzero(mask)[::-1], axis=-1), mask, CELLS) for mask in masks]

    def shares(shifts: np.ndarray, points: np.ndarray) -> Float[np.ndarray, "shifts"]:
        total = np.zeros(len(shifts))
        for camera, mask, person in zip(cameras, masks, persons):
            matrix = camera.projection()
            moved = (points @ matrix[:, :3].T + matrix[:, 3])[None] + (shifts @ matrix[:, :3].T)[:, None]
            pixels = moved[..., :2] / np.where(moved[..., 2:] > 1e-6, moved[..., 2:], np.nan)
            pixels = np.nan_to_num(pixels, nan=-1.0).clip(-1, 1e6).round().astype(int)
            which, _ = seen = np.nonzero(((pixels >= 0) & (pixels < mask.shape[::-1])).all(-1))
            columns, rows = (pixels[seen].T / (max(mask.shape) / CELLS)).astype(int)
            body = np.zeros((len(shifts), *person.shape), dtype=bool)
            body[which, rows, columns] = True
            total += (body & person).sum((1, 2)) / np.maximum((body | person).sum((1, 2)), 1)
        return total / len(cameras)

    def best(middle: np.ndarray, step: float, reach: int) -> np.ndarray:
        around = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1) * step] * 3), axis=-1).reshape(-1, 3)
        places = (middle + around).clip(-FARTHEST, FARTHEST)
        # Of shifts that fit alike, as along the only camera's view, the least.
        return places[np.argmax(shares(places, few) - 0.02 * np.linalg.norm(places, axis=1))]

    few = vertices[:: max(1, len(vertices) // 1000)]
    shift = best(np.zeros(3), FARTHEST / 3, 3)
    for step in (0.08, 0.04, 0.02):
        shift = best(shift, step, 1)
    return shift, float(shares(shift[None], vertices)[0])


def overlay(
    rgb: UInt8[np.ndarray, "height width 3"],
    camera: CaptureCamera,
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture with the body laid over it, and the outline of its silhouette."""
    drawn = silhouette(camera, vertices, faces, (rgb.shape[1], rgb.shape[0])).astype(np.uint8)
    tinted = np.where(drawn[..., None] > 0, 0.6 * rgb + 0.4 * np.array(OVERLAY), rgb).astype(np.uint8)
    outlines, _ = cv2.findContours(drawn, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(tinted), outlines, -1, OVERLAY, 1)


Change = Callable[[CaptureCamera, np.ndarray], Tuple[CaptureCamera, np.ndarray]]


def _moved(
    rotation: Callable[[CaptureCamera], np.ndarray], translation: Callable[[CaptureCamera], np.ndarray]
) -> Change:
    return lambda c, v: (CaptureCamera(c.calibration, c.distortion, rotation(c), translation(c)), v)


_FLIP = np.array([1.0, -1.0, -1.0])
SUSPICIONS: Dict[str, Change] = {
    "T is in metres and was read as millimetres": _moved(lambda c: c.rotation, lambda c: c.translation * 1000),
    "T is in millimetres and was read as metres": _moved(lambda c: c.rotation, lambda c: c.translation / 1000),
    "T is in centimetres": _moved(lambda c: c.rotation, lambda c: c.translation * 10),
    "R and T lead from the camera to the world": _moved(
        lambda c: c.rotation.T, lambda c: -c.rotation.T @ c.translation
    ),
    "T is where the camera stands": _moved(lambda c: c.rotation, lambda c: -c.rotation @ c.translation),
    "R and T have OpenGL axes": _moved(lambda c: _FLIP[:, None] * c.rotation, lambda c: _FLIP * c.translation),
    "the vertices have y up where the cameras have z up": lambda c, v: (c, v[:, [0, 2, 1]] * [1.0, -1.0, 1.0]),
    "the vertices have z up where the cameras have y up": lambda c, v: (c, v[:, [0, 2, 1]] * [1.0, 1.0, -1.0]),
}
"""What makes a body fall beside the person, and what would undo it."""


def explain(
    cameras: Sequence[CaptureCamera],
    vertices: Float[np.ndarray, "vertices 3"],
    masks: Sequence[Bool[np.ndarray, "height width"]],
) -> Optional[str]:
    """What is wrong, in words, where one frame's body falls on the person under another reading; otherwise none.

    Args:
        cameras: Of the frame's pictures.
        vertices: Of the frame.
        masks: Of the frame, one per camera.
    """
    table = np.array([[coarse_overlap(camera, vertices, mask) for mask in masks] for camera in cameras])
    own = float(np.diag(table).mean())
    found: List[Tuple[float, str]] = []
    inverted = float(np.mean([coarse_overlap(c, vertices, ~mask) for c, mask in zip(cameras, masks)]))
    if np.mean([mask.mean() for mask in masks]) > 0.5:
        found.append((inverted, "the masks are inverted (the person must not be 0)"))
    for text, change in SUSPICIONS.items():
        found.append((float(np.mean([coarse_overlap(*change(c, vertices), m) for c, m in zip(cameras, masks)])), text))
    best = table.argmax(1)
    if len(set(best.tolist())) == len(cameras):
        pairs = ", ".join(f"{k} sees what {b} should" for b, k in enumerate(best) if k != b)
        found.append((float(table[np.arange(len(cameras)), best].mean()), f"the cameras are in another order: {pairs}"))
    found = [(share, text) for share, text in found if share > max(0.35, own + 0.2)]
    shift, share = best_shift(cameras, vertices, masks)
    length = float(np.linalg.norm(shift))
    if length > LEAST_SHIFT and share > max(0.35, own + SHIFT_GAIN):
        x, y, z = (100 * shift).round().astype(int)
        text = (
            f"the body stood {100 * length:.0f} cm from where it is (x {x:+d}, y {y:+d}, z {z:+d} cm), as after the "
            "wrong --convention of 'ns-ext human smpl', or a fit to another calibration"
        )
        found.append((share, text))
    return max(found)[1] if found else None
