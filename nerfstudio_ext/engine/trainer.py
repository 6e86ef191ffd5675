"""nerfstudio's trainer with runs that end when they should, are never half saved, and survive Ctrl-C and NaN."""

import copy
import os
import shlex
import shutil
import signal
import sys
import threading
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, List, Literal, Optional, Tuple, Type

import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TRAIN_INTERATION_OUTPUT, Trainer, TrainerConfig
from nerfstudio.utils import comms
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from torch.cuda.amp.grad_scaler import GradScaler

from nerfstudio_ext.engine.checkpoints import atomic_save, find_checkpoint, read_checkpoint, write_config
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.guard import DivergenceGuard


@dataclass
class ExtTrainerConfig(TrainerConfig):
    """Configuration for training regimen"""

    _target: Type = field(default_factory=lambda: ExtTrainer)
    """target class to instantiate"""
    max_num_iterations: Optional[int] = None
    """Training steps, counted from the very first one also after a resume; none: epochs x steps per epoch."""
    epochs: Optional[int] = None
    """How often training sees all its frames; ignored when max-num-iterations is given."""
    divergence_guard: bool = True
    """Return to the last good state with half the learning rate when the loss becomes NaN or infinite."""

    def set_experiment_name(self) -> None:
        """Name the experiment after the data: a folder or, without its ending, a file."""
        data = self.data_path()
        if self.experiment_name is None and data is not None:
            self.experiment_name = data.stem if data.is_file() else data.resolve().name
        super().set_experiment_name()

    def print_to_terminal(self) -> None:
        """Show the config, as ns-train does before it writes anything.

        Raises:
            InputError: There is nothing at the data's path.
        """
        data = self.data_path()
        if data is not None and not data.expanduser().exists():
            raise InputError(f"There is no data at {data}: check the path that --data gives.")
        super().print_to_terminal()

    def data_path(self) -> Optional[Path]:
        """Where the data lies, whichever part of the config says so; none where it is drawn."""
        data = self.data or self.pipeline.datamanager.data
        return data or getattr(getattr(self.pipeline.datamanager, "dataparser", None), "data", None)

    def save_config(self) -> None:
        """Save config to base directory, complete or not at all."""
        write_config(self, self.get_base_dir() / "config.yml")


class ExtTrainer(Trainer):
    """Trainer of every method in the suite.

    Args:
        config: The configuration object.
        local_rank: Local rank of the process.
        world_size: World size of the process.
    """

    config: ExtTrainerConfig

    def __init__(self, config: ExtTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        if config.machine.device_type == "cuda" and not torch.cuda.is_available():
            name = config.method_name
            hint = "" if name.endswith("-tiny") else f" {name} has its paper's settings; {name}-tiny is made for a CPU."
            CONSOLE.print(f"No CUDA device here: training on the CPU.{hint}", soft_wrap=True)
            config.machine.device_type = "cpu"
        with warnings.catch_warnings():  # the host makes its gradient scaler as torch did it before
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(config, local_rank, world_size)
        if self.device == "cpu" and self.use_grad_scaler:  # the host decides on it before it looks at the device
            self.use_grad_scaler = False
            self.grad_scaler = GradScaler(enabled=False)
        self.guard: Optional[DivergenceGuard] = None
        self.resume_command: Optional[str] = None
        """Command that goes on with this run, where another one than ns-train started it."""
        self._total_steps = 0
        self._last_step: Optional[int] = None
        self._saved_step: Optional[int] = None
        self._interrupted = False

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Set up pipeline, optimizers, viewer and writers, and load a checkpoint when one is asked for."""
        try:
            with _termination_as_interrupt(self.world_size):
                super().setup(test_mode)
        except KeyboardInterrupt:
            self._leave_early()
        except InputError:
            self._forget_run()
            raise
        if self.config.divergence_guard:
            self.guard = DivergenceGuard(self.pipeline.model, self.optimizers)

    def setup_optimizers(self) -> Optimizers:
        """Settle the number of steps, store what is now known in config.yml, and build optimizers and schedules."""
        total = self._total_steps = self._resolve_steps()
        self.config.max_num_iterations = total
        # A short training, too, prints some lines; divisors of 100, so that they meet the steps that evaluate.
        often = max(every for every in (1, 2, 5, 10, 25, 50) if every <= max(1, total // 8))
        self.config.logging.steps_per_log = min(self.config.logging.steps_per_log, often)
        if comms.is_main_process():
            self.config.save_config()
        # Copies, so that the stored config keeps "the whole training" and not today's number.
        optimizers = {name: dict(entry) for name, entry in self.config.optimizers.items()}
        for entry in optimizers.values():
            scheduler = entry["scheduler"]
            if scheduler is not None and getattr(scheduler, "max_steps", 0) is None:
                entry["scheduler"] = copy.copy(scheduler)
                entry["scheduler"].max_steps = total
        return Optimizers(optimizers, self.pipeline.get_param_groups())

    def train(self) -> None:
        """Train up to the last step; Ctrl-C and SIGTERM save, say how to go on, and exit with 130."""
        if self._start_step >= self._total_steps:
            self._say(
                f"This run is complete: it has done {self._start_step} of {self._total_steps} steps, and nothing was "
                f"changed. Ask for more with {'--max-num-iterations' if self.resume_command is None else '--epochs'}."
            )
            return
        try:
            with _termination_as_interrupt(self.world_size):
                super().train()
        except KeyboardInterrupt:
            if self.training_state != "completed":
                self._leave_early()
        finally:
            _stop_rendering()

    def train_iteration(self, step: int) -> TRAIN_INTERATION_OUTPUT:
        """Run one guarded iteration; see the parent."""
        with _whole_or_not_at_all():
            if self.guard is not None:
                self.guard.before_step(step)
            result = super().train_iteration(step)
            if self.guard is not None:
                self.guard.after_step(step, result[0])
            self._last_step = step
            if step + 1 >= self._total_steps:
                # The released loop counts additional steps after a resume, so it has to be told where the end is.
                self.stop_training = True
        return result

    def save_checkpoint(self, step: int) -> None:
        """Save model and optimizers so that the file is whole or absent; older checkpoints outlive a failure.

        Args:
            step: Steps in training for this checkpoint, counted from 0.

        Raises:
            InputError: The last checkpoint of a training could not be written. Earlier ones only print it.
        """
        step = step if self._last_step is None else self._last_step
        if self.guard is not None and not self._interrupted:
            # All processes together: before anything that only one of them knows, and not when each stopped elsewhere.
            self.guard.settle(step)
        if step == self._saved_step or not comms.is_main_process():
            return
        with _whole_or_not_at_all():
            try:
                self._write_checkpoint(step)
                self._saved_step = step
            except InputError as error:
                if self.training_state == "completed":
                    raise
                self._say(f"{error} Training goes on; earlier checkpoints are kept.", style="bold yellow")

    def _write_checkpoint(self, step: int) -> None:
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        with self.train_lock:  # the viewer must not render while the model refreshes what it stores
            getattr(self.pipeline, "prepare_checkpoint", lambda: None)()  # nerfstudio's own pipelines have none
            state = {
                "step": step,
                "pipeline": self.pipeline.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in self.optimizers.optimizers.items()},
                "schedulers": {name: s.state_dict() for name, s in self.optimizers.schedulers.items()},
                "scalers": self.grad_scaler.state_dict(),
            }
            atomic_save(state, path)
        if self.config.save_only_latest_checkpoint:
            for other in self.checkpoint_dir.glob("*.ckpt"):
                if other != path:
                    other.unlink()

    def _load_checkpoint(self) -> None:
        """Load the checkpoint that the config asks for; `load_dir` may be a run or its checkpoint folder."""
        path = self.config.load_checkpoint
        if self.config.load_dir is not None:
            path = find_checkpoint(self.config.load_dir, self.config.load_step)
        if path is None:
            CONSOLE.print("No Nerfstudio checkpoint to load, so training from scratch.")
            return
        state = read_checkpoint(path)
        if not {"optimizers", "scalers"} <= state.keys():
            raise InputError(f"{path} holds weights only, and training cannot go on from them: use a whole checkpoint.")
        if set(state["optimizers"]) != set(self.optimizers.optimizers):
            raise InputError(
                f"{path} trains the groups {sorted(state['optimizers'])}, but this method trains "
                f"{sorted(self.optimizers.optimizers)}: resume it with the method and options it was trained with."
            )
        self.pipeline.load_pipeline(state["pipeline"], state["step"])
        self.optimizers.load_optimizers(state["optimizers"])
        if self.config.load_scheduler:
            self.optimizers.load_schedulers(state.get("schedulers", {}))
        self.grad_scaler.load_state_dict(state["scalers"])
        self._start_step = state["step"] + 1
        self._say(f"Loaded {path}; going on at step {self._start_step}.")

    def _resolve_steps(self) -> int:
        """Total number of training steps, from max_num_iterations or else from epochs."""
        total, epochs = self.config.max_num_iterations, self.config.epochs
        if total is None and epochs is not None:
            per_epoch = getattr(self.pipeline.datamanager, "steps_per_epoch", None)
            if per_epoch is None:
                raise InputError("This method's data has no epochs: give --max-num-iterations instead of --epochs.")
            total = epochs * per_epoch
        if total is None:
            raise InputError("How long to train is not set: give --epochs or --max-num-iterations.")
        if total < 1:
            raise InputError(f"Training needs at least one step, but --epochs or --max-num-iterations give {total}.")
        return total

    def _forget_run(self) -> None:
        """Remove the folder of a run that could not begin, and those above that it leaves empty."""
        folder = self.config.get_base_dir()
        known = ("config.yml", "dataparser_transforms.json")
        if all(path.is_dir() or path.name in known for path in folder.rglob("*")):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                for above in (folder.parent, folder.parent.parent):
                    above.rmdir()

    def _leave_early(self) -> None:
        """Save what has been trained, say how to go on, and exit as an interrupted program does."""
        step, self.training_state = self._last_step, "completed"  # from here on a failing save is final
        self._interrupted = self.world_size > 1
        if step is None:
            self._say("Stopped before the first step; there is nothing to save.")
        else:
            self.save_checkpoint(step)
            self._say(f"Stopped after step {step} and saved. Go on with:  {self._resume_command()}")
        raise SystemExit(128 + signal.SIGINT)

    def _resume_command(self) -> str:
        """The command that goes on with this run: the one that started it, if that was ns-train, plus --load-dir."""
        if self.resume_command is not None:
            return self.resume_command
        folder = str(self.checkpoint_dir)
        arguments = sys.argv[1:]
        if os.path.basename(sys.argv[0]).startswith("ns-train") and self.config.method_name in arguments[:1]:
            rest = _without_options(arguments[1:], ("--load-dir", "--load-checkpoint", "--load-step"))
            return shlex.join(["ns-train", arguments[0], "--load-dir", folder, *rest])
        data = [] if self.config.data is None else ["--data", str(self.config.data)]
        return shlex.join(["ns-train", str(self.config.method_name), "--load-dir", folder, *data])

    @staticmethod
    def _say(sentence: str, style: Optional[str] = None) -> None:
        """Print one line on the main process, unbroken so that commands and paths can be copied."""
        if comms.is_main_process():
            CONSOLE.print(sentence, style=style, soft_wrap=True, markup=False, highlight=False)


def _without_options(arguments: List[str], options: Tuple[str, ...]) -> List[str]:
    """Command line without these options and their values, in any of the spellings that tyro takes."""
    kept, skip = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if skip:
            skip = False
        elif name.replace("_", "-") in options:
            skip = not equals
        else:
            kept.append(argument)
    return kept


def _stop_rendering(patience: float = 10.0) -> None:
    """End the viewer's render threads: one that is inside torch when the interpreter goes away aborts the process.

    Args:
        patience: Seconds that each of them has; they look up at every line of Python.
    """
    rendering = [thread for thread in threading.enumerate() if isinstance(thread, RenderStateMachine)]
    for thread in rendering:
        thread.running, thread.interrupt_render_flag = False, True
        thread.render_trigger.set()
    for thread in rendering:
        thread.join(patience)


@contextmanager
def _termination_as_interrupt(world_size: int) -> Iterator[None]:
    """Let SIGTERM, by which job schedulers end a run and which reaches what was started in the background, do what
    Ctrl-C does; a handler that somebody else has set stays.

    Of several processes that train together, those that are left are ended so when one has failed: no time to save.
    """
    free = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if world_size > 1 or not free or threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def interrupt(signum, frame) -> None:
        if os.getpid() != process:  # a worker that was forked off, which its owner ends
            os._exit(128 + signum)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _whole_or_not_at_all() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is through, so that no step or save is torn; a second one goes
    through."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    previous = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def hold(signum, frame) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    for number in previous:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if pressed:
        raise KeyboardInterrupt
