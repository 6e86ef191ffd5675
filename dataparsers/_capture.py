"""What parsers of a filmed person share: which frames and cameras train, and what is scored."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.capture import CapturedScene, CaptureLayout
from nerfstudio_ext.human.capture_check import check_views
from nerfstudio_ext.human.zju_layout import FitName, capture_body

PAPER_CAMERAS = (0, 6, 12, 18)
SCORED_FRAMES = 10
"""Frames of each kind that are scored unless told otherwise: every 30th of the paper's 300."""


@dataclass
class CaptureDataParserConfig(DataParserConfig):
    """A folder with a person filmed by calibrated cameras."""

    data: Optional[Path] = None
    """Folder of the capture."""
    body: Optional[Path] = None
    """A body.npz for all frames of the capture, as `ns-ext human fit` writes it; none: the folder's own."""
    begin: int = 0
    """First training frame."""
    frames: Optional[int] = None
    """Training frames; none: all from the first on that are no novel poses."""
    frame_step: int = 1
    """Take every so-manieth frame."""
    novel_frames: int = 0
    """Frames that are never trained on and scored apart, as novel poses."""
    novel_begin: Optional[int] = None
    """First frame of the novel poses; none: the one after the training frames."""
    train_cameras: Optional[str] = None
    """Cameras to train on, as in 0,6,12,18; none: these four where there are so many cameras, else all but the last."""
    eval_step: Optional[int] = None
    """Score every so-manieth frame; none: so that about ten are scored."""
    max_side: int = 512
    """Shrink pictures until neither side has more pixels; the paper's 1024x1024 become 512x512."""


@dataclass
class CaptureDataParser(DataParser):
    """`metadata` as procedural-human-data gives it, and ``trained_frames``: which frames of the body are trained on."""

    config: CaptureDataParserConfig
    includes_time: bool = True

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if config.data is None:
            raise InputError("This dataparser reads a folder: give --data.")
        layout = self.read(Path(config.data).expanduser())
        trained, novel = self._frames(len(layout.pictures))
        train_cameras = self._train_cameras(len(layout.cameras))
        frames = trained + novel
        motion = self.motion(layout, frames)
        files, masks = layout.files(), layout.masks()
        scene = CapturedScene(layout.cameras, [files[f] for f in frames], [masks[f] for f in frames], config.max_side)
        # A single camera is scored on what it was trained on: there is nothing else.
        held_out = [c for c in range(len(layout.cameras)) if c not in train_cameras] or train_cameras
        if split == "train":
            views = [(frame, camera) for frame in range(len(trained)) for camera in train_cameras]
        else:
            scored = self._scored(range(len(trained))) + self._scored(range(len(trained), len(frames)))
            views = [(frame, camera) for frame in scored for camera in held_out]
        check_views(scene, motion, views, [str(files[frames[f]][c]) for f, c in views])
        vertices = motion.vertices.reshape(-1, 3)
        return DataparserOutputs(
            image_filenames=[files[frames[f]][c] for f, c in views],
            cameras=_cameras(scene, motion, views),
            scene_box=SceneBox(aabb=torch.stack([vertices.amin(0) - 0.1, vertices.amax(0) + 0.1])),
            metadata={
                "human_scene": scene,
                "views": views,
                "body_motion": motion,
                "trained_frames": list(range(len(trained))),
            },
        )

    @abstractmethod
    def read(self, folder: Path) -> CaptureLayout:
        """What the folder says of its pictures and cameras.

        Raises:
            InputError: It has another layout, or is incomplete.
        """

    def motion(self, layout: CaptureLayout, frames: Sequence[int]) -> BodyMotion:
        """The checked body in some frames, from --body or the folder.

        Raises:
            InputError: There is none, or it cannot be the body of these frames.
        """
        return capture_body(layout, self.config.body, self.fit(), frames)

    def fit(self) -> FitName:
        """Which of the folder's fits the body is, where it has several."""
        return "auto"

    def _frames(self, available: int) -> Tuple[List[int], List[int]]:
        """Training frames and novel poses, as positions in the capture."""
        config = self.config
        if config.eval_step is not None and config.eval_step < 1:
            raise InputError(f"--eval-step {config.eval_step} must be 1 at least; leave it out to score about "
                             f"{SCORED_FRAMES} frames of each kind.")  # fmt: skip
        after = self._every(config.begin, available)
        novel = after if config.novel_begin is None else self._every(config.novel_begin, available)
        count = config.frames
        if count is None:
            count = len(after) - (config.novel_frames if config.novel_begin is None else 0)
        if config.novel_begin is None:
            novel = novel[max(count, 0) :]
        if not (0 < count <= len(after) and 0 <= config.novel_frames <= len(novel)):
            raise InputError(
                f"{config.data} has {available} frames, too few for --begin {config.begin} --frames {config.frames} "
                f"--frame-step {config.frame_step} --novel-begin {config.novel_begin} --novel-frames "
                f"{config.novel_frames}."
            )
        trained, novel = after[:count], novel[: config.novel_frames]
        if twice := sorted(set(trained) & set(novel)):
            raise InputError(f"Frame {twice[0]} would be trained on and scored as a novel pose: --novel-begin and "
                             "--novel-frames reach into the training frames.")  # fmt: skip
        return trained, novel

    def _every(self, begin: int, available: int) -> List[int]:
        step = self.config.frame_step
        return list(range(begin, available, step)) if step > 0 and begin >= 0 else []

    def _train_cameras(self, available: int) -> List[int]:
        if self.config.train_cameras is None:
            return list(PAPER_CAMERAS) if available > max(PAPER_CAMERAS) + 1 else list(range(max(available - 1, 1)))
        try:
            chosen = [int(word) for word in self.config.train_cameras.split(",")]
        except ValueError:
            raise InputError(
                f"--train-cameras wants numbers with commas, as in 0,6,12,18, not '{self.config.train_cameras}'."
            ) from None
        if not set(chosen) < set(range(available)) or len(set(chosen)) < len(chosen):
            raise InputError(
                f"--train-cameras {self.config.train_cameras}: {self.config.data} has cameras 0 to {available - 1}, "
                "of which one at least is left to score, and each is named once."
            )
        return chosen

    def _scored(self, frames: range) -> List[int]:
        step = self.config.eval_step or max(1, math.ceil(len(frames) / SCORED_FRAMES))
        return list(frames[::step])


def _cameras(scene: CapturedScene, motion: BodyMotion, views: List[Tuple[int, int]]) -> Cameras:
    chosen = [scene.cameras[camera] for _, camera in views]
    fx, fy, cx, cy = torch.stack([torch.from_numpy(camera.intrinsics()).float() for camera in chosen]).split(1, 1)
    sizes = torch.tensor([scene.sizes[camera] for _, camera in views])
    last = max(len(motion.vertices) - 1, 1)
    return Cameras(
        camera_to_worlds=torch.stack([torch.from_numpy(camera.pose()).float() for camera in chosen]),
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        width=sizes[:, :1],
        height=sizes[:, 1:],
        camera_type=CameraType.PERSPECTIVE,
        times=torch.tensor([[frame / last] for frame, _ in views]),
    )
