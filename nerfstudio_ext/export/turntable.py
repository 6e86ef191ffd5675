"""A person in motion seen from a camera that walks around it, as a video."""

import math
from pathlib import Path
from typing import Iterator, List, Optional

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.video import contact_sheet, sheet_path, write_video
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.procedural.rigs import square_cameras

FILL = 0.8
"""Share of the picture's height that the person takes up."""


def orbit(
    motion: BodyMotion,
    captured: Cameras,
    pictures: int,
    size: int,
    turns: float = 1.0,
    freeze: Optional[int] = None,
) -> Cameras:
    """Cameras on a circle about a person, as far away and as high as those of the capture are on average.

    Args:
        motion: Of the person; times of the cameras run through it once.
        captured: Cameras of the capture, in the motion's world.
        pictures: How many.
        size: Width and height in pixels.
        turns: Full circles.
        freeze: Stay in this frame of the motion; none: all frames pass.

    Raises:
        InputError: There are no pictures, or nothing in them.
    """
    if pictures < 1 or size < 1:
        raise InputError(f"--pictures {pictures} --size {size}: a film needs one picture and one pixel at least.")
    poses = captured.camera_to_worlds.cpu()
    up = _up(poses)
    across = torch.linalg.cross(up, torch.tensor([0.0, 1.0, 0.0] if abs(float(up[0])) > 0.5 else [1.0, 0.0, 0.0]))
    other = torch.linalg.cross(up, across)
    centre = 0.5 * (motion.vertices.amin(1) + motion.vertices.amax(1)).mean(0)
    apart = poses[:, :, 3] - centre
    # Never below the feet of the circle: a low camera is as high as the person's middle.
    height = float((apart @ up).clamp(min=0).mean())
    radius = float((apart - (apart @ up)[:, None] * up).norm(dim=1).mean())
    first = apart[0] - (apart[0] @ up) * up
    begin = math.atan2(float(first @ other), float(first @ across))
    angles = begin + 2 * math.pi * turns * torch.arange(pictures) / pictures
    around = torch.cos(angles)[:, None] * across + torch.sin(angles)[:, None] * other
    positions = centre + radius * around + height * up
    backward = torch.nn.functional.normalize(positions - centre, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(up.expand_as(backward), backward), dim=-1)
    extent = float((motion.vertices.amax(1) - motion.vertices.amin(1)).norm(dim=-1).max())
    focal = FILL * size * math.hypot(radius, height) / extent
    last = max(len(motion.vertices) - 1, 1)
    frames = torch.linspace(0, len(motion.vertices) - 1, pictures)
    if freeze is not None:
        frames = torch.full_like(frames, freeze)
    circle = torch.stack([right, torch.linalg.cross(backward, right), backward, positions], dim=-1)
    return square_cameras(circle, focal, size, (frames.round() / last)[:, None])


def _up(poses: Float[Tensor, "cameras 3 4"]) -> Float[Tensor, "3"]:
    """The axis of the world that the cameras' upward directions lie nearest to."""
    mean = poses[:, :, 1].mean(0)
    axis = torch.zeros(3)
    axis[int(mean.abs().argmax())] = float(mean[int(mean.abs().argmax())].sign()) or 1.0
    return axis


def film(model, cameras: Cameras, output: str, path: Path, fps: float) -> int:
    """Render one output of a model along cameras to a video, and twelve of its frames to `sheet_path`; old ones are
    replaced when the new ones are whole.

    Raises:
        InputError: The model has no such output, or the file cannot be written.
    """
    first = model.get_outputs_for_camera(cameras[:1].to(model.device))
    if output not in first:
        raise InputError(f"--output-name {output}: the model has {', '.join(first)}.")
    largest = max(1.0, float(first[output].max()))  # metres do not fit between black and white
    shown: List[UInt8[np.ndarray, "height width 3"]] = []

    def frames() -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for k in track(range(len(cameras)), "Rendering", console=CONSOLE, transient=True):
            picture = (model.get_outputs_for_camera(cameras[k : k + 1].to(model.device)) if k else first)[output]
            picture = picture.expand(-1, -1, 3) if picture.shape[-1] == 1 else picture
            shown.append(((picture / largest).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
            yield shown[-1]

    count = write_video(frames(), path, fps)
    contact_sheet(shown, sheet_path(path), columns=6)
    return count
