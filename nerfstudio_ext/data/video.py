"""Whole frames of one clip as nerfstudio's dataset and data manager serve them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Literal, Optional, Tuple, Type

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset

from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.frames import FrameStore, open_clip
from nerfstudio_ext.video.masks import Masks, open_masks
from nerfstudio_ext.video.source import warn


class VideoDataset(InputDataset):
    """Frames of a clip; its metadata carries the frame store under ``frames``, for models that read frames
    themselves."""

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0, **kwargs) -> None:
        if scale_factor != 1.0:
            raise InputError("--pipeline.datamanager.camera-res-scale-factor: resize a clip with --max-side or --size.")
        super().__init__(dataparser_outputs, scale_factor, **kwargs)
        self.frames: FrameStore = open_clip(self.metadata["clip_options"], self.metadata["clip"])
        if len(self.frames) > self.metadata["clip"].num_frames:
            self.frames = self.frames.shortened(self.metadata["clip"])
        self.metadata["frames"] = self.frames
        self.frame_numbers: Tuple[int, ...] = self.metadata["frame_numbers"]
        self.masks: Optional[Masks] = None
        mask, clip = self.metadata.get("mask"), self.frames.info
        if mask is not None and self.frames.available:
            self.masks = open_masks(mask, self.metadata["clip_options"], clip.num_frames, clip.height, clip.width)
        self.metadata["masks"] = self.masks
        self._warned = False

    def get_numpy_image(self, image_idx: int) -> np.ndarray:
        """One frame, uint8 [height, width, 3]; mid-grey, with a warning, where the source is gone."""
        if not self.frames.available:
            if not self._warned:
                self._warned = True
                warn(f"the source of {self.frames.info.name} is gone: its pictures (gt-rgb, frusta) are plain grey.")
            return np.full((self.frames.info.height, self.frames.info.width, 3), 128, dtype=np.uint8)
        return self.frames[self.frame_numbers[image_idx]]


@dataclass
class VideoDataManagerConfig(FullImageDatamanagerConfig):
    """Serves whole frames in a random order that visits each once per epoch."""

    _target: Type = field(default_factory=lambda: VideoDataManager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=VideoDataParserConfig)
    """Where the clip comes from."""
    cache_images: Literal["cpu", "gpu"] = "cpu"
    """Unused: frames come from the clip itself."""
    frames_per_step: int = 1
    """Frames in one training step."""


class VideoDataManager(FullImageDatamanager[VideoDataset]):
    """Frames straight from the uint8 clip: nothing is cached as float, and clips of any length pass."""

    config: VideoDataManagerConfig
    train_pixel_sampler = None
    """Asked for by the exports that shoot rays, which whole frames have not."""

    def __init__(self, config: VideoDataManagerConfig, *args, **kwargs) -> None:
        if config.frames_per_step < 1:
            raise InputError(
                f"--pipeline.datamanager.frames-per-step is {config.frames_per_step}, but a step needs a frame."
            )
        super().__init__(config, *args, **kwargs)
        self._rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else self.local_rank
        self._train_cameras = self.train_dataset.cameras.to(self.device)
        self._eval_cameras = self.eval_dataset.cameras.to(self.device)
        self._epoch_order: Tuple[int, List[int]] = (-1, [])

    @property
    def dataset_type(self) -> Type[VideoDataset]:
        return VideoDataset

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in which all ranks together visit every frame once."""
        return max(1, len(self.train_dataset) // (self.config.frames_per_step * self.world_size))

    def train_frames(self, step: int) -> List[int]:
        """Frames of a training step on this rank, counted within the training split: a pure function of seed, step and
        rank, so that a resumed run goes on."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._epoch_order[0] != epoch:
            generator = torch.Generator().manual_seed(self.config.train_cameras_sampling_seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.train_dataset), generator=generator).tolist()
            self._epoch_order = (epoch, order)
        order, per_step = self._epoch_order[1], self.config.frames_per_step
        start = (position * self.world_size + self._rank) * per_step
        return [order[k % len(order)] for k in range(start, start + per_step)]

    def next_train(self, step: int) -> Tuple[Cameras, Dict]:
        indices = torch.tensor(self.train_frames(step))
        numbers = torch.tensor([self.train_dataset.frame_numbers[k] for k in indices])
        images = self.train_dataset.frames.batch(numbers, self.device).permute(0, 2, 3, 1)
        batch = {"image": images, "image_idx": indices}
        if self.train_dataset.masks is not None:
            batch["mask"] = self.train_dataset.masks.batch(numbers, self.device).permute(0, 2, 3, 1)
        return self._train_cameras[indices.to(self.device)], batch

    def next_eval(self, step: int) -> Tuple[Cameras, Dict]:
        camera, batch = self.next_eval_image(step)
        return camera, {k: v[None] if k in ("image", "mask") else v for k, v in batch.items()}

    def next_eval_image(self, step: int) -> Tuple[Cameras, Dict]:
        # Drawn from the step alone: every interval between evaluations meets the whole clip in time, and the global
        # random state is left alone.
        generator = torch.Generator().manual_seed(step)
        return self._eval_item(int(torch.randint(len(self.eval_dataset), (), generator=generator)))

    @property
    def fixed_indices_eval_dataloader(self) -> "EvalFrames":
        """Every frame in order, decoded when asked for."""
        return EvalFrames(self)

    def _eval_item(self, index: int) -> Tuple[Cameras, Dict]:
        number = torch.tensor([self.eval_dataset.frame_numbers[index]])
        image = self.eval_dataset.frames.batch(number, self.device)[0].permute(1, 2, 0)
        batch = {"image": image, "image_idx": index}
        if self.eval_dataset.masks is not None:
            batch["mask"] = self.eval_dataset.masks.batch(number, self.device)[0].permute(1, 2, 0)
        return self._eval_cameras[index : index + 1], batch

    def get_train_rays_per_batch(self) -> int:
        clip = self.train_dataset.frames.info
        return clip.height * clip.width * self.config.frames_per_step

    def get_datapath(self) -> Path:
        """The source, beside which the viewer keeps camera paths; the working directory where there is none."""
        source = self.config.dataparser.data
        return source if source is not None and source.exists() else Path.cwd()


class EvalFrames:
    """Cameras and frames of the evaluation split, one at a time."""

    def __init__(self, manager: VideoDataManager) -> None:
        self._manager = manager

    def __len__(self) -> int:
        return len(self._manager.eval_dataset)

    def __getitem__(self, index: int) -> Tuple[Cameras, Dict]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._manager._eval_item(index)
