"""Does the codec hold what it promises? Bunny at 320x180: consistent entropy minimisation against post-training
quantisation (claim 8), estimated against real rate (9), lossless coding (10), portable time codes (13).

Run from the repository's root:  python -m benchmarks.boosting_nerv_codec
Each training is kept in benchmarks/runs as it ends; a stopped benchmark goes on where it was.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch

from benchmarks._harness import ROOT, Row, bunny, cached, spread, trainer_for, write_rows
from nerfstudio_ext.cli.compress import LEARNING_RATE, RATE_LOSS_MULT, SCALE_LEARNING_RATE
from nerfstudio_ext.engine.metrics import psnr
from nerfstudio_ext.engine.schedulers import WarmupCosineSchedulerConfig
from nerfstudio_ext.models.stored_video import StoredVideo, clip_psnr, encode_model
from nerfstudio_ext.video.quantization import CompressionConfig

PRESET, BUDGET = "hnerv_boost_tiny", 199_305
"""The setting of the representation benchmark: the card's reference network."""
BITS = (8, 6, 5, 4)
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


def trained(setting: Setting, seed: int, epochs: int, state: Any = None, compress: bool = False) -> Any:
    """Model after a training; with the state of a first stage, its continuation at the second stage's rate."""

    def edit(config: Any) -> None:
        config.pipeline.datamanager.dataparser.last_frame = setting.frames - 1
        config.pipeline.model.target_params = BUDGET
        if state is not None:
            optimizer, schedule = config.optimizers["field"]["optimizer"], WarmupCosineSchedulerConfig(warmup=0.0)
            config.optimizers = {"field": {"optimizer": replace(optimizer, lr=LEARNING_RATE), "scheduler": schedule}}
        if compress:
            config.pipeline.model.compression = CompressionConfig(4.0, RATE_LOSS_MULT["content"])
            scales = {"optimizer": replace(optimizer, lr=SCALE_LEARNING_RATE), "scheduler": schedule}
            config.optimizers["quantizer"] = scales

    steps = epochs * setting.frames
    trainer = trainer_for(PRESET, bunny(), seed, steps, edit, "cpu")
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


def measure(setting: Setting, seed: int) -> Dict[str, Any]:
    """Everything about one seed."""
    first = trained(setting, seed, setting.first)
    state = first.state_dict()
    longer = trained(setting, seed, setting.second, state)
    model = trained(setting, seed, setting.second, state, compress=True)
    result: Dict[str, Any] = {
        "first": {str(bits): point(first, bits) for bits in BITS},
        "longer": {str(bits): point(longer, bits) for bits in BITS},
        "cem": point(model),
    }
    result["estimate_bytes"] = model.get_run_metrics()["bpp"] * model._num_pixels / 8
    data = encode_model(model, PRESET)
    video = StoredVideo(data)
    result["payload_bytes"] = video.payload_bytes
    result.update(fresh_process(data, video), **naive_times(video))
    start = time.perf_counter()
    for k in range(len(video)):
        _ = video[k]
    result["decode_fps"] = len(video) / (time.perf_counter() - start)
    return result


def fresh_process(data: bytes, video: StoredVideo) -> Dict[str, float]:
    """What another process, with another number of threads, makes of the file."""
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


def rows_of(results: List[Dict[str, Any]]) -> List[Row]:
    """Result rows over all seeds."""

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
    rows.append(row("8", "CEM file: PSNR", [r["cem"]["psnr"] for r in results], None, "dB", None, None))
    rows.append(row("8", "CEM file: rate", [r["cem"]["bpp"] for r in results], None, "bits/pixel", None, None))
    off = [100 * (r["payload_bytes"] / r["estimate_bytes"] - 1) for r in results]
    rows.append(
        row("9", "code words over the rate model's estimate", off, None, "%", "within 2", max(map(abs, off)) <= 2)
    )
    total = [100 * (r["cem"]["bytes"] / r["estimate_bytes"] - 1) for r in results]
    rows.append(row("9", "whole file over the rate model's estimate", total, None, "%", None, None))
    changed, levels = ([float(r[key]) for r in results] for key in ("codes_changed", "levels_changed"))
    rows.append(row("10", "codes changed in a fresh process", changed, None, "codes", "== 0", max(changed) == 0))
    rows.append(row("10", "largest change of a frame in it", levels, None, "8-bit levels", "<= 1", max(levels) <= 1))
    naive = [r["naive_psnr"] for r in results]
    rows.append(
        row("13", "frames with float32 time codes, against ours", naive, None, "dB", "< 40", bool(np.mean(naive) < 40))
    )
    fps = [r["decode_fps"] for r in results]
    rows.append(
        row("speed/decode-file", "frames decoded from the file", fps, None, "frames/s", ">= 25", min(fps) >= 25)
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--first", type=int, default=40, help="epochs of the first stage")
    parser.add_argument("--second", type=int, default=20, help="epochs of the second stage")
    arguments = parser.parse_args()
    setting = Setting(arguments.frames, arguments.first, arguments.second)
    kept = ROOT / "benchmarks" / "runs" / "codec.json"
    results = [
        cached(kept, f"{setting} {seed}", lambda seed=seed: measure(setting, seed))
        for seed in range(1, arguments.seeds + 1)
    ]
    for row in (rows := rows_of(results)):
        print(f"{row.claim:36s} {row.what:75s} {row.value:9.3f} {row.unit} {'' if row.passed is None else row.passed}")
    print(write_rows("boosting_nerv_codec", rows))


if __name__ == "__main__":
    main()
