"""`ns-ext video prune`: a training stage without the smallest weights, as NeRV has it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import tyro


@dataclass
class Prune:
    """Let the smallest weights of a fitted video go and train the others on (global magnitude pruning, NeRV).

    The result is a run folder like any other: write it with `ns-ext video encode --bits 8`, or compress it first. Given
    a folder that this command wrote, it goes on where that one stopped.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a trained run, or of a pruning that was stopped."""
    keep: float = 0.4
    """Share of the decoder's weights that stay, over all tensors; biases all stay."""
    epochs: int = 100
    """Passes over the clip after the cut."""
    lr: Optional[float] = None
    """Learning rate; none: the given run's."""
    output_dir: Optional[Path] = None
    """Where the new run is kept; none: where the given one is."""
    timestamp: Optional[str] = None
    """Name of the new run's folder; none: the present time."""
    vis: Optional[Literal["viewer", "tensorboard", "viewer+tensorboard"]] = None
    """Where training shows itself; none: as the given run did."""

    def main(self) -> None:
        from dataclasses import replace

        from nerfstudio_ext.cli.compress import prepare_stage, read_video_config, run_folder, train_stage
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.video.pruning import PruningConfig

        config = read_video_config(self.run)
        model: Any = config.pipeline.model
        if model.compression is not None:
            raise InputError(f"{self.run} is compressed already: prune before you compress.")
        resumed = model.pruning is not None
        if not resumed:
            if self.epochs < 1 or not (self.lr is None or self.lr > 0):
                raise InputError(f"--epochs {self.epochs} must be at least 1 and --lr {self.lr} positive.")
            folder = run_folder(self.run)
            model.pruning = PruningConfig(self.keep, folder.resolve())
            entry = config.optimizers["field"]
            if self.lr is not None:
                config.optimizers["field"] = {**entry, "optimizer": replace(entry["optimizer"], lr=self.lr)}
            prepare_stage(config, folder, self, "pruned")
        train_stage(config, self.run, "prune", "start_pruning", resumed, self.vis)
        print(f"pruned run: {config.get_base_dir()}")
