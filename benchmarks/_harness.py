"""What the benchmarks share: fitting a preset to a clip as the trainer does it, and writing result rows."""

import atexit
import copy
import ctypes
import json
import multiprocessing
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

import numpy as np
import torch
from nerfstudio.engine.trainer import Trainer
from torch import Tensor

from method_configs import boosting_nerv as presets
from nerfstudio_ext.cli.demo import bunny as bunny
from nerfstudio_ext.engine.metrics import psnr

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass
class Row:
    """One measured figure; `value` is None where it was not reached, `passed` where there is no gate."""

    claim: str
    what: str
    value: Optional[float]
    baseline: Optional[float]
    unit: str
    spread: Optional[float]
    seeds: int
    gate: Optional[str]
    passed: Optional[bool]


def machine() -> Dict[str, Any]:
    """What the figures were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": device,
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_rows(name: str, rows: Sequence[Row]) -> Path:
    """Write the rows of one benchmark to benchmarks/results/NAME.json, with the command and the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    given = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = " ".join(["python", "-m", f"benchmarks.{name}", *given])
    text = json.dumps(
        {"command": command, "machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1, allow_nan=False
    )
    path.write_text(text + "\n")
    return path


def settings_of(preset: str, edit: Callable[[Any], None]) -> Dict[str, Any]:
    """What decides a fit's result, by name, as JSON holds it."""
    config = copy.deepcopy(getattr(presets, preset).config)
    edit(config)
    model, optimizer = config.pipeline.model, config.optimizers["field"]["optimizer"]
    settings = {"loss": model.loss, "width": model.width, "target_params": model.target_params}
    settings |= {f"optimizer.{name}": value for name, value in vars(optimizer).items()}
    settings |= {f"field.{name}": value for name, value in vars(model.field).items()}
    return json.loads(json.dumps({name: value for name, value in settings.items() if "_target" not in name}))


def trainer_for(preset: str, data: Path, seed: int, steps: int, edit: Callable[[Any], None], device: str) -> Trainer:
    """A trainer of a preset, set up and not started; its folder goes when the process ends."""
    config = copy.deepcopy(getattr(presets, preset).config)
    config.vis = "tensorboard"
    config.data = config.pipeline.datamanager.data = data
    config.max_num_iterations = steps
    config.machine.device_type, config.machine.seed = device, seed
    config.pipeline.datamanager.train_cameras_sampling_seed = seed
    config.output_dir, config.timestamp = Path(tempfile.mkdtemp()), "run"
    atexit.register(shutil.rmtree, config.output_dir, ignore_errors=True)
    config.set_experiment_name()
    edit(config)
    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer = config.setup()
    trainer.setup()
    return trainer


def fitted(
    preset: str, data: Path, seed: int, epochs: int, edit: Callable[[Any], None], device: str = "cpu"
) -> Trainer:
    """A preset trained to its end, ready to be evaluated."""

    def whole(config: Any) -> None:
        edit(config)
        config.epochs, config.max_num_iterations = epochs, None

    trainer = trainer_for(preset, data, seed, 1, whole, device)
    for step in range(trainer.config.max_num_iterations):
        trainer.pipeline.train()
        trainer.train_iteration(step)
    trainer.pipeline.eval()
    trainer.pipeline.model.prepare_eval()
    return trainer


@torch.no_grad()
def clip_psnr(trainer: Trainer) -> float:
    """PSNR in dB of every frame as the stored video would decode it, averaged."""
    model, frames = trainer.pipeline.model.eval(), trainer.pipeline.datamanager.train_dataset.frames
    model.prepare_eval()
    values = []
    for k in range(len(frames)):
        index = torch.tensor([k], device=model.device)
        embeddings = None if model.embeddings is None else model.embeddings[index]
        values.append(float(psnr(model.field.decode(index, embeddings), frames.batch(index, model.device))))
    return float(np.mean(values))


def fit(
    preset: str,
    data: Path,
    seed: int,
    epochs: int,
    edit: Callable[[Any], None],
    evaluate_every: int,
    device: str = "cpu",
) -> Dict[str, Any]:
    """Train as ns-train does and follow the PSNR of the decoded clip.

    Returns:
        ``curve`` of (epoch, PSNR in dB), ``size`` in stored numbers, ``step_seconds`` as median over training.
    """
    probe = trainer_for(preset, data, seed, 1, edit, device)
    per_epoch = probe.pipeline.datamanager.steps_per_epoch
    trainer = trainer_for(preset, data, seed, epochs * per_epoch, edit, device)
    curve, seconds = [], []
    for step in range(epochs * per_epoch):
        trainer.pipeline.train()
        start = time.perf_counter()
        trainer.train_iteration(step)
        seconds.append(time.perf_counter() - start)
        epoch, position = divmod(step + 1, per_epoch)
        if position == 0 and (epoch % evaluate_every == 0 or epoch == epochs or epoch == 1):
            curve.append((epoch, clip_psnr(trainer)))
    return {"curve": curve, "size": trainer.pipeline.model.size_report(), "step_seconds": float(np.median(seconds))}


def timed(action: Callable[[], Any]) -> Callable[[], float]:
    """The action as a function that returns its duration in seconds."""

    def run() -> float:
        start = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return run


def interleaved_seconds(
    actions: Dict[str, Callable[[], float]], repeats: int, warm_up: int = 3
) -> Dict[str, List[float]]:
    """Durations that the actions return, taken turn by turn, so that a noisy machine disturbs all of them alike."""
    times: Dict[str, List[float]] = {name: [] for name in actions}
    for repeat in range(warm_up + repeats):
        for name, action in actions.items():
            seconds = action()
            if repeat >= warm_up:
                times[name].append(seconds)
    return times


def kept_megabytes(action: Callable[[], Tensor], parameters: Iterable[Tensor]) -> float:
    """What the forward pass keeps for the backward one, each storage counted once."""
    known = {x.untyped_storage().data_ptr() for x in parameters}
    sizes: Dict[int, int] = {}
    held: List[Tensor] = []  # a storage that is freed would give its address to another

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        action()
    return sum(sizes.values()) / 1e6


def peak_megabytes(action: Callable[[], Any]) -> float:
    """How much memory the process grows by while it does this, at most; done in a fork (Linux), which leaves no trace.

    Raises:
        RuntimeError: The action failed there.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def held() -> int:
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]

    def run() -> None:
        torch.set_num_threads(1)  # the parent's other threads are not there
        before = held()
        action()
        sender.send((held() - before) / 1e3)

    # What the process freed and did not give back would be used again, and not be seen to grow.
    ctypes.CDLL(None).malloc_trim(0)
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"The action whose memory is measured ended with status {process.exitcode}.")
    return receiver.recv()


def mean_row(
    claim: str,
    what: str,
    values: Sequence[float],
    baseline: Optional[Sequence[float]],
    unit: str = "dB",
    gate: Optional[str] = None,
    passed: Optional[bool] = None,
) -> Row:
    """Row of means over seeds; the spread is that of the differences where the baseline has as many seeds."""
    differences = np.subtract(values, baseline) if baseline is not None and len(baseline) == len(values) else values
    base = None if baseline is None else round(float(np.mean(baseline)), 2)
    value = round(float(np.mean(values)), 2)
    return Row(claim, what, value, base, unit, spread(list(differences)), len(values), gate, passed)


def spread(values: Sequence[float]) -> Optional[float]:
    """Standard deviation over seeds; None for a single one."""
    return round(float(np.std(values, ddof=1)), 2) if len(values) > 1 else None


def kept(path: Path) -> Dict[str, Any]:
    """Results of the long runs that have ended."""
    return json.loads(path.read_text()) if path.exists() else {}


def cached(
    path: Path, key: str, compute: Callable[[], Dict[str, Any]], settings: Optional[Dict[str, Any]] = None
) -> Dict[str, Any]:
    """Result of a long run, computed unless it is kept from the same settings and kind of device.

    The file is replaced whole. Settings that were added since a run was kept do not make it old, changed ones do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    known = kept(path)
    if not usable(known.get(key), settings):
        result = {**compute(), "machine": machine(), "settings": settings}
        # Read anew: another process may have kept runs of its own meanwhile.
        known = {**kept(path), key: result}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(known, indent=1) + "\n")
        os.replace(partial, path)
    return known[key]


def usable(found: Optional[Dict[str, Any]], settings: Optional[Dict[str, Any]]) -> bool:
    """Whether a kept result is there, from the same settings and kind of device."""
    if found is None:
        return False
    here = machine()
    return found.get("machine", here)["gpu"] == here["gpu"] and not _changed(found.get("settings"), settings)


def _changed(old: Optional[Dict[str, Any]], new: Optional[Dict[str, Any]]) -> bool:
    return any(name in new and new[name] != value for name, value in old.items()) if old and new else False
