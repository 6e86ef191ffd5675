"""The build of a person from the lengths of the limbs: which phenotype of the free body model, and how large."""

from dataclasses import replace
from functools import cache
from typing import Dict, Tuple

import numpy as np
from jaxtyping import Float

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_model import BodyModel, anny_body
from nerfstudio_ext.human.triangulation import Keypoints3D

LIMBS = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"), ("shoulder", "hip"))
BUILD = ("height", "proportions", "gender")
"""Phenotypes that the lengths of limbs speak about."""


def limb_lengths(points: Dict[str, Float[np.ndarray, "frames 3"]]) -> Dict[str, float]:
    """Median lengths in metres of the limbs (both sides together), and widths of shoulders and hips."""
    pairs = {f"{a}-{b}": [(f"{s}_{a}", f"{s}_{b}") for s in ("left", "right")] for a, b in LIMBS}
    pairs.update({f"{a} width": [(f"left_{a}", f"right_{a}")] for a in ("shoulder", "hip")})
    lengths = {}
    for name, ends in pairs.items():
        found = [np.linalg.norm(points[a] - points[b], axis=-1) for a, b in ends if a in points and b in points]
        values = np.concatenate(found) if found else np.zeros(0)
        if np.isfinite(values).any():
            lengths[name] = float(np.nanmedian(values))
    return lengths


def fit_build(keypoints: Keypoints3D, fixed: Dict[str, float]) -> Tuple[Dict[str, float], float]:
    """Phenotype and size whose limbs are as long as those of the key points.

    Args:
        keypoints: Of the whole capture.
        fixed: Phenotypes that are known.

    Raises:
        InputError: Too few limbs are seen, or their lengths are not a person's in metres.
    """
    from scipy.optimize import least_squares

    points = dict(zip(keypoints.names, keypoints.points.transpose(1, 0, 2)))
    wanted = limb_lengths(points)
    if len(wanted) < 3:
        raise InputError(
            "Too few limbs are seen to fit a body: shoulders, hips, elbows or knees are missing throughout."
        )
    free = [name for name in BUILD if name not in fixed]

    def phenotype(values: np.ndarray) -> Dict[str, float]:
        return {**dict(zip(free, np.clip(values[1:], 0, 1).tolist())), **fixed}

    @cache
    def own_lengths(*values: float) -> Dict[str, float]:
        body = anny_body(phenotype(np.array([1.0, *values])))
        points = {name: weights @ body.rest_vertices for name, weights in body.find_keypoints().items()}
        return limb_lengths({name: point.numpy()[None] for name, point in points.items()})

    def misfit(values: np.ndarray) -> np.ndarray:
        own = own_lengths(*values[1:].tolist())
        # In centimetres; a build far from the middle, or a size that the phenotype does not have, needs a reason.
        lengths = [100 * (values[0] * own[name] - wanted[name]) for name in wanted]
        return np.array([*lengths, *(2.0 * (values[1:] - 0.5)), 20.0 * (values[0] - 1.0)])

    start = np.array([1.0, *[0.5] * len(free)])
    bounds = ([0.6, *[0.0] * len(free)], [1.3, *[1.0] * len(free)])
    found = least_squares(misfit, start, bounds=bounds, diff_step=0.05, max_nfev=6)
    own, target = misfit(found.x)[: len(wanted)], float(np.mean(list(wanted.values())))
    if np.abs(own).mean() > 10:
        raise InputError(
            f"The key points' limbs are {target:.3g} m long on average and off any body by {np.abs(own).mean():.0f} "
            "cm: the cameras' translations have another unit, or the key points another order."
        )
    return phenotype(found.x), float(found.x[0])


def scaled_body(phenotype: Dict[str, float], size: float) -> BodyModel:
    """The free body model in another size."""
    body = anny_body(phenotype)
    bind = body.bind.clone()
    bind[:, :3, 3] *= size
    return replace(body, rest_vertices=body.rest_vertices * size, joints=body.joints * size, bind=bind)
