"""A method small enough to train in milliseconds: it learns one colour per frame of a clip of flat frames."""

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Tuple, Type

import torch
import torch.distributed as dist
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.base_config import LoggingConfig, MachineConfig
from nerfstudio.data.datamanagers.base_datamanager import DataManager, DataManagerConfig
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor, nn

from nerfstudio_ext.engine.optimizers import AdanOptimizerConfig
from nerfstudio_ext.engine.schedulers import WarmupCosineSchedulerConfig
from nerfstudio_ext.engine.trainer import ExtTrainerConfig
from nerfstudio_ext.pipelines.base import ExtPipelineConfig

HEIGHT, WIDTH = 4, 6


class ToyClip:
    """Flat frames of random colours, with one camera each."""

    def __init__(self, num_frames: int) -> None:
        self.colors = torch.rand(num_frames, 3, generator=torch.Generator().manual_seed(0))
        self.scene_box = SceneBox(aabb=torch.tensor([[-1.0, -1, -1], [1, 1, 1]]))
        self.metadata: Dict = {}
        self.cameras = Cameras(
            camera_to_worlds=torch.eye(4)[None, :3].repeat(num_frames, 1, 1),
            fx=6.0,
            fy=6.0,
            cx=3.0,
            cy=2.0,
            width=WIDTH,
            height=HEIGHT,
            times=torch.linspace(0, 1, num_frames)[:, None],
        )

    def __len__(self) -> int:
        return len(self.colors)

    def sample(self, index: int) -> Tuple[Cameras, Dict]:
        image = self.colors[index].expand(HEIGHT, WIDTH, 3).contiguous()
        return self.cameras[index : index + 1], {"image": image, "image_idx": index}


@dataclass
class ToyDataManagerConfig(DataManagerConfig):
    """Flat frames"""

    _target: Type = field(default_factory=lambda: ToyDataManager)
    num_frames: int = 4
    """Frames of the clip."""


class ToyDataManager(DataManager):
    """Hands out one frame per step, different ones on different ranks."""

    def __init__(self, config, device="cpu", test_mode="val", world_size=1, local_rank=0) -> None:
        self.config, self.device, self.test_mode = config, device, test_mode
        self.world_size, self.local_rank = world_size, local_rank
        self.train_dataset = self.eval_dataset = ToyClip(config.num_frames)
        self.steps_per_epoch = config.num_frames
        super().__init__()

    def setup_train(self) -> None:
        """Nothing to load."""

    def setup_eval(self) -> None:
        """Nothing to load."""

    @property
    def fixed_indices_eval_dataloader(self) -> List[Tuple[Cameras, Dict]]:
        return [self.eval_dataset.sample(index) for index in range(len(self.eval_dataset))]

    def next_train(self, step: int) -> Tuple[Cameras, Dict]:
        return self.train_dataset.sample((step * self.world_size + self.local_rank) % len(self.train_dataset))

    next_eval = next_eval_image = next_train

    def get_train_rays_per_batch(self) -> int:
        return HEIGHT * WIDTH

    get_eval_rays_per_batch = get_train_rays_per_batch

    def get_datapath(self) -> Path:
        return Path()

    def get_param_groups(self) -> Dict:
        return {}


@dataclass
class ToyModelConfig(ModelConfig):
    """One colour per frame"""

    _target: Type = field(default_factory=lambda: ToyModel)
    enable_collider: bool = False
    """No rays here."""
    nan_at: Tuple[int, ...] = ()
    """Training steps whose loss is NaN, each once."""
    width: int = 8
    """Hidden channels."""
    offset: float = 0.0
    """Added to every metric."""


class ToyModel(Model):
    """A small network from time to colour."""

    config: ToyModelConfig

    def populate_modules(self) -> None:
        super().populate_modules()
        self.network = nn.Sequential(nn.Linear(1, self.config.width), nn.Tanh(), nn.Linear(self.config.width, 3))
        self.register_buffer("stored", torch.zeros(1))
        self.calls: List[str] = []
        self.losses_given = 0

    def get_param_groups(self) -> Dict[str, List[nn.Parameter]]:
        return {"fields": list(self.network.parameters())}

    def get_outputs(self, ray_bundle: Cameras) -> Dict[str, Tensor]:
        color = self.network(ray_bundle.times.to(self.device).view(1))
        return {"rgb": color.expand(HEIGHT, WIDTH, 3)}

    def get_outputs_for_camera(self, camera: Cameras, obb_box=None) -> Dict[str, Tensor]:
        return self.get_outputs(camera)

    def get_loss_dict(self, outputs, batch, metrics_dict=None) -> Dict[str, Tensor]:
        loss = (outputs["rgb"] - batch["image"].to(self.device)).square().mean()
        if self.losses_given in self.config.nan_at:
            loss = loss * float("nan")
        self.losses_given += 1
        return {"rgb_loss": loss}

    def get_image_metrics_and_images(self, outputs, batch):
        error = (outputs["rgb"] - batch["image"]).abs().mean()
        return {"error": float(error) + self.config.offset}, {"img": outputs["rgb"].clamp(0, 1)}

    def prepare_checkpoint(self) -> None:
        self.calls.append("prepare_checkpoint")
        self.stored.fill_(7)

    def prepare_eval(self) -> None:
        self.calls.append("prepare_eval")

    def get_run_metrics(self) -> Dict[str, float]:
        return {"parameters": 35.0}


def toy_config(folder: Path, **changes) -> ExtTrainerConfig:
    """Trainer config of the toy, on the CPU, writing below a folder."""
    model = {key: changes.pop(key) for key in ("nan_at", "width", "offset") if key in changes}
    settings = dict(
        method_name="toy",
        experiment_name="clip",
        timestamp="run",
        output_dir=folder,
        epochs=3,
        vis="tensorboard",
        machine=MachineConfig(device_type="cpu"),
        logging=LoggingConfig(profiler="none"),
        pipeline=ExtPipelineConfig(datamanager=ToyDataManagerConfig(), model=ToyModelConfig(**model)),
        optimizers={
            "fields": {"optimizer": AdanOptimizerConfig(lr=1e-2), "scheduler": WarmupCosineSchedulerConfig()},
        },
    )
    return ExtTrainerConfig(**{**settings, **changes})


def toy_trainer(folder: Path, **changes):
    """Trainer of the toy, set up and ready to train."""
    torch.manual_seed(0)
    trainer = toy_config(folder, **changes).setup()
    trainer.setup()
    return trainer


def interrupt_after(trainer, steps, number=signal.SIGINT):
    """Press Ctrl-C, or send another signal, in the middle of a step, after so many have been trained."""
    forward = trainer.pipeline.get_train_loss_dict

    def pressed(step):
        if step == steps - 1:
            os.kill(os.getpid(), number)
        return forward(step=step)

    trainer.pipeline.get_train_loss_dict = pressed


def train_on_rank(rank, world_size, folder, port):
    """One process of a training on several; leaves its weights behind."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    torch.manual_seed(rank)  # as nerfstudio does, so that the wrap has to make the weights equal
    # Rank 1 alone sees a NaN; both must go back.
    config = toy_config(folder, max_num_iterations=6, nan_at=(3,) if rank == 1 else ())
    trainer = config.setup(local_rank=rank, world_size=world_size)
    trainer.setup()
    trainer.train()
    state = {key: value.clone() for key, value in trainer.pipeline.model.state_dict().items()}
    torch.save((state, trainer.guard.halvings), folder / f"rank{rank}.pt")
    dist.destroy_process_group()
