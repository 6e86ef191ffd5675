"""One process of a training of KeypointNeRF on several, small enough for a test."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Type

import torch
import torch.distributed as dist
from nerfstudio.configs.base_config import LoggingConfig, MachineConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.engine.optimizers import AdamOptimizerConfig

from nerfstudio_ext.data.people import PeopleDataManagerConfig
from nerfstudio_ext.engine.trainer import ExtTrainerConfig
from nerfstudio_ext.fields.keypoint_nerf_field import KeypointNeRFFieldConfig
from nerfstudio_ext.models.keypoint_nerf import KeypointNeRFModelConfig
from nerfstudio_ext.pipelines.base import ExtPipelineConfig
from tests.fields.test_keypoint_nerf_field import SMALL
from tests.human.toy_person import ToyStore, toy_outputs

PEOPLE, STEPS = 4, 3


@dataclass
class ToyPeopleConfig(DataParserConfig):
    """Four people made of noise."""

    _target: Type = field(default_factory=lambda: ToyPeople)
    data: Optional[Path] = None
    """Unused."""


class ToyPeople(DataParser):
    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        return toy_outputs(ToyStore(PEOPLE), range(PEOPLE))


def train_people_on_rank(rank: int, world_size: int, folder: Path, port: int) -> None:
    """Train some steps and leave behind whom this process saw, and its weights and last gradients."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    torch.manual_seed(rank)  # as nerfstudio does
    manager = PeopleDataManagerConfig(dataparser=ToyPeopleConfig(), patch_size=6, train_num_rays_per_batch=36)
    model = KeypointNeRFModelConfig(
        field=KeypointNeRFFieldConfig(**{**SMALL, "density_activation": "softplus"}),
        coarse_samples=6, fine_samples=6, perceptual_loss_mult=0.0,
    )  # fmt: skip
    config = ExtTrainerConfig(
        method_name="keypoint-nerf-tiny", experiment_name="people", timestamp="run", output_dir=folder,
        max_num_iterations=STEPS, vis="tensorboard", machine=MachineConfig(device_type="cpu"),
        logging=LoggingConfig(profiler="none"), pipeline=ExtPipelineConfig(datamanager=manager, model=model),
        optimizers={"field": {"optimizer": AdamOptimizerConfig(lr=1e-3), "scheduler": None}},
    )  # fmt: skip
    trainer = config.setup(local_rank=rank, world_size=world_size)
    trainer.setup()
    pipeline, seen, losses = trainer.pipeline, [], []
    draw = pipeline.datamanager.next_train

    def noted(step: int):
        rays, batch = draw(step)
        seen.append(int(rays.metadata["subject"][0, 0]))
        return rays, batch

    pipeline.datamanager.next_train = noted
    pipeline.train()
    for step in range(STEPS):
        losses.append(float(trainer.train_iteration(step)[0]))
    parameters = dict(pipeline.model.field.named_parameters())
    torch.save(
        {
            "seen": seen,
            "losses": losses,
            "weights": {name: value.detach() for name, value in parameters.items()},
            "gradients": {name: value.grad for name, value in parameters.items()},
        },
        folder / f"rank{rank}.pt",
    )
    dist.destroy_process_group()
