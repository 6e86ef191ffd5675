"""Bringing cameras into the frame of surface methods: all inside a sphere of radius 3 that the object is centred in.

A run that was trained already keeps its frame: there, cameras are brought into that one.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.meeting_point import meeting_point
from nerfstudio_ext.surface.sphere import sphere_span

NormaliseMode = Literal["auto", "file", "cameras"]
RADIUS = 3.0
MARGIN = 1.1
"""Cameras end up at most at RADIUS / MARGIN, as VolSDF has it."""
NEAREST, FARTHEST = 1.0, 2.0
"""A frame is kept if no camera stands nearer to its origin than the former, and one farther than the latter."""
OFF_CENTRE = 0.5
"""Nor may the point that the cameras look at be farther from the origin."""
CAMERAS_CHECKED, GRID = 32, 16
"""Cameras, and pixels along each side of their pictures, whose rays are followed to tell what they hit."""


@dataclass(frozen=True)
class Normalisation:
    """x_new = scale (x_old - centre), and a sentence about it."""

    centre: Float[Tensor, "3"]
    scale: float
    report: str

    def apply(self, outputs: DataparserOutputs) -> None:
        """Move the cameras, and note it in the transform that leads back to the source's units."""
        outputs.cameras.camera_to_worlds[..., 3] = self.scale * (outputs.cameras.camera_to_worlds[..., 3] - self.centre)
        transform = outputs.dataparser_transform.clone()
        transform[:, 3] -= self.centre / outputs.dataparser_scale
        outputs.dataparser_transform = transform
        outputs.dataparser_scale = float(outputs.dataparser_scale * self.scale)


def require_finite(outputs: DataparserOutputs, kind: str) -> None:
    """Refuse poses that are no numbers.

    Args:
        outputs: The views.
        kind: What they are for, for the message.

    Raises:
        InputError: A pose is not finite.
    """
    poses = outputs.cameras.camera_to_worlds
    bad = torch.nonzero(~torch.isfinite(poses).flatten(1).all(1)).flatten()
    if len(bad):
        index = int(bad[0])
        name = outputs.image_filenames[index].name
        raise InputError(f"The pose of {kind} camera {index} ({name}) is not a finite number: mend or drop that view.")


def find_normalisation(cameras: Cameras, mode: NormaliseMode) -> Normalisation:
    """How to move these cameras.

    Raises:
        InputError: The cameras stand in one place.
    """
    poses = cameras.camera_to_worlds.cpu()
    radii = poses[:, :, 3].norm(dim=-1)
    span = _span(radii)
    centre, determined = meeting_point(poses[:, :, 3], -poses[:, :, 2])
    around = float(radii.min()) >= NEAREST and FARTHEST <= float(radii.max()) < RADIUS
    # Axes that are nearly parallel determine no point: there the file is believed.
    aimed = not determined or float(centre.norm()) < OFF_CENTRE
    if mode == "file" or (mode == "auto" and around and aimed):
        warning = _outside(radii)
        if float(radii.min()) < NEAREST:
            warning += "; some are too close to the sphere of radius 0.6 that training starts from: normalise them"
        return Normalisation(torch.zeros(3), 1.0, f"Cameras stand {span} from the origin and stay there{warning}.")
    reach = float((poses[:, :, 3] - centre).norm(dim=-1).max())
    if reach < 1e-6:
        raise InputError("All training cameras stand where they look: their poses cannot be normalised.")
    scale = RADIUS / MARGIN / reach
    how = "the point they look at" if determined else "a point before them, since they look in parallel"
    place = ", ".join(f"{value:.3g}" for value in centre.tolist())
    return Normalisation(
        centre,
        scale,
        f"Cameras stood {span} from the origin; now {how} ({place}) is the origin, and they stand up to "
        f"{RADIUS / MARGIN:.2f} from it (scale {scale:.3g}). Meshes are written in the old units.",
    )


def frame_of(outputs: DataparserOutputs) -> Float[Tensor, "4 4"]:
    """The frame that cameras are in, as the map that took the source's units to it."""
    frame = torch.eye(4)
    frame[:3] = outputs.dataparser_scale * outputs.dataparser_transform[:3].cpu()
    return frame


def is_frame(frame: Float[Tensor, "4 4"], other: Float[Tensor, "4 4"]) -> bool:
    """Whether two frames are one, as far as training can tell."""
    move = other.double() @ torch.linalg.inv(frame.double())
    return bool((move - torch.eye(4, dtype=torch.float64)).abs().max() < 1e-4)


def bring_into(outputs: DataparserOutputs, frame: Float[Tensor, "4 4"]) -> None:
    """Move cameras from the frame that they are in to another one, and note it in the transform."""
    now = frame_of(outputs)
    if torch.equal(now, frame):
        return  # to the last digit
    frame = frame.double()
    move = frame @ torch.linalg.inv(now.double())
    poses = outputs.cameras.camera_to_worlds
    poses[..., 3] = (poses[..., 3].double() @ move[:3, :3].T + move[:3, 3]).to(poses)
    rotation = move[:3, :3] / _scale(move)
    poses[..., :3] = (rotation @ poses[..., :3].double()).to(poses)
    scale = _scale(frame)
    outputs.dataparser_transform = (frame[:3] / scale).to(outputs.dataparser_transform)
    outputs.dataparser_scale = scale


def _scale(frame: Float[Tensor, "4 4"]) -> float:
    return float(torch.linalg.det(frame[:3, :3]).abs() ** (1 / 3))


def report_kept(cameras: Cameras) -> str:
    """A sentence about cameras that were brought into the frame of a run that is opened."""
    radii = cameras.camera_to_worlds[:, :, 3].norm(dim=-1)
    return (
        "The run keeps the frame that it was trained in, although its data, the choice of views or the rule gives "
        f"another one by now. Cameras stand {_span(radii)} from its origin{_outside(radii)}."
    )


def report_rays(cameras: Cameras) -> str:
    """A sentence about how much of what normalised cameras see is the object's place, and whether any ray is lost."""
    count = len(cameras)
    chosen = torch.arange(0, count, -(-count // CAMERAS_CHECKED))
    indices = chosen.repeat_interleave(GRID * GRID)
    cells = (torch.arange(GRID) + 0.5) / GRID
    grid = torch.stack(torch.meshgrid(cells, cells, indexing="ij"), dim=-1).reshape(-1, 2).repeat(len(chosen), 1)
    sizes = torch.cat([cameras.height[indices], cameras.width[indices]], dim=-1).cpu()
    rays = cameras.generate_rays(camera_indices=indices[:, None].to(cameras.device), coords=grid * sizes)
    near, far = sphere_span(rays.origins, rays.directions, 1.0)
    text = f"{float((far > near).float().mean()):.0%} of their rays hit the sphere of radius 1 about the origin"
    near, far = sphere_span(rays.origins, rays.directions, RADIUS)
    missing = float((far <= near).float().mean())
    return text + (f", and {missing:.0%} miss that of radius {RADIUS:g}." if missing else ".")


def _outside(radii: Float[Tensor, "views"]) -> str:
    count = int((radii >= RADIUS).sum())
    return f"; {count} of them outside the sphere of radius {RADIUS:g}" if count else ""


def _span(radii: Float[Tensor, "views"]) -> str:
    return f"{float(radii.min()):.2f} to {float(radii.max()):.2f}"
