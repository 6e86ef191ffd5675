"""Codes to words and back: probabilities against scipy-free truth, rate against the entropy, faults."""

import math

import numpy as np
import pytest

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.video.bitstream.coder import MAX_LEVELS, Distributions, decode, encode, fit
from nerfstudio_ext.video.bitstream.gaussian import bin_probabilities

pytestmark = pytest.mark.extra("constriction")


def normal_share(k, mean, std):
    tails = [0.5 * math.erfc(abs(k + side - mean) / (std * math.sqrt(2))) for side in (-0.5, 0.5)]
    across = abs(k - mean) < 0.5
    return 1 - sum(tails) if across else abs(tails[0] - tails[1])


@pytest.mark.parametrize("low, high, mean, std", [(-127, 127, 0.3, 20.0), (-5, 5, 0.1, 0.2), (0, 255, 100.0, 7.0)])
def test_probabilities_are_the_gaussian_s(low, high, mean, std):
    expected = [normal_share(k, mean, std) for k in range(low, high + 1)]
    np.testing.assert_allclose(bin_probabilities(low, high, mean, std), expected, atol=5e-12)


def test_probabilities_are_the_same_bits_everywhere():
    """Only operations that IEEE 754 fixes: these very bits come out on any machine."""
    shares = bin_probabilities(-40, 40, 0.625, 9.5)
    assert math.fsum(shares).hex() == GOLDEN_SUM and float(shares[7]).hex() == GOLDEN_SHARE


GOLDEN_SUM, GOLDEN_SHARE = "0x1.fffd3f9848c0ap-1", "0x1.5119fd4c8f83cp-14"


def test_shares_become_integers_by_the_rule_that_the_format_states(seed=0):
    """Level i begins at i + floor(sum of the shares before it * (2^24 - n) / their sum), in float64, from the first on:
    another version of the coder that rounds otherwise would read other numbers out of old files."""
    import constriction

    rng = np.random.default_rng(seed)
    for _ in range(30):
        shares = rng.random(rng.integers(2, 300)) ** rng.integers(1, 12) + 1e-12
        model = constriction.stream.model.Categorical(shares, perfect=False)
        sums = np.cumsum(shares)
        begins = np.arange(len(shares)) + np.append(0, sums[:-1] * ((2**24 - len(shares)) / sums[-1])).astype(np.int64)
        for level in rng.integers(1, len(shares), 8):
            for place, expected in ((begins[level] - 1, level - 1), (begins[level], level)):
                # The next number is the level in whose share the lowest 24 bits of the coder's state lie.
                state = 2**40 + int(place)
                words = np.array([state % 2**32, state // 2**32], dtype=np.uint32)
                assert constriction.stream.stack.AnsCoder(words).decode(model) == expected


def segments(seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 2000, 60)
    normal = [np.round(rng.normal(5 * rng.normal(), 8 * rng.random(), size)).astype(np.int64) for size in sizes]
    return [*normal, np.full(7, 3), np.array([-2]), np.array([0, 0, 4000])]


def test_round_trip_at_the_entropy():
    codes = segments()
    distributions = fit(codes)
    words = encode(codes, distributions)
    assert words.dtype == np.uint32
    decoded = decode(words, distributions, [len(part) for part in codes])
    assert all(np.array_equal(a, b) for a, b in zip(decoded, codes, strict=True))
    ideal = 0.0
    for index, part in enumerate(codes[:60]):
        low, high = int(distributions.low[index]), int(distributions.high[index])
        shares = bin_probabilities(low, high, float(distributions.mean[index]), float(distributions.std[index]))
        ideal -= np.log2(shares[part - low] / shares.sum() + 1e-12).sum()
    assert 32 * len(words) == pytest.approx(ideal, rel=0.005)


def test_pruned_weights_cost_little():
    """Six of ten weights are 0: the file takes the entropy of where they are and of the others, and no more."""
    rng = np.random.default_rng(0)
    others, kept = np.round(rng.normal(0, 20, 5000)).astype(np.int64), rng.random(5000) < 0.4
    codes = [np.where(kept, others, 0), others]
    distributions = fit(codes)
    assert distributions.zeros[0] == pytest.approx(0.59, abs=0.02) and distributions.zeros[1] == 0
    words = encode(codes, distributions)
    decoded = decode(words, distributions, [5000, 5000])
    assert all(np.array_equal(a, b) for a, b in zip(decoded, codes, strict=True))
    bits = 0.5 * np.log2(2 * np.pi * np.e * 20**2)
    ideal = 5000 * (bits + 0.4 * bits - 0.4 * np.log2(0.4) - 0.6 * np.log2(0.6))
    assert 32 * len(words) == pytest.approx(ideal, rel=0.03)


def test_codes_all_alike_cost_nothing():
    codes = [np.full(10_000, 5)]
    assert len(encode(codes, fit(codes))) == 0


def test_words_too_many_or_too_few():
    codes = segments()
    distributions, sizes = fit(codes), [len(part) for part in codes]
    words = encode(codes, distributions)
    with pytest.raises(InputError, match="more or less"):
        decode(np.concatenate([words[:5], words]), distributions, sizes)
    with pytest.raises(InputError, match="do not end"):
        decode(np.append(words, np.uint32(0)), distributions, sizes)


def test_codes_too_far_apart():
    with pytest.raises(InputError, match="fewer bits"):
        fit([np.array([0, MAX_LEVELS])])
    with pytest.raises(InputError, match="fewer bits"):
        fit([np.array([40_000, 40_001])])


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": np.nan},
        {"std": 0},
        {"std": -1},
        {"std": np.inf},
        {"low": 8},
        {"low": -32768, "high": 32767},
        {"zeros": 1.0},
        {"zeros": -0.5},
        {"zeros": np.nan},
        {"zeros": 0.5, "low": 1, "high": 5},
    ],
)
def test_impossible_distributions(changes):
    values = {"mean": 0.0, "std": 1.0, "low": -1, "high": 1, "zeros": 0.0, **changes}
    kinds = {"mean": np.float16, "std": np.float16, "low": np.int16, "high": np.int16, "zeros": np.float16}
    with pytest.raises(InputError):
        Distributions(**{name: np.array([values[name]], kind) for name, kind in kinds.items()}).check()
