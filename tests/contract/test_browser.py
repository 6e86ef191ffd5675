"""What a person sees: a real browser watches a real training."""

import time
from pathlib import Path
from typing import Callable, List

import numpy as np
import pytest
from PIL import Image

from tests.contract.commands import Command
from tests.contract.runs import HEIGHT, WIDTH, Run, free_port

SECONDS = 100.0
# Everything else that appears as an error in the console is ours.
NOT_OURS = (
    "net::ERR_",  # viser and nerfstudio fetch statistics and a logo from elsewhere
    "THREE.BufferGeometry.computeBoundingSphere(): Computed radius is NaN",  # an empty viser page says so, too
    "WebGL",
)


class Watcher:
    """A page with nerfstudio's viewer in it."""

    def __init__(self, page, folder: Path) -> None:
        self.page, self._shot = page, folder / "viewer.png"
        self.errors: List[str] = []
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("console", lambda message: self._note(message.text) if message.type == "error" else None)

    def _note(self, text: str) -> None:
        if not any(notice in text for notice in NOT_OURS):
            self.errors.append(text)

    def picture(self) -> np.ndarray:
        """The middle of the scene, left of the control panel, [height, width, 3], 0 to 255."""
        self.page.screenshot(path=str(self._shot), clip=dict(x=150, y=250, width=600, height=320))
        return np.asarray(Image.open(self._shot).convert("RGB")).astype(float)

    def control(self, label: str):
        """Input field of the control with this label."""
        fields = self.page.locator(f'xpath=//label[text()="{label}"]/ancestor::div[.//input][1]//input')
        return fields.locator("visible=true").first  # other tabs have controls of the same names

    def set(self, label: str, value: str) -> None:
        field = self.control(label)
        field.fill(value)
        field.press("Enter")

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"not seen within {SECONDS:.0f} s: {what}"
            time.sleep(0.2)

    def settled(self) -> np.ndarray:
        """The picture once it is sharp and stands still: the viewer renders twice, first in few pixels."""
        pictures: List[np.ndarray] = []

        def still() -> bool:
            pictures.append(self.picture())
            sharp = "Resolution: 512x" in self.page.inner_text("body")
            return sharp and len(pictures) > 9 and all(difference(old, pictures[-1]) < 0.5 for old in pictures[-10:])

        self.until(still, "a sharp picture at rest")
        return pictures[-1]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.extra("playwright")
def test_training_in_the_viewer(chromium: str, learned: Callable[[str], Run], tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    run, port = learned("hnerv-boost-tiny"), free_port()
    clip = ["--procedural-frames", "48", "--frame-step", "12", "--procedural-size", str(WIDTH), str(HEIGHT)]
    options = f"--vis viewer --viewer.websocket-port {port} --max-num-iterations 100000 --pipeline.model.width 8"
    command = ["ns-train", run.name, "--load-dir", str(run.folder), *options.split(), "video-data", *clip]
    flags = ["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]
    with Command(command, tmp_path) as training, sync_playwright() as playwright:
        training.wait_for(lambda: "Viewer running locally at" in training.output, "address of the viewer")
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        watcher = Watcher(browser.new_page(viewport=dict(width=1200, height=900)), tmp_path)
        watcher.page.goto(f"http://127.0.0.1:{port}", timeout=60_000)
        watcher.page.get_by_text("Connected").wait_for(timeout=60_000)

        # Bright and dark on the screen, black beside it.
        watcher.until(lambda: watcher.picture().std() > 25, "a picture on the screen")
        watcher.until(lambda: watcher.control("Output type").input_value() == "rgb", "output rgb")
        watcher.page.get_by_role("button", name="Pause Training").click()  # from here on only time changes the picture

        # Each wait for a control also shows that Frame and Time agree, whichever is moved. On a busy machine the old
        # picture stands for a while.
        first = watcher.settled()
        watcher.set("Time", "1")
        watcher.until(lambda: watcher.control("Frame").input_value() == "3", "the last frame's number")
        watcher.until(lambda: difference(watcher.picture(), first) > 8, "another picture at the other end of time")
        last = watcher.settled()
        watcher.set("Frame", "0")
        watcher.until(lambda: float(watcher.control("Time").input_value()) == 0, "time 0")
        watcher.until(lambda: difference(watcher.picture(), last) > 8, "the first picture again")
        change = difference(watcher.settled(), last)
        watcher.set("Frame", "3")
        watcher.until(lambda: difference(watcher.picture(), last) < 0.3 * change, "the last picture again")
        watcher.page.get_by_role("button", name="Resume Training").click()
        watcher.set("Frame", "0")
        watcher.control("Play").check()
        watcher.until(lambda: watcher.control("Frame").input_value() != "0", "a playing clip")
        watcher.control("Play").uncheck()

        assert not watcher.errors
        browser.close()
        assert training.interrupt() == 130
    # The framework's server may log a client that went away; a traceback through our code is another matter.
    tracebacks = training.output.split("Traceback (most recent call last)")[1:]
    assert not [text for text in tracebacks if "nerfstudio_ext" in text.split("\n\n")[0]]
