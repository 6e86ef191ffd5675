"""How the suite tells a user what went wrong: one sentence, no traceback."""

import sys
from types import TracebackType


class InputError(ValueError):
    """A user's mistake or a fault of the machine, told in one sentence: what is wrong, where, how to mend it."""


def install_excepthook() -> None:
    """Make an uncaught `InputError` end the process with "Error: <sentence>" on stderr and exit code 1.

    So does a bare assertion with which nerfstudio's exporter or renderer turns one of our methods away. Python itself
    exits with 1 after the hook. Every other exception goes to the hook that was there before. Calling this again
    changes nothing.
    """
    previous = sys.excepthook
    if getattr(previous, "tells_input_errors", False):
        return

    def hook(kind, error, trace) -> None:
        sentence = _sentence(error) or _refusal(error, trace)
        if sentence is None:
            previous(kind, error, trace)
        else:
            sys.stdout.flush()
            print(f"Error: {sentence}", file=sys.stderr, flush=True)

    hook.tells_input_errors = True
    sys.excepthook = hook


def _sentence(error: BaseException) -> str | None:
    """Sentence of an InputError, also of one that a spawned training process raised; None for anything else."""
    if isinstance(error, InputError):
        return str(error)
    if type(error).__name__ == "ProcessRaisedException":  # torch.multiprocessing carries the child's error as text
        _, found, sentence = str(error).rpartition(f"{InputError.__module__}.{InputError.__qualname__}: ")
        return sentence.strip() if found else None
    return None


def _refusal(error: BaseException, trace: TracebackType | None) -> str | None:
    """Sentence for an assertion by which a stock command turns away a pipeline of ours; None for anything else."""
    if not isinstance(error, AssertionError) or trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    pipeline = frame.f_locals.get("pipeline")
    stock = frame.f_globals.get("__name__") in ("nerfstudio.scripts.exporter", "nerfstudio.scripts.render")
    if not stock or not type(pipeline).__module__.startswith("nerfstudio_ext."):
        return None
    command, model = type(frame.f_locals.get("self")).__name__, type(pipeline.model).__name__
    reason = f" ({str(error).rstrip('.')})" if str(error) else ""
    return f"{command} does not apply to a {model}{reason}: the README's support matrix lists the commands that do."
