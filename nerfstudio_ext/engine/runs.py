"""Opening a trained run from wherever its folder lies."""

from pathlib import Path
from typing import Literal, Tuple

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.eval_utils import eval_setup

from nerfstudio_ext.engine.errors import InputError


def open_run(run: Path, test_mode: Literal["test", "inference"] = "inference") -> Tuple[TrainerConfig, Pipeline]:
    """Config and trained pipeline of a run, also when its folder was moved or the working directory is another.

    Args:
        run: The run's folder (the one with config.yml), or its config.yml.
        test_mode: ``inference`` needs no data where the method can do without.

    Raises:
        InputError: There is no run at that place, or it holds no checkpoint.
    """
    config_path = run if run.name == "config.yml" else run / "config.yml"
    if not config_path.is_file():
        raise InputError(f"{run} is not a trained run: give the folder that holds config.yml (ns-train prints it).")
    folder = config_path.resolve().parent

    def use_this_folder(config: TrainerConfig) -> TrainerConfig:
        # The stock loader rebuilds the folder from names and the working directory; an absolute part overrides that.
        config.relative_model_dir = folder / Path(config.relative_model_dir).name
        if not any(config.relative_model_dir.glob("*.ckpt")):
            raise InputError(
                f"{config.relative_model_dir} holds no checkpoint: the run was stopped before its first save."
            )
        return config

    config, pipeline, _, _ = eval_setup(config_path, test_mode=test_mode, update_config_callback=use_this_folder)
    return config, pipeline
