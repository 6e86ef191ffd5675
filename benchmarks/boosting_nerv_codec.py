"""Does the codec hold what it promises? Bunny at 320x180: consistent entropy minimisation against post-training
quantisation and HNeRV's own way (claim 8), estimated against real rate (9), lossless coding (10), portable time codes
(13), what it is worth that embeddings are predicted from the frame before, and how many frames a second come out of a
file.

Run from the repository's root:  python -m benchmarks.boosting_nerv_codec
Each training is kept in benchmarks/runs as it ends; a stopped benchmark goes on where it was.
"""

import argparse
import copy
import heapq
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from benchmarks._harness import ROOT, Row, bunny, cached, settings_of, spread, timed, trainer_for, write_rows
from benchmarks.boosting_nerv_rate_models import GAUSSIAN_BITS, cost
from nerfstudio_ext.cli.compress import LEARNING_RATE, RATE_LOSS_MULT, SCALE_LEARNING_RATE
from nerfstudio_ext.engine.metrics import psnr
from nerfstudio_ext.engine.schedulers import WarmupCosineSchedulerConfig
from nerfstudio_ext.models.stored_video import StoredVideo, clip_psnr, encode_model
from nerfstudio_ext.video.bitstream.coder import encode, fit
from nerfstudio_ext.video.quantization import CompressionConfig, integers

PRESET, BUDGET = "hnerv_boost_tiny", 199_305
"""The setting of the representation benchmark: the card's reference network."""
BITS = (8, 6, 5, 4)
WEIGHT_BITS, EMBEDDING_BITS, MOST_SCALES = 8, 6, 0.02
"""HNeRV's published way of storing: bits, and how many scales per number a tensor may have."""
TIMED_PASSES = 3
"""Passes over a file's frames that are timed."""
FRESH = """
import sys, numpy as np, nerfstudio_ext.video
video = nerfstudio_ext.video.open(sys.argv[1])
np.savez(sys.argv[2], codes=np.concatenate([c.reshape(-1) for c in video.codes()]), frames=np.stack(list(video)))
"""


@dataclass(frozen=True)
class Setting:
    """How much is trained."""

    frames: int
    """Frames of the clip, from its start."""
    first: int
    """Epochs of the first stage."""
    second: int
    """Epochs of the second stage, and of as much plain training."""
    clip: Path
    """The source."""


def edit_first(config: Any, frames: int, budget: int = BUDGET) -> None:
    """Frames and size."""
    config.pipeline.datamanager.dataparser.last_frame = frames - 1
    config.pipeline.model.target_params = budget


def trained(
    setting: Setting,
    seed: int,
    epochs: int,
    state: Any = None,
    compress: bool = False,
    budget: int = BUDGET,
) -> Any:
    """Model after a training; with the state of a first stage, its continuation at the second stage's rate."""

    def edit(config: Any) -> None:
        edit_first(config, setting.frames, budget)
        if state is not None:
            optimizer, schedule = config.optimizers["field"]["optimizer"], WarmupCosineSchedulerConfig(warmup=0.0)
            config.optimizers = {"field": {"optimizer": replace(optimizer, lr=LEARNING_RATE), "scheduler": schedule}}
        if compress:
            config.pipeline.model.compression = CompressionConfig(4.0, RATE_LOSS_MULT["content"])
            scales = {"optimizer": replace(optimizer, lr=SCALE_LEARNING_RATE), "scheduler": schedule}
            config.optimizers["quantizer"] = scales

    steps = epochs * setting.frames
    trainer = trainer_for(PRESET, setting.clip, seed, steps, edit, "cpu")
    model = trainer.pipeline.model
    if compress:
        model.start_compression(state)
    elif state is not None:
        model.load_state_dict(state)
    for step in range(steps):
        trainer.pipeline.train()
        trainer.train_iteration(step)
    model.eval().prepare_eval()
    return model


def point(model: Any, bits: Any = None) -> Dict[str, float]:
    """Size and quality of a model's file."""
    video = StoredVideo(encode_model(model, PRESET, bits))
    return {"bytes": video.num_bytes, "bpp": video.bpp, "psnr": clip_psnr(video, model.frames)}


def published_route(model: Any) -> Dict[str, float]:
    """HNeRV's own way: even steps from least to greatest, of a tensor or of each of its channels, whichever is nearer;
    one Huffman code for all symbols. As published its table is not counted, and minima and scales are, at 16 bits."""
    decoder = copy.deepcopy(model.field)
    symbols, side_bits = [], 0
    for tensor in decoder.decoder_parameters().values():
        codes, values, num_scales = even_steps(tensor.data, WEIGHT_BITS)
        tensor.data.copy_(values)
        symbols.append(codes)
        side_bits += 32 * num_scales
    codes, embeddings, num_scales = even_steps(model.embeddings, EMBEDDING_BITS)
    symbols.append(codes)
    counts = np.unique(torch.cat(symbols).numpy(), return_counts=True)[1]
    frames = []
    for k in range(len(model.frames)):
        with torch.no_grad():
            shown = decoder.decode(torch.tensor([k]), embeddings[k : k + 1])
        target = model.frames.batch([k], "cpu")
        frames.append(float(psnr((255 * shown).round() / 255, target)))
    num_bytes = (huffman_bits(counts.tolist()) + side_bits + 32 * num_scales) / 8
    return {"bytes": num_bytes, "psnr": float(np.mean(frames))}


def even_steps(tensor: Tensor, bits: int) -> Tuple[Tensor, Tensor, int]:
    """Codes (flat), values and number of scales of a tensor in even steps from its least to its greatest number."""
    ways = []
    for axes in (None, tuple(range(1, tensor.dim()))):
        num_scales = 1 if axes is None else len(tensor)
        if axes is not None and (not axes or num_scales > MOST_SCALES * tensor.numel()):
            continue
        least = (tensor.amin() if axes is None else tensor.amin(axes, keepdim=True)).half().float()
        most = tensor.amax() if axes is None else tensor.amax(axes, keepdim=True)
        scale = ((most - least) / (2**bits - 1)).clamp_min(1e-6).half().float()
        codes = ((tensor - least) / scale).round()
        values = codes * scale + least
        ways.append((float((values - tensor).abs().mean()), codes.reshape(-1).int(), values, num_scales))
    return min(ways, key=lambda way: way[0])[1:]


def huffman_bits(counts: List[int]) -> int:
    """Length of a text in its own Huffman code: every merge lengthens all symbols beneath it by one bit."""
    heap, total = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


def decode_speed(frames: int) -> Dict[str, float]:
    """Frames per second out of a file: two at once by the clock, by one core's own time, and on CUDA where it is. What
    is in the numbers changes nothing, so the network is hardly trained."""
    trainer = trainer_for(PRESET, bunny(), 0, 1, partial(edit_first, frames=frames), "cpu")
    trainer.train_iteration(0)
    trainer.pipeline.model.eval().prepare_eval()
    data = encode_model(trainer.pipeline.model, PRESET, 8)
    video = StoredVideo(data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    clock, core = [], []
    for _ in range(1 + TIMED_PASSES):
        start = time.perf_counter()
        for _frame in video.stream(2):
            pass
        clock.append(len(video) / (time.perf_counter() - start))
        start = time.process_time()
        for k in range(len(video)):
            _ = video[k]
        core.append(len(video) / (time.process_time() - start))
    torch.set_num_threads(threads)
    found = {"clock": float(np.median(clock[1:])), "core": float(np.median(core[1:]))}
    if torch.cuda.is_available():
        video = StoredVideo(data, device="cuda")
        passes = [timed(lambda: [video[k] for k in range(len(video))])() for _ in range(1 + TIMED_PASSES)]
        found["cuda"] = len(video) / float(np.median(passes[1:]))
    return found


def measure(setting: Setting, seed: int, folder: Optional[Path] = None) -> Dict[str, Any]:
    """Everything about one seed."""
    first = trained(setting, seed, setting.first)
    state = first.state_dict()
    longer = trained(setting, seed, setting.second, state)
    model = trained(setting, seed, setting.second, state, compress=True)
    result: Dict[str, Any] = {
        "first": {str(bits): point(first, bits) for bits in BITS},
        "longer": {str(bits): point(longer, bits) for bits in BITS},
        "cem": {**point(model), "paper_bytes": paper_bytes(model)},
        "published": {"first": published_route(first), "longer": published_route(longer)},
    }
    result["estimate_bytes"] = model.get_run_metrics()["bpp"] * model._num_pixels / 8
    result.update(training_rate(model))
    data = encode_model(model, PRESET)
    video = StoredVideo(data)
    result["payload_bytes"] = video.payload_bytes
    result.update(fresh_process(data, video), **naive_times(video))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{setting.clip.stem}-{seed}.bnrv").write_bytes(data)
    return result


def paper_bytes(model: Any) -> float:
    """The file with embeddings coded as they are and one Gaussian alone a tensor and a frame, at ideal code lengths."""
    video = StoredVideo(encode_model(model, PRESET))
    segments = [codes.reshape(-1) for codes in video.codes()]
    return video.num_bytes - video.payload_bytes + (cost(segments) - GAUSSIAN_BITS * len(segments)) / 8


@torch.no_grad()
def training_rate(model: Any) -> Dict[str, float]:
    """Bytes by the rate that training minimises (noise in place of rounding, no prediction), and what the coder makes
    of the same numbers where embeddings are not predicted."""
    quantizer, numbers = model.quantizer, model.stored_numbers()
    quantizer.decoder.train()
    bits = float(quantizer.decoder(model.field.decoder_parameters()).bits)
    quantizer.decoder.eval()
    segments = [*numbers.tensors]
    if numbers.embeddings is not None:
        bits += float(quantizer.embeddings.expected_bits(model.known_embeddings()).sum())
        segments += list(integers(numbers.embeddings).reshape(len(numbers.embeddings), -1))
    return {"training_bytes": bits / 8, "unpredicted_bytes": 4 * len(encode(segments, fit(segments)))}


def fresh_process(data: bytes, video: StoredVideo) -> Dict[str, float]:
    """What another process makes of the file."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "clip.bnrv", Path(folder) / "out.npz"
        file.write_bytes(data)
        subprocess.run([sys.executable, "-c", FRESH, str(file), str(out)], check=True, cwd=ROOT)
        other = np.load(out)
        codes = np.concatenate([codes.reshape(-1) for codes in video.codes()])
        frames = np.stack([video[k] for k in range(len(video))]).astype(int)
        return {
            "codes_changed": int((codes != other["codes"]).sum()),
            "levels_changed": int(np.abs(frames - other["frames"]).max()),
        }


def naive_times(video: StoredVideo) -> Dict[str, float]:
    """PSNR between frames decoded with our time codes and with those that plain float32 gives."""
    config, exact = video.field.config, video.field.time_code
    times = torch.arange(1, len(video) + 1, dtype=torch.float32) / len(video)
    frequencies = torch.tensor(config.frequency_base, dtype=torch.float32) ** torch.arange(config.num_frequencies)
    phase = times[:, None] * (frequencies * math.pi)
    ours = [video.decode(k) for k in range(len(video))]
    video.field.time_code = torch.cat([phase.sin(), phase.cos()], dim=-1)
    values = [float(psnr(video.decode(k)[None], frame[None])) for k, frame in enumerate(ours)]
    difference = float((video.field.time_code - exact).abs().max())
    video.field.time_code = exact
    return {"naive_psnr": float(np.mean(values)), "naive_code_difference": difference}


def rows_of(results: List[Dict[str, Any]], speed: Optional[Dict[str, float]]) -> List[Row]:
    """Result rows over all seeds, and of the decoding speed."""

    def row(number: str, what: str, values: List[float], baseline: Any, unit: str, gate: Any, passed: Any) -> Row:
        value = float(np.mean(values))
        base = None if baseline is None else round(float(np.mean(baseline)), 4)
        return Row(
            f"boosting-nerv/{number}", what, round(value, 4), base, unit, spread(values), len(values), gate, passed
        )

    rows = []
    for stage, what in (("first", "post-training quantisation"), ("longer", "the same after as much more training")):
        for bits in BITS:
            saved = [100 * (1 - r["cem"]["bytes"] / r[stage][str(bits)]["bytes"]) for r in results]
            gain = [r["cem"]["psnr"] - r[stage][str(bits)]["psnr"] for r in results]
            gated = bits == 6
            passed = bool(np.mean(saved) >= 25 and np.mean(gain) >= 0) if gated else None
            label = f"CEM against {what}, {bits} bits"
            gate = ">= 25, at no lower PSNR" if gated else None
            rows.append(row("8", f"{label}: bytes saved", saved, None, "%", gate, passed))
            rows.append(
                row("8", f"{label}: PSNR", gain, [r[stage][str(bits)]["psnr"] for r in results], "dB", None, None)
            )
    for stage, what in (("first", "as it was"), ("longer", "after as much more training")):
        base = [r["published"][stage] for r in results]
        saved = [100 * (1 - r["cem"]["bytes"] / b["bytes"]) for r, b in zip(results, base)]
        gain = [r["cem"]["psnr"] - b["psnr"] for r, b in zip(results, base)]
        label = f"CEM against HNeRV's own storage (8 and 6 bits, Huffman) {what}"
        rows.append(row("8", f"{label}: bytes saved", saved, None, "%", None, None))
        rows.append(row("8", f"{label}: PSNR", gain, [b["psnr"] for b in base], "dB", None, None))
    rows.append(row("8", "CEM file: PSNR", [r["cem"]["psnr"] for r in results], None, "dB", None, None))
    rows.append(row("8", "CEM file: rate", [r["cem"]["bpp"] for r in results], None, "bits/pixel", None, None))
    if known := [r for r in results if "training_bytes" in r]:
        off = [100 * (r["unpredicted_bytes"] / r["training_bytes"] - 1) for r in known]
        what = "code words over the rate that training counts, embeddings not predicted"
        rows.append(row("9", what, off, None, "%", "within 2", max(map(abs, off)) <= 2))
    off = [100 * (r["payload_bytes"] / r["estimate_bytes"] - 1) for r in results]
    rows.append(row("9", "code words over the entropy under the file's own distributions", off, None, "%", None, None))
    total = [100 * (r["cem"]["bytes"] / r["estimate_bytes"] - 1) for r in results]
    rows.append(row("9", "whole file over the same", total, None, "%", None, None))
    changed, levels = ([float(r[key]) for r in results] for key in ("codes_changed", "levels_changed"))
    rows.append(row("10", "codes changed in a fresh process", changed, None, "codes", "== 0", max(changed) == 0))
    rows.append(row("10", "largest change of a frame in it", levels, None, "8-bit levels", "<= 1", max(levels) <= 1))
    naive = [r["naive_psnr"] for r in results]
    rows.append(
        row("13", "frames with float32 time codes, against ours", naive, None, "dB", "< 40", bool(np.mean(naive) < 40))
    )
    saved = [100 * (1 - r["cem"]["bytes"] / r["cem"]["paper_bytes"]) for r in results]
    what = "bytes saved at the very same frames by predicted embeddings and shares of zeros"
    rows.append(row("rate-model", what, saved, None, "%", ">= 20", float(np.mean(saved)) >= 20))
    if speed is None:
        return rows
    what = "frames decoded from the file, two at once"
    clock, core = [speed["clock"]], [speed["core"]]
    rows.append(row("speed/decode-file", what, clock, None, "frames/s", ">= 25", clock[0] >= 25))
    what = "frames decoded from the file in a second of one core's time"
    rows.append(row("speed/decode-file-core", what, core, None, "frames/s", None, None))
    if "cuda" in speed:
        what = "frames decoded from the file on a GPU"
        rows.append(
            row("speed/decode-file-cuda", what, [speed["cuda"]], None, "frames/s", ">= 25", speed["cuda"] >= 25)
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--first", type=int, default=40, help="epochs of the first stage")
    parser.add_argument("--second", type=int, default=20, help="epochs of the second stage")
    parser.add_argument("--other", type=Path, help="a second clip")
    parser.add_argument("--other-seeds", type=int, default=1)
    parser.add_argument("--files", type=Path, help="a folder to keep the compressed files in")
    arguments = parser.parse_args()
    kept = ROOT / "benchmarks" / "runs" / "codec.json"
    settings = settings_of(PRESET, partial(edit_first, frames=arguments.frames))

    def results(clip: Path, seeds: int) -> List[Dict[str, Any]]:
        setting = Setting(arguments.frames, arguments.first, arguments.second, clip)
        label = f"{clip.stem}, {arguments.frames} frames, {arguments.first} and {arguments.second} epochs"
        return [
            cached(kept, f"{label}, seed {seed}", partial(measure, setting, seed, arguments.files), settings)
            for seed in range(1, seeds + 1)
        ]

    rows = rows_of(results(bunny(), arguments.seeds), decode_speed(arguments.frames))
    if arguments.other is not None:
        others = rows_of(results(arguments.other, arguments.other_seeds), None)
        rows += [replace(row, what=f"another clip: {row.what}") for row in others]
    for row in rows:
        print(f"{row.claim:36s} {row.what:75s} {row.value:9.3f} {row.unit} {'' if row.passed is None else row.passed}")
    print(write_rows("boosting_nerv_codec", rows))


if __name__ == "__main__":
    main()
