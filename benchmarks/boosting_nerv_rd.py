"""How do whole .bnrv files of several sizes stand beside x264 and x265 on the same frames (claim 14)?

Bunny at 320x180, HNeRV-Boost-tiny, trained and compressed as in the codec benchmark; rate is the size of the file, of
the anchors the sum of their packets. Run from the repository's root:  python -m benchmarks.boosting_nerv_rd
Each training is kept in benchmarks/runs as it ends; a stopped benchmark goes on where it was.
"""

import argparse
from functools import partial
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch

from benchmarks._harness import ROOT, Row, bunny, cached, settings_of, write_rows
from benchmarks.boosting_nerv_codec import PRESET, Setting, edit_first, point, trained
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.export.anchors import CRFS, RatePoint, bd_rate, classical_point
from nerfstudio_ext.video.frames import ClipOptions, open_clip

SIZES = (140_000, 200_000, 300_000, 450_000)
"""Stored numbers; embeddings of 32 frames alone are 73,728."""
COARSE = (45, 48, 51)
"""Qualities of the anchors below those of the card's protocol: small networks trained briefly end there."""
SEED = 1


def compressed(setting: Setting, size: int) -> Dict[str, Any]:
    """File of one size."""
    first = trained(setting, SEED, setting.first, budget=size)
    model = trained(setting, SEED, setting.second, first.state_dict(), compress=True, budget=size)
    return point(model)


def anchors(setting: Setting, presets: Sequence[str]) -> Dict[str, List[RatePoint]]:
    """Curves of the classical codecs by name, each from its least rate on."""
    store = open_clip(ClipOptions(bunny(), last_frame=setting.frames - 1, max_side=320))
    frames = [store[k] for k in range(len(store))]
    curves: Dict[str, List[RatePoint]] = {}
    for codec in ("libx264", "libx265"):
        for preset in presets:
            for pixel_format in ("yuv420p", "yuv444p"):
                for crf in (*COARSE[::-1], *CRFS[::-1]):
                    made = classical_point(frames, codec, crf, preset, pixel_format, store.info.fps)
                    curves.setdefault(made.name, []).append(made)
    return curves


def rate_at(curve: Sequence[RatePoint], psnr: float) -> Optional[float]:
    """Bits per pixel at which a curve has this PSNR, between its points; none outside of them."""
    levels = [made.psnr for made in curve]
    if not min(levels) <= psnr <= max(levels):
        return None
    return float(np.exp(np.interp(psnr, levels, np.log([made.bpp for made in curve]))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--first", type=int, default=40, help="epochs of the first stage")
    parser.add_argument("--second", type=int, default=20, help="epochs of the second stage")
    parser.add_argument("--presets", nargs="+", default=["medium", "veryslow"], help="efforts of x264 and x265")
    arguments = parser.parse_args()
    setting = Setting(arguments.frames, arguments.first, arguments.second, bunny())
    store = ROOT / "benchmarks" / "runs" / "rd.json"
    ours = []
    for size in SIZES:
        settings = settings_of(PRESET, partial(edit_first, frames=setting.frames, budget=size))
        made = cached(
            store,
            f"{arguments.frames} frames, {arguments.first} and {arguments.second} epochs, {size}",
            partial(compressed, setting, size),
            settings,
        )
        ours.append(RatePoint(str(size), made["bpp"], made["psnr"]))
        print(f"{size}: {made}", flush=True)
    curves = anchors(setting, arguments.presets)

    def row(what: str, value: Optional[float], baseline: Optional[float], unit: str) -> Row:
        base = None if baseline is None else round(baseline, 4)
        return Row(
            "boosting-nerv/14", what, None if value is None else round(value, 4), base, unit, None, 1, None, None
        )

    rows = []
    for made in ours:
        rows.append(row(f"{made.name} numbers: rate", made.bpp, None, "bits/pixel"))
        rows.append(row(f"{made.name} numbers: PSNR", made.psnr, None, "dB"))
    for name, curve in curves.items():
        for made in (ours[0], ours[-1]):
            rate = rate_at(curve, made.psnr)
            times = None if rate is None else made.bpp / rate
            rows.append(row(f"{made.name} numbers: rate over that of {name} at equal PSNR", times, rate, "times"))
        try:
            rows.append(row(f"BD-rate against {name}", bd_rate(curve, ours), None, "%"))
        except InputError as error:
            print(f"no BD-rate against {name}: {error}")
    for made in rows:
        print(made.what, made.value, made.baseline, made.unit)
    print(write_rows("boosting_nerv_rd", rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
