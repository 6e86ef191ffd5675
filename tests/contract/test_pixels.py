"""What cameras see: the dataset camera its frame pixel for pixel, any other camera a screen in perspective."""

from typing import Callable

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from nerfstudio_ext.video.screen import SCREEN_WIDTH, screen_camera_to_world
from tests.contract.registered import VIDEO_METHODS
from tests.contract.runs import FRAMES, HEIGHT, LEARNED, WIDTH, Run, nearest_frames


def camera_at(position: torch.Tensor, size: int = 40) -> Cameras:
    """A square camera that stands somewhere, upright, and looks at the middle of the screen."""
    backward = torch.nn.functional.normalize(position, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), backward), dim=0)
    pose = torch.stack([right, torch.linalg.cross(backward, right), backward, position], dim=1)
    return Cameras(pose[None], fx=float(size), fy=float(size), cx=size / 2, cy=size / 2, width=size, height=size)


@pytest.mark.parametrize("name", VIDEO_METHODS)
def test_dataset_cameras_give_frames_pixel_for_pixel(name: str, device: str, opened) -> None:
    pipeline = opened(name, device)
    model, dataset = pipeline.model, pipeline.datamanager.eval_dataset
    for k in range(FRAMES):
        outputs = model.get_outputs_for_camera(dataset.cameras[k : k + 1].to(pipeline.device))
        index = torch.tensor([k], device=pipeline.device)
        embeddings = None if model.embeddings is None else model.embeddings[index]
        with torch.no_grad():
            frame = model.field.decode(index, embeddings)[0]
        assert torch.equal(outputs["rgb"], frame.permute(1, 2, 0))
        assert outputs["rgb"].shape == (HEIGHT, WIDTH, 3)
        assert torch.equal(outputs["gt"].cpu(), torch.from_numpy(dataset.frames[k].copy()) / 255)
        assert (outputs["accumulation"] == 1).all()
        # Distance along unit rays: one screen width in the middle of the picture, more towards its corners.
        assert 0.999 * SCREEN_WIDTH < outputs["depth"].min() < outputs["depth"].max() < 1.2 * SCREEN_WIDTH


@pytest.mark.parametrize("name", VIDEO_METHODS)
def test_other_cameras_see_a_screen_in_perspective(name: str, device: str, opened) -> None:
    pipeline = opened(name, device)
    right, front = screen_camera_to_world()[:, 0], screen_camera_to_world()[:, 2]
    seen = pipeline.model.get_outputs_for_camera(camera_at(0.7 * front + 0.5 * right).to(pipeline.device))
    screen = seen["accumulation"][..., 0].bool()
    assert 0.1 < screen.float().mean() < 0.9
    assert (seen["rgb"][~screen] == 0).all() and seen["rgb"][screen].mean() > 0.05
    assert (seen["depth"][..., 0] > 0).equal(screen)
    # The camera stands to the right, so the screen's right edge is nearer: larger in the picture, and of less depth.
    columns = torch.nonzero(screen.any(0)).flatten()
    heights = screen.sum(0)[columns]
    assert heights[-2] > heights[1]
    assert seen["depth"][:, columns[-2]].max() < seen["depth"][:, columns[1]].max()
    behind = pipeline.model.get_outputs_for_camera(camera_at(-0.7 * front).to(pipeline.device))
    away = camera_at(0.7 * front)
    away.camera_to_worlds[..., :3, :3] @= torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    nothing = pipeline.model.get_outputs_for_camera(away.to(pipeline.device))
    assert all(torch.isfinite(value).all() for value in [*behind.values(), *nothing.values()])
    assert (nothing["accumulation"] == 0).all() and (nothing["rgb"] == 0).all()


@pytest.mark.parametrize("name", LEARNED)
def test_frames_are_learned_in_their_places(name: str, device: str, learned: Callable[[str], Run]) -> None:
    run = learned(name)
    assert np.mean(run.losses[-5:]) < 0.6 * run.losses[0]
    pipeline = run.open()
    clip = pipeline.datamanager.train_dataset.frames
    source = np.stack([clip[k] for k in range(len(clip))])
    decoded = torch.stack([pipeline.model.decode_frame(k).permute(1, 2, 0) for k in range(len(clip))]).cpu().numpy()
    assert nearest_frames(255 * decoded, source) == list(range(len(clip)))
