"""`body.npz`: a body with fixed topology over the frames of a capture, from whatever model it was fitted with."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.archives import read_arrays
from nerfstudio_ext.human.skinning import rotation_matrix

MAX_EXTENT = 4.0
"""Metres; a larger person means other units."""
STILL = 1e-4
"""Metres; a body none of whose vertices moves further over all frames was never posed."""
_BUILD = ("phenotype_names", "phenotype_values", "size")


@dataclass(frozen=True)
class Build:
    """A body of the free model `anny`: what other motions of the same body are made from."""

    phenotype: Dict[str, float]
    """As for `anny_body`."""
    size: float = 1.0
    """Of the body, against the phenotype's own."""


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
    build: Optional[Build] = None
    """Which body of the free model it is, where it is one of those."""

    def at(self, frames: Sequence[int]) -> "BodyMotion":
        """The motion in some of its frames, in their order."""
        chosen = list(frames)
        root, shift = self.root_rotation[chosen], self.root_translation[chosen]
        return replace(self, vertices=self.vertices[chosen], root_rotation=root, root_translation=shift)

    def from_body(self) -> Float[Tensor, "frames vertices 3"]:
        """Vertices in the body's own frame, y."""
        return (self.vertices - self.root_translation[:, None]) @ rotation_matrix(self.root_rotation)

    def resting(self) -> "BodyMotion":
        """One frame: the body at rest, where it stands in the first frame.

        Raises:
            InputError: The pose at rest is not known.
        """
        if self.rest is None:
            raise InputError("The pose at rest of this body is not known: its body.npz has no rest.")
        root, shift = self.root_rotation[:1], self.root_translation[:1]
        vertices = self.rest @ rotation_matrix(root[0]).T + shift
        return replace(self, vertices=vertices[None], root_rotation=root, root_translation=shift)

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
        if frames > 1 and float((self.vertices - self.vertices[:1]).abs().amax()) < STILL:
            raise InputError(f"{where}: the vertices are the same in all {frames} frames; pose the body per frame.")
        return self


def read_body(path: Path) -> BodyMotion:
    """A motion from `body.npz`: vertices [F, V, 3], faces [M, 3], Rh [F, 3] axis-angle and Th [F, 3], metres, and
    perhaps rest [V, 3], and phenotype_names, phenotype_values and size of the free model's build.

    Raises:
        InputError: The file is missing, no such archive, or its contents cannot be a motion.
    """
    found = read_arrays(path, ("vertices", "faces", "Rh", "Th"), ("rest", *_BUILD))
    try:
        arrays = {key: torch.from_numpy(found[key]) for key in ("vertices", "faces", "Rh", "Th")}
        rest = torch.from_numpy(found["rest"]).float() if "rest" in found else None
        build = _build(found) if "phenotype_names" in found else None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no body.npz of plain numbers ({error!r}).") from error
    root, shift = arrays["Rh"].float(), arrays["Th"].float()
    return BodyMotion(arrays["vertices"].float(), arrays["faces"].long(), root, shift, rest, build).check(str(path))


def _build(found: Dict[str, np.ndarray]) -> Build:
    values = zip(found["phenotype_names"].tolist(), found["phenotype_values"].tolist(), strict=True)
    return Build({str(name): float(value) for name, value in values}, float(found.get("size", 1.0)))


def read_frame_ids(path: Path) -> Optional[List[int]]:
    """Which frames of its capture the frames of a `body.npz` are; none: it does not say.

    Raises:
        InputError: The file is missing, no such archive, or they are no whole numbers.
    """
    ids = read_arrays(path, (), ("frame_ids",)).get("frame_ids")
    if ids is not None and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
        raise InputError(f"{path}: frame_ids must be one whole number for each frame.")
    return None if ids is None else ids.tolist()


def write_body(motion: BodyMotion, path: Path, **more: np.ndarray) -> None:
    """Write a motion as `body.npz`, and more arrays beside it; an old file is replaced when the new one is whole."""
    if motion.rest is not None:
        more["rest"] = motion.rest.numpy()
    if motion.build is not None:
        more["phenotype_names"] = np.array(list(motion.build.phenotype))
        more["phenotype_values"] = np.array(list(motion.build.phenotype.values()))
        more["size"] = np.array(motion.build.size)
    draft = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    np.savez_compressed(
        draft,
        vertices=motion.vertices.numpy(),
        faces=motion.faces.numpy().astype(np.int32),
        Rh=motion.root_rotation.numpy(),
        Th=motion.root_translation.numpy(),
        **more,
    )
    draft.replace(path)
