"""Inpainting: what is in the holes is neither seen nor learned, and is scored apart."""

import copy

import pytest
import torch

from dataparsers.video_frames import VideoDataParserConfig
from nerfstudio_ext.data.video import VideoDataManagerConfig, VideoDataset
from nerfstudio_ext.engine.metrics import psnr
from tests.models.test_boosting_nerv import HEIGHT, NUM_FRAMES, WIDTH, small_model
from tests.reference.plain_nerv import KINDS

PARSER = VideoDataParserConfig(
    procedural_frames=12 * NUM_FRAMES, frame_step=12, procedural_size=(WIDTH, HEIGHT), mask="center"
)


@pytest.fixture(scope="module")
def manager():
    return VideoDataManagerConfig(dataparser=copy.deepcopy(PARSER)).setup(device="cpu")


@pytest.fixture
def spoiled():
    """The same clip with noise in its holes."""
    dataset = VideoDataset(copy.deepcopy(PARSER).setup().get_dataparser_outputs("train"))
    store = copy.copy(dataset.frames)
    pixels = store._frames.copy()
    hole = dataset.masks.batch(torch.arange(1), "cpu")[0, 0].numpy() == 0
    pixels[:, hole] = torch.randint(0, 256, pixels[:, hole].shape).numpy()
    store._frames = pixels
    dataset.frames = dataset.metadata["frames"] = store
    return dataset


def losses_and_gradients(kind, dataset, batch, camera):
    model = small_model(kind, dataset).train()
    outputs = model.get_outputs(camera)
    loss = model.get_loss_dict(outputs, batch)["reconstruction_loss"]
    loss.backward()
    return float(loss), torch.cat([p.grad.reshape(-1) for p in model.field.parameters()])


@pytest.mark.parametrize("kind", KINDS)
def test_holes_teach_nothing(kind, manager, spoiled):
    camera, batch = manager.next_train(0)
    assert batch["mask"].shape == (1, HEIGHT, WIDTH, 1)
    noisy = {**batch, "image": spoiled.frames.batch(batch["image_idx"], "cpu").permute(0, 2, 3, 1)}
    assert not torch.equal(noisy["image"], batch["image"])
    loss, gradient = losses_and_gradients(kind, manager.train_dataset, batch, camera)
    other_loss, other_gradient = losses_and_gradients(kind, spoiled, noisy, camera)
    assert loss == other_loss and torch.equal(gradient, other_gradient)


def test_scores_inside_outside_and_everywhere(manager):
    model = small_model("hnerv-boost", manager.train_dataset).eval()
    camera, batch = manager.fixed_indices_eval_dataloader[2]
    prediction = torch.where(batch["mask"] > 0, batch["image"] + 0.1, batch["image"] + 0.2)
    prediction = torch.where(prediction > 1, batch["image"] - (prediction - batch["image"]), prediction)
    metrics, _ = model.get_image_metrics_and_images({"rgb": prediction}, batch)
    assert metrics["psnr_in_mask"] == pytest.approx(13.98, abs=0.01)
    assert metrics["psnr_out_of_mask"] == pytest.approx(20.0, abs=0.01)
    pair = (x.permute(2, 0, 1)[None] for x in (prediction, batch["image"]))
    assert metrics["psnr"] == pytest.approx(float(psnr(*pair)))
    pictures = model.get_outputs_for_camera(camera)
    assert torch.equal(pictures["seen"], pictures["gt"] * batch["mask"])


def test_a_clip_without_holes_has_no_such_scores(manager):
    model = small_model("nerv", manager.train_dataset)
    image = torch.rand(HEIGHT, WIDTH, 3)
    metrics, _ = model.get_image_metrics_and_images({"rgb": image}, {"image": image})
    assert not {"psnr_in_mask", "psnr_out_of_mask"} & set(metrics)
