"""A series of model sizes for a rate-distortion curve: each trained, compressed and written as a .bnrv file."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

from nerfstudio_ext.cli.shell import run_command
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.ray_tasks import ray_results


@dataclass(frozen=True)
class Series:
    """What is trained for every size."""

    data: Path
    """The source clip."""
    method: str
    """Preset."""
    clip: Tuple[str, ...]
    """Options of video-data that choose its frames."""
    epochs: Optional[int]
    """Passes over the clip in the first stage; none: the preset's."""
    compress_epochs: int
    """Passes in the second stage."""
    bits: float
    """Bits per stored number that the second stage comes down to."""
    folder: Path
    """Where runs and files are kept, one folder for each size."""

    def file(self, size: int) -> Path:
        """The file of a size."""
        return self.folder / str(size) / "clip.bnrv"

    def settings(self, size: int) -> str:
        """Everything that decides what the file of a size becomes."""
        stat = self.data.stat()
        source = [str(self.data.resolve()), stat.st_size, stat.st_mtime]
        return json.dumps([size, self.method, source, self.clip, self.epochs, self.compress_epochs, self.bits])

    def train(self, size: int, run: Callable[[List[str]], None] = run_command) -> Path:
        """Make the file of one size; goes on where an earlier attempt was stopped.

        Args:
            size: Stored numbers, decoder and embeddings.
            run: What runs a command and raises where it fails.

        Raises:
            InputError: The folder holds the same size of another series.
        """
        folder, file = self.folder / str(size), self.file(size)
        note = folder / "settings.json"
        if note.is_file() and note.read_text() != self.settings(size):
            raise InputError(
                f"{folder} was made with other settings: choose another --output, or remove it to start anew."
            )
        if file.is_file():
            return file
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(self.settings(size))
        first = folder / "clip" / self.method / "first"
        second = first.with_name("second")
        train = ["ns-train", self.method, "--output-dir", str(folder), "--experiment-name", "clip"]
        train += ["--timestamp", first.name, "--vis", "tensorboard", "--pipeline.model.target-params", str(size)]
        train += [] if self.epochs is None else ["--epochs", str(self.epochs)]
        train += ["--load-dir", str(first)] if _has_checkpoint(first) else []
        run([*train, "video-data", "--data", str(self.data), *self.clip])
        if _has_checkpoint(second):
            run(["ns-ext", "video", "compress", str(second)])
        else:
            # What is left of one that stopped before it saved anything.
            shutil.rmtree(second, ignore_errors=True)
            compress = ["ns-ext", "video", "compress", str(first), "--timestamp", second.name, "--vis", "tensorboard"]
            run([*compress, "--epochs", str(self.compress_epochs), "--bits", str(self.bits)])
        run(["ns-ext", "video", "encode", str(second), str(file)])
        return file


def train_all(series: Series, sizes: Sequence[int], on_ray: bool) -> List[Path]:
    """Files of all sizes, one after the other, or each as a task of a Ray cluster that shares this file system.

    Raises:
        InputError: Ray is asked for and not there, or a task failed.
    """
    if not on_ray:
        return [series.train(size) for size in sizes]
    calls = [(series, size) for size in sizes]
    found = dict(ray_results(_train_apart, calls, "A size of the series", on_gpu=True))
    return [found[k] for k in range(len(sizes))]


def _train_apart(series: Series, size: int) -> Path:
    """One size on a worker; what its commands print goes to a log in its folder."""

    def run(command: List[str]) -> None:
        path = series.folder / str(size) / "log.txt"
        with open(path, "a") as log:
            print(f"$ {shlex.join(command)}", file=log, flush=True)
            program = Path(sys.executable).with_name(command[0])
            if subprocess.call([str(program), *command[1:]], stdout=log, stderr=subprocess.STDOUT):
                raise RuntimeError(f"{command[0]} failed, see {path}")

    return series.train(size, run)


def _has_checkpoint(run: Path) -> bool:
    return any((run / "nerfstudio_models").glob("*.ckpt"))
