from types import SimpleNamespace

import numpy as np
import pytest

from nerfstudio_ext.cli.keypoint_options import WEAK, KeypointOptions
from nerfstudio_ext.human import capture, capture_keypoints, triangulation


@pytest.mark.parametrize("share, weak", [(0.9 * WEAK, False), (1.5 * WEAK, True)])
def test_a_weak_capture_is_called_so(share, weak, monkeypatch, capsys):
    """By the median error of reprojection, as a share of the longer side of the pictures."""
    joints = triangulation.Keypoints3D(np.zeros((1, 3, 3)), ("a", "b", "c"), np.full((1, 2, 3), share * 200))
    monkeypatch.setattr(capture, "picture_size", lambda path: (100, 200))
    monkeypatch.setattr(capture_keypoints, "capture_keypoints", lambda *_: None)
    monkeypatch.setattr(triangulation, "triangulate", lambda *_: joints)
    layout = SimpleNamespace(files=lambda: [["picture"]], cameras=[])
    assert KeypointOptions().triangulated(layout) is joints  # type: ignore[arg-type]
    told = capsys.readouterr().out
    assert "median reprojection error" in told and ("weak: half" in told) == weak
    assert ("0.6% of the picture's longer side" in told) == weak
