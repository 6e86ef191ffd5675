"""`ns-ext video prune`: a training stage without the smallest weights, as NeRV has it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import tyro

KEEP = 0.4
"""Share of the weights that stay where none is asked for."""


@dataclass
class Prune:
    """Let the smallest weights of a fitted video go and train the others on (global magnitude pruning, NeRV).

    The result is a run folder like any other: write it with `ns-ext video encode --bits 8`, or compress it first. Given
    a folder that this command wrote, it goes on where that one stopped, for more --epochs than before if you like;
    with a smaller --keep it starts a new run from that one, and so prunes step by step.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a trained run, or of a pruning that was stopped."""
    keep: Optional[float] = None
    """Share of the decoder's weights that stay, over all tensors; biases all stay. None: 0.4."""
    epochs: Optional[int] = None
    """Passes over the clip after the cut; none: 100, or as many as the pruning was started with."""
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

        from nerfstudio_ext.cli.run_folders import read_video_config, run_folder
        from nerfstudio_ext.cli.stages import resume_stage, start_stage, train_stage
        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.video.pruning import PruningConfig

        config, folder = read_video_config(self.run), run_folder(self.run)
        model: Any = config.pipeline.model
        if model.compression is not None:
            raise InputError(f"{self.run} is compressed already: prune before you compress.")
        before, entry = model.pruning, config.optimizers["field"]
        resumed = before is not None and self.keep in (None, before.keep)
        if resumed:
            resume_stage(config, folder, self, {"--lr": (self.lr, entry["optimizer"].lr)})
        else:
            model.pruning = PruningConfig(KEEP if self.keep is None else self.keep, folder.resolve())
            if before is not None and model.pruning.keep > before.keep:
                raise InputError(
                    f"--keep {self.keep} is more than the {before.keep:g} that {self.run} has: weights that are gone "
                    "do not come back."
                )
            start_stage(config, folder, self, "pruned")
            if self.lr is not None:
                config.optimizers["field"] = {**entry, "optimizer": replace(entry["optimizer"], lr=self.lr)}
        train_stage(config, folder, "prune", "start_pruning", resumed)
        print(f"pruned run: {config.get_base_dir()}")
