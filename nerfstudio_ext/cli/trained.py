"""What commands share that take the network out of a run, or put its weights into a small file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Tuple, Type

if TYPE_CHECKING:
    from torch import Tensor

    from nerfstudio_ext.engine.trainer import ExtTrainerConfig

PREFIX = "_model.field."


def trained_run(run: Path, model: Type[Any], lack: str) -> Tuple["ExtTrainerConfig", Path]:
    """Config and newest checkpoint of a run.

    Args:
        run: Its folder, or its config.yml.
        model: Settings of the method that it must be of.
        lack: What other methods do not do, for the message.

    Raises:
        InputError: There is no such run, or it was trained with another method.
    """
    from nerfstudio_ext.cli.run_folders import read_config, run_folder
    from nerfstudio_ext.engine.checkpoints import find_checkpoint
    from nerfstudio_ext.engine.errors import InputError

    config = read_config(run)
    if not isinstance(config.pipeline.model, model):
        raise InputError(f"{run} was trained with {config.method_name}, which {lack}.")
    return config, find_checkpoint(run_folder(run))


def field_weights(state: Dict[str, Any]) -> Dict[str, "Tensor"]:
    """Weights of the field in what `read_checkpoint` gives."""
    return {k.removeprefix(PREFIX): v for k, v in state["pipeline"].items() if k.startswith(PREFIX)}


def write_weights(weights: Dict[str, "Tensor"], output: Path, metadata: Dict[str, str]) -> None:
    """Write weights with half precision, and say how large they are.

    Raises:
        InputError: The file has another ending.
    """
    from nerfstudio_ext.engine.errors import InputError
    from nerfstudio_ext.engine.weights import write_safetensors

    if output.suffix != ".safetensors":
        raise InputError(f"Weights are written as .safetensors, so {output.name} needs that ending.")
    write_safetensors(weights, output, metadata)
    count = sum(value.numel() for value in weights.values())
    print(f"{count:,} numbers, {output.stat().st_size / 1e6:.2f} MB: {output}")
