"""Would another rate model make the same .bnrv files smaller? Every try codes the same integers, so frames stay the
same to the last bit; costs are ideal code lengths with 8 bytes for each Gaussian that the file would have to hold.

Run from the repository's root on files that were compressed:  python -m benchmarks.boosting_nerv_rate_models FILES
"""

import argparse
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Sequence

import numpy as np
import torch

import nerfstudio_ext.video
from benchmarks._harness import Row, mean_row, write_rows
from nerfstudio_ext.video.bitstream.coder import MIN_STD, ideal_bits
from nerfstudio_ext.video.bitstream.gaussian import bin_probabilities
from nerfstudio_ext.video.bitstream.prediction import differences
from nerfstudio_ext.video.quantization import expectation

GAUSSIAN_BITS = 64
"""Mean, deviation and range of one segment in the table."""
ZEROS_BITS = GAUSSIAN_BITS + 16
"""The same with a share of zeros."""
SMALLEST_SHARE = 2.0**-24
CONTEXTS = 4
"""Classes of neighbourhoods of a weight, by how large the weights in it are."""

EM_ROUNDS = 40

Segments = Iterator[np.ndarray]


def cost(segments: Sequence[np.ndarray]) -> float:
    """Bits of segments, each under the Gaussian that fits it best."""
    total = 0.0
    for codes in segments:
        low, high = int(codes.min()), int(codes.max())
        total += GAUSSIAN_BITS
        if low < high:
            shares = bin_probabilities(low, high, float(codes.mean()), max(float(codes.std()), MIN_STD))
            shares = np.maximum(shares / shares.sum(), SMALLEST_SHARE)
            total -= float(np.log2(shares[codes.astype(np.int64) - low]).sum())
    return total


def mixed(codes: np.ndarray) -> float:
    """Bits of one segment under two Gaussians of one mean, fitted by expectation and maximisation."""
    low, high = int(codes.min()), int(codes.max())
    if low == high:
        return 1.5 * GAUSSIAN_BITS
    counts = np.bincount(codes.astype(np.int64).reshape(-1) - low)
    levels, mean, std = np.arange(low, high + 1), float(codes.mean()), max(float(codes.std()), MIN_STD)
    stds, weights = [0.5 * std, 1.5 * std], np.array([0.5, 0.5])
    for _ in range(EM_ROUNDS):
        parts = np.stack([bin_probabilities(low, high, mean, max(each, MIN_STD)) for each in stds])
        shares = np.maximum(weights @ parts, SMALLEST_SHARE)
        owned = weights[:, None] * parts / shares * counts
        weights = owned.sum(axis=1) / counts.sum()
        stds = np.sqrt((owned * (levels - mean) ** 2).sum(axis=1) / np.maximum(owned.sum(axis=1), 1e-9)).tolist()
    return 1.5 * GAUSSIAN_BITS - float((counts * np.log2(shares / shares.sum())).sum())


def per_tensor(tensors: List[np.ndarray]) -> Segments:
    """One Gaussian a tensor, as in the paper and the file."""
    yield from (tensor.reshape(-1) for tensor in tensors)


def per_channel(tensors: List[np.ndarray]) -> Segments:
    """One Gaussian for each output channel of a tensor, where that is cheaper than one for the whole."""
    for tensor in tensors:
        rows = list(tensor.reshape(len(tensor), -1))
        yield from rows if cost(rows) < cost([tensor.reshape(-1)]) else [tensor.reshape(-1)]


def by_context(tensors: List[np.ndarray]) -> Segments:
    """Gaussians chosen by the size of the weights before: same place in the channel before, and the one before it."""
    for tensor in tensors:
        flat = tensor.reshape(len(tensor), -1).astype(np.int64)
        size = np.abs(flat)
        above, left = np.zeros_like(size), np.zeros_like(size)
        above[1:], left[:, 1:] = size[:-1], size[:, :-1]
        context = above + left
        edges = np.quantile(context, np.linspace(0, 1, CONTEXTS + 1)[1:-1])
        classes = np.digitize(context, edges)
        parts = [flat[classes == k] for k in range(CONTEXTS) if (classes == k).any()]
        yield from parts if cost(parts) < cost([flat.reshape(-1)]) else [flat.reshape(-1)]


def frames_whole(frames: np.ndarray) -> Segments:
    """One Gaussian a frame, as in the paper."""
    yield from frames.reshape(len(frames), -1)


def frames_per_channel(frames: np.ndarray) -> Segments:
    """One Gaussian for each channel, over all frames."""
    yield from frames.transpose(1, 0, 2, 3).reshape(frames.shape[1], -1)


def frames_predicted(frames: np.ndarray) -> Segments:
    """Differences from what the frame before lets expect; one Gaussian a frame."""
    yield from frames_whole(differences(frames, expectation(torch.from_numpy(frames).float())))


WEIGHTS: Dict[str, Callable[[List[np.ndarray]], Segments]] = {
    "one Gaussian a channel where it pays": per_channel,
    "Gaussians by the size of neighbouring weights": by_context,
}
EMBEDDINGS: Dict[str, Callable[[np.ndarray], Segments]] = {
    "one Gaussian a channel": frames_per_channel,
    "predicted from the frame before": frames_predicted,
}


def measure(path: Path) -> Dict[str, float]:
    """Bits of every try on one file, and of the paper's model."""
    video = nerfstudio_ext.video.open(path)
    shapes = [tensor.shape for tensor in video.field.decoder_parameters().values()]
    codes = video.codes()
    tensors = [part.reshape(shape) for part, shape in zip(codes, shapes)]
    frames = np.stack(codes[len(shapes) :]) if len(codes) > len(shapes) else None
    bits = {"weights": cost(list(per_tensor(tensors)))}
    bits |= {f"weights, {name}": cost(list(way(tensors))) for name, way in WEIGHTS.items()}
    bits["weights, two Gaussians where that pays"] = sum(
        min(mixed(tensor), cost([tensor.reshape(-1)])) for tensor in tensors
    )
    if frames is not None:
        bits["embeddings"] = cost(list(frames_whole(frames)))
        bits |= {f"embeddings, {name}": cost(list(way(frames))) for name, way in EMBEDDINGS.items()}
        as_stored = list(frames_predicted(frames))
        bits["embeddings, predicted, and a share of zeros, as in the file"] = ideal_bits(as_stored) + ZEROS_BITS * len(
            as_stored
        )
    return bits


def rows_of(clip: str, found: List[Dict[str, float]]) -> List[Row]:
    """Rows of one clip over its seeds."""
    whole = [bits["weights"] + bits.get("embeddings", 0.0) for bits in found]
    rows: List[Row] = []
    for name in found[0]:
        part = name.partition(",")[0]
        if name == part:
            values, unit, what = [bits[name] / 8 for bits in found], "bytes", f"{clip}: {part} as in the paper"
        else:
            values = [100 * (bits[part] - bits[name]) / total for bits, total in zip(found, whole)]
            unit, what = "%", f"{clip}: saved of the whole by {name}"
        rows.append(mean_row("boosting-nerv/rate-models", what, values, None, unit=unit))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="compressed files named CLIP-SEED.bnrv")
    clips: Dict[str, List[Dict[str, float]]] = {}
    for path in parser.parse_args().files:
        clips.setdefault(path.stem.rpartition("-")[0], []).append(measure(path))
    rows = [row for clip, found in clips.items() for row in rows_of(clip, found)]
    for row in rows:
        print(f"{row.what:95s} {row.value:10.2f} {row.unit}")
    print(write_rows("boosting_nerv_rate_models", rows))


if __name__ == "__main__":
    main()
