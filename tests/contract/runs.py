"""Real but tiny runs of the presets, trained and opened as nerfstudio's own commands do it."""

import copy
import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils import writer
from nerfstudio.utils.eval_utils import eval_setup

from dataparsers.procedural_human import ProceduralHumanDataParserConfig
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from dataparsers.procedural_people import ProceduralPeopleDataParserConfig
from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.engine.trainer import ExtTrainerConfig
from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModelConfig
from nerfstudio_ext.models.coco_inr import CoCoINRModelConfig
from nerfstudio_ext.models.keypoint_icon import KeypointIconModelConfig
from nerfstudio_ext.models.keypoint_nerf import KeypointNeRFModelConfig
from nerfstudio_ext.models.neural_body import NeuralBodyModelConfig

FRAMES, HEIGHT, WIDTH = 6, 46, 66
"""The procedural clip of all runs: even sizes, as mp4 wants, that no stride divides, so that padding takes part."""
SIDE, TRAIN_VIEWS, TEST_VIEWS = 16, 4, 2
"""Pictures of the procedural object of all runs: pixels along a side, and how many."""
STEPS = 2
LEARNED = ("hnerv-boost-tiny", "nerv-boost-tiny")
"""Presets that the fixture `learned` trains: one that decodes from content, one from time."""


@dataclass
class Run:
    """A finished training."""

    name: str
    config_path: Path
    losses: List[float]

    @property
    def folder(self) -> Path:
        return self.config_path.parent

    @property
    def checkpoint(self) -> Path:
        (path,) = (self.folder / "nerfstudio_models").iterdir()
        return path

    def open(self, test_mode: str = "test") -> Pipeline:
        """The run as ns-eval ("test") or ns-render ("inference") opens it."""
        return eval_setup(self.config_path, test_mode=test_mode)[1]


def tiny_config(
    name: str, output_dir: Path, data: Optional[Path] = None, device: str = "cpu", steps: int = STEPS
) -> ExtTrainerConfig:
    """A preset as registered, on a tiny clip, and with a decoder so narrow that the papers' presets are quick, too."""
    config = copy.deepcopy(all_methods[name])
    config.output_dir, config.experiment_name, config.timestamp = output_dir, "clip", "run"
    config.max_num_iterations = steps
    config.vis = "tensorboard"
    config.machine.device_type = device
    config.pipeline.datamanager.data = data
    parser, model = config.pipeline.datamanager.dataparser, config.pipeline.model
    if isinstance(parser, VideoDataParserConfig):
        parser.procedural_frames, parser.procedural_size = FRAMES, (WIDTH, HEIGHT)
    if isinstance(parser, ProceduralObjectDataParserConfig):
        parser.size, parser.views, parser.num_views, parser.max_test_views = SIDE, 10, TRAIN_VIEWS, TEST_VIEWS
        config.pipeline.datamanager.train_num_rays_per_batch = 32
        config.pipeline.datamanager.eval_num_rays_per_batch = 32
    if isinstance(parser, ProceduralHumanDataParserConfig):
        # Two frames seen by two cameras each to train on, and by one to test with: as many views as of the object.
        parser.size, parser.frames, parser.cameras = SIDE, 2, 3
        config.pipeline.datamanager.train_num_rays_per_batch = 64
        config.pipeline.datamanager.eval_num_rays_per_batch = 64
    if isinstance(parser, ProceduralPeopleDataParserConfig):
        # One person on four cameras to train on, and another from two of them to test with.
        parser.size, parser.people, parser.test_people, parser.cameras, parser.sources = SIDE, 1, 1, 4, "2"
        config.pipeline.datamanager.patch_size = 8
        config.pipeline.datamanager.train_num_rays_per_batch = 64
        config.pipeline.datamanager.eval_num_rays_per_batch = 64
    if isinstance(model, BoostingNeRVModelConfig):
        model.width = 8
    if isinstance(model, CoCoINRModelConfig):
        model.background_samples = 4
        model.field.width, model.field.num_prototypes, model.field.prototype_width = 64, 6, 16
        model.field.position_octaves, model.field.depth = 2, 1
        model.sampling.samples_per_round, model.sampling.final_samples, model.sampling.extra_samples = 12, 8, 4
    if isinstance(model, NeuralBodyModelConfig):
        model.field.code_width, model.field.channels, model.field.width = 4, (8, 8, 8, 8), 16
        model.field.colour_width, model.field.latent_width = 16, 4
        model.voxel_size, model.num_samples = 0.04, 24
    if isinstance(model, KeypointNeRFModelConfig):
        model.coarse_samples = model.fine_samples = 12
        model.field.input_pool, model.field.stem, model.field.hourglass_width = 1, 8, 8
        model.field.hourglass_depth, model.field.coarse_width, model.field.texture_width = 1, 8, 4
        model.field.texture_blocks, model.field.width, model.field.latent_width = 1, 16, 8
    if isinstance(model, KeypointIconModelConfig):
        # The first step trains the sides, the second the rest.
        model.normal_steps, model.photo_size, model.lattice_levels = 1, 32, 1
        model.field.side_width, model.field.side_halvings, model.field.side_blocks = 4, 2, 1
        model.field.stem, model.field.hourglass_width, model.field.hourglass_depth = 8, 8, 1
        model.field.widths = (16, 16, 8)
        manager = config.pipeline.datamanager
        manager.photos_per_step, manager.points_per_photo, manager.photos_per_person = 1, 64, 2
        manager.photo_size, manager.points_per_person = 32, 1000
        config.optimizers["sides"]["scheduler"].max_steps = 1
    return config


def train(config: ExtTrainerConfig) -> Run:
    """Train to the end, seeded as ns-train seeds."""
    random.seed(config.machine.seed)
    np.random.seed(config.machine.seed)
    torch.manual_seed(config.machine.seed)
    losses: List[float] = []
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    iteration = trainer.train_iteration

    def noted(step: int) -> Any:
        result = iteration(step)
        losses.append(float(result[0]))
        return result

    trainer.train_iteration = noted
    try:
        trainer.train()
    finally:
        # Global in nerfstudio: the next training would write into this one's log.
        writer.EVENT_WRITERS.clear()
        writer.GLOBAL_BUFFER.clear()
    return Run(config.method_name, config.get_base_dir() / "config.yml", losses)


def parameters(pipeline: Pipeline) -> Dict[str, torch.Tensor]:
    """Copies of everything that a checkpoint of this pipeline holds, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in pipeline.state_dict().items()}


def shown(pipeline: Pipeline) -> torch.Tensor:
    """Everything that a run shows of its data: the clip as the network decodes it, or the held-out views."""
    if hasattr(pipeline.model, "decode_frame"):
        return torch.stack([pipeline.model.decode_frame(k) for k in range(len(pipeline.datamanager.train_dataset))])
    cameras = pipeline.datamanager.eval_dataset.cameras.to(pipeline.device)
    views = [pipeline.model.get_outputs_for_camera(cameras[k : k + 1])["rgb"] for k in range(len(cameras))]
    return torch.stack(views)


def nearest_frames(pictures: np.ndarray, clip: np.ndarray) -> List[int]:
    """For each picture, the clip's frame of highest PSNR; both [frames, height, width, 3] in one range."""
    errors = np.square(pictures[:, None].astype(float) - clip[None].astype(float)).mean(axis=(2, 3, 4))
    return errors.argmin(axis=1).tolist()


def free_port() -> int:
    """A port of the loopback device that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
