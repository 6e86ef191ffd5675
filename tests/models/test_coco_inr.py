import copy
from dataclasses import replace

import pytest
import torch
from nerfstudio.data.scene_box import SceneBox

from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from method_configs.coco_inr import coco_inr, coco_inr_photos_tiny, coco_inr_tiny, volsdf, volsdf_tiny
from nerfstudio_ext.codebook.table import write_codebook
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.models.coco_inr import CoCoINRModelConfig

SMALL = dict(num_prototypes=8, prototype_width=16, heads=2, head_width=8, depth=1, layers=2, width=32)


def build(seed=0, metadata=None, num_train_data=1, **changes):
    """A model so small that a step takes some milliseconds."""
    torch.manual_seed(seed)
    config = copy.deepcopy(coco_inr_tiny.config.pipeline.model)
    for key, value in {**SMALL, "position_octaves": 3, "background_octaves": 2}.items():
        setattr(config.field, key, value)
    config.sampling.samples_per_round, config.sampling.final_samples, config.sampling.extra_samples = 12, 10, 4
    config.background_samples = 4
    for key, value in changes.items():
        part, _, name = key.rpartition(".")
        setattr(getattr(config, part) if part else config, name, value)
    return config.setup(
        scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=num_train_data, metadata=metadata or {}, device="cpu"
    )


@pytest.fixture(scope="module")
def views():
    """Rays and truth of six views of the first object, 24 pixels wide."""
    parser = ProceduralObjectDataParserConfig(object="spheres", size=24, views=12, num_views=6).setup()
    outputs = parser.get_dataparser_outputs("train")
    scene = outputs.metadata["object_views"]
    bundles = [outputs.cameras.generate_rays(camera_indices=k).flatten() for k in range(6)]
    drawn = [scene.view(index) for index in outputs.metadata["view_indices"]]
    return bundles, drawn


def batch_of(views, view, rays):
    bundles, drawn = views
    batch = {
        "image": drawn[view].rgb.reshape(-1, 3)[rays],
        "fg_mask": drawn[view].mask.reshape(-1, 1)[rays].float(),
    }
    return bundles[view][rays], batch


def fit(model, views, steps, lr=5e-3):
    model.train()
    optimizer = torch.optim.Adam([p for group in model.get_param_groups().values() for p in group], lr=lr)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        rays = torch.randint(24 * 24, (96,), generator=generator)
        bundle, batch = batch_of(views, step % 6, rays)
        losses = model.get_loss_dict(model.get_outputs(bundle), batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    return model.eval()


def test_presets_differ_in_numbers_only():
    for paper, tiny in ((coco_inr, coco_inr_tiny), (volsdf, volsdf_tiny)):
        assert type(paper.config.pipeline.model) is type(tiny.config.pipeline.model) is CoCoINRModelConfig
        assert paper.config.pipeline.model.codebook == tiny.config.pipeline.model.codebook


@pytest.mark.parametrize("codebook", ["default", "free", "none"])
def test_outputs_in_training_and_evaluation(codebook, views):
    model = build(codebook=codebook)
    bundle, batch = batch_of(views, 0, torch.arange(40))
    trained = model.train().get_outputs(bundle)
    assert trained["eikonal_gradients"].shape == (80, 3)
    assert set(model.get_loss_dict(trained, batch)) == {"rgb_loss", "eikonal_loss"}
    with torch.no_grad():
        shown = model.eval().get_outputs(bundle)
    assert list(shown)[:4] == ["rgb", "accumulation", "depth", "normals"]
    assert ("prototype_entropy" in shown) == ("prototypes" in shown) == (codebook != "none")
    if codebook != "none":
        assert shown["prototypes"].shape == (40, 3) and 0 <= shown["prototypes"].min() <= shown["prototypes"].max() <= 1
    assert all(len(value) == 40 for value in shown.values()), "one row per ray"
    assert shown["accumulation"].max() <= 1 + 1e-5
    lengths = (2 * shown["normals"] - 1).norm(dim=-1, keepdim=True)
    assert (lengths <= shown["accumulation"] + 1e-5).all(), "they fade where there is nothing"
    whole = shown["foreground"] + (1 - shown["accumulation"]) * shown["background"]
    assert torch.allclose(shown["rgb"], whole, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_background_is_a_mixture_and_what_is_in_front_hides_the_rest(training, views):
    """Of constant colours it is that colour, however dense; behind something opaque nothing shows."""
    model = build().train(training)
    bundle, _ = batch_of(views, 0, torch.arange(40))
    directions = torch.nn.functional.normalize(bundle.directions, dim=-1)
    count = model.config.background_samples

    def wall(points, directions, context):
        front = torch.arange(len(points)) % count == 0
        return torch.where(front, 1e4, 7.0), torch.where(front, 0.25, 0.9)[:, None].expand(-1, 3)

    model.field.background = lambda p, d, c: (torch.rand(len(p)) * 60, torch.full((len(p), 3), 0.25))
    for radius in (3.0, 1.2):
        model.config.background_radius = radius
        even = model._background(bundle.origins, directions, {})
        assert torch.allclose(even, torch.tensor(0.25), atol=1e-5)
    model.field.background = wall
    assert torch.allclose(model._background(bundle.origins, directions, {}), torch.tensor(0.25), atol=1e-2)


def test_losses_by_hand(views):
    model = build(mask_loss_mult=0.5)
    _, batch = batch_of(views, 0, torch.arange(4))
    outputs = {
        "rgb": batch["image"] + 0.25,
        "accumulation": torch.full((4, 1), 0.5),
        "eikonal_gradients": torch.tensor([[2.0, 0, 0], [0, 0, 1]]),
    }
    losses = model.get_loss_dict(outputs, batch)
    assert float(losses["rgb_loss"]) == pytest.approx(0.25)
    assert float(losses["eikonal_loss"]) == pytest.approx(0.1 * 0.5)
    assert float(losses["mask_loss"]) == pytest.approx(0.5 * 0.6931, abs=1e-3)


@pytest.mark.parametrize(
    ("metadata", "changes", "sentence"),
    [
        ({"has_masks": False}, {"mask_loss_mult": 0.1}, "mask-loss-mult 0.1 needs masks"),
        ({"camera_reach": 2.7}, {"bounding_radius": 2.0}, "bounding-radius 2 leaves cameras outside.* 2.70"),
    ],
)
def test_settings_that_the_data_cannot_serve_are_refused(metadata, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        build(metadata=metadata, **changes)
    build(metadata=metadata)


@pytest.mark.parametrize(
    ("part", "name", "value", "sentence"),
    [
        ("", "background_samples", 1, "background-samples 1 must be 2 at least"),
        ("sampling", "samples_per_round", 1, r"sampling\.samples-per-round 1 must be 2 at least"),
        ("sampling", "extra_samples", 400, "extra-samples 400 are drawn from .* of which there are 12"),
        ("sampling", "max_rounds", 0, r"sampling\.max-rounds 0 must be 1 at least"),
        ("sampling", "epsilon", -1.0, r"sampling\.epsilon -1 must be above 0"),
        ("", "minimum_beta", 0.0, "minimum-beta 0 must be above 0"),
        ("", "minimum_beta", -1.0, "minimum-beta -1 must be above 0"),
        ("", "minimum_beta", float("nan"), "minimum-beta nan must be above 0"),
        ("", "final_beta", 0.2, r"final-beta 0\.2 must lie between .* and where the scale begins, 0\.1001"),
        ("", "final_beta", float("nan"), "final-beta nan must lie between"),
        ("", "initial_beta", -0.1, "initial-beta -0.1 must be a number, 0 at least"),
        ("", "initial_beta", float("nan"), "initial-beta nan must be a number"),
        ("field", "skip", 2, r"field\.skip 2 must be one of the hidden layers 1 to 1"),
        ("field", "heads", 0, r"field\.heads 0 must be 1 at least"),
        ("field", "depth", -1, r"field\.depth -1 must be 0 at least"),
    ],
)
def test_numbers_with_which_nothing_can_be_drawn_are_refused(part, name, value, sentence):
    with pytest.raises(InputError, match=sentence):
        build(**{f"{part}.{name}" if part else name: value})


def test_opened_model_needs_no_codebook_file(tmp_path, views):
    table = tmp_path / "table.safetensors"
    write_codebook(torch.randn(40, 20), table)
    trained = build(codebook=str(table)).eval()
    table.unlink()
    opened = build(codebook=str(table), metadata={"opened": True}).eval()
    opened.load_state_dict(trained.state_dict())
    bundle, _ = batch_of(views, 0, torch.arange(30))
    with torch.no_grad():
        assert torch.equal(opened.get_outputs(bundle)["rgb"], trained.get_outputs(bundle)["rgb"])
    with pytest.raises(InputError, match="no codebook"):
        build(codebook=str(table))


def test_curvature_by_hand(views):
    model = build(curvature_loss_mult=0.5)
    bundle, batch = batch_of(views, 0, torch.arange(40))
    trained = model.train().get_outputs(bundle)
    assert trained["eikonal_gradients"].shape == (80, 3) and trained["neighbour_gradients"].shape == (40, 3)
    up, right = torch.tensor([[0.0, 0, 3]]), torch.tensor([[2.0, 0, 0]])
    trained["eikonal_gradients"], trained["neighbour_gradients"] = torch.cat([right, up]), right
    assert float(model.get_loss_dict(trained, batch)["curvature_loss"]) == pytest.approx(0.5 * 2**0.5)


def test_logistic_opacity_learns_too(views):
    bundle, batch = batch_of(views, 0, torch.arange(24 * 24))
    errors = []
    for steps in (0, 60):
        model = fit(build(seed=1, opacity="logistic"), views, steps)
        with torch.no_grad():
            outputs = model.get_outputs(bundle)
        errors.append(float((outputs["rgb"] - batch["image"]).abs().mean()))
        assert outputs["accumulation"].max() > 0.8
    assert errors[1] < 0.7 * errors[0]


def test_colour_may_see_the_encoded_position(views):
    models = []
    for octaves in (0, 3):
        config = build().config
        config.field.colour_octaves = octaves
        models.append(config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=1, metadata={}, device="cpu"))
    bare, encoded = models
    widths = [model.field.colour_network[0].in_features for model in (bare, encoded)]
    assert widths[1] - widths[0] == 18
    assert encoded.eval().get_outputs(batch_of(views, 0, torch.arange(5))[0])["rgb"].shape == (5, 3)


def test_every_parameter_wakes_after_the_first_step(views):
    """The sphere initialisation hides the attention from the distance on the very first step only."""
    model = fit(build(), views, 1).train()
    bundle, batch = batch_of(views, 1, torch.arange(200, 300))
    sum(model.get_loss_dict(model.get_outputs(bundle), batch).values()).backward()
    for name in ("sdf", "colour", "background_density", "background_colour"):
        assert model.field.prototypes[name].queries.grad.abs().max() > 0, name


def test_learns_the_surface_and_needs_its_eikonal_loss(views):
    """Claim 6: without the loss on the gradient the field is no distance."""
    torch.manual_seed(0)
    first = build()
    bundle, batch = batch_of(views, 0, torch.arange(24 * 24))
    with torch.no_grad():
        before = (first.eval().get_outputs(bundle)["rgb"] - batch["image"]).abs().mean()
    deviations = {}
    for weight in (0.1, 0.0):
        model = fit(build(eikonal_loss_mult=weight), views, 60)
        with torch.no_grad():
            outputs = model.get_outputs(bundle)
            gradient = model.field.sdf_gradient(torch.rand(500, 3) * 2 - 1, model.field.context())[2]
        deviations[weight] = float((gradient.norm(dim=-1) - 1).abs().mean())
        if weight:
            assert (outputs["rgb"] - batch["image"]).abs().mean() < 0.7 * before
    assert deviations[0.1] < 0.5 * deviations[0.0]


def test_gains_learn_how_brightly_each_picture_was_taken(views):
    """Six pictures of one object, three of them darker and redder; renders are in between."""
    bundles, drawn = views
    casts = [torch.tensor([1.25, 1.25, 1.0]), torch.tensor([0.8, 0.64, 0.64])]
    drawn = [replace(view, rgb=view.rgb * 0.6 * casts[k % 2]) for k, view in enumerate(drawn)]
    plain = build()
    assert plain.log_gains is None and "gains" not in plain.get_param_groups()
    model = fit(build(num_train_data=6, picture_gains=True), (bundles, drawn), 150, lr=1e-2)
    gains = model._gains().detach()
    torch.testing.assert_close(gains.log().mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    found = gains[0::2].log().mean(0) - gains[1::2].log().mean(0)
    share = found / (casts[0] / casts[1]).log()
    assert ((share > 0.4) & (share < 1.1)).all(), share  # 150 steps go part of the way
    shown = model.get_outputs(bundles[1][:50])["rgb"]
    other = replace(bundles[1][:50], camera_indices=torch.zeros(50, 1, dtype=torch.long))
    torch.testing.assert_close(model.get_outputs(other)["rgb"], shown)


def test_a_run_with_gains_opens_with_another_number_of_pictures():
    trained = build(num_train_data=6, picture_gains=True)
    opened = build(num_train_data=4, picture_gains=True, metadata={"opened": True})
    opened.load_state_dict(trained.state_dict())
    assert opened.log_gains.shape == (6, 3)
    with pytest.raises(RuntimeError, match="log_gains"):  # training goes on with the same pictures only
        build(num_train_data=4, picture_gains=True).load_state_dict(trained.state_dict())


def test_corrected_scores_know_no_exposure(views):
    model = build(num_train_data=6, picture_gains=True).eval()
    picture, mask = views[1][0].rgb, views[1][0].mask[..., None].float()
    flat = torch.ones(24, 24, 1)
    outputs = {"rgb": picture, "accumulation": flat, "depth": flat, "normals": flat.expand(-1, -1, 3)}
    batch = {"image": picture * torch.tensor([0.5, 0.7, 0.9]), "fg_mask": mask}
    found = model.get_image_metrics_and_images(outputs, batch)[0]
    assert found["cc_psnr"] > 60 and found["cc_psnr_masked"] > 60 > 40 > found["psnr"]
    batch["fg_mask"] = torch.zeros_like(mask)
    assert "cc_psnr_masked" not in model.get_image_metrics_and_images(outputs, batch)[0]


def test_grids_of_features_have_a_rate_of_their_own():
    groups = build(**{"field.grid_sizes": (4, 6)}).get_param_groups()
    assert [p.shape for p in groups["grid"]] == [(4**3 + 6**3, 4)]
    assert groups.keys() - {"grid"} == build().get_param_groups().keys() == {"field"}
    for preset in (coco_inr, coco_inr_tiny, coco_inr_photos_tiny, volsdf, volsdf_tiny):
        assert preset.config.optimizers.keys() == {"field", "grid", "gains"}


def test_sampler_and_metrics_on_a_drawn_view(views):
    model = build()
    drawn = views[1][0]
    truth = {
        "rgb": drawn.rgb,
        "accumulation": drawn.mask[..., None].float(),
        "depth": drawn.depth[..., None],
        "normals": (drawn.normals + 1) / 2,
    }
    batch = {
        "image": drawn.rgb,
        "fg_mask": drawn.mask[..., None].float(),
        "gt_normals": drawn.normals,
        "gt_depth": drawn.depth[..., None],
    }
    metrics, images = model.get_image_metrics_and_images(truth, batch)
    assert metrics["mask_iou"] == 1 and metrics["normal_error"] < 0.1 and metrics["depth_error"] == 0
    assert metrics["psnr_masked"] > 80 and metrics["ssim_masked"] > 0.999
    assert images["geometry"].shape == (24, 48, 3)
    mask = drawn.mask[..., None]
    bright = {**batch, "image": torch.where(mask, 1.0, drawn.rgb)}
    scores = model.get_image_metrics_and_images({**truth, "rgb": torch.where(mask, 1.5, 0.0 * drawn.rgb)}, bright)[0]
    assert scores["psnr_masked"] > 80 and scores["ssim_masked"] > 0.999, "neither sees what is beside, or above 1"
    wrong = {**truth, "rgb": torch.where(mask, torch.rand(24, 24, 3), drawn.rgb)}
    assert model.get_image_metrics_and_images(wrong, batch)[0]["ssim_masked"] < 0.9
    nothing = {**truth, "accumulation": torch.zeros(24, 24, 1)}
    assert model.get_image_metrics_and_images(nothing, batch)[0]["normal_error"] == 90


def test_a_background_begins_within_the_sphere():
    for radius in (0.0, -1.0, 3.5):
        with pytest.raises(InputError, match="background-radius"):
            build(background_radius=radius)
