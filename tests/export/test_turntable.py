import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export import turntable
from nerfstudio_ext.export.turntable import film, orbit
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.procedural.rigs import rig_poses


def motion(frames=5):
    torch.manual_seed(0)
    local = torch.rand(200, 3) * torch.tensor([0.5, 0.3, 1.7]) + torch.tensor([1.0, 2.0, 0.0])
    shift = torch.linspace(0, 0.4, frames)[:, None] * torch.tensor([1.0, 0, 0])
    return BodyMotion(local + shift[:, None], torch.zeros(0, 3, dtype=torch.long), torch.zeros(frames, 3), shift)


def captured():
    poses = rig_poses("ring", 4, 3.0)
    poses[:, :, 3] += torch.tensor([1.25, 2.15, 0.85])
    return Cameras(poses, fx=50.0, fy=50.0, cx=16.0, cy=16.0, width=32, height=32)


def test_the_camera_walks_around_the_person():
    cameras = orbit(motion(), captured(), 12, 64)
    positions, backward = cameras.camera_to_worlds[:, :, 3], cameras.camera_to_worlds[:, :, 2]
    assert float(positions[:, 2].std()) < 1e-4
    # All of it stays in the picture in all frames, and fills most of its height.
    for k in range(12):
        pose = cameras.camera_to_worlds[k]
        torch.testing.assert_close(pose[:, :3].T @ pose[:, :3], torch.eye(3), rtol=0, atol=1e-5)
        assert float(torch.linalg.det(pose[:, :3])) == pytest.approx(1.0, abs=1e-5)
        frame = round(float(cameras.times[k]) * 4)
        local = (motion().vertices[frame] - pose[:, 3]) @ pose[:, :3]
        pixels = local[:, :2] / -local[:, 2:] * cameras.fx[k] + 32
        assert bool((local[:, 2] < 0).all()) and float(pixels.min()) > 0 and float(pixels.max()) < 64
        assert float(pixels[:, 1].max() - pixels[:, 1].min()) > 30
        assert float(pose[2, 1]) > 0.8, "upright"
    turned = torch.atan2(backward[:, 1], backward[:, 0])
    assert float(torch.diff(turned).remainder(2 * torch.pi).std()) < 1e-3
    assert cameras.times.flatten()[[0, -1]].tolist() == [0.0, 1.0]
    assert orbit(motion(), captured(), 3, 64, freeze=2).times.flatten().tolist() == [0.5, 0.5, 0.5]
    with pytest.raises(InputError, match="--pictures 0 --size 64"):
        orbit(motion(), captured(), 0, 64)


class Grey:
    """Shows the time as a shade of grey."""

    device = torch.device("cpu")

    def get_outputs_for_camera(self, camera):
        return {"depth": camera.times.view(1, 1, 1).expand(int(camera.height), int(camera.width), 1)}


def test_a_film_and_its_pictures_are_written(tmp_path):
    assert film(Grey(), orbit(motion(), captured(), 6, 32), "depth", tmp_path / "new" / "film.mp4", 6.0) == 6
    assert (tmp_path / "new" / "film.mp4").stat().st_size > 500
    assert Image.open(tmp_path / "new" / "film_sheet.png").size[0] > 6 * 32


def test_nothing_is_written_of_an_output_that_is_none(tmp_path):
    with pytest.raises(InputError, match="--output-name body: the model has depth") as error:
        film(Grey(), orbit(motion(), captured(), 6, 32), "body", tmp_path / "film.mp4", 6.0)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_film_replaces_what_it_is_named_after_and_nothing_else(tmp_path):
    for name in ("film.mp4", "film_sheet.png", "film.png"):
        (tmp_path / name).write_text("old")
    film(Grey(), orbit(motion(), captured(), 2, 32), "depth", tmp_path / "film.mp4", 6.0)
    assert (tmp_path / "film.png").read_text() == "old"
    assert all((tmp_path / name).stat().st_size > 100 for name in ("film.mp4", "film_sheet.png"))


def test_depth_in_metres_is_told_apart(tmp_path):
    """One scale for the whole film, by the first picture."""

    class Deep:
        device = torch.device("cpu")

        def get_outputs_for_camera(self, camera):
            return {"depth": 2 + 2 * torch.linspace(0, 1, 1024).view(32, 32, 1)}

    film(Deep(), orbit(motion(), captured(), 2, 32), "depth", tmp_path / "film.mp4", 6.0)
    shades = np.asarray(Image.open(tmp_path / "film_sheet.png").convert("L"))[4:36, 4:36]
    assert int(shades.max()) > 245 and 120 < int(shades.min()) < 140


def test_a_film_says_how_far_it_is(tmp_path, monkeypatch):
    """Every picture is rendered once, also the one that tells which outputs there are."""
    bars, asked, get = [], [], Grey.get_outputs_for_camera
    monkeypatch.setattr(turntable, "track", lambda steps, label, **options: bars.append((len(steps), label)) or steps)
    monkeypatch.setattr(Grey, "get_outputs_for_camera", lambda self, camera: asked.append(1) or get(self, camera))
    film(Grey(), orbit(motion(), captured(), 6, 32), "depth", tmp_path / "film.mp4", 6.0)
    assert bars == [(6, "Rendering")] and len(asked) == 6
