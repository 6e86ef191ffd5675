"""`ns-ext video compress`: the second training stage, which makes a fitted video cheap to store."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import tyro

if TYPE_CHECKING:
    from nerfstudio_ext.engine.trainer import ExtTrainerConfig
    from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModel

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
    a folder that this command wrote, it goes on where that one stopped.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a trained run, or of a compression that was stopped."""
    epochs: int = 100
    """Passes over the clip."""
    bits: float = 4.0
    """Bits per stored number to come down to."""
    lr: float = LEARNING_RATE
    """Learning rate of the network."""
    rate_loss_mult: Optional[float] = None
    """Weight of the rate; none: the published one, 0.05 for HNeRV and 0.2 for NeRV and E-NeRV."""
    output_dir: Optional[Path] = None
    """Where the new run is kept; none: where the given one is."""
    timestamp: Optional[str] = None
    """Name of the new run's folder; none: the present time."""
    vis: Optional[Literal["viewer", "tensorboard", "viewer+tensorboard"]] = None
    """Where training shows itself; none: as the given run did."""

    def main(self) -> None:
        config = read_video_config(self.run)
        model: Any = config.pipeline.model
        resumed = model.compression is not None
        if not resumed:
            self.second_stage(config, run_folder(self.run))
        trained = train_stage(config, self.run, "compress", "start_compression", resumed, self.vis)
        bits, target = trained.stored_numbers().bits() / trained.size_report()["num_stored"], model.compression.bits
        missed = f", not the {target:g} aimed at: give more --epochs or a larger --rate-loss-mult"
        print(f"stored numbers cost {bits:.2f} bits each{missed if bits > 1.05 * target else ''}")
        print(f"compressed run: {config.get_base_dir()}")

    def second_stage(self, config: "ExtTrainerConfig", folder: Path) -> None:
        """Turn the config of a first stage into that of the second.

        Raises:
            InputError: A number is out of range.
        """
        from dataclasses import replace

        from nerfstudio_ext.engine.errors import InputError
        from nerfstudio_ext.engine.schedulers import WarmupCosineSchedulerConfig
        from nerfstudio_ext.video.quantization import CompressionConfig

        if not 0 < self.bits <= 16:
            raise InputError(f"--bits {self.bits} must be above 0 and at most 16: bits per stored number.")
        if self.epochs < 1 or not self.lr > 0:
            raise InputError(f"--epochs {self.epochs} must be at least 1 and --lr {self.lr} positive.")
        model: Any = config.pipeline.model
        mult = RATE_LOSS_MULT[model.field.stem] if self.rate_loss_mult is None else self.rate_loss_mult
        model.compression = CompressionConfig(self.bits, mult, folder.resolve())
        optimizer = config.optimizers["field"]["optimizer"]
        schedule = WarmupCosineSchedulerConfig(warmup=0.0)
        config.optimizers = {
            "field": {"optimizer": replace(optimizer, lr=self.lr), "scheduler": schedule},
            "quantizer": {"optimizer": replace(optimizer, lr=SCALE_LEARNING_RATE), "scheduler": schedule},
        }
        prepare_stage(config, folder, self, "compressed")


def prepare_stage(config: "ExtTrainerConfig", folder: Path, options: Any, ending: str) -> None:
    """Make the config of a run that of a later stage, which starts anew in a folder of its own.

    Args:
        config: Changed in place.
        folder: The earlier run's folder.
        options: Where epochs, output_dir, timestamp and vis come from.
        ending: End of the new folder's name where no timestamp is given.
    """
    import time

    config.epochs, config.max_num_iterations = options.epochs, None
    config.load_dir = config.load_checkpoint = config.load_step = None
    config.vis = options.vis or config.vis
    config.viewer.quit_on_train_completion = True
    if options.output_dir is not None:
        config.output_dir = options.output_dir
    elif len(folder.resolve().parents) > 2:
        config.output_dir = folder.resolve().parents[2]
    config.relative_model_dir = Path("nerfstudio_models")
    config.timestamp = options.timestamp or time.strftime("%Y-%m-%d_%H%M%S") + f"_{ending}"


def train_stage(
    config: "ExtTrainerConfig", run: Path, verb: str, start: str, resumed: bool, vis: Optional[Any]
) -> "BoostingNeRVModel":
    """Train a later stage to its end, and return its model.

    Args:
        config: Of the stage.
        run: The earlier run that it starts from, or its own folder.
        verb: Command that goes on with it.
        start: Method of the model that takes the earlier run's state.
        resumed: Whether the folder is the stage's own.
        vis: Where training shows itself; none: as the config says.

    Raises:
        InputError: The source is gone.
    """
    import random
    import shlex

    import numpy as np
    import torch

    from nerfstudio_ext.engine.checkpoints import find_checkpoint, read_checkpoint
    from nerfstudio_ext.engine.errors import InputError
    from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModel

    folder = run_folder(run)
    checkpoint = find_checkpoint(folder)
    if resumed:
        # The folder may have been moved since, and the stored one is relative to where training was started.
        config.relative_model_dir = (folder / "nerfstudio_models").resolve()
        config.load_dir = config.relative_model_dir
        config.vis = vis or config.vis
    seed = config.machine.seed
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    trainer = config.setup()
    trainer.setup()
    trainer.resume_command = shlex.join(["ns-ext", "video", verb, str(config.get_base_dir())])
    model = trainer.pipeline.model
    assert isinstance(model, BoostingNeRVModel)
    if not model.frames.available:
        raise InputError(f"This stage trains on the source, and {config.data} is gone: bring it back.")
    if not resumed:
        state = read_checkpoint(checkpoint)["pipeline"]
        prefix = "_model."
        getattr(model, start)({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    trainer.train()
    return model.eval()


def run_folder(run: Path) -> Path:
    """A run's folder, of its folder or its config.yml."""
    return run.parent if run.name == "config.yml" else run


def read_video_config(run: Path) -> "ExtTrainerConfig":
    """Config of a run that represents a video.

    Raises:
        InputError: There is no run at that place, or it is of another kind.
    """
    from nerfstudio_ext.engine.errors import InputError
    from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModelConfig

    config = read_config(run)
    if not isinstance(config.pipeline.model, BoostingNeRVModelConfig):
        raise InputError(f"{run} was trained with {config.method_name}, which is not a video representation.")
    return config


def read_config(run: Path) -> "ExtTrainerConfig":
    """Config of a run of the suite, from its folder or its config.yml.

    Raises:
        InputError: There is no run at that place.
    """
    import yaml

    from nerfstudio_ext.engine.errors import InputError
    from nerfstudio_ext.engine.trainer import ExtTrainerConfig

    path = run if run.name == "config.yml" else run / "config.yml"
    if not path.is_file():
        raise InputError(f"{run} is not a trained run: give the folder that holds config.yml (ns-train prints it).")
    config = yaml.load(path.read_text("utf8"), Loader=yaml.Loader)
    if not isinstance(config, ExtTrainerConfig):
        raise InputError(f"{path} is not the config of one of the suite's runs.")
    return config
