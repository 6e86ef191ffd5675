"""What commands share that triangulate the 2-D key points of a capture."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Optional

if TYPE_CHECKING:
    from nerfstudio_ext.human.capture import CaptureLayout
    from nerfstudio_ext.human.triangulation import Keypoints3D


WEAK = 0.004
"""Median reprojection error, as a share of the picture's longer side, from which on a capture is called weak."""


@dataclass(kw_only=True)
class KeypointOptions:
    """Which 2-D key points of a capture to triangulate, how, and how long to fit the body to them."""

    keypoints: Optional[Path] = None
    """An .npz with kpts2d, or a folder with one entry per camera (OpenPose, COCO, MMPose), of photos with one .json for
    each, called like it; none: those in annots.npy."""
    skeleton: Optional[Literal["coco17", "body25", "body25b", "halpe26"]] = None
    """Order of the joints; none: by their number, where only one has it."""
    keypoint_scale: float = 1.0
    """Sides of the capture's pictures over sides of those that the key points were found in."""
    keypoint_begin: int = 0
    """Frame of the key points that the capture's first frame is."""
    keypoint_step: int = 1
    """Frames of the key points from one frame of the capture to the next."""
    threshold: Optional[float] = None
    """Largest reprojection error in pixels of a detection that is believed; none: 2% of the picture's longer side."""
    steps: int = 300
    """Steps of the fit of the body's poses to the triangulated key points."""
    translation_unit: Literal["mm", "m"] = "mm"
    """Unit of T in annots.npy."""

    def triangulated(self, layout: "CaptureLayout") -> "Keypoints3D":
        """The capture's 3-D key points; says how well they agree with the pictures.

        Raises:
            InputError: The key points are missing, unreadable, or not those of this capture.
        """
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.human.capture import picture_size
        from nerfstudio_ext.human.capture_keypoints import capture_keypoints
        from nerfstudio_ext.human.triangulation import triangulate

        if self.threshold is not None and self.threshold <= 0:
            raise InputError(f"--threshold {self.threshold:g} must be a number of pixels above 0.")
        found = capture_keypoints(layout, self.keypoints, self.skeleton, self.keypoint_scale, self.keypoint_begin,
                                  self.keypoint_step)  # fmt: skip
        side = max(picture_size(layout.files()[0][0]))
        joints = triangulate(found, layout.cameras, 0.02 * side if self.threshold is None else self.threshold)
        print(f"key points: {joints.report()}")
        share = joints.median_error() / side
        if share > WEAK:
            print(
                f"weak: half of the detections that agree lie {share:.1%} of the picture's longer side or more beside "
                f"their joints (from {WEAK:.1%} on this is said), and renders may be blurred: calibrate anew, or "
                "look whether the videos start together and the key points are of these pictures"
            )
        return joints
