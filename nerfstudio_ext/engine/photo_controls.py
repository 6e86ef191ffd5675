"""Viewer panel for networks that reconstruct a person from one photo: whose surface is shown, or a new photo's."""

from pathlib import Path
from typing import Callable, Optional, Sequence

from nerfstudio.viewer.viewer_elements import ViewerButton, ViewerDropdown, ViewerElement, ViewerText
from torch import nn

from nerfstudio_ext.engine.errors import InputError


class PhotoControls(nn.Module):
    """A module without parameters, since the viewer looks for controls inside modules only.

    Args:
        names: Of all people of the run.
        shown: The one to begin with.
        show: Shows another person.
        load: Shows the person in a photo, given the files of photo, keypoints and mask (none: the photo's
            transparency), and says what it is; raises InputError where that cannot be.
    """

    def __init__(
        self,
        names: Sequence[str],
        shown: int,
        show: Callable[[int], None],
        load: Callable[[Path, Path, Optional[Path]], str],
    ) -> None:
        super().__init__()
        self._names, self._show, self._load = list(names), show, load
        self.person = ViewerDropdown("Person", names[shown], self._names, cb_hook=self._chosen)
        hint = "on the machine that the viewer runs on"
        self.photo = ViewerText("Photo", "", hint=f"Picture of one whole person, {hint}")
        self.keypoints = ViewerText("Keypoints", "", hint=f"JSON as for ns-ext keypoints reconstruct, {hint}")
        self.mask = ViewerText("Mask", "", hint="White where the person is; empty: the photo's transparency")
        self.reconstruct = ViewerButton("Reconstruct the photo", cb_hook=self._asked)
        self.status = ViewerText("Shown", names[shown], disabled=True)

    def _chosen(self, element: ViewerElement) -> None:
        self._show(self._names.index(self.person.value))
        self.status.value = self.person.value

    def _asked(self, element: ViewerElement) -> None:
        photo, keypoints, mask = (x.value.strip() for x in (self.photo, self.keypoints, self.mask))
        if not photo or not keypoints:
            self.status.value = "Name a photo and its keypoints first."
            return
        self.status.value = "Looking for the surface ..."
        try:
            files = (Path(photo).expanduser(), Path(keypoints).expanduser())
            self.status.value = self._load(*files, Path(mask).expanduser() if mask else None)
        except InputError as error:
            self.status.value = str(error)
