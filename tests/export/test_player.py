"""The player in the browser: it serves the frame that its slider shows, and runs on its own."""

import time
import urllib.request

import numpy as np

from nerfstudio_ext.export.player import Player
from tests.contract.runs import free_port


class Frames:
    """Flat frames that note which were asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 5

    def __getitem__(self, k):
        self.asked.append(k)
        return np.full((8, 12, 3), 50 * k, np.uint8)


def test_shows_the_slider_s_frame_and_plays():
    frames = Frames()
    player = Player(frames, 30.0, "a clip", "127.0.0.1", free_port())
    try:
        assert frames.asked == [0]
        assert urllib.request.urlopen(player.address, timeout=20).status == 200
        player.slider.value = 3
        player.play.value = True
        deadline = time.monotonic() + 20
        while len(set(frames.asked)) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        player.close()
