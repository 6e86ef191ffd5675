"""`ns-ext video compress`: the second training stage, which makes a fitted video cheap to store."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import tyro

if TYPE_CHECKING:
    from nerfstudio_ext.engine.trainer import ExtTrainerConfig
    from nerfstudio_ext.video.quantization import CompressionConfig

BITS = 4.0
"""Bits per stored number where none are asked for."""
LEARNING_RATE = 5e-4
"""Learning rate of the second stage (Boosting-NeRV section 4.1)."""
SCALE_LEARNING_RATE = 5e-2
"""Learning rate of the scales' logarithms: ours, since the published scales are not logarithms."""
RATE_LOSS_MULT = {"content": 0.05, "time": 0.2, "grid": 0.2}
"""Published weight of the rate by kind of stem."""


@dataclass
class Compress:
    """Train a fitted video further until its numbers are cheap to store (consistent entropy minimisation).

    The result is a run folder like any other, for ns-eval, ns-render, ns-viewer and the `ns-ext video` commands. Given
    a folder that this command wrote, it goes on where that one stopped, for more --epochs than before if you like;
    its other numbers stay.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a trained run, or of a compression that was stopped."""
    epochs: Optional[int] = None
    """Passes over the clip, counted from the start of the compression; none: 100, or as many as it was started with."""
    bits: Optional[float] = None
    """Bits per stored number to come down to; none: 4."""
    lr: Optional[float] = None
    """Learning rate of the network; none: the published 5e-4."""
    rate_loss_mult: Optional[float] = None
    """Weight of the rate; none: the published one, 0.05 for HNeRV and 0.2 for NeRV and E-NeRV."""
    output_dir: Optional[Path] = None
    """Where the new run is kept; none: where the given one is."""
    timestamp: Optional[str] = None
    """Name of the new run's folder; none: the present time."""
    vis: Optional[Literal["viewer", "tensorboard", "viewer+tensorboard"]] = None
    """Where training shows itself; none: as the given run did."""

    def main(self) -> None:
        import shlex

        from nerfstudio_ext.cli.run_folders import read_video_config, run_folder
        from nerfstudio_ext.cli.stages import resume_stage, train_stage

        config, folder = read_video_config(self.run), run_folder(self.run)
        model: Any = config.pipeline.model
        settings: Optional[CompressionConfig] = model.compression
        if settings is None:
            self._second_stage(config, folder)
        else:
            settled = {
                "--bits": (self.bits, settings.bits),
                "--rate-loss-mult": (self.rate_loss_mult, settings.rate_loss_mult),
                "--lr": (self.lr, config.optimizers["field"]["optimizer"].lr),
            }
            resume_stage(config, folder, self, settled)
        trained = train_stage(config, folder, "compress", "start_compression", resumed=settings is not None)
        settings, stored = model.compression, trained.stored_numbers().bits() / trained.size_report()["num_stored"]
        missed = stored > 1.05 * settings.bits
        aim = f", not the {settings.bits:g} aimed at" if missed else ""
        print(f"stored numbers cost {stored:.2f} bits each{aim}")
        print(f"compressed run: {config.get_base_dir()}")
        if missed and config.epochs is not None and settings.start_run is not None:
            onward = shlex.join(["ns-ext", "video", "compress", str(config.get_base_dir())])
            anew = shlex.join(["ns-ext", "video", "compress", str(settings.start_run)])
            weights = f"--bits {settings.bits:g} --rate-loss-mult {2 * settings.rate_loss_mult:g}"
            print(f"to come closer, train on:  {onward} --epochs {2 * config.epochs}")
            print(f"or start anew with more weight on the rate:  {anew} --epochs {config.epochs} {weights}")

    def check(self) -> None:
        """Refuse numbers that no compression can be started with.

        Raises:
            InputError: One is out of range.
        """
        import math

        from nerfstudio_ext.cli.stages import check_numbers
        from nerfstudio_ext.engine.errors import InputError

        check_numbers(self.epochs, self.lr)
        if self.bits is not None and not 0 < self.bits <= 16:
            raise InputError(f"--bits {self.bits} must be above 0 and at most 16: bits per stored number.")
        if self.rate_loss_mult is not None and not 0 < self.rate_loss_mult < math.inf:
            raise InputError(f"--rate-loss-mult {self.rate_loss_mult} must be a positive number: the rate's weight.")

    def _second_stage(self, config: "ExtTrainerConfig", folder: Path) -> None:
        """Turn the config of a first stage into that of the second.

        Raises:
            InputError: A number is out of range, or the new folder holds something already.
        """
        from dataclasses import replace

        from nerfstudio_ext.cli.stages import start_stage
        from nerfstudio_ext.engine.schedulers import WarmupCosineSchedulerConfig
        from nerfstudio_ext.video.quantization import CompressionConfig

        self.check()
        model: Any = config.pipeline.model
        mult = RATE_LOSS_MULT[model.field.stem] if self.rate_loss_mult is None else self.rate_loss_mult
        model.compression = CompressionConfig(BITS if self.bits is None else self.bits, mult, folder.resolve())
        start_stage(config, folder, self, "compressed")
        optimizer = config.optimizers["field"]["optimizer"]
        schedule = WarmupCosineSchedulerConfig(warmup=0.0)
        lr = LEARNING_RATE if self.lr is None else self.lr
        config.optimizers = {
            "field": {"optimizer": replace(optimizer, lr=lr), "scheduler": schedule},
            "quantizer": {"optimizer": replace(optimizer, lr=SCALE_LEARNING_RATE), "scheduler": schedule},
        }
