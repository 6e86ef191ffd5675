"""Time codes against fifty-digit decimal arithmetic; why float32 phases will not do; the papers' conventions."""

import math
from decimal import Decimal, getcontext
from fractions import Fraction

import pytest
import torch

from nerfstudio_ext.video.time_encoding import frame_times, positional_encoding

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
NUM_FREQUENCIES = 80


@pytest.fixture(autouse=True)
def _digits():
    getcontext().prec = 70


def decimal_sine_cosine(phase):
    """Sine and cosine by their Taylor series."""
    phase = phase % (2 * PI)
    term, sums = Decimal(1), [Decimal(0), Decimal(0)]
    for n in range(80):
        sums[n % 2] += term * (-1) ** (n // 2)
        term = term * phase / (n + 1)
    return float(sums[1]), float(sums[0])


@pytest.mark.parametrize("base", ["1.25", "1.05"])
@pytest.mark.parametrize("frame, num_frames", [(0, 132), (1, 132), (131, 132), (299, 600), (4, 7)])
def test_equals_high_precision_arithmetic(base, frame, num_frames):
    table = positional_encoding(frame_times(num_frames, "end"), float(base), NUM_FREQUENCIES)
    assert table.shape == (num_frames, 2 * NUM_FREQUENCIES) and table.dtype == torch.float32
    for k in (0, 1, 17, 40, 63, 79):
        time = Decimal(frame + 1) / Decimal(num_frames)
        sine, cosine = decimal_sine_cosine(PI * Decimal(base) ** k * time)
        assert float(table[frame, k]) == pytest.approx(sine, abs=6e-8)
        assert float(table[frame, NUM_FREQUENCIES + k]) == pytest.approx(cosine, abs=6e-8)


@pytest.mark.parametrize("base", [1.25, 1.05, 1.3333333333, 1.9999999999999998, 2.0, 1.0])
@pytest.mark.parametrize("convention", ["start", "end", "closed"])
def test_equals_exact_fractions_to_the_last_bit(base, convention):
    times = frame_times(30, convention)
    phases = [[float(Fraction(str(base)) ** k * time % 2) for k in range(NUM_FREQUENCIES)] for time in times]
    phase = torch.tensor(phases, dtype=torch.float64) * math.pi
    expected = torch.cat([phase.sin(), phase.cos()], dim=-1).float()
    assert torch.equal(positional_encoding(times, base, NUM_FREQUENCIES), expected)


def test_float32_phases_give_another_code():
    """The published code's arithmetic: right where frequencies are low, noise in the top half."""
    num_frames = 132
    exact = positional_encoding(frame_times(num_frames, "end"), 1.25, NUM_FREQUENCIES)
    times = torch.arange(1, num_frames + 1) / num_frames
    bases = (1.25 ** torch.arange(NUM_FREQUENCIES) * math.pi).float()
    naive = torch.sin(times[:, None] * bases)
    error = (naive - exact[:, :NUM_FREQUENCIES]).abs().amax(dim=0)
    assert error[:20].max() < 1e-3
    assert error[-5:].min() > 1.0


def test_float64_phases_are_close_to_exact():
    """The reference twin may compute in float64; a bound on what that costs."""
    times = torch.arange(1, 601, dtype=torch.float64) / 600
    bases = 1.25 ** torch.arange(NUM_FREQUENCIES, dtype=torch.float64) * math.pi
    exact = positional_encoding(frame_times(600, "end"), 1.25, NUM_FREQUENCIES)[:, :NUM_FREQUENCIES]
    assert (torch.sin(times[:, None] * bases) - exact).abs().max() < 1e-6


def test_sines_come_before_cosines():
    code = positional_encoding([Fraction(1, 2)], 1.25, 3)[0]
    sines = [math.sin(math.pi * 1.25**k / 2) for k in range(3)]
    cosines = [math.cos(math.pi * 1.25**k / 2) for k in range(3)]
    assert code.tolist() == pytest.approx(sines + cosines, abs=1e-7)


def test_frames_differ_and_base_decides_how_smoothly():
    """With base 1.25 neighbours share nothing in the top frequencies; with 1.05 they stay close."""
    steps = {}
    for base in (1.25, 1.05):
        code = positional_encoding(frame_times(132, "end"), base, NUM_FREQUENCIES)
        steps[base] = (code[1:] - code[:-1]).norm(dim=1)
        assert torch.pdist(code).min() > 1e-2
    assert steps[1.05].max() < 0.4 * steps[1.25].min()
    # 24 cycles over the clip: no phase moves further than this between neighbours.
    assert math.pi * 1.05**79 / 132 < 1.13


def test_lies_on_cpu_whatever_the_default_type():
    previous = torch.get_default_dtype()
    expected = positional_encoding(frame_times(9, "start"), 1.25, NUM_FREQUENCIES)
    torch.set_default_dtype(torch.float64)
    try:
        code = positional_encoding(frame_times(9, "start"), 1.25, NUM_FREQUENCIES)
    finally:
        torch.set_default_dtype(previous)
    assert code.dtype == torch.float32 and torch.equal(code, expected)


@pytest.mark.parametrize(
    "convention, expected",
    [
        ("start", [Fraction(0), Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)]),
        ("end", [Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(1)]),
        ("closed", [Fraction(0), Fraction(1, 3), Fraction(2, 3), Fraction(1)]),
    ],
)
def test_conventions(convention, expected):
    assert list(frame_times(4, convention)) == expected


@pytest.mark.parametrize("convention, only", [("start", 0), ("end", 1), ("closed", 0)])
def test_one_frame(convention, only):
    assert list(frame_times(1, convention)) == [only]


def test_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="unknown time convention 'middle'"):
        frame_times(4, "middle")
