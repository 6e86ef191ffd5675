"""Checkpoints that are whole or absent, that say why they do not fit, and run folders that may be moved."""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Dict, Mapping, Optional, Tuple

import torch
import yaml

from nerfstudio_ext.engine.errors import InputError

CHECKPOINT_NAME = re.compile(r"step-(\d+)\.ckpt")


def atomic_save(obj: Any, path: Path) -> None:
    """Write `torch.save(obj)` to `path` so that the file is either complete or not there, even when power fails.

    An older file of that name stays as it is until the new one is complete. The parts are gathered beside the folder,
    not in it, because nerfstudio reads every name in a checkpoint folder as a step number.

    Args:
        obj: Anything that torch.save takes.
        path: Final file; its folder is created.

    Raises:
        InputError: The file cannot be written, for example because the disk is full. Nothing is left behind.
    """
    _atomic_write(path, _staging_beside_folder, lambda file: torch.save(obj, file))


def write_config(config: Any, path: Path) -> None:
    """Write a config as nerfstudio's commands read it (YAML of live objects), complete or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(yaml.dump(config), path)


def write_text(text: str, path: Path) -> None:
    """Write a UTF-8 text file so that it is either complete or unchanged.

    Raises:
        InputError: The file cannot be written.
    """
    _atomic_write(path, _staging_in_folder, lambda file: file.write(text.encode("utf8")))


def write_bytes(data: bytes, path: Path) -> None:
    """Write a binary file so that it is either complete or unchanged.

    Raises:
        InputError: The file cannot be written.
    """
    _atomic_write(path, _staging_in_folder, lambda file: file.write(data))


def _atomic_write(path: Path, staging_for: Callable[[Path], Path], write: Callable[[IO[bytes]], Any]) -> None:
    """Fill a staging file, make sure it is on the disk, and move it onto `path`; on any fault leave no trace of it."""
    staging = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = staging_for(path)
        with open(staging, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
    except (OSError, RuntimeError) as error:
        reason = _write_fault(error)
        if reason is None:
            raise
        raise InputError(
            f"Could not write {path} ({reason}): free some space there or choose another folder."
        ) from error
    finally:
        if staging is not None:
            staging.unlink(missing_ok=True)


def _write_fault(error: Optional[BaseException]) -> Optional[str]:
    """What the operating system said when a write failed; None when the error has another cause."""
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        if isinstance(error, RuntimeError) and "unexpected pos" in str(error) and error.__context__ is None:
            return os.strerror(errno.ENOSPC)  # torch's zip writer hides the system's reason
        error = error.__context__
    return None


def _staging_in_folder(path: Path) -> Path:
    """Where the parts of a file gather: next to it."""
    return path.with_name(f".{path.name}.partial")


def _staging_beside_folder(path: Path) -> Path:
    """Where the parts of a checkpoint gather: beside its folder, on the same file system."""
    folder = path.parent.resolve()
    if os.stat(folder).st_dev == os.stat(folder.parent).st_dev:
        return folder.parent / f".{path.name}.partial"
    return folder / "step-000000000.partial"  # a mount point: this name reads as step 0 and so is never the latest


def find_checkpoint(folder: Path, step: Optional[int] = None) -> Path:
    """Checkpoint in a run folder or in its nerfstudio_models folder.

    Args:
        folder: Either of the two.
        step: Step to look for; none takes the latest.

    Raises:
        InputError: There is no such checkpoint.
    """
    for place in (folder, folder / "nerfstudio_models"):
        found = {int(m[1]): p for p in place.glob("step-*.ckpt") if (m := CHECKPOINT_NAME.fullmatch(p.name))}
        if found and step is None:
            return found[max(found)]
        if found and step in found:
            return found[step]
        if found:
            raise InputError(f"{place} has no checkpoint of step {step}; it has {', '.join(map(str, sorted(found)))}.")
    raise InputError(f"No checkpoint (step-*.ckpt) in {folder}: give the folder of a run that has saved one.")


def read_checkpoint(path: Path) -> Dict[str, Any]:
    """Contents of a checkpoint, on the CPU, read with torch's safe loader.

    Raises:
        InputError: The file is missing, damaged, or no checkpoint of nerfstudio.
    """
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"The checkpoint {path} cannot be read ({str(error).splitlines()[0]}): use another one."
        ) from error
    if not isinstance(state, dict) or not {"step", "pipeline"} <= state.keys():
        raise InputError(f"{path} is not a checkpoint of nerfstudio: it has no entries 'step' and 'pipeline'.")
    return state


@dataclass(frozen=True)
class LoadReport:
    """How a set of stored parameters differs from the one a model wants; true when it does."""

    missing: Tuple[str, ...] = ()
    """Wanted but not stored."""
    unexpected: Tuple[str, ...] = ()
    """Stored but not wanted."""
    mismatched: Tuple[str, ...] = ()
    """Stored with another shape."""
    shapes: Tuple[str, ...] = ()
    """For each mismatched name, the stored and the wanted shape in words."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = []
        for what, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.shapes),
        ):
            if names:
                shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
                parts.append(f"{len(names)} {what} ({shown})")
        return "; ".join(parts)

    def merged(self, other: "LoadReport") -> "LoadReport":
        """Both reports as one."""
        return LoadReport(
            self.missing + other.missing,
            self.unexpected + other.unexpected,
            self.mismatched + other.mismatched,
            self.shapes + other.shapes,
        )


def load_report(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> LoadReport:
    """Compare two state dicts by name and shape.

    Args:
        wanted: State dict of the model that is to be loaded.
        stored: State dict from a checkpoint.
    """
    both = [key for key in wanted if key in stored]
    differing = [key for key in both if _shape(wanted[key]) != _shape(stored[key])]
    return LoadReport(
        missing=tuple(key for key in wanted if key not in stored),
        unexpected=tuple(key for key in stored if key not in wanted),
        mismatched=tuple(differing),
        shapes=tuple(f"{key} is {_shape(stored[key])} instead of {_shape(wanted[key])}" for key in differing),
    )


def _shape(value: Any) -> Optional[Tuple[int, ...]]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def relocate_run(run_dir: Path, data: Optional[Path] = None) -> Path:
    """Make a run folder that was moved loadable by ns-eval, ns-render and ns-viewer from any directory.

    Those commands look for the checkpoints where `output_dir/experiment/method/timestamp` points to from the present
    directory. Here these fields are rewritten so that they point to the folder itself. The file is edited as text with
    tags, so no class that it names needs to be importable.

    Args:
        run_dir: Folder with config.yml and nerfstudio_models, or its config.yml.
        data: New place of the data; none keeps the stored one, made absolute where it can be found.

    Returns:
        Path of the rewritten config.yml.

    Raises:
        InputError: The folder is no run, it has no checkpoint, or the data is not there.
    """
    run = (run_dir.parent if run_dir.name == "config.yml" else run_dir).expanduser().resolve()
    config_path = run / "config.yml"
    if not config_path.is_file():
        raise InputError(f"{run} is not a run folder: it has no config.yml.")
    if data is not None and not data.expanduser().exists():
        raise InputError(f"There is no data at {data}: give the file or folder that the run was trained on.")
    config = yaml.compose(config_path.read_text("utf8"), Loader=yaml.Loader)
    method = _get(config, "method_name")
    if method is None:
        raise InputError(f"{config_path} is not a config of nerfstudio: it names no method.")

    models = _read_path(_get(config, "relative_model_dir")) or Path("nerfstudio_models")
    models = run / (models.name if models.is_absolute() else models)
    find_checkpoint(models)
    _set(config, "relative_model_dir", _path_node(models))
    if run.parent.name == method.value and len(run.parents) > 2:
        output_dir, experiment, timestamp = run.parents[2], run.parents[1].name, run.name
    else:
        # The method's name has to be part of the path: step into a folder of that name and out again.
        (run / method.value).mkdir(exist_ok=True)
        output_dir, experiment, timestamp = run.parent, run.name, ".."
    _set(config, "output_dir", _path_node(output_dir))
    _set(config, "experiment_name", _text_node(experiment))
    _set(config, "timestamp", _text_node(timestamp))

    datamanager = _get(_get(config, "pipeline"), "datamanager")
    for owner in (config, datamanager, _get(datamanager, "dataparser")):
        stored = _read_path(_get(owner, "data"))
        if data is not None:
            _set(owner, "data", _path_node(data.expanduser().resolve()))
        elif stored is not None and not stored.is_absolute():
            places = [place / stored for place in (Path.cwd(), output_dir.parent) if (place / stored).exists()]
            if places:
                _set(owner, "data", _path_node(places[0].resolve()))
    write_text(yaml.serialize(config), config_path)
    return config_path


def _get(node: Optional[yaml.Node], name: str) -> Optional[yaml.Node]:
    """Field of an object in a YAML tree; None where there is no such object or field, or it is null."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == name and value.tag != "tag:yaml.org,2002:null":
            return value
    return None


def _set(node: Optional[yaml.Node], name: str, value: yaml.Node) -> None:
    """Replace a field of an object in a YAML tree, if the object has it."""
    if isinstance(node, yaml.MappingNode):
        node.value = [(key, value if key.value == name else old) for key, old in node.value]


def _text_node(text: str) -> yaml.Node:
    return yaml.ScalarNode("tag:yaml.org,2002:str", text)


def _path_node(path: Path) -> yaml.Node:
    """A path as Python up to 3.12 dumps it; 3.13 reads this too, but not the other way round."""
    return yaml.SequenceNode(
        f"tag:yaml.org,2002:python/object/apply:pathlib.{type(path).__name__}",
        [_text_node(part) for part in path.parts],
    )


def _read_path(node: Optional[yaml.Node]) -> Optional[Path]:
    """Path that a YAML tree holds as an object or as plain text."""
    if node is None:
        return None
    return Path(*(part.value for part in node.value)) if isinstance(node, yaml.SequenceNode) else Path(node.value)
