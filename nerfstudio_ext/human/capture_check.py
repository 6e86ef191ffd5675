"""What can be wrong with a capture, found before training starts."""

from typing import List, Optional, Sequence, Tuple

import numpy as np

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.agreement import coarse_overlap, explain, on_person
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.capture import CapturedScene

MOST_PERSON = 0.7
"""Share of a picture above which its mask cannot be a person's."""
LEAST_OVERLAP = 0.4
"""Coarse overlap of body and mask that the median view must have. Bodies that stand right have 0.9 (drawn, or on a
real recording), 0.8 under a skirt, 0.5 where half of the person is hidden; 16 cm to the side it is 0.3 to 0.7."""
GOOD_OVERLAP = 0.75
"""Below this in the median, it is asked whether a usual mistake explains it."""


def check_views(
    scene: CapturedScene, motion: BodyMotion, views: Sequence[Tuple[int, int]], names: Sequence[str]
) -> None:
    """Look at every view (frame, camera) of a split once.

    Raises:
        InputError: A mask shows no one or nearly everything, the body is outside a picture, or it falls beside the
            person in most pictures; the sentence says what would explain it.
    """
    overlaps: List[float] = []
    for (frame, camera), name in zip(views, names):
        mask = scene.view(frame, camera).mask
        if not mask.any():
            raise InputError(f"The mask of {name} shows no person: leave out its frame or its camera.")
        if mask.mean() > MOST_PERSON:
            raise InputError(
                f"The mask of {name} calls {mask.mean():.0%} of the picture person: 0 must be the background; invert "
                "the masks if they are the other way round."
            )
        vertices = motion.vertices[frame].double().numpy()
        if on_person(scene.cameras[camera], vertices, mask)[0] == 0:
            _refuse(scene, motion, frame, f"No vertex of the body falls inside {name}")
        overlaps.append(coarse_overlap(scene.cameras[camera], vertices, mask))
    median = float(np.median(overlaps)) if overlaps else 1.0
    # A usual mistake shows in all views, so it is looked for in an ordinary one.
    frame = views[int(np.argsort(overlaps)[len(overlaps) // 2])][0] if overlaps else 0
    if median < LEAST_OVERLAP or (median < GOOD_OVERLAP and _explanation(scene, motion, frame)):
        _refuse(scene, motion, frame, f"The body falls beside the person (overlap {median:.2f} in the median picture)")


def _explanation(scene: CapturedScene, motion: BodyMotion, frame: int) -> Optional[str]:
    masks = [scene.view(frame, camera).mask for camera in range(len(scene.cameras))]
    return explain(scene.cameras, motion.vertices[frame].double().numpy(), masks)


def _refuse(scene: CapturedScene, motion: BodyMotion, frame: int, what: str) -> None:
    reason = _explanation(scene, motion, frame)
    guess = f"it would fit if {reason}" if reason else "the cameras, the body or their units are wrong"
    raise InputError(f"{what}: {guess}; 'ns-ext human check' shows the body over the pictures.")
