"""Where the poses come from that a trained person is shown in."""

from pathlib import Path
from typing import Tuple

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.pose_controls import MOTION_FILE
from nerfstudio_ext.human.body_motion import BodyMotion, read_body


def chosen_motion(source: str, path: str, captured: BodyMotion) -> Tuple[BodyMotion, str]:
    """The captured poses themselves, the body at rest, or the poses in a `body.npz`; and what that is, in words.

    Raises:
        InputError: There are no such poses.
    """
    if source == MOTION_FILE:
        if not path.strip():
            raise InputError("Name the motion file.")
        file = Path(path.strip()).expanduser()
        motion = read_body(file)
        return motion, f"{len(motion.vertices)} frames of {file.name}"
    if source == "rest":
        return captured.resting(), "at rest"
    return captured, f"{len(captured.vertices)} captured frames"


def nearest_pose(pose: BodyMotion, others: BodyMotion) -> int:
    """Which frame of a motion has the pose most like that of another one's only frame, wherever and however turned the
    body as a whole is: the mean squared distance of the vertices in its own frame decides."""
    gaps = (others.from_body() - pose.from_body()).square().sum(-1).mean(-1)
    return int(gaps.argmin())
