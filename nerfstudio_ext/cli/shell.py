"""Running the suite's and the host's own commands from a command."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import List


def run_command(command: List[str]) -> None:
    """Show a command, run it from this environment, and stop where it fails."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    program = Path(sys.executable).with_name(command[0])
    # The host calls old torch functions, and starts a compiler's workers that nothing here uses.
    quiet = {"PYTHONWARNINGS": "ignore::FutureWarning", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    status = subprocess.call([str(program), *command[1:]], env={**quiet, **os.environ})
    if status != 0:
        raise SystemExit(status)
