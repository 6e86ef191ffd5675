"""Run folders that commands are given: their configs, and the kind of run they hold."""

from pathlib import Path
from typing import TYPE_CHECKING, Tuple

if TYPE_CHECKING:
    from nerfstudio_ext.engine.trainer import ExtTrainerConfig
    from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModel


def run_folder(run: Path) -> Path:
    """A run's folder, of its folder or its config.yml."""
    return run.parent if run.name == "config.yml" else run


def read_config(run: Path) -> "ExtTrainerConfig":
    """Config of a run of the suite, from its folder or its config.yml.

    Raises:
        InputError: There is no run at that place.
    """
    import yaml

    from nerfstudio_ext.engine.errors import InputError
    from nerfstudio_ext.engine.trainer import ExtTrainerConfig

    path = run_folder(run) / "config.yml"
    if not path.is_file():
        raise InputError(f"{run} is not a trained run: give the folder that holds config.yml (ns-train prints it).")
    config = yaml.load(path.read_text("utf8"), Loader=yaml.Loader)
    if not isinstance(config, ExtTrainerConfig):
        raise InputError(f"{path} is not the config of one of the suite's runs.")
    return config


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


def open_video_run(run: Path) -> Tuple["ExtTrainerConfig", "BoostingNeRVModel"]:
    """Config and trained model of a run that represents a video.

    Raises:
        InputError: There is no run at that place, it has saved nothing, or it is of another kind.
    """
    from nerfstudio_ext.engine.runs import open_run
    from nerfstudio_ext.engine.trainer import ExtTrainerConfig
    from nerfstudio_ext.models.boosting_nerv import BoostingNeRVModel

    read_video_config(run)
    config, pipeline = open_run(run)
    assert isinstance(config, ExtTrainerConfig) and isinstance(pipeline.model, BoostingNeRVModel)
    return config, pipeline.model
