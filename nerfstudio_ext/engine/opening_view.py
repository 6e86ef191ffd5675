"""Where a viewer looks from when it opens: beside the first training camera, not the host's place amid the scene."""

from typing import Tuple

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor

from nerfstudio_ext.engine.meeting_point import meeting_point

FORWARD = 0.1
"""Share of the way to what it looks at that the visitor stands before the camera: what the viewer shows in its
frustum, its picture, would hide the scene otherwise."""

STEEPEST = 0.999
"""Largest part of a view's direction along +z or -z."""


class OpeningView(ViewerControl):
    """Moves the camera of everybody who opens the viewer to a training camera; nerfstudio finds it in the pipeline.

    Args:
        cameras: The training cameras.
    """

    def __init__(self, cameras: Cameras) -> None:
        self.position, self.look_at = opening_view(cameras)

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)

        @viewer.viser_server.on_client_connect
        def _(client) -> None:
            with client.atomic():
                client.camera.position = (VISER_NERFSTUDIO_SCALE_RATIO * self.position).numpy()
                client.camera.look_at = (VISER_NERFSTUDIO_SCALE_RATIO * self.look_at).numpy()


def opening_view(cameras: Cameras) -> Tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """A position on the axis of the first camera, and the point there that is closest to where all of them look.

    The viewer turns about that point, with +z up.
    """
    poses = cameras.camera_to_worlds.detach().cpu().float()
    position, forward = poses[0, :, 3], -torch.nn.functional.normalize(poses[0, :, 2], dim=0)
    ahead = float(forward @ (meeting_point(poses[:, :, 3], -poses[:, :, 2])[0] - position))
    ahead = max(ahead, 1e-2)
    look_at = position + ahead * forward
    if float(forward[2].abs()) > STEEPEST:  # the viewer cannot look along its own up
        position = position + 0.1 * ahead * torch.nn.functional.normalize(poses[0, :, 1], dim=0)
    return position + FORWARD * (look_at - position), look_at
