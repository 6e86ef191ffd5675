"""Bringing cameras into the frame of surface methods: all inside a sphere of radius 3 that the object is centred in."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor

from dataparsers._common import meeting_point
from nerfstudio_ext.engine.errors import InputError

NormaliseMode = Literal["auto", "file", "cameras"]
RADIUS = 3.0
MARGIN = 1.1
"""Cameras end up at most at RADIUS / MARGIN, as VolSDF has it."""
NEAREST, FARTHEST = 1.0, 2.0
"""A frame is kept if no camera stands nearer to its origin than the former, and one farther than the latter."""
OFF_CENTRE = 0.5
"""Nor may the point that the cameras look at be farther from the origin."""


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


def find_normalisation(cameras: Cameras, mode: NormaliseMode) -> Normalisation:
    """How to move these cameras.

    Raises:
        InputError: A pose is not finite, or the cameras stand in one place.
    """
    poses = cameras.camera_to_worlds.cpu()
    bad = torch.nonzero(~torch.isfinite(poses).all(-1).all(-1)).flatten()
    if len(bad):
        raise InputError(f"The pose of training camera {int(bad[0])} is not a finite number: mend or drop that view.")
    radii = poses[:, :, 3].norm(dim=-1)
    span = f"{float(radii.min()):.2f} to {float(radii.max()):.2f}"
    centre, determined = meeting_point(poses[:, :, 3], -poses[:, :, 2])
    around = float(radii.min()) >= NEAREST and FARTHEST <= float(radii.max()) < RADIUS
    # Axes that are nearly parallel determine no point: there the file is believed.
    aimed = not determined or float(centre.norm()) < OFF_CENTRE
    if mode == "file" or (mode == "auto" and around and aimed):
        outside = int((radii >= RADIUS).sum())
        warning = f"; {outside} of them outside the sphere of radius {RADIUS:g}" if outside else ""
        if float(radii.min()) < NEAREST:
            warning = "; some are too close to the sphere of radius 0.6 that training starts from: normalise them"
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
