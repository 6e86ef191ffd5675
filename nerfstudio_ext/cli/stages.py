"""Later training stages of a fitted video, each in a run folder of its own: what compressing and pruning share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

if TYPE_CHECKING:
    from nerfstudio_ext.engine.trainer import ExtTrainerConfig
    from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModel

EPOCHS = 100
"""Passes over the clip where none are asked for."""


def check_numbers(epochs: Optional[int], lr: Optional[float]) -> None:
    """Refuse what no stage can be started with.

    Raises:
        InputError: A number is out of range.
    """
    import math

    from nerfstudio_ext.engine.errors import InputError

    if epochs is not None and epochs < 1:
        raise InputError(f"--epochs {epochs} must be at least 1.")
    if lr is not None and not 0 < lr < math.inf:
        raise InputError(f"--lr {lr} must be a positive number.")


def start_stage(config: "ExtTrainerConfig", folder: Path, options: Any, ending: str) -> None:
    """Make the config of a run that of a later stage, which starts anew in a folder of its own.

    Args:
        config: Changed in place.
        folder: The earlier run's folder.
        options: Where epochs, lr, output_dir, timestamp and vis come from.
        ending: End of the new folder's name where no timestamp is given.

    Raises:
        InputError: A number is out of range, or the new folder holds something already.
    """
    import time

    from nerfstudio_ext.cli.folders import require_empty

    check_numbers(options.epochs, options.lr)
    config.epochs, config.max_num_iterations = EPOCHS if options.epochs is None else options.epochs, None
    config.load_dir = config.load_checkpoint = config.load_step = None
    config.vis = options.vis or config.vis
    config.viewer.quit_on_train_completion = True
    if options.output_dir is not None:
        config.output_dir = options.output_dir
    elif len(folder.resolve().parents) > 2:
        config.output_dir = folder.resolve().parents[2]
    config.relative_model_dir = Path("nerfstudio_models")
    config.timestamp = options.timestamp or time.strftime("%Y-%m-%d_%H%M%S") + f"_{ending}"
    require_empty(config.get_base_dir(), "choose another --timestamp or --output-dir for the new run")


def resume_stage(
    config: "ExtTrainerConfig", folder: Path, options: Any, settled: Dict[str, Tuple[Optional[float], float]]
) -> None:
    """Let a stage go on in its own folder, up to another number of epochs where one is given.

    Args:
        config: Of the stage; changed in place.
        folder: The stage's folder.
        options: Where epochs, output_dir, timestamp and vis come from.
        settled: What cannot change any more, by flag: the number given, none where it is left out, and the stage's.

    Raises:
        InputError: A flag cannot be honoured, or the folder does not lie where its config says.
    """
    from nerfstudio_ext.engine.checkpoints import CHECKPOINT_NAME, find_checkpoint
    from nerfstudio_ext.engine.errors import InputError

    model: Any = config.pipeline.model
    start_run = (model.compression or model.pruning).start_run
    for flag, (given, has) in settled.items():
        if given is not None and given != has:
            raise InputError(
                f"{folder} was started with {flag} {has:g}, and that stays: for {flag} {given:g} give the run that it "
                f"started from ({start_run})."
            )
    for flag, given in (("--output-dir", options.output_dir), ("--timestamp", options.timestamp)):
        if given is not None:
            raise InputError(f"{flag} names a new run, but {folder} goes on where it is: leave it out.")

    # The stored place may be relative to where training was started, and the folder may have been moved since.
    place = folder.resolve()
    if place.parent.name == config.method_name and len(place.parents) > 2:
        config.output_dir, config.experiment_name, config.timestamp = (
            place.parents[2],
            place.parents[1].name,
            place.name,
        )
    elif config.get_base_dir().resolve() != place:
        raise InputError(f"{folder} was moved: run 'ns-ext run relocate {folder}' first.")
    config.relative_model_dir = Path("nerfstudio_models")
    config.load_dir = place / "nerfstudio_models"
    config.vis = options.vis or config.vis

    total = config.max_num_iterations
    if options.epochs is None or not config.epochs or not total or options.epochs == config.epochs:
        return
    per_epoch = total // config.epochs
    match = CHECKPOINT_NAME.fullmatch(find_checkpoint(folder).name)
    assert match is not None
    done = int(match[1]) + 1
    if options.epochs * per_epoch <= done:
        raise InputError(
            f"{folder} has done {done / per_epoch:g} epochs of {config.epochs}, and --epochs {options.epochs} counts "
            "from its start: give a larger number."
        )
    config.epochs, config.max_num_iterations = options.epochs, None
    print(
        f"{done / per_epoch:g} epochs are done, and there will be {options.epochs}: the learning rate goes to where "
        f"its schedule over all {options.epochs} is now."
    )


def train_stage(config: "ExtTrainerConfig", folder: Path, verb: str, start: str, resumed: bool) -> "BoostingNeRVModel":
    """Train a later stage to its end, and return its model.

    Args:
        config: Of the stage.
        folder: That of the earlier run that it starts from, or its own.
        verb: Command that goes on with it.
        start: Method of the model that takes the earlier run's state.
        resumed: Whether the folder is the stage's own.

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

    data, checkpoint = config.data_path(), find_checkpoint(folder)
    if data is not None and not data.expanduser().exists():
        raise InputError(f"This stage trains on the source, and {data} is gone: bring it back.")
    seed = config.machine.seed
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    trainer = config.setup()
    trainer.setup()
    trainer.resume_command = shlex.join(["ns-ext", "video", verb, str(config.get_base_dir())])
    model = trainer.pipeline.model
    assert isinstance(model, BoostingNeRVModel)
    if not resumed:
        state = read_checkpoint(checkpoint)["pipeline"]
        prefix = "_model."
        getattr(model, start)({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    trainer.train()
    return model.eval()
