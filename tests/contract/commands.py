"""nerfstudio's commands as a person starts them: a process of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, List, Optional

PATIENCE = 250.0
"""Seconds: importing nerfstudio alone takes ten, on a busy machine several times that."""


class Command:
    """A running command whose output can be watched.

    Args:
        arguments: Program of the environment's scripts folder, and its arguments.
        folder: Where it runs; its output is kept there.
        environment: Variables to add to this process's own.
    """

    def __init__(self, arguments: List[str], folder: Path, environment: Optional[dict] = None) -> None:
        self.folder = folder
        self._log = folder / f"{arguments[0]}.log"
        program = Path(sys.executable).parent / arguments[0]
        # Wide lines, one thread: what is printed stays in one piece, and the tests' machine responsive.
        variables = {**os.environ, "COLUMNS": "1000", "OMP_NUM_THREADS": "1", **(environment or {})}
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [str(program), *arguments[1:]], stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=variables
            )

    @property
    def output(self) -> str:
        return self._log.read_text("utf8", errors="replace")

    def wait_for(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until something has happened; fail when the command ends first or takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.poll() is None, f"ended before {what}:\n{self.output[-3000:]}"
            assert time.monotonic() < deadline, f"no {what} within {PATIENCE:.0f} s:\n{self.output[-3000:]}"
            time.sleep(0.1)

    def interrupt(self) -> int:
        """Press Ctrl-C and wait for the end; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.finish()

    def finish(self) -> int:
        """Wait for the end; returns the exit code."""
        return self.process.wait(PATIENCE)

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *error) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
