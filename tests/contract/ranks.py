"""What one process does in test_ddp; a module of its own, since every process imports it."""

from pathlib import Path
from typing import Any, Dict, List

import torch
import torch.distributed as dist
from nerfstudio.utils import comms

from tests.contract.runs import parameters, tiny_config


def train_rank(rank: int, world_size: int, folder: Path, names: List[str]) -> None:
    """Train each preset as one of several processes, and leave what it saw and learned in `rank-N.pt`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world_size)
    comms.LOCAL_PROCESS_GROUP = dist.new_group(list(range(world_size)))
    results: Dict[str, Any] = {}
    for name in names:
        config = tiny_config(name, folder)
        config.steps_per_save = 1  # the last step is saved as any other and at the end: no rank may wait for another
        torch.manual_seed(config.machine.seed + rank)  # as ns-train seeds its processes
        trainer = config.setup(local_rank=rank, world_size=world_size)
        trainer.setup()
        datamanager, frames = trainer.pipeline.datamanager, []
        next_train = datamanager.next_train

        def noted(step: int, next_train=next_train, frames=frames) -> Any:
            camera, batch = next_train(step)
            frames.append(batch["image_idx"].tolist())
            return camera, batch

        datamanager.next_train = noted
        before = parameters(trainer.pipeline)
        trainer.train()
        results[name] = {"frames": frames, "before": before, "after": parameters(trainer.pipeline)}
    torch.save(results, folder / f"rank-{rank}.pt")
    dist.destroy_process_group()
