"""How fast are a training step and a decoded frame against a plain implementation of the same networks?

Ratios of medians, the two timed turn by turn in one process; Bunny at 320x180, equal widths, own losses and
optimizers. Run from the repository's root on an idle machine:  python -m benchmarks.boosting_nerv_speed
"""

import argparse
from typing import Any, Callable, Dict, List

import numpy as np
import torch

from benchmarks._harness import Row, bunny, interleaved_seconds, trainer_for, write_rows
from tests.reference.plain_nerv import PlainAdan, PlainNetwork, plain_loss

FRAMES, EPOCHS_OF_STEPS = 32, 100
KINDS = ("hnerv-boost", "hnerv", "nerv-boost", "nerv", "e-nerv-boost", "e-nerv")
STEP_GATE, DECODE_GATE = 1.5, 2.0


def plain_twin(kind: str, trainer: Any) -> PlainNetwork:
    """The plain network of the same widths, in torch's default memory layout."""
    field = trainer.pipeline.model.field
    config, layout = field.config, field.layout
    settings = dict(strides=layout.strides, lower_width=config.lower_width, stem_hidden=config.stem_hidden)
    settings |= dict(token_width=config.token_width)
    if config.modulation != "none":
        settings |= dict(condition=(config.condition_hidden, config.condition_width))
    width = trainer.pipeline.model.width
    twin = PlainNetwork(kind, layout.height, layout.width, FRAMES, width, **settings)
    ours, theirs = (sum(p.numel() for p in network.parameters()) for network in (field, twin))
    if ours != theirs:
        raise RuntimeError(f"{kind}: the twins differ in size, {ours} and {theirs}")
    return twin.to(trainer.device)


def plain_step(kind: str, trainer: Any, twin: PlainNetwork) -> Callable[[], None]:
    """One training step as one would first write it."""
    config = trainer.config.optimizers["field"]["optimizer"]
    boosted = kind.endswith("-boost")
    optimizer = PlainAdan(twin.parameters(), lr=config.lr) if boosted else torch.optim.Adam(
        twin.parameters(), lr=config.lr, betas=config.betas, foreach=False
    )  # fmt: skip
    frames = trainer.pipeline.datamanager.train_dataset.frames
    loss_name = trainer.pipeline.model.config.loss
    index = torch.tensor([1], device=trainer.device)

    def step() -> None:
        target = frames.batch(index, trainer.device).contiguous(memory_format=torch.contiguous_format)
        embeddings = None if twin.encoder is None else twin.encode(target)
        optimizer.zero_grad()
        plain_loss(loss_name, twin.decode(index, embeddings), target).backward()
        optimizer.step()

    return step


@torch.inference_mode()
def decode(network: Any, index: torch.Tensor, embeddings: Any) -> torch.Tensor:
    """One frame."""
    return network.decode(index, embeddings)


def measure(kind: str, device: str, repeats: int) -> Dict[str, List[float]]:
    """Seconds of step and decode, ours and plain."""

    def edit(config: Any) -> None:
        config.pipeline.datamanager.dataparser.last_frame = FRAMES - 1

    trainer = trainer_for(f"{kind.replace('-', '_')}_tiny", bunny(), 0, EPOCHS_OF_STEPS * FRAMES, edit, device)
    twin = plain_twin(kind, trainer)
    model = trainer.pipeline.model
    index = torch.tensor([1], device=trainer.device)
    embeddings = None if model.embeddings is None else model.embeddings[index]
    counter = iter(range(10**6))
    return interleaved_seconds(
        {
            "step": lambda: trainer.train_iteration(next(counter)),
            "plain step": plain_step(kind, trainer, twin),
            "decode": lambda: decode(model.field, index, embeddings),
            "plain decode": lambda: decode(twin, index, embeddings),
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
