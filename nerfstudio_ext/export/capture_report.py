"""A capture under review: one overlay per camera, and how well body and masks agree."""

from pathlib import Path
from typing import List, Tuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from nerfstudio_ext.human.agreement import Agreement, agreement, explain, overlay
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.capture import CapturedScene, CaptureLayout, picture_size

GOOD, POOR = 0.65, 0.35
"""Overlap of body and mask that a clothed person in a good fit exceeds, and below which something is wrong: 0.75 to 0.9
where a body stands right, in a skirt and in a real recording, too; 0.35 to 0.55 where it is 16 cm off."""
TILE = 480
"""Height of a picture in an overlay."""


def write_report(layout: CaptureLayout, motion: BodyMotion, folder: Path, frames: int) -> Tuple[str, bool]:
    """Write `camera_NN.jpg` with the body over some frames of each camera.

    Args:
        layout: The capture.
        motion: The body in all of its frames.
        folder: Created where it is missing.
        frames: How many to look at.

    Returns:
        A table with a row per camera and a verdict below, and whether the body stands on the person: not where too
        little overlaps, or where a usual mistake explains what is seen.

    Raises:
        InputError: A file of the capture is missing or broken.
    """
    shown = np.unique(np.linspace(0, len(layout.pictures) - 1, max(1, frames)).round().astype(int)).tolist()
    files = layout.files()
    masks = [layout.masks()[f] for f in shown] if layout.has_masks() else None
    largest = max(max(picture_size(path)) for path in files[0])
    scene = CapturedScene(layout.cameras, [files[f] for f in shown], masks, largest)
    faces, lines = motion.faces.numpy(), []
    overlaps: List[List[float]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for camera, calibration in enumerate(scene.cameras):
        found: List[Agreement] = []
        tiles = []
        for k, frame in enumerate(shown):
            vertices = motion.vertices[frame].double().numpy()
            if masks is not None:
                found.append(agreement(calibration, vertices, faces, scene.view(k, camera).mask))
            tiles.append(_tile(overlay(scene.picture(k, camera), calibration, vertices, faces)))
        Image.fromarray(np.concatenate(tiles, axis=1)).save(folder / f"camera_{camera:02d}.jpg", quality=90)
        if masks is None:
            continue
        means = [float(np.mean([getattr(a, name) for a in found])) for name in ("in_picture", "in_mask", "iou")]
        worst = min(range(len(shown)), key=lambda k: found[k].iou)
        lines.append([str(camera), Path(layout.pictures[0][camera]).parent.name, *(f"{m:.2f}" for m in means),
                      f"{found[worst].iou:.2f} (frame {shown[worst]})"])  # fmt: skip
        overlaps.append([a.iou for a in found])
    if masks is None:
        return "There are no masks to compare the body with; look at the overlays.", True
    header = ["camera", "folder", "in picture", "on mask", "overlap", "worst overlap"]
    widths = [max(len(line[k]) for line in [header, *lines]) for k in range(len(header))]
    table = "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths)) for line in [header, *lines])
    verdict, fits = _verdict(scene, motion, shown, np.mean(overlaps, axis=0))
    return f"{table}\n{verdict}", fits


def _verdict(
    scene: CapturedScene, motion: BodyMotion, shown: List[int], overlaps: Float[np.ndarray, "frames"]
) -> Tuple[str, bool]:
    overlap = float(np.mean(overlaps))
    if overlap >= GOOD:
        return f"Body and masks agree (mean overlap {overlap:.2f}).", True
    # A usual mistake shows in all frames, so it is looked for in an ordinary one.
    k = int(np.argsort(overlaps)[len(overlaps) // 2])
    masks = [scene.view(k, camera).mask for camera in range(len(scene.cameras))]
    reason = explain(scene.cameras, motion.vertices[shown[k]].double().numpy(), masks)
    beside = f"The body falls beside the person (mean overlap {overlap:.2f})"
    if reason:
        return f"{beside}. It would fit if {reason}.", False
    if overlap >= POOR:
        rough = (
            f"Body and masks agree roughly (mean overlap {overlap:.2f}): expect blurred edges; look at the overlays."
        )
        return rough, True
    return f"{beside} and no usual mistake explains it.", False


def _tile(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    if height <= TILE:
        return picture
    return np.asarray(Image.fromarray(picture).resize((round(width * TILE / height), TILE), Image.Resampling.LANCZOS))
