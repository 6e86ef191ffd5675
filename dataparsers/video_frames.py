"""A video as nerfstudio data: one camera per frame, all at the place from which the screen fills the picture."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Optional, Tuple, Type

import torch
import tyro
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.rich_utils import CONSOLE

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.frames import ClipInfo, ClipOptions, FrameStore, open_clip
from nerfstudio_ext.video.screen import SCREEN_WIDTH as SCREEN_WIDTH
from nerfstudio_ext.video.screen import screen_camera_to_world
from nerfstudio_ext.video.source import warn

SCREEN_CAMERA_TO_WORLD = screen_camera_to_world()
"""Pose of every dataset camera, [3, 4], OpenGL axes."""


@dataclass
class VideoDataParserConfig(DataParserConfig):
    """One clip: a video file, a folder of frames, a raw yuv file, or the procedural clip."""

    _target: Type = field(default_factory=lambda: VideoDataParser)
    data: Optional[Path] = None
    """Video file (mp4, mkv, mov, webm, gif, y4m, ...), folder of frames, or raw 8-bit .yuv; none: a procedural clip."""
    first_frame: int = 0
    """First frame used, counted from 0."""
    last_frame: Optional[int] = None
    """Last frame used (inclusive); none: to the end."""
    frame_step: int = 1
    """Use every n-th frame."""
    crop: Optional[Tuple[int, int, int, int]] = None
    """Part of the frame used: x, y, width, height in source pixels."""
    size: Optional[Tuple[int, int]] = None
    """Width and height to resize to, after the crop; box average for integer factors."""
    max_side: Optional[int] = None
    """Shrink until the longer side is at most this many pixels, keeping the aspect."""
    fps: Optional[float] = None
    """Frame rate of the source; none: the file's own, or 25 for folders and raw files."""
    yuv_size: Optional[Tuple[int, int]] = None
    """Width and height of a raw .yuv file whose name does not tell (as in Beauty_1920x1080_120fps_...yuv)."""
    memory_budget_gb: float = 4.5
    """Decoded clips above this many gigabytes are read from a file in the cache folder instead of memory."""
    mask: Optional[str] = None
    """Holes to fill (inpainting): center, disperse, or a picture, folder of pictures or video, white where pixels are
    kept; none: the whole clip is seen."""
    task: Literal["representation", "interpolation"] = "representation"
    """representation: every frame is trained and scored; interpolation: even frames are trained, odd ones scored (an
    even number of frames loses the last)."""
    procedural_frames: int = 48
    """Frames of the procedural clip."""
    procedural_size: Tuple[int, int] = (160, 96)
    """Width and height of the procedural clip."""
    clip: Annotated[Optional[ClipInfo], tyro.conf.Suppress] = None
    """Facts about the clip, filled in at training, so that a run opens without its source."""


@dataclass
class VideoDataParser(DataParser):
    """Every split holds every frame where the task is to represent the clip; for interpolation training holds the
    even frames and evaluation the odd ones.

    Times run from 0 (first frame) to 1 (last frame). The frames themselves are read by the dataset, from
    `metadata["clip_options"]`; `metadata["clip"]` holds their facts.
    """

    config: VideoDataParserConfig
    includes_time: bool = True

    def __init__(self, config: VideoDataParserConfig):
        super().__init__(config)
        self.includes_time = True
        # Held, so that the datasets find the decoded clip instead of decoding it again.
        self._store: Optional[FrameStore] = None

    def clip_options(self) -> ClipOptions:
        """What the config selects, in the form that `open_clip` takes."""
        config = self.config
        return ClipOptions(
            source=None if config.data is None else Path(config.data).expanduser().absolute(),
            first_frame=config.first_frame,
            last_frame=config.last_frame,
            frame_step=config.frame_step,
            crop=_tuple(config.crop),
            size=None if config.size is None else (config.size[1], config.size[0]),
            max_side=config.max_side,
            fps=config.fps,
            yuv_size=_tuple(config.yuv_size),
            memory_budget_gb=config.memory_budget_gb,
            procedural_frames=config.procedural_frames,
            procedural_size=(config.procedural_size[1], config.procedural_size[0]),
        )

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        options = self.clip_options()
        if self._store is None:
            self._store = self._open(options)
        info = self._used(self._store.info)
        frames = torch.arange(info.num_frames)
        if self.config.task == "interpolation":
            frames = torch.arange(0 if split == "train" else 1, info.num_frames, 2)
        self.config.clip = info

        cameras = Cameras(
            camera_to_worlds=SCREEN_CAMERA_TO_WORLD.repeat(len(frames), 1, 1),
            # One frame width: the horizontal field of view is what the screen subtends from one screen width away.
            fx=float(info.width),
            fy=float(info.width),
            cx=info.width / 2,
            cy=info.height / 2,
            width=info.width,
            height=info.height,
            camera_type=CameraType.PERSPECTIVE,
            times=(frames / max(1, info.num_frames - 1)).float()[:, None],
        )
        return DataparserOutputs(
            image_filenames=[Path("frames") / f"frame_{i:05d}.png" for i in frames.tolist()],
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])),
            metadata={
                "clip": info,
                "clip_options": options,
                "mask": self.config.mask,
                "task": self.config.task,
                "frame_numbers": tuple(frames.tolist()),
            },
            dataparser_scale=1.0,
        )

    def _used(self, info: ClipInfo) -> ClipInfo:
        """Facts about the part of the clip that the task uses."""
        if self.config.task != "interpolation":
            return info
        if info.num_frames < 3:
            raise InputError(f"Interpolation needs at least 3 frames, and {info.name} has {info.num_frames}.")
        # The last frame of an even number has no later neighbour.
        return replace(info, num_frames=(info.num_frames - 1) // 2 * 2 + 1)

    def _open(self, options: ClipOptions) -> FrameStore:
        """Open the clip and hold it against what an earlier run noted."""
        known = self.config.clip
        if options.source is None:
            CONSOLE.print("No --data given: the procedural clip is drawn.")
        store = open_clip(options, known)
        if not store.available:
            warn(f"{options.source} is gone: the run opens without its source frames, as {known.num_frames} frames.")
        elif known is not None and _shape(self._used(store.info)) != _shape(known):
            raise InputError(
                f"{options.source} gives {_shape(store.info)} (frames, height, width), but this run was trained on "
                f"{_shape(known)}: give --data and the options of the clip that it was trained on."
            )
        return store


def _tuple(values: Optional[tuple]) -> Optional[tuple]:
    """Tuples come back from YAML as lists when a file was edited by hand; options must be hashable."""
    return None if values is None else tuple(values)


def _shape(info: ClipInfo) -> Tuple[int, int, int]:
    return info.num_frames, info.height, info.width


video_data = DataParserSpecification(
    config=VideoDataParserConfig(),
    description="A video file, a folder of frames, raw yuv, or a procedural clip.",
)
