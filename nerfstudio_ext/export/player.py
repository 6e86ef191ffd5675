"""A video in the browser: one picture, a frame slider and playback."""

import threading
import time
from typing import Optional, Protocol

import numpy as np
from jaxtyping import UInt8

PLAYBACK_HZ = 15.0
"""Most pictures per second that playback sends; a faster video skips frames rather than run late."""


class Frames(Protocol):
    """Anything that gives frames by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, k: int, /) -> UInt8[np.ndarray, "height width 3"]: ...


class Player:
    """Serves frames to browsers; decodes a frame when it is shown.

    Args:
        frames: The video.
        fps: Playback speed, frames per second.
        title: Shown above the controls.
        host: Address to listen on.
        port: Port to listen on; the next free one where it is taken.
    """

    def __init__(self, frames: Frames, fps: float, title: str, host: str, port: int) -> None:
        import viser

        self._frames, self._fps = frames, fps
        self._lock = threading.Lock()
        self._runner: Optional[threading.Thread] = None
        self.server = viser.ViserServer(host=host, port=port, verbose=False)
        self.server.gui.add_markdown(f"**{title}**")
        self.slider = self.server.gui.add_slider(
            "Frame", min=0, max=max(1, len(frames) - 1), step=1, initial_value=0, disabled=len(frames) == 1
        )
        self.play = self.server.gui.add_checkbox("Play", initial_value=False)
        self.slider.on_update(lambda _: self.show())
        self.play.on_update(lambda _: self._toggle())
        self.show()

    @property
    def address(self) -> str:
        """Where a browser finds the player."""
        return f"http://{self.server.get_host()}:{self.server.get_port()}"

    def show(self) -> None:
        """Send the slider's frame to all browsers."""
        with self._lock:
            frame = self._frames[min(int(self.slider.value), len(self._frames) - 1)]
            self.server.scene.set_background_image(frame, format="jpeg", jpeg_quality=90)

    def close(self) -> None:
        """Stop playback and free the port."""
        self.play.value = False
        if self._runner is not None:
            self._runner.join()
        self.server.stop()

    def _toggle(self) -> None:
        if self.play.value:
            self._runner = threading.Thread(target=self._run, daemon=True)
            self._runner.start()

    def _run(self) -> None:
        start, first = time.monotonic(), int(self.slider.value)
        while self.play.value:
            time.sleep(1 / min(self._fps, PLAYBACK_HZ))
            self.slider.value = (first + int((time.monotonic() - start) * self._fps)) % len(self._frames)
