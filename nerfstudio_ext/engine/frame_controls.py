"""Frame slider and playback in the viewer for methods whose scene changes over time.

The stock Time slider has 101 positions, too few to reach every frame of a longer clip. Ours counts frames; the two move
each other, and the time that the viewer hands to the model stays the single truth.
"""

import threading
import time
from typing import Optional

from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import ViewerCheckbox, ViewerControl, ViewerSlider
from torch import nn

PLAYBACK_HZ = 15.0
"""Most updates per second that playback sends; a faster clip skips frames rather than run late."""


class _TimeLink(ViewerControl):
    """Tells the controls when a viewer has been built around the model."""

    def __init__(self, controls: "FrameControls") -> None:
        self._controls = controls

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        self._controls.connect(viewer)


class FrameControls(nn.Module):
    """Viewer controls for a clip; a module without parameters, since the viewer looks for controls inside modules only.

    Args:
        num_frames: Length of the clip; a single frame needs no controls.
        fps: Playback speed, frames per second.
    """

    def __init__(self, num_frames: int, fps: float) -> None:
        super().__init__()
        self._num_frames = num_frames
        self._fps = fps
        self._time_slider: Optional[ViewerSlider] = None
        self._stop: Optional[threading.Event] = None
        if num_frames > 1:
            self.frame = ViewerSlider(
                "Frame", 0, 0, num_frames - 1, 1, cb_hook=self._frame_moved, hint="Frame of the clip, from 0"
            )
            self.play = ViewerCheckbox("Play", False, cb_hook=self._play_toggled, hint="Run through the clip")
            self.link = _TimeLink(self)

    def connect(self, viewer: Viewer) -> None:
        """Tie the frame slider to the viewer's Time slider."""
        self._time_slider = viewer.control_panel._time
        self._time_slider.gui_handle.on_update(self._time_moved)

    def _frame_moved(self, slider: ViewerSlider) -> None:
        # A Time slider that already shows this frame stays where it is: perhaps a person is dragging it.
        if self._time_slider is not None and self._frame_of_time() != slider.value:
            self._time_slider.value = slider.value / (self._num_frames - 1)

    def _time_moved(self, event) -> None:
        # Only a person's move counts: our own updates come back here late, when the frame may have moved on.
        if event.client_id is not None and self._frame_of_time() != self.frame.value:
            self.frame.value = self._frame_of_time()

    def _frame_of_time(self) -> int:
        assert self._time_slider is not None
        return round(self._time_slider.value * (self._num_frames - 1))

    def _play_toggled(self, checkbox: ViewerCheckbox) -> None:
        if self._stop is not None:
            self._stop.set()
        if checkbox.value:
            self._stop = threading.Event()
            threading.Thread(target=self._play, args=(self._stop,), daemon=True).start()

    def _play(self, stop: threading.Event) -> None:
        start, first = time.monotonic(), int(self.frame.value)
        while not stop.wait(1 / min(self._fps, PLAYBACK_HZ)):
            self.frame.value = (first + int((time.monotonic() - start) * self._fps)) % self._num_frames
