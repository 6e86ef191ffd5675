"""The benchmarks of CoCo-INR: what their trainings change, how they are scored, and rows of made-up runs."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.scene_box import SceneBox

from benchmarks import _coco_inr_exact as exact
from benchmarks import _coco_inr_fits as fits
from benchmarks import _coco_inr_rows as rows
from benchmarks import _coco_inr_scores as scores
from benchmarks import coco_inr_claims, coco_inr_prior
from nerfstudio_ext.codebook.modes import codebook_for
from nerfstudio_ext.codebook.table import dead_codes
from nerfstudio_ext.export.object_scene import write_object_scene
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions

SMALL = {
    "num_prototypes": 4, "prototype_width": 8, "heads": 2, "head_width": 4, "depth": 1, "layers": 2, "width": 16,
    "position_octaves": 2, "colour_octaves": 1, "background_octaves": 2,
}  # fmt: skip


def fit(variant="default", target="spheres", views=6, seed=0, **changes):
    return fits.Fit(variant, target, views, seed, **{"steps": 9, **changes})


def model_of(variant, small=True):
    config = copy.deepcopy(fits.config_of(fit(variant)).pipeline.model)
    for name, value in SMALL.items() if small else ():
        setattr(config.field, name, value)
    return config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata={}, device="cpu")


def made_up(**values):
    """Scores of a run."""
    plain = {"psnr": 20.0, "psnr_masked": 20.0, "normal_error": 20.0, "chamfer": 0.03, "slope_near": 0.1}
    plain |= {"slope_volume": 0.2, "step_seconds": 0.5, "parameters": 100}
    for ending, factor in (("", 1.0), ("_even", 3.0), ("_even_all", 2.0)):
        plain |= {f"opacity_error{ending}": 0.01 * factor, f"opacity_end_error{ending}": 0.5}
        plain |= {f"depth_error_sampling{ending}": 0.02 * factor}
    return {**plain, **values}


def passed(found):
    return {row.what.partition(":")[0]: row.passed for row in found if row.gate is not None}


def test_every_training_is_known():
    used = {name for pairs in coco_inr_claims.TRAININGS.values() for name, _ in pairs} | set(coco_inr_prior.NAMES)
    assert used == set(fits.VARIANTS)
    assert {claim for claim in coco_inr_claims.TRAININGS} <= set(coco_inr_claims.CLAIMS)


def test_the_wider_baseline_has_as_many_numbers():
    def size(variant):
        return sum(p.numel() for p in model_of(variant, small=False).field.parameters() if p.requires_grad)

    ours, plain, matched = (size(name) for name in ("default", "none", "none-matched"))
    assert matched == pytest.approx(ours, rel=0.01) and plain < 0.1 * ours


@pytest.mark.parametrize("variant", fits.VARIANTS)
def test_variants_differ_in_what_they_say(variant):
    plain, settings = fits.settings_of(fit()), fits.settings_of(fit(variant))
    differing = {name for name in plain if plain[name] != settings[name]}
    wanted = set(fits.VARIANTS[variant].changes)
    if fits.VARIANTS[variant].preset == "volsdf_tiny":
        wanted |= {"codebook", "field.colour_layers"}
        wanted |= {"lr"} if fits.VARIANTS[variant].rate is None else set()
    if fits.VARIANTS[variant].model is not None:
        wanted.add("model")
    assert differing == wanted


@pytest.mark.parametrize("variant", ["default", "random", "shuffle"])
def test_every_seed_draws_a_null_table_of_its_own(variant):
    seeds = [fits.settings_of(fit(variant, seed=seed))["codebook_seed"] for seed in range(3)]
    assert seeds == ([0, 0, 0] if variant == "default" else [0, 1, 2])


def test_the_widened_baselines_are_timed(monkeypatch):
    small = copy.deepcopy(exact.volsdf_tiny)
    for name, value in SMALL.items():
        setattr(small.config.pipeline.model.field, name, value)
    monkeypatch.setattr(exact, "volsdf_tiny", small)
    for name, width in (("SAME_TIME_WIDTH", 24), ("MATCHED_WIDTH", 32)):
        monkeypatch.setattr(exact, name, width)
    times = exact.width_times(1, rays=8)
    assert list(times) == ["coco-inr-tiny", "volsdf-tiny 16", "volsdf-tiny 24", "volsdf-tiny 32"]
    made = coco_inr_prior.time_rows({**dict.fromkeys(times, 0.5), "coco-inr-tiny": 1.0, "repeats": 1})
    assert [row.value for row in made] == [2, 2, 2] and "width 24" in made[1].what


def test_key_and_settings_say_what_decides_a_result():
    keys = {fit(**change).key for change in ({}, {"steps": 8}, {"size": 32}, {"rays": 7}, {"seed": 1}, {"views": 3})}
    assert len(keys) == 6
    photos = fits.settings_of(fit(target="face", data=Path("face")))
    assert photos["mask_loss_mult"] > 0 and photos["held_out"] == "all"


@pytest.mark.parametrize("views", coco_inr_claims.FEW_AND_MORE)
def test_scored_views_never_train(views):
    parser = fits.config_of(fit(views=views, size=16)).pipeline.datamanager.dataparser
    trained = set(parser.setup().get_dataparser_outputs("train").metadata["view_indices"])
    scored = scores.held_out("spheres", 16).input_dataset.metadata["view_indices"]
    assert len(trained) == views and len(scored) == scores.HELD_OUT and not trained & set(scored)


def test_dead_codes_are_dead_and_pruned(tmp_path):
    table = fits.table_with_dead_codes()
    assert dead_codes(table).float().mean() == pytest.approx(fits.DEAD_SHARE, abs=1e-3)
    fits.write_codebook(table, tmp_path / "t.safetensors")
    counts = [len(codebook_for(str(tmp_path / "t.safetensors"), prune, False, None)[0]) for prune in (False, True)]
    assert counts == [len(table), round((1 - fits.DEAD_SHARE) * len(table)) + 1]


def test_official_eikonal_points_leave_their_rays():
    """A camera at (0, 0, 3) that looks down sees points on the z axis, the published code ones from the origin on."""
    origins, directions = torch.tensor([[1.0, 0, 3]]), torch.tensor([[0.0, 0, -1]])
    starts = torch.full((1, 4), 2.5)
    found = {}
    for variant in ("default", "official-eikonal"):
        model = model_of(variant)

        def spy(x, context, variant=variant):
            found[variant] = x.detach()
            return None, None, x

        model.field.sdf_gradient = spy
        model._regularised_gradients(origins, directions, starts, {})
    assert torch.allclose(found["default"][1], torch.tensor([1.0, 0, 0.5]))
    assert torch.allclose(found["official-eikonal"][1], torch.tensor([0.0, 0, -3.5]))


class Sphere(torch.nn.Module):
    """In the place of a field: the exact distance to a sphere, times a slope."""

    slope = 1.0

    def context(self):
        return {}

    def sdf(self, x, context):
        return self.slope * (x.norm(dim=-1) - 0.5)

    def sdf_gradient(self, x, context):
        return self.sdf(x, context), None, self.slope * torch.nn.functional.normalize(x, dim=-1)


def test_sampling_errors_of_a_sphere():
    model = model_of("default")
    model.field = Sphere()
    model.density.raw.data.fill_(0.02)
    generator = torch.Generator().manual_seed(0)
    away = torch.nn.functional.normalize(torch.randn(512, 3, generator=generator), dim=-1)
    origins = away * (2 + 0.9 * torch.rand(512, 1, generator=generator))
    aims = 0.6 * (2 * torch.rand(512, 3, generator=generator) - 1)
    directions = torch.nn.functional.normalize(aims - origins, dim=-1)
    errors = scores.sampling_errors(model, origins, directions)
    for name in ("opacity_error", "depth_error_sampling"):
        assert errors[name] < 0.5 * errors[f"{name}_even"], name
        assert errors[f"{name}_even_all"] < errors[f"{name}_even"], name


def test_slopes_of_a_steep_sphere():
    model = model_of("default")
    model.field = Sphere()
    model.field.slope = 1.25
    assert scores.slopes(model, None) == {"slope_near": None, "slope_volume": pytest.approx(0.25, abs=1e-5)}


def test_interval_of_the_gain():
    assert rows.interval([f"vase/{k}" for k in range(5)], np.full(5, 0.3)) is None
    assert rows.interval([f"vase/{k}" for k in range(6)], np.full(6, 0.3)) == pytest.approx((0.3, 0.3))
    gains = np.random.default_rng(1).normal(1.0, 0.5, 400)
    low, high = rows.interval([f"vase/{k}" for k in range(400)], gains)
    assert low == pytest.approx(gains.mean() - 1.96 * 0.5 / 20, abs=0.01)
    assert high == pytest.approx(gains.mean() + 1.96 * 0.5 / 20, abs=0.01)


def test_seeds_of_one_object_are_no_independent_witnesses():
    """Three objects that differ among themselves, with three seeds each that do not."""
    keys, gains = [f"{name}/{k}" for name in "abc" for k in range(3)], np.repeat([2.0, 1.0, -1.0], 3)
    low, high = rows.interval(keys, gains)
    assert (low, high) == (-1, 2), "all three may be the same object"
    assert rows.interval([f"{key}{k}/0" for k, key in enumerate(keys)], gains)[0] > low, "nine objects tell more"


@pytest.mark.parametrize(
    ("gains", "wanted"),
    [
        ((1.0, 1.2) * 3, [True, True, True]),
        ((2.0, -1.0) * 3, [True, False, True]),
        ((-0.1, -0.1) * 3, [False, True, False]),
        ((-1.0, -1.0) * 3, [False, False, False]),
        ((1.0, 1.2), [True, True]),
        ((1.0,), []),
    ],
)
def test_claim_1_wants_a_gain_and_a_sure_one(gains, wanted):
    found = {fit(seed=k): made_up(psnr_masked=20 + g, normal_error=20 - sum(gains)) for k, g in enumerate(gains)}
    found |= {fit("none", seed=k): made_up(parameters=50) for k in range(len(gains))}
    made = coco_inr_prior.rows_of(found, "9 steps")
    assert [row.passed for row in made if row.gate] == wanted
    assert all("spheres" in row.what and "9 steps" in row.what and "(50 trained numbers)" in row.what for row in made)


def test_rows_are_paired_and_leave_out_what_is_not_there():
    found = {fit(): made_up(), fit(seed=1): made_up(chamfer=None), fit(seed=2): made_up()}
    found |= {fit("random"): made_up(psnr_masked=21.0), fit("random", seed=1): made_up()}
    made = {row.what.partition(":")[0]: row for row in coco_inr_prior.rows_of(found, "9 steps")}
    assert (made["psnr_masked"].value, made["psnr_masked"].baseline, made["psnr_masked"].seeds) == (20, 20.5, 2)
    assert made["psnr_masked"].passed is False and made["chamfer"].passed is None, "one pair is not judged"
    assert (made["chamfer"].value, made["chamfer"].seeds, made["chamfer"].spread) == (30, 1, None)
    assert coco_inr_prior.rows_of({fit(): made_up()}, "") == []


def test_views_rows():
    quality = {("default", 3): 18, ("none", 3): 15, ("default", 6): 20, ("none", 6): 19, ("default", 12): 21,
               ("none", 12): 22, ("default", 24): 21, ("none", 24): 23}  # fmt: skip
    found = {
        fit(name, views=views, seed=seed): made_up(psnr_masked=value)
        for (name, views), value in quality.items()
        for seed in range(2)
    }
    made = [row for row in coco_inr_claims.views_rows(found, "9 steps") if row.gate]
    assert [(row.value, row.baseline, row.passed) for row in made] == [
        (3, 1, True), (20, 18, True), (19, 15, True),
        (1, -1, True), (21, 20, True), (22, 19, True),
        (-1, -2, True), (21, 21, False), (23, 22, True),
    ]  # fmt: skip


def test_variant_and_sampling_rows():
    found = {}
    for k in range(2):
        found[fit(seed=k)] = made_up()
        found[fit("no-eikonal", seed=k)] = made_up(slope_near=0.3, slope_volume=0.3, normal_error=25.0)
        found[fit("official-eikonal", seed=k)] = made_up(psnr_masked=20.1)
        found[fit("depth-0", seed=k)] = made_up(psnr_masked=20.1)
    made = coco_inr_claims.variant_rows(found, "9 steps")
    by_claim = {c: passed(row for row in made if row.claim == f"coco-inr/{c}") for c in (4, 6, 7)}
    assert by_claim[4] == {"psnr_masked": False, "chamfer": True}
    assert by_claim[6] == {"slope_near": True, "slope_volume": False, "normal_error": True}
    assert by_claim[7] == {"psnr_masked": True}
    even = coco_inr_claims.sampling_rows(found, "9 steps")
    assert [(row.value, row.baseline, row.passed) for row in even] == [
        (1, 3, True), (50, 50, None), (20, 60, True), (1, 2, None), (50, 50, None), (20, 40, None)]  # fmt: skip


def test_pruning_and_exact_rows():
    found = {fit("dead-codes-pruned", seed=k): made_up(psnr_masked=20.4) for k in range(2)}
    found |= {fit("dead-codes", seed=k): made_up() for k in range(2)}
    times = {"tiny all": 4.0, "tiny pruned": 1.0, "paper all": 9.0, "paper pruned": 1.0, "repeats": 5}
    others = {"attention_times": {**times, "tiny codes": [10, 2], "paper codes": [16384, 1639]}}
    made = coco_inr_claims.pruning_rows(found, others, "9 steps")
    assert [row.passed for row in made if row.gate] == [True, False, True]
    others = {"exactness": {"once": 1e-15, "baked": 1e-9}, "step_times": {"once": 1.0, "anew": 1.5, "repeats": 5}}
    assert [row.passed for row in coco_inr_claims.exact_rows(others)] == [True, False, True]
    assert coco_inr_claims.exact_rows({}) == [] and coco_inr_claims.pruning_rows({}, {}, "") == []


def test_head_rows_have_no_truth():
    blind = {"chamfer": None, "normal_error": None}
    names = {"default": 20.0, "none": 19.0, "no-eikonal": 19.0}
    found = {
        fit(name, "face", 8, seed, data=Path("face")): made_up(psnr_masked=value, **blind)
        for name, value in names.items()
        for seed in range(2)
    }
    for seed in range(2):
        found[fit("no-eikonal", "face", 8, seed, data=Path("face"))]["slope_near"] = 0.5
    made = coco_inr_claims.head_rows(found, "9 steps")
    assert not [row for row in made if "chamfer" in row.what or "normal" in row.what]
    assert [row.passed for row in made if row.gate] == [True, True, False]
    assert coco_inr_claims.variant_rows(found, "") == [], "photos are no procedural objects"


def test_prototypes_once_a_step_are_exact(monkeypatch):
    small = copy.deepcopy(exact.coco_inr_tiny)
    for name, value in SMALL.items():
        setattr(small.config.pipeline.model.field, name, value)
    monkeypatch.setattr(exact, "coco_inr_tiny", small)
    found = exact.exactness(rays=8)
    assert max(found.values()) < 1e-10 and torch.get_default_dtype() == torch.float32
    model, bundle, batch = exact.step_setup(8)
    other = copy.deepcopy(model)
    other.field.codebook.copy_(model.field.codebook.flip(1))
    assert exact.apart(*(exact.gradients(m, bundle, batch) for m in (model, other))) > 1e-6, "the test can fail"


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Coarse scores, and a store of its own."""
    for name, value in {"CELLS": 20, "POINTS": 200, "REFERENCE": 50, "RAYS": 8, "HELD_OUT": 1}.items():
        monkeypatch.setattr(scores, name, value)
    monkeypatch.setattr(fits, "STORE", tmp_path / "fits.json")
    scores.held_out.cache_clear()
    yield
    scores.held_out.cache_clear()


def test_a_run_from_training_to_row(quick, monkeypatch):
    wanted = [fit(name, steps=2, size=12, rays=16) for name in ("default", "none")]
    assert fits.collect(wanted, rows_only=True) == {}
    trained = fits.collect(wanted, rows_only=False)
    assert fits.collect(wanted, rows_only=True) == trained, "kept"
    assert all(found["minutes"] >= 0 and found["step_seconds"] > 0 for found in trained.values())
    assert trained[wanted[0]]["parameters"] > trained[wanted[1]]["parameters"]
    made = coco_inr_prior.rows_of(trained, "2 steps")
    assert {"psnr", "psnr_masked", "normal_error"} <= {row.what.partition(":")[0] for row in made}
    monkeypatch.setitem(fits.VARIANTS, "none", fits.Variant("volsdf_tiny", {"field.layers": 3}))
    assert list(fits.collect(wanted, rows_only=True)) == wanted[:1], "a run of other settings is old"


def test_photos_are_shrunk_and_scored(quick, tmp_path):
    folder = tmp_path / "face"
    write_object_scene(ObjectScene(ObjectSceneOptions("spheres", num_views=9, size=24)), folder)
    (folder / "mesh.ply").unlink()
    for truth in ("depth", "normals"):
        shutil.rmtree(folder / truth)
    found = fits.run(fit(target="face", views=8, steps=1, size=12, rays=16, data=folder))
    assert found["psnr_masked"] > 0 and found["slope_volume"] >= 0
    assert "chamfer" not in found and "normal_error" not in found
