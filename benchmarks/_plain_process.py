"""The plain implementation in a process of its own, as its user would run it: without the suite's allocator settings.

Reads one JSON line of settings, then one name of an action a line, and answers each with the seconds that it took.
"""

import json
import subprocess
import sys
import time
from types import TracebackType
from typing import IO, Any, Callable, Dict, Optional, Type, cast

import numpy as np
import torch

from tests.reference.plain_nerv import PlainAdan, PlainNetwork, plain_loss


class PlainProcess:
    """Handle of the process; `seconds` runs one action in it."""

    def __init__(self, settings: Dict[str, Any]) -> None:
        command = [sys.executable, "-m", "benchmarks._plain_process"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.parameters = int(self._ask(json.dumps(settings)))

    def __enter__(self) -> "PlainProcess":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._process.kill()
        self._process.wait()

    def seconds(self, action: str) -> float:
        """Duration of one ``step`` or ``decode``."""
        return float(self._ask(action))

    def _ask(self, line: str) -> str:
        stdin, stdout = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        stdin.write(line + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise RuntimeError("the process with the plain implementation ended early; its message is above")
        return answer


def serve(settings: Dict[str, Any]) -> None:
    """Build the network, answer with its number of parameters, then time actions as they are asked for."""
    device = torch.device(settings["device"])
    twin = PlainNetwork(settings["kind"], *settings["shape"], **settings["changes"]).to(device)
    print(sum(p.numel() for p in twin.parameters()), flush=True)
    target = torch.from_numpy(np.load(settings["target"])).to(device)
    index = torch.tensor([1], device=device)
    boosted = settings["kind"].endswith("-boost")
    optimizer = PlainAdan(twin.parameters(), lr=settings["lr"]) if boosted else torch.optim.Adam(
        twin.parameters(), lr=settings["lr"], betas=settings["betas"], foreach=False
    )  # fmt: skip

    def step() -> None:
        embeddings = None if twin.encoder is None else twin.encode(target)
        optimizer.zero_grad()
        plain_loss(settings["loss"], twin.decode(index, embeddings), target).backward()
        optimizer.step()

    @torch.inference_mode()
    def decode(embeddings: Optional[torch.Tensor]) -> None:
        twin.decode(index, embeddings)

    with torch.no_grad():
        stored = None if twin.encoder is None else twin.encode(target)
    actions: Dict[str, Callable[[], None]] = {"step": step, "decode": lambda: decode(stored)}
    for line in sys.stdin:
        start = time.perf_counter()
        actions[line.strip()]()
        if device.type == "cuda":
            torch.cuda.synchronize()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.stdin.readline()))
