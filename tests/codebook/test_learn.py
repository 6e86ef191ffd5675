import pytest
import torch

from nerfstudio_ext.codebook.autoencoder import AutoencoderOptions, learn_by_autoencoder
from nerfstudio_ext.codebook.learn import GATE, LearnOptions, below_gate, learn_codebook, nearest_codes
from nerfstudio_ext.codebook.table import DEFAULT_CODEBOOK, effective_rank, load_codebook, read_safetensors
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.pictures import procedural_pictures

SMALL = LearnOptions(codes=32, width=16, patches=2000, iterations=8)


@pytest.fixture(scope="module")
def pictures():
    return procedural_pictures(12, 40)


def test_learning_is_deterministic_and_useful(pictures):
    learned = learn_codebook(pictures, SMALL)
    assert learned.table.shape == (32, 16)
    assert torch.equal(learned.table, learn_codebook(pictures, SMALL).table)
    assert learned.report["usage"] >= 0.8 and learned.report["perplexity_share"] >= 0.4
    assert learned.report["gain_over_flat_db"] > 1
    # Codes drawn at random from the patches are worse than those that k-means moved.
    start = learn_codebook(pictures, LearnOptions(codes=32, width=16, patches=2000, iterations=1))
    assert learned.report["gain_over_flat_db"] > start.report["gain_over_flat_db"]


def test_another_machines_last_bits_change_nothing(pictures, monkeypatch):
    """Patches are drawn with replacement, so that equal ones begin k-means; they must not be left to rounding."""
    few = [picture[:12, :12] for picture in pictures]
    options = LearnOptions(codes=32, width=16, patches=2000, iterations=8)
    plain = learn_codebook(few, options).table
    distances, noise = torch.cdist, torch.Generator().manual_seed(0)

    def rounded_otherwise(a, b):
        return distances(a, b) * (1 + 1e-13 * torch.randn(len(a), len(b), generator=noise, dtype=a.dtype))

    monkeypatch.setattr(torch, "cdist", rounded_otherwise)
    assert torch.equal(learn_codebook(few, options).table.half(), plain.half())


def test_nearest_code_against_a_loop():
    features, table = torch.randn(30, 5), torch.randn(7, 5)
    expected = [min(range(7), key=lambda k: float((row - table[k]).norm())) for row in features]
    assert nearest_codes(features, table).tolist() == expected


def test_shipped_codebook_passes_its_gate():
    table = load_codebook(DEFAULT_CODEBOOK)
    assert table.shape == (1024, 64)
    assert effective_rank(table) >= 0.5 * 64
    metadata = read_safetensors(DEFAULT_CODEBOOK)[1]
    assert below_gate({key: float(metadata[key]) for key in GATE}) == []
    assert float(metadata["gain_over_flat_db"]) > 2
    assert metadata["command"].startswith("ns-ext codebook learn") and "none is a test object" in metadata["pictures"]
    assert DEFAULT_CODEBOOK.stat().st_size < 200_000


def test_gate_names_what_is_wrong():
    good = {
        "usage": 0.9,
        "held_out_usage": 0.7,
        "perplexity_share": 0.5,
        "effective_rank_share": 0.8,
        "gain_over_flat_db": 2.0,
    }
    assert below_gate(good) == []
    assert below_gate({**good, "usage": 0.25}) == ["usage is 0.25, and 0.8 at least is wanted"]


def test_too_few_pictures_are_refused():
    with pytest.raises(InputError, match="too few for 1024"):
        learn_codebook([torch.rand(20, 20, 3)], LearnOptions(patches=100))
    with pytest.raises(InputError, match="0 patches"):
        learn_codebook([torch.full((30, 30, 3), 0.5)], SMALL)


def test_noise_is_no_prior():
    noise = [torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(k)) for k in range(8)]
    faults = below_gate(learn_codebook(noise, LearnOptions(codes=64, width=32, patches=4000, iterations=5)).report)
    assert len(faults) == 1 and "gain_over_flat_db" in faults[0], "nothing but the gain tells"


@pytest.mark.parametrize("learn", [learn_codebook, learn_by_autoencoder])
@pytest.mark.parametrize("size", [dict(codes=0), dict(codes=1), dict(width=0)])
def test_sizes_that_are_no_table_are_refused(learn, size):
    options = LearnOptions if learn is learn_codebook else AutoencoderOptions
    with pytest.raises(InputError, match="are no table"):
        learn([torch.rand(80, 80, 3)] * 3, options(**size))
