"""Viewer panel for networks that know many people: who is shown, from which views, and those views in the scene."""

import math
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np
from jaxtyping import Float, UInt8
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerDropdown, ViewerElement, ViewerText
from torch import nn

from nerfstudio_ext.engine.errors import InputError

FRUSTUM_SCALE = 0.25


@dataclass(frozen=True)
class SourcePicture:
    """A picture that a person is reconstructed from, where its camera stands."""

    pose: Float[np.ndarray, "3 4"]
    """Camera to world, OpenGL axes."""
    rgb: UInt8[np.ndarray, "height width 3"]
    focal: float
    """Vertical, pixels."""


class _PersonLink(ViewerControl):
    """Tells the controls when a viewer has been built around the model."""

    def __init__(self, controls: "PersonControls") -> None:
        self._controls = controls

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        self._controls.connect(viewer)


class PersonControls(nn.Module):
    """A module without parameters, since the viewer looks for controls inside modules only.

    Args:
        names: Of all people.
        shown: The person and the source views to begin with.
        choose: Shows another person or other views; raises InputError where there are none such.
        pictures: The source pictures of what is shown.
    """

    def __init__(
        self,
        names: Sequence[str],
        shown: Tuple[int, Sequence[int]],
        choose: Callable[[int, Sequence[int]], None],
        pictures: Callable[[], List[SourcePicture]],
    ) -> None:
        super().__init__()
        self._names, self._choose, self._pictures = list(names), choose, pictures
        self._viewer: Optional[Viewer] = None
        self._drawn: List = []
        views = ",".join(map(str, shown[1]))
        self.person = ViewerDropdown("Person", names[shown[0]], self._names, cb_hook=self._changed)
        self.views = ViewerText("Source views", views, cb_hook=self._changed, hint="Indices of the views, as in 0,2,5")
        self.status = ViewerText("Shown", f"{names[shown[0]]} from {views}", disabled=True)
        self.link = _PersonLink(self)

    def connect(self, viewer: Viewer) -> None:
        """Put the source pictures into a viewer's scene."""
        self._viewer = viewer
        self.draw()

    def _changed(self, element: ViewerElement) -> None:
        try:
            chosen = [int(word) for word in self.views.value.split(",") if word.strip()]
            self._choose(self._names.index(self.person.value), chosen)
        except (InputError, ValueError) as error:  # while somebody types, most texts are no list of views
            self.status.value = str(error)
            return
        self.status.value = f"{self.person.value} from {','.join(map(str, chosen))}"
        self.draw()

    def draw(self) -> None:
        """Put the source pictures into the viewer's scene in place of those that are there, if there is a viewer."""
        from viser.transforms import SO3

        if self._viewer is None:
            return
        for handle in self._drawn:
            handle.remove()
        self._drawn = [
            self._viewer.viser_server.scene.add_camera_frustum(
                f"/sources/{number}",
                fov=2 * math.atan(picture.rgb.shape[0] / (2 * picture.focal)),
                aspect=picture.rgb.shape[1] / picture.rgb.shape[0],
                scale=FRUSTUM_SCALE * VISER_NERFSTUDIO_SCALE_RATIO,
                image=picture.rgb,
                wxyz=(SO3.from_matrix(picture.pose[:, :3]) @ SO3.from_x_radians(np.pi)).wxyz,
                position=picture.pose[:, 3] * VISER_NERFSTUDIO_SCALE_RATIO,
            )
            for number, picture in enumerate(self._pictures())
        ]
