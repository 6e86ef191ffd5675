import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import tyro
import yaml
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from PIL import Image

from dataparsers.video_frames import (
    SCREEN_CAMERA_TO_WORLD,
    SCREEN_WIDTH,
    VideoDataParser,
    VideoDataParserConfig,
    video_data,
)
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.frames import ClipInfo, open_clip

HEIGHT, WIDTH, NUM_FRAMES = 12, 20, 5


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "clip"
    path.mkdir()
    for k in range(NUM_FRAMES):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 10 * k, np.uint8)).save(path / f"{k}.png")
    return path


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_split_holds_every_frame(folder, split):
    parser = VideoDataParserConfig(data=folder).setup()
    outputs = parser.get_dataparser_outputs(split)
    info = ClipInfo(NUM_FRAMES, HEIGHT, WIDTH, 25.0, "clip", outputs.metadata["clip"].source_bytes)
    assert parser.includes_time
    assert outputs.metadata["clip"] == info == parser.config.clip
    assert [str(name) for name in outputs.image_filenames] == [f"frames/frame_{k:05d}.png" for k in range(NUM_FRAMES)]
    assert outputs.cameras.times.tolist() == [[0.0], [0.25], [0.5], [0.75], [1.0]]
    assert outputs.cameras.metadata is None
    assert outputs.dataparser_scale == 1 and outputs.scene_box.aabb.tolist() == [[-1, -1, -1], [1, 1, 1]]
    store = open_clip(outputs.metadata["clip_options"])
    assert [int(store[k].mean()) for k in range(NUM_FRAMES)] == [0, 10, 20, 30, 40]


def test_dataset_cameras_see_exactly_the_screen(folder):
    """Rays through the picture's corners meet the upright screen, centred on the origin, in its corners."""
    cameras = VideoDataParserConfig(data=folder).setup().get_dataparser_outputs().cameras
    assert (cameras.camera_to_worlds == SCREEN_CAMERA_TO_WORLD).all()
    corners = torch.tensor([[0.0, 0.0], [0.0, WIDTH], [HEIGHT, WIDTH], [HEIGHT / 2, WIDTH / 2]])  # row, column
    rays = cameras.generate_rays(torch.zeros(4, 1, dtype=torch.long), coords=corners)
    facing = torch.tensor([math.sqrt(0.5), math.sqrt(0.5), 0.0])
    distance = -(rays.origins @ facing) / (rays.directions @ facing)
    points = rays.origins + distance[:, None] * rays.directions
    # Somebody who looks along -facing with +z up has (-1, 1, 0) to the right.
    right, up = torch.tensor([-math.sqrt(0.5), math.sqrt(0.5), 0.0]), torch.tensor([0.0, 0.0, 1.0])
    half, half_height = SCREEN_WIDTH / 2, SCREEN_WIDTH / 2 * HEIGHT / WIDTH
    expected = [
        -half * right + half_height * up,
        half * right + half_height * up,
        half * right - half_height * up,
        0 * up,
    ]
    assert torch.allclose(points, torch.stack(expected), atol=1e-6)


def test_camera_axes_are_a_rotation():
    axes = SCREEN_CAMERA_TO_WORLD[:, :3]
    assert torch.allclose(axes @ axes.T, torch.eye(3), atol=1e-6)
    assert torch.linalg.det(axes) == pytest.approx(1)


def test_single_frame_has_time_zero(folder):
    cameras = VideoDataParserConfig(data=folder, last_frame=0).setup().get_dataparser_outputs().cameras
    assert cameras.times.tolist() == [[0.0]]


def test_without_data_the_procedural_clip_is_drawn_and_said_once(capsys):
    parser = VideoDataParserConfig(procedural_frames=4, procedural_size=(24, 16)).setup()
    for split in ("train", "val"):
        cameras = parser.get_dataparser_outputs(split).cameras
        assert len(cameras) == 4 and (int(cameras.height[0]), int(cameras.width[0])) == (16, 24)
    assert capsys.readouterr().out.count("procedural clip is drawn") == 1


def test_options_reach_the_clip_from_the_command_line(folder):
    flags = f"--data {folder} --first-frame 1 --frame-step 2 --crop 2 2 16 8 --max-side 8 --fps 10".split()
    config = tyro.cli(VideoDataParserConfig, args=flags)
    outputs = config.setup().get_dataparser_outputs()
    info = outputs.metadata["clip"]
    assert (info.num_frames, info.height, info.width, info.fps) == (2, 4, 8, 5)
    with pytest.raises(SystemExit):
        tyro.cli(VideoDataParserConfig, args=["--clip.num-frames", "3"])


def test_config_survives_yaml_and_opens_without_its_source(folder, capsys):
    config = VideoDataParserConfig(data=folder, crop=(2, 2, 16, 8))
    before = config.setup().get_dataparser_outputs()
    loaded = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert loaded == config and isinstance(loaded.setup(), VideoDataParser)

    folder.rename(folder.with_name("elsewhere"))
    parser = loaded.setup()
    for split in ("train", "val"):
        after = parser.get_dataparser_outputs(split)
        assert after.metadata == before.metadata
        assert torch.equal(after.cameras.times, before.cameras.times)
    assert capsys.readouterr().out.count("is gone") == 1
    assert not open_clip(after.metadata["clip_options"], after.metadata["clip"]).available


def test_hand_edited_lists_are_accepted(folder):
    config = VideoDataParserConfig(data=folder, crop=[2, 2, 16, 8], procedural_size=[8, 8])
    assert config.setup().get_dataparser_outputs().metadata["clip"].height == 8


def test_missing_data_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.mp4 does not exist"):
        VideoDataParserConfig(data=tmp_path / "nowhere.mp4").setup().get_dataparser_outputs()


def test_another_clip_in_the_place_of_the_trained_one_is_refused(folder):
    config = VideoDataParserConfig(data=folder)
    config.setup().get_dataparser_outputs()
    (folder / "4.png").unlink()
    with pytest.raises(InputError, match=r"gives \(4, 12, 20\).*trained on \(5, 12, 20\)"):
        config.setup().get_dataparser_outputs()


def test_registration_is_light():
    """The parser loads while nerfstudio's datamanagers are half imported, so it may import neither them nor models."""
    assert isinstance(video_data, DataParserSpecification)
    script = "import sys, dataparsers.video_frames; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = result.stdout.split()
    heavy = ("nerfstudio.models", "nerfstudio.pipelines", "nerfstudio.data.datamanagers", "nerfstudio_ext.models", "av")
    assert not [name for name in loaded if name.startswith(tuple(f"{start}." for start in heavy)) or name in heavy]
