"""`ns-ext keypoints ...`: a trained network and photographs of somebody it has never seen."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Dict, Literal, Optional, Tuple

import tyro

if TYPE_CHECKING:
    from nerfstudio_ext.engine.trainer import ExtTrainerConfig


@dataclass
class Condition:
    """Make a run folder that shows the person of some photos, for ns-viewer, ns-render, ns-eval and ns-export.

    Nothing is trained. The folder with the photos holds transforms.json with cameras, masks and 3-D keypoints.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a trained keypoint-nerf run, or default: the small network, where its weights come along."""
    photos: Path
    """Folder that holds transforms.json, or a folder like that for each moment or person."""
    folders: Literal["moments", "people"] = "moments"
    """What several folders are: moments of one person, or different people, of whom the viewer's panel chooses one."""
    output: Optional[Path] = None
    """Folder to write; none: outputs/NAME_OF_THE_PHOTOS."""
    sources: str = "all"
    """Photos that each person is reconstructed from: all, a number, or indices as in 0,2, counted from 0; ns-eval
    scores the others, or, where none is left, those themselves."""

    def main(self) -> None:
        import shutil

        from dataparsers.person_photos import PersonPhotosDataParserConfig
        from nerfstudio_ext.cli.folders import require_empty
        from nerfstudio_ext.engine.checkpoints import atomic_save, relocate_run, write_config

        output = self.output or Path("outputs") / self.photos.resolve().name
        require_empty(output, "name a new folder with --output")
        config, names, checkpoint = _default() if self.run == Path("default") else _trained(self.run)
        manager: Any = config.pipeline.datamanager
        parser = PersonPhotosDataParserConfig(
            data=self.photos.resolve(),
            folders=self.folders,
            size=manager.dataparser.size,
            sources=self.sources,
            keypoint_names=names,
        )
        metadata = parser.setup().get_dataparser_outputs("train").metadata
        chosen, store = metadata["sources"], metadata["subjects"]
        manager.dataparser, manager.data, config.data = parser, parser.data, parser.data
        config.load_dir = config.load_checkpoint = config.load_step = None
        models = output / "nerfstudio_models"
        models.mkdir(parents=True)
        if isinstance(checkpoint, Path):
            shutil.copy2(checkpoint, models / checkpoint.name)
        else:
            atomic_save(checkpoint, models / "step-000000000.ckpt")
        config.relative_model_dir = Path(models.name)
        write_config(config, output / "config.yml")
        path = relocate_run(output)
        for views in dict.fromkeys(chosen.values()):
            print(f"reconstructed from photos {','.join(map(str, views))}: {output}")
        if any(len(views) == len(store.cameras(index)) for index, views in chosen.items()):
            print("no photo is held out, so that ns-eval would score the sources themselves: --sources holds some out")
        print(f"look at it with:  ns-viewer --load-config {path}")


@dataclass
class Weights:
    """Cut the weights of a trained keypoint-nerf run out into a small file, half precision."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    output: Annotated[Path, tyro.conf.Positional]
    """File to write, .safetensors; an old one is replaced."""
    note: str = ""
    """How the run was made, kept in the file's header."""

    def main(self) -> None:
        from nerfstudio_ext.cli.trained import field_weights, write_weights
        from nerfstudio_ext.engine.checkpoints import read_checkpoint

        config, names, checkpoint = _trained(self.run)
        state = read_checkpoint(checkpoint)
        metadata = {"method": str(config.method_name), "steps": str(state["step"] + 1), "keypoints": ",".join(names)}
        write_weights(field_weights(state), self.output, {**metadata, "note": self.note})


def _trained(run: Path) -> Tuple["ExtTrainerConfig", Tuple[str, ...], Path]:
    """Config, keypoint set and checkpoint of a run.

    Raises:
        InputError: There is no such run, or it was trained with another method.
    """
    from nerfstudio_ext.cli.trained import trained_run
    from nerfstudio_ext.engine.checkpoints import read_checkpoint
    from nerfstudio_ext.models.keypoint_nerf import KeypointNeRFModelConfig

    config, checkpoint = trained_run(run, KeypointNeRFModelConfig, "knows no people it was not trained on")
    stored = read_checkpoint(checkpoint)["pipeline"]["_model.keypoint_set"]
    return config, tuple(bytes(stored.tolist()).decode().split(",")), checkpoint


def _default() -> Tuple["ExtTrainerConfig", Tuple[str, ...], Dict[str, Any]]:
    """Config, keypoint set and checkpoint of the small network that comes with the suite.

    Raises:
        InputError: Its weights are not there.
    """
    import copy

    import torch
    from nerfstudio.configs.method_configs import all_methods

    from nerfstudio_ext.engine.errors import InputError
    from nerfstudio_ext.engine.weights import read_safetensors
    from nerfstudio_ext.fields.keypoint_nerf_field import DEFAULT_WEIGHTS

    if not DEFAULT_WEIGHTS.is_file():
        raise InputError(
            f"There are no trained weights at {DEFAULT_WEIGHTS}: train keypoint-nerf-tiny and give its folder."
        )
    weights, metadata = read_safetensors(DEFAULT_WEIGHTS)
    state = {f"_model.field.{name}": value for name, value in weights.items()}
    names = metadata["keypoints"].encode()
    state["_model.keypoint_set"] = torch.frombuffer(bytearray(names), dtype=torch.uint8)
    state["_model.device_indicator_param"] = torch.empty(0)  # the host's own, in every checkpoint
    config: Any = copy.deepcopy(all_methods["keypoint-nerf-tiny"])
    config.machine.device_type = "cuda" if torch.cuda.is_available() else "cpu"
    return config, tuple(names.decode().split(",")), {"step": 0, "pipeline": state}
