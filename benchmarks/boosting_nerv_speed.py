"""How fast are a training step and a decoded frame against a plain implementation of the same networks?

Ratios of medians, the two timed turn by turn, each in the process that its user would run; Bunny at 320x180, equal
widths, own losses and optimizers. From the repository root, machine idle:  python -m benchmarks.boosting_nerv_speed
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch

from benchmarks._harness import Row, bunny, interleaved_seconds, timed, trainer_for, write_rows
from benchmarks._plain_process import PlainProcess

FRAMES, EPOCHS_OF_STEPS = 32, 100
KINDS = ("hnerv-boost", "hnerv", "nerv-boost", "nerv", "e-nerv-boost", "e-nerv")
STEP_GATE, DECODE_GATE = 1.5, 2.0


def plain_settings(kind: str, trainer: Any, folder: str) -> Dict[str, Any]:
    """What the plain network of the same widths, its loss and its optimizer need to know."""
    model, optimizer = trainer.pipeline.model, trainer.config.optimizers["field"]["optimizer"]
    config, layout = model.field.config, model.field.layout
    changes = dict(strides=layout.strides, lower_width=config.lower_width, stem_hidden=config.stem_hidden)
    changes |= dict(token_width=config.token_width)
    if config.modulation != "none":
        changes |= dict(condition=(config.condition_hidden, config.condition_width))
    frame = trainer.pipeline.datamanager.train_dataset.frames.batch(torch.tensor([1]), torch.device("cpu"))
    target = Path(folder) / "frame.npy"
    np.save(target, frame.contiguous().numpy())
    return {
        "kind": kind,
        "device": str(trainer.device),
        "shape": (layout.height, layout.width, FRAMES, model.width),
        "changes": changes,
        "loss": model.config.loss,
        "lr": optimizer.lr,
        "betas": getattr(optimizer, "betas", None),
        "target": str(target),
    }


@torch.inference_mode()
def decode(network: Any, index: torch.Tensor, embeddings: Any) -> torch.Tensor:
    """One frame."""
    return network.decode(index, embeddings)


def measure(kind: str, device: str, repeats: int) -> Dict[str, List[float]]:
    """Seconds of step and decode, ours here and the plain ones in their own process, turn by turn."""

    def edit(config: Any) -> None:
        config.pipeline.datamanager.dataparser.last_frame = FRAMES - 1

    trainer = trainer_for(f"{kind.replace('-', '_')}_tiny", bunny(), 0, EPOCHS_OF_STEPS * FRAMES, edit, device)
    model = trainer.pipeline.model
    index = torch.tensor([1], device=trainer.device)
    embeddings = None if model.embeddings is None else model.embeddings[index]
    counter = iter(range(10**6))
    with tempfile.TemporaryDirectory() as folder, PlainProcess(plain_settings(kind, trainer, folder)) as plain:
        ours = sum(p.numel() for p in model.field.parameters())
        if ours != plain.parameters:
            raise RuntimeError(f"{kind}: the twins differ in size, {ours} and {plain.parameters}")
        return interleaved_seconds(
            {
                "step": timed(lambda: trainer.train_iteration(next(counter))),
                "plain step": lambda: plain.seconds("step"),
                "decode": timed(lambda: decode(model.field, index, embeddings)),
                "plain decode": lambda: plain.seconds("decode"),
            },
            repeats,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    rows = []
    for kind in KINDS:
        times = measure(kind, arguments.device, arguments.repeats)
        for what, gate in (("step", STEP_GATE), ("decode", DECODE_GATE)):
            ours, plain = np.array(times[what]), np.array(times[f"plain {what}"])
            ratio = float(np.median(plain) / np.median(ours))
            spread = float(np.std(plain / ours))
            name = "training step" if what == "step" else "decoded frame"
            rows.append(
                Row(f"boosting-nerv/speed/{what}", f"{kind}-tiny, {name} on {arguments.device}: plain over ours",
                    round(ratio, 2), 1.0, "x", round(spread, 2), 1, f">= {gate}", ratio >= gate)
            )  # fmt: skip
            rows.append(
                Row(f"boosting-nerv/speed/{what}-ms", f"{kind}-tiny, {name} on {arguments.device}",
                    round(1e3 * float(np.median(ours)), 1), round(1e3 * float(np.median(plain)), 1), "ms",
                    round(1e3 * float(ours.std()), 1), 1, None, None)
            )  # fmt: skip
        print(rows[-4], rows[-2], sep="\n", flush=True)
    print(write_rows("boosting_nerv_speed" + ("" if arguments.device == "cpu" else "_cuda"), rows))


if __name__ == "__main__":
    main()
