"""Drawing and scoring pixels of a person whose pictures are made up here."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from nerfstudio_ext.data import human
from nerfstudio_ext.data.human import HumanDataManagerConfig
from nerfstudio_ext.human.body_motion import BodyMotion
from nerfstudio_ext.human.capture import HumanView

SIZES = ((40, 32), (40, 32), (24, 20), (30, 36))
"""Width and height; two cameras train, and the other two are held out."""


class Scene:
    """A bright rectangle before black, narrower in every camera."""

    def __deepcopy__(self, memo):
        return self

    def view(self, frame, camera):
        width, height = SIZES[camera]
        mask = np.zeros((height, width), dtype=bool)
        half = 1 if camera == 1 else 4
        mask[6:-6, width // 2 - half : width // 2 + half] = True
        return HumanView((200 * mask[..., None].repeat(3, -1)).astype(np.uint8), mask)


def outputs(split):
    chosen = (0, 1) if split == "train" else (2, 3)
    views = [(0, camera) for camera in chosen]
    vertices = torch.tensor([[-0.2, -0.2, -0.5], [0.2, 0.2, 0.5]])[None]
    motion = BodyMotion(vertices, torch.zeros(0, 3, dtype=torch.long), torch.zeros(1, 3), torch.zeros(1, 3))
    width, height = torch.tensor([SIZES[camera] for camera in chosen]).split(1, 1)
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -3], [0, 1, 0, 0]])
    cameras = Cameras(pose.expand(2, -1, -1), fx=60.0, fy=60.0, cx=width / 2, cy=height / 2, width=width, height=height)
    metadata = {"human_scene": Scene(), "views": views, "body_motion": motion, "trained_frames": [0]}
    return DataparserOutputs([f"{camera}.png" for camera in chosen], cameras, metadata=metadata)


@pytest.fixture
def manager(request):
    parser = SimpleNamespace(includes_time=True, get_dataparser_outputs=outputs)
    config = HumanDataManagerConfig(band=getattr(request, "param", 0), eval_num_rays_per_batch=64)
    config.dataparser = SimpleNamespace(data=None, setup=lambda: parser)
    return config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)


def test_held_out_pictures_may_differ_in_size(manager):
    shapes = [batch["image"].shape[:2] for _, batch in manager.fixed_indices_eval_dataloader]
    assert shapes == [(20, 24), (36, 30)]
    rays, batch = manager.next_eval(0)
    assert len(rays) == 64 and batch["image"].shape == (64, 3)
    row = batch["indices"][0].tolist()
    assert torch.equal(batch["image"][0], manager.eval_dataset[row[0]]["image"][row[1], row[2]])


def test_the_score_follows_the_models_box(manager):
    """5 cm on all sides unless the model says otherwise, along each axis apart."""
    usual = [manager.eval_dataset.in_box(k).clone() for k in range(2)]
    manager.follow(SimpleNamespace(config=SimpleNamespace(box_padding=0.05)))
    assert all(torch.equal(manager.eval_dataset.in_box(k), usual[k]) for k in range(2))
    manager.follow(SimpleNamespace(config=SimpleNamespace(box_padding=(0.0, 0.0, 0.05))))
    narrow = manager.eval_dataset.in_box(1)
    assert not bool((narrow & ~usual[1]).any())
    assert torch.equal(narrow.any(1), usual[1].any(1)) and int(narrow.any(0).sum()) < int(usual[1].any(0).sum())
    manager.follow(SimpleNamespace(config=SimpleNamespace(box_padding=0.3)))
    assert int(manager.eval_dataset[1]["box_mask"].sum()) > int(usual[1].sum())
    drawn = manager.draw_pixels(0, 20000)
    assert manager.train_dataset.in_box(0)[drawn[:, 1], drawn[:, 2]].all()
    assert len(torch.unique(drawn[10000:], dim=0)) == int(manager.train_dataset.in_box(0).sum())


def test_half_of_the_rays_meet_the_person(manager):
    drawn = manager.draw_pixels(1, 1000)
    mask = manager.train_dataset.mask(1)[drawn[:, 1], drawn[:, 2]]
    assert drawn[:, 0].unique().tolist() == [1] and bool(mask[:500].all()) and not bool(mask[500:].all())


def test_what_is_remembered_of_pictures_is_bounded(manager, monkeypatch):
    monkeypatch.setattr(human, "KEPT_PIXELS", 10)
    for index in (0, 1, 0):
        manager.draw_pixels(index, 8)
        assert list(manager._pixels) == [index]
    assert manager._kept_pixels == sum(map(len, manager._pixels[0]))


@pytest.mark.parametrize("manager", [2], indirect=True)
def test_a_person_that_is_all_edge_is_told(manager, capsys):
    """When the data is loaded, with the picture's name: two pixels wide, it has none further than two from its edge."""
    told = " ".join(capsys.readouterr().out.split())
    manager._tell_lost_masks()
    told += " ".join(capsys.readouterr().out.split())
    assert "1 of 2 masks have no pixel further than 2 from their edge, as that of 1.png" in told
    assert len(manager._usable_pixels(1)[0]) == 0 < len(manager._usable_pixels(0)[0])
