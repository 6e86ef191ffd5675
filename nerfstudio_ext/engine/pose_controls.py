"""Viewer panel for methods of a moving body: which poses are shown."""

from typing import Callable, Sequence

from nerfstudio.viewer.viewer_elements import ViewerDropdown, ViewerElement, ViewerText
from torch import nn

from nerfstudio_ext.engine.errors import InputError

MOTION_FILE = "motion file"


class PoseControls(nn.Module):
    """A module without parameters, since the viewer looks for controls inside modules only. The viewer renders anew
    after each change.

    Args:
        sources: Names of what is there without a file; the first is shown to begin with.
        choose: Shows a source, or `MOTION_FILE` and the file's path, and says what is shown; raises InputError where it
            cannot, and nothing changes.
    """

    def __init__(self, sources: Sequence[str], choose: Callable[[str, str], str]) -> None:
        super().__init__()
        self._choose = choose
        names = [*sources, MOTION_FILE]
        self.source = ViewerDropdown("Pose source", names[0], names, cb_hook=self._changed)
        self.motion = ViewerText(
            "Motion file", "", cb_hook=self._changed, hint="A body.npz of the same body, on the machine that renders"
        )
        self.status = ViewerText("Poses", names[0], disabled=True)

    def _changed(self, element: ViewerElement) -> None:
        if element is self.motion and self.source.value != MOTION_FILE:
            return
        try:
            self.status.value = self._choose(self.source.value, self.motion.value)
        except InputError as error:  # while somebody types, most texts name no file
            self.status.value = str(error)
