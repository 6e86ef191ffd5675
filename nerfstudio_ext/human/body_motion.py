"""`body.npz`: a body with fixed topology over the frames of a capture, from whatever model it was fitted with."""

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.skinning import rotation_matrix

MAX_EXTENT = 4.0
"""Metres; a larger person means other units."""


@dataclass(frozen=True)
class BodyMotion:
    """World-frame vertices of each frame in metres, and where the body as a whole is: x_world = R(Rh) y + Th."""

    vertices: Float[Tensor, "frames vertices 3"]
    faces: Int[Tensor, "faces 3"]
    """None are needed but for drawing."""
    root_rotation: Float[Tensor, "frames 3"]
    root_translation: Float[Tensor, "frames 3"]
    rest: Optional[Float[Tensor, "vertices 3"]] = None
    """The body at rest, y, where its makers know it."""

    def at(self, frames: Sequence[int]) -> "BodyMotion":
        """The motion in some of its frames, in their order."""
        chosen = list(frames)
        root, shift = self.root_rotation[chosen], self.root_translation[chosen]
        return BodyMotion(self.vertices[chosen], self.faces, root, shift, self.rest)

    def resting(self) -> "BodyMotion":
        """One frame: the body at rest, where it stands in the first frame.

        Raises:
            InputError: The pose at rest is not known.
        """
        if self.rest is None:
            raise InputError("The pose at rest of this body is not known: its body.npz has no rest.")
        root, shift = self.root_rotation[:1], self.root_translation[:1]
        vertices = self.rest @ rotation_matrix(root[0]).T + shift
        return BodyMotion(vertices[None], self.faces, root, shift, self.rest)

    def check(self, where: str) -> "BodyMotion":
        """This motion, if it can be one.

        Raises:
            InputError: Shapes disagree, numbers are not finite, units are not metres, or nothing moves.
        """
        frames = len(self.vertices)
        if self.vertices.ndim != 3 or self.vertices.shape[2] != 3 or frames == 0:
            raise InputError(f"{where}: vertices are [frames, vertices, 3], not {list(self.vertices.shape)}.")
        for name, value in (("Rh", self.root_rotation), ("Th", self.root_translation)):
            if tuple(value.shape) != (frames, 3):
                raise InputError(f"{where}: {name} is {list(value.shape)}, but {frames} frames need [{frames}, 3].")
        for name, value in (("vertices", self.vertices), ("Rh", self.root_rotation), ("Th", self.root_translation)):
            bad = ~torch.isfinite(value.reshape(frames, -1)).all(dim=1)
            if bool(bad.any()):
                raise InputError(f"{where}: {name} of frame {int(bad.nonzero()[0])} are not finite numbers.")
        if self.rest is not None and (
            self.rest.shape != self.vertices.shape[1:] or not bool(torch.isfinite(self.rest).all())
        ):
            raise InputError(f"{where}: rest must be finite numbers for its {self.vertices.shape[1]} vertices.")
        known = self.faces.ndim == 2 and self.faces.shape[1] == 3
        if not known or (self.faces.numel() and int(self.faces.max()) >= self.vertices.shape[1]):
            raise InputError(f"{where}: faces are [faces, 3] indices of its {self.vertices.shape[1]} vertices.")
        extent = float((self.vertices.amax(1) - self.vertices.amin(1)).amax())
        if not 0.2 < extent < MAX_EXTENT:
            raise InputError(f"{where}: the body measures {extent:.3g} along an axis; vertices must be in metres.")
        if frames > 1 and bool((self.vertices == self.vertices[:1]).all()):
            raise InputError(f"{where}: the vertices are the same in all {frames} frames; pose the body per frame.")
        return self


def read_body(path: Path) -> BodyMotion:
    """A motion from `body.npz`: vertices [F, V, 3], faces [M, 3], Rh [F, 3] axis-angle and Th [F, 3], metres, and
    perhaps rest [V, 3].

    Raises:
        InputError: The file is missing, no such archive, or its contents cannot be a motion.
    """
    try:
        with np.load(path) as archive:
            arrays = {key: torch.from_numpy(archive[key]) for key in ("vertices", "faces", "Rh", "Th")}
            rest = torch.from_numpy(archive["rest"]).float() if "rest" in archive else None
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}.") from error
    except KeyError as error:
        raise InputError(f"{path} lacks one of vertices, faces, Rh and Th: {error.args[0]}.") from error
    except (ValueError, OSError, EOFError, TypeError) as error:
        raise InputError(f"{path} is no body.npz of plain numbers ({type(error).__name__}).") from error
    root, shift = arrays["Rh"].float(), arrays["Th"].float()
    return BodyMotion(arrays["vertices"].float(), arrays["faces"].long(), root, shift, rest).check(str(path))


def read_frame_ids(path: Path) -> Optional[List[int]]:
    """Which frames of its capture the frames of a readable `body.npz` are; none: it does not say."""
    with np.load(path) as archive:
        return [int(number) for number in archive["frame_ids"]] if "frame_ids" in archive else None


def write_body(motion: BodyMotion, path: Path, **more: np.ndarray) -> None:
    """Write a motion as `body.npz`, and more arrays beside it."""
    if motion.rest is not None:
        more["rest"] = motion.rest.numpy()
    np.savez_compressed(
        path,
        vertices=motion.vertices.numpy(),
        faces=motion.faces.numpy().astype(np.int32),
        Rh=motion.root_rotation.numpy(),
        Th=motion.root_translation.numpy(),
        **more,
    )
