import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallbackAttributes
from skimage.metrics import structural_similarity

from nerfstudio_ext.engine import perceptual
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.keypoint_nerf_field import EncodedViews, KeypointNeRFFieldConfig
from nerfstudio_ext.human.subject import SourceViews
from nerfstudio_ext.models.keypoint_nerf import KeypointNeRFModel, KeypointNeRFModelConfig
from tests.fields.test_keypoint_nerf_field import SMALL
from tests.human.toy_person import ToyStore, toy_outputs, toy_views


def make_model(store=None, **changes) -> KeypointNeRFModel:
    torch.manual_seed(0)
    store = store or ToyStore()
    outputs = toy_outputs(store, range(len(store)))
    config = KeypointNeRFModelConfig(
        field=KeypointNeRFFieldConfig(**SMALL), coarse_samples=8, fine_samples=8, **changes
    )
    model = config.setup(scene_box=outputs.scene_box, num_train_data=1, metadata=outputs.metadata)
    torch.nn.init.constant_(model.field.density_head.bias, 1.0)
    return model.eval()


def camera(model: KeypointNeRFModel, person: int, view: int = 1):
    outputs = toy_outputs(model._store, [person])
    return outputs.cameras[view : view + 1]


def test_outputs_of_one_picture():
    model = make_model()
    outputs = model.get_outputs_for_camera(camera(model, 0))
    assert list(outputs)[:3] == ["rgb", "accumulation", "depth"]
    assert outputs["rgb"].shape == (32, 32, 3) and float(outputs["accumulation"].max()) > 0.5
    solid = outputs["accumulation"][..., 0] > 0.5
    assert 1.5 < float(outputs["depth"][solid].mean()) < 4


def test_cached_rendering_is_the_same_and_encodes_once(monkeypatch):
    """Claim 2, second half: kept feature maps change no number, in however many chunks a picture is rendered."""
    model, count = make_model(eval_num_rays_per_chunk=100), []
    encode = model.field.encode
    monkeypatch.setattr(model.field, "encode", lambda views: count.append(1) or encode(views))
    first = model.get_outputs_for_camera(camera(model, 0))
    assert len(count) == 1, "one encoding for all chunks of a picture"
    again = model.get_outputs_for_camera(camera(model, 0))
    model._encoded.clear()
    fresh = model.get_outputs_for_camera(camera(model, 0))
    assert len(count) == 2
    for key in first:
        assert torch.equal(first[key], again[key]) and torch.equal(first[key], fresh[key])


def test_changed_weights_people_and_views_are_encoded_anew(monkeypatch):
    model, count = make_model(), []
    encode = model.field.encode
    monkeypatch.setattr(model.field, "encode", lambda views: count.append(1) or encode(views))
    before = model.get_outputs_for_camera(camera(model, 0))["rgb"]
    other = model.get_outputs_for_camera(camera(model, 1))["rgb"]
    assert len(count) == 2 and not torch.equal(before, other)
    with torch.no_grad():
        model.field.geometry_encoder.stem[0].weight.mul_(1.5)
    assert not torch.equal(model.get_outputs_for_camera(camera(model, 0))["rgb"], before)
    assert len(count) == 3
    monkeypatch.setattr(model._store, "version", lambda index: (1,))
    model.get_outputs_for_camera(camera(model, 0))
    assert len(count) == 4, "the photos have changed"


def test_cameras_without_a_person_see_the_one_that_is_shown():
    model = make_model()
    plain = camera(model, 0)
    plain.metadata = None
    model.show(0, (0, 2, 3))
    torch.testing.assert_close(
        model.get_outputs_for_camera(plain)["rgb"], model.get_outputs_for_camera(camera(model, 0))["rgb"]
    )
    shown = model.get_outputs_for_camera(plain)["rgb"]
    model.show(0, (1, 4))
    assert not torch.equal(model.get_outputs_for_camera(plain)["rgb"], shown)
    model.show(1, (0, 2, 3))
    assert not torch.equal(model.get_outputs_for_camera(plain)["rgb"], shown)


def test_time_runs_through_the_moments_of_one_person():
    model = make_model()
    timed, late = camera(model, 0), camera(model, 2)
    timed.metadata = late.metadata = None
    shown = model.get_outputs_for_camera(timed)["rgb"]
    timed.times = torch.tensor([[0.45]])
    assert torch.equal(model.get_outputs_for_camera(timed)["rgb"], shown), "people are no moments"
    assert model.moments == [2]
    model._moments = True
    assert model.moments == [0, 1, 2]
    wanted = camera(model, 1)
    wanted.camera_to_worlds = timed.camera_to_worlds
    for time, moment in ((0.45, 1), (0.0, 0), (1.0, 2), (1.2, 2)):
        timed.times = torch.tensor([[time]])
        wanted.metadata["subject"] = torch.tensor([[moment]])
        found = (model.get_outputs_for_camera(x)["rgb"] for x in (timed, wanted))
        torch.testing.assert_close(*found, msg=f"time {time}")


@pytest.mark.parametrize(
    "person,views,message", [(9, (0, 1), "no person 9"), (0, (0,), "two views"), (0, (0, 7), "0 to 4")]
)
def test_wrong_choices_are_refused(person, views, message):
    with pytest.raises(InputError, match=message):
        make_model().show(person, views)


def test_viewer_panel_chooses_person_and_views():
    model = make_model()
    controls = model.person_controls
    assert controls.person.default_value == "toy_2" and controls.views.default_value == "0,2,3"
    assert [picture.rgb.shape for picture in model._source_pictures()] == [(32, 32, 3)] * 3


class FakeViewer:
    """A scene that holds what was added and not removed, by name."""

    def __init__(self):
        self.viser_server = self.scene = self
        self.shown = {}

    def add_camera_frustum(self, name, **picture):
        assert name not in self.shown, "removed before it is drawn anew"
        self.shown[name] = picture
        return SimpleNamespace(remove=lambda: self.shown.pop(name))

    def sources(self):
        return [picture["image"] for picture in self.shown.values()]


def pictures_of(model, person, views):
    return [model._store.subject(person).rgb[view].numpy() for view in views]


def test_the_panel_shows_whom_it_says_and_their_sources():
    model, viewer = make_model(), FakeViewer()
    controls = model.person_controls
    controls.connect(viewer)
    assert all(map(np.array_equal, viewer.sources(), pictures_of(model, 2, (0, 2, 3)))) and len(viewer.shown) == 3
    controls.person.value, controls.views.value = "toy_0", "1, 4,"
    controls._changed(controls.views)
    assert model.shown == (0, (1, 4)) and controls.status.value == "toy_0 from 1,4"
    assert all(map(np.array_equal, viewer.sources(), pictures_of(model, 0, (1, 4)))) and len(viewer.shown) == 2
    drawn, camera_of = viewer.shown["/sources/0"], toy_outputs(model._store, [0]).cameras[1]
    np.testing.assert_allclose(drawn["position"], 10 * camera_of.camera_to_worlds[:, 3], rtol=1e-5)
    assert drawn["fov"] == pytest.approx(2 * math.atan(16 / float(camera_of.fy))) and drawn["aspect"] == 1
    # Half-typed and impossible choices change nothing, and say why.
    for text, message in (("1", "needs two views"), ("1,9", "0 to 4"), ("1,x", "invalid literal")):
        controls.views.value = text
        controls._changed(controls.views)
        assert message in controls.status.value and model.shown == (0, (1, 4)) and len(viewer.shown) == 2


def test_the_sources_in_the_scene_are_of_the_moment_that_was_rendered():
    """Moments of one person: the panel cannot choose them, the time does."""
    model, viewer = make_model(), FakeViewer()
    model._moments, timed = True, camera(model, 2)
    model.person_controls.connect(viewer)
    timed.metadata = None
    for time, moment in ((0.0, 0), (0.45, 1), (0.45, 1), (1.0, 2)):
        timed.times = torch.tensor([[time]])
        model.get_outputs_for_camera(timed)
        assert all(map(np.array_equal, viewer.sources(), pictures_of(model, moment, (0, 2, 3)))), f"time {time}"


def test_rays_beside_the_box_see_nothing():
    model = make_model()
    rays = RayBundle(
        origins=torch.tensor([[0.0, 0.0, 5.0]]).expand(4, 3),
        directions=torch.tensor([[1.0, 0.0, 0.0]]).expand(4, 3),
        pixel_area=torch.ones(4, 1),
    )
    for training in (False, True):
        outputs = model.train(training)(rays)
        assert not bool(outputs["accumulation"].any()) and bool(torch.isfinite(outputs["rgb"]).all())


def test_losses_and_view_dropout():
    model = make_model(mask_loss_mult=0.5).train()
    rays = camera(model, 0).generate_rays(camera_indices=0).flatten()[::4]
    outputs = model(rays)
    count = len(rays)
    batch = {"image": torch.rand(count, 3), "fg_mask": torch.ones(count, 1)}
    losses = model.get_loss_dict(outputs, batch)
    assert set(losses) == {"rgb_loss", "coarse_loss", "mask_loss"}
    expected = 10 * (outputs["rgb"] - batch["image"]).abs().mean()
    torch.testing.assert_close(losses["rgb_loss"], expected)
    kept = torch.stack([model._drop_views(3) for _ in range(200)])
    assert bool(kept.any(1).all()) and 0.6 < float(kept.float().mean()) < 0.73, "one for certain, half of the others"


def test_density_for_meshes_is_that_of_the_rays():
    model = make_model()
    model.show(1, (0, 2, 3))
    points = 0.2 * torch.randn(50, 3)
    encoded = model.encode(model.shown)
    density, *_ = model.field(
        points, torch.nn.functional.normalize(points, dim=-1), model.field.see(points, encoded), encoded
    )
    torch.testing.assert_close(model.density(points), density)
    assert not bool(model.density(points + 5).any())


def test_weights_of_other_keypoints_are_refused():
    model, other = make_model(), make_model()
    state = copy.deepcopy(other.state_dict())
    model.load_state_dict(state)
    state["keypoint_set"] = torch.frombuffer(bytearray(b"a,b,c,d,f,e"), dtype=torch.uint8)
    with pytest.raises(InputError, match="trained with the keypoints a,b,c,d,f,e"):
        model.load_state_dict(state)


def test_scores_of_the_rectangle_around_the_person():
    model = make_model()
    outputs = model.get_outputs_for_camera(camera(model, 0))
    box = torch.zeros(32, 32, 1, dtype=torch.bool)
    box[4:20, 6:30] = True
    batch = {"image": outputs["rgb"].clone(), "fg_mask": torch.ones(32, 32, 1), "box_mask": box}
    batch["image"][25:] = 1 - batch["image"][25:]
    metrics, images = model.get_image_metrics_and_images(outputs, batch)
    assert metrics["psnr_box"] > 80 and metrics["ssim_box"] == pytest.approx(1, abs=1e-4)
    batch["image"][4:20, 6:30] = 0.8 * batch["image"][4:20, 6:30] + 0.1 * torch.rand(16, 24, 3)
    metrics, _ = model.get_image_metrics_and_images(outputs, batch)
    pair = [x[4:20, 6:30].double().numpy() for x in (outputs["rgb"], batch["image"])]
    assert metrics["ssim_zju"] == pytest.approx(structural_similarity(*pair, channel_axis=2, data_range=2), abs=1e-5)
    assert metrics["psnr"] < 40 and images["sources"].shape == (32, 64, 3)


def learn(encoding: str) -> float:
    """Teach a field, by keypoints alone (the pictures are blank), what is within reach of a keypoint; the error on
    other keypoints than those of training."""
    torch.manual_seed(0)
    field = KeypointNeRFFieldConfig(**{**SMALL, "encoding": encoding, "hull": "off", "density_gain": 4.0}).setup(
        num_keypoints=6
    )
    optimizer = torch.optim.Adam(field.parameters(), lr=2e-3)
    template = toy_views()

    def ask(count: int):
        keypoints = 0.3 * torch.randn(6, 3)
        views = SourceViews(template.rgb, template.mask, template.world_to_camera, template.intrinsics, keypoints)
        blank = EncodedViews(
            views, views.mask, torch.zeros(3, 8, 8, 8), torch.zeros(3, 4, 8, 8), torch.zeros(3, 4, 8, 8)
        )
        points = keypoints[torch.randint(6, (count,))] + 0.12 * torch.randn(count, 3)
        wanted = (torch.cdist(points, keypoints).amin(1) < 0.12).float()
        return (field.density(points, field.see(points, blank), blank) - wanted).square().mean()

    torch.nn.init.constant_(field.density_head.bias, 0.1)  # a start at zero everywhere would not learn
    for _ in range(300):
        optimizer.zero_grad()
        ask(256).backward()
        optimizer.step()
    with torch.no_grad():
        return float(torch.stack([ask(1000) for _ in range(5)]).mean())


@pytest.mark.slow
def test_keypoints_teach_what_positions_cannot():
    """The core idea: what is learned relative to keypoints holds for keypoints elsewhere; world positions hold not."""
    relative, world, nothing = (learn(mode) for mode in ("rel_z_decay", "world_xyz", "none"))
    assert relative < 0.06
    assert relative < 0.4 * min(world, nothing)


def test_what_only_training_lacks_is_said_in_training(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(perceptual, "vgg_weights_path", lambda: tmp_path / "none.pth")
    model = make_model(perceptual_loss_mult=0.1)
    model.prepare_eval()
    assert "perceptual" not in capsys.readouterr().out
    model.get_training_callbacks(TrainingCallbackAttributes(None, None, None, None))
    assert "No perceptual loss" in capsys.readouterr().out


def test_scores_of_the_sources_themselves_are_called_so(capsys):
    """Other views are scored with three sources of five; with five the scores are those of the sources."""
    model = make_model()
    model.prepare_eval()
    printed = capsys.readouterr().out
    assert "Source views: 0,2,3" in printed and "Every photo" not in printed
    model._sources = {0: (0, 2, 3), 1: (0, 1, 2, 3, 4)}
    model.prepare_eval()
    assert "Every photo is a source" in capsys.readouterr().out
