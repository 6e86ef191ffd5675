"""From the trainings of `_coco_inr_fits` to rows: paired by object and seed, with gates."""

from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from jaxtyping import Float

from benchmarks._coco_inr_fits import Fit
from benchmarks._harness import Row

Runs = Dict[str, Dict[str, Any]]
"""Scores by object and seed."""
Values = Float[np.ndarray, "pairs"]

MEASURES: Dict[str, Tuple[str, float]] = {
    "psnr": ("dB", 1),
    "psnr_masked": ("dB", 1),
    "normal_error": ("degrees", 1),
    "chamfer": ("1/1000 units", 1000),
    "slope_near": ("%", 100),
    "slope_volume": ("%", 100),
    "opacity_error": ("%", 100),
    "opacity_end_error": ("%", 100),
    "depth_error_sampling": ("1/1000 units", 1000),
    "step_seconds": ("ms", 1000),
}
"""Unit of each score's rows, and its factor on the score."""
SCORES = ("psnr", "psnr_masked", "normal_error", "chamfer")
"""What is always compared. PSNR on the object and chamfer distance judge: whole pictures are mostly background."""
DRAWS = 10000
"""Resamplings of a bootstrap."""


@dataclass(frozen=True)
class Gate:
    """What is asked of a row."""

    text: str
    holds: Callable[[Values, Values], Any]
    """Of our values and the baseline's, paired, in the row's unit."""


NO_LOWER = Gate("no lower on average", lambda ours, base: ours.mean() >= base.mean())
NO_LARGER = Gate("no larger on average", lambda ours, base: ours.mean() <= base.mean())
SMALLER = Gate("smaller on average", lambda ours, base: ours.mean() < base.mean())
HALF = Gate("at most half", lambda ours, base: ours.mean() <= base.mean() / 2)


def chosen(found: Mapping[Fit, Dict[str, Any]], variant: str, views: int, real: bool = False) -> Runs:
    """Runs of one variant on procedural objects, or on photos, by object and seed."""
    return {
        f"{fit.target}/{fit.seed}": scores
        for fit, scores in found.items()
        if fit.variant == variant and fit.views == views and (fit.data is not None) == real
    }


def paired(ours: Runs, base: Runs, measure: str) -> Tuple[List[str], Values, Values]:
    """Keys that both have with a score, and the scores in the row's unit."""
    keys = [k for k in sorted(ours.keys() & base.keys()) if all(r[k].get(measure) is not None for r in (ours, base))]
    factor = MEASURES[measure][1]
    one, other = (factor * np.array([float(runs[key][measure]) for key in keys]) for runs in (ours, base))
    return keys, one, other


def compare(
    claim: str,
    what: str,
    ours: Runs,
    base: Runs,
    setting: str,
    gates: Mapping[str, Gate],
    measures: Sequence[str] = SCORES,
) -> List[Row]:
    """One row for each score that runs of both sides have, which names their objects; where it is judged, its interval
    follows. A single pair is not judged."""
    rows = []
    for measure in measures:
        keys, one, other = paired(ours, base, measure)
        if not keys:
            continue
        gate = gates.get(measure) if len(keys) > 1 else None
        text = f"{measure}: {what}, {objects_of(keys)}, {setting}"
        means = (round(float(one.mean()), 4), round(float(other.mean()), 4))
        swing = round(float((one - other).std(ddof=1)), 4) if len(keys) > 1 else None
        passed = None if gate is None else bool(gate.holds(one, other))
        unit = MEASURES[measure][0]
        rows.append(Row(claim, text, *means, unit, swing, len(keys), gate.text if gate else None, passed))
        ends = interval(keys, one - other) if gate else None
        if ends is not None:
            text = f"{INTERVAL} of the mean difference, from and to: {text}"
            rows.append(Row(claim, text, round(ends[0], 4), round(ends[1], 4), unit, None, len(keys), None, None))
    return rows


def objects_of(keys: Sequence[str]) -> str:
    """What the runs were trained on."""
    return ", ".join(dict.fromkeys(key.rpartition("/")[0] for key in keys))


def gain_rows(claim: str, what: str, ours: Runs, base: Runs, setting: str) -> List[Row]:
    """Claim 1's gates: the mean gain on the object, the lower end of its bootstrap interval of 95 %, and normals."""
    gates = {
        "psnr_masked": Gate("gain > 0 dB", lambda one, other: one.mean() > other.mean()),
        "normal_error": SMALLER,
    }
    rows = compare(claim, what, ours, base, setting, gates)
    for k, row in enumerate(rows):
        if row.what.startswith(INTERVAL) and "psnr_masked" in row.what and row.value is not None:
            rows[k] = replace(row, gate="lower end > -0.2 dB", passed=row.value > -0.2)
    return rows


INTERVAL = "95 % interval"
"""How the text of an interval's row begins; its two figures are the interval's ends."""
FEWEST = 6
"""Differences from which on their bootstrap interval is worth a row."""


def interval(keys: Sequence[str], differences: Values) -> Optional[Tuple[float, float]]:
    """Bootstrap interval of 95 % of the mean difference; None for fewer differences than tell more than their extremes.

    Objects are drawn first and seeds of each of them then: seeds of one object are no independent witnesses.

    Args:
        keys: Object and seed of each difference.
        differences: Of paired runs.
    """
    if len(differences) < FEWEST:
        return None
    names = [key.rpartition("/")[0] for key in keys]
    of_object = [differences[[other == name for other in names]] for name in dict.fromkeys(names)]
    random = np.random.default_rng(0)
    means = np.stack([random.choice(values, (DRAWS, len(of_object), len(values))).mean(-1) for values in of_object])
    # Each place among the drawn objects has a draw of seeds of its own.
    drawn = random.integers(len(of_object), size=(DRAWS, len(of_object)))
    row, place = np.arange(DRAWS)[:, None], np.arange(len(of_object))
    low, high = np.percentile(means[drawn, row, place].mean(-1), [2.5, 97.5])
    return float(low), float(high)
