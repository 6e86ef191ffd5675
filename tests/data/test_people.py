import multiprocessing
import socket

import pytest
import torch
import torch.multiprocessing as mp
from nerfstudio.utils import comms

from nerfstudio_ext.data.people import PeopleDataManagerConfig, PeopleDataset, draw_patch
from nerfstudio_ext.engine.errors import InputError
from tests.data.people_ranks import STEPS, train_people_on_rank
from tests.human.toy_person import ToyStore, toy_outputs


class ToyParser:
    """Trains on the first two of three people, tests with views 1 and 4 of the third."""

    includes_time = False

    def get_dataparser_outputs(self, split: str):
        return toy_outputs(ToyStore(), [0, 1]) if split == "train" else toy_outputs(ToyStore(), [2], [1, 4])


@pytest.fixture
def manager(monkeypatch):
    def make(test_mode="val"):
        config = PeopleDataManagerConfig(patch_size=6, train_num_rays_per_batch=36)
        monkeypatch.setattr(type(config.dataparser), "setup", lambda self: ToyParser())
        return config.setup(device="cpu", test_mode=test_mode, world_size=1, local_rank=0)

    return make


def test_a_step_is_a_patch_of_one_person_and_other_views_of_it(manager):
    manager = manager()
    people = set()
    for step in range(40):
        rays, batch = manager.next_train(step)
        positions, rows, columns = batch["indices"].unbind(1)
        assert rays.origins.shape == (36, 3) and batch["image"].shape == (36, 3) and int(batch["patch"]) == 6
        (position,) = positions.unique().tolist()
        person, view = manager.train_dataset.metadata["views"][position]
        assert rays.metadata["subject"].unique().tolist() == [person]
        (sources,) = rays.metadata["sources"].unique(dim=0).tolist()
        assert len(set(sources)) == 3 and view not in sources
        assert int(rows.max() - rows.min()) == 5 and int(columns.max() - columns.min()) == 5
        picture = manager.train_dataset.get_image_float32(position)
        assert torch.equal(batch["image"], picture[rows, columns])
        people.add(person)
    assert people == {0, 1}, "never the third, who is there to test with"


def test_evaluation_keeps_its_sources(manager):
    manager = manager()
    rays, batch = manager.next_eval(0)
    assert rays.metadata["subject"].unique().tolist() == [2]
    assert rays.metadata["sources"].unique(dim=0).tolist() == [[0, 2, 3]]
    camera, data = next(iter(manager.fixed_indices_eval_dataloader))
    assert camera.metadata["subject"].tolist() == [[2]] and data["fg_mask"].shape == (32, 32, 1)
    assert batch["image"].shape == (36, 3)


def test_rays_of_an_opened_run_see_the_person_that_is_shown(manager):
    rays, batch = manager("test").next_train(0)
    assert rays.metadata["subject"].unique().tolist() == [2]
    assert rays.metadata["sources"].unique(dim=0).tolist() == [[0, 2, 3]]
    store, (views, rows, columns) = ToyStore(), batch["indices"].unbind(1)
    assert len(views.unique()) == 5
    assert torch.equal(batch["image"], store.subject(2).rgb[views, rows, columns].float() / 255)


def test_box_mask_holds_the_person():
    dataset = PeopleDataset(toy_outputs(ToyStore(), [0]))
    data = dataset[0]
    assert data["box_mask"].shape == (32, 32, 1) and 0 < float(data["box_mask"].float().mean()) < 1


def test_patches_are_around_the_person_and_inside_the_picture():
    mask = torch.zeros(20, 30)
    mask[0, 29] = 1
    rows, columns = draw_patch(mask, 8).unbind(1)
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (0, 7, 22, 29)
    assert len(draw_patch(mask, 50)) == 20 * 20, "no larger than the picture"
    assert len(draw_patch(torch.zeros(20, 30), 4)) == 16


def test_other_data_is_refused():
    outputs = toy_outputs(ToyStore(), [0])
    with pytest.raises(InputError, match="smaller with --size"):
        PeopleDataset(outputs, scale_factor=0.5)
    outputs.metadata = {}
    with pytest.raises(InputError, match="procedural-people-data"):
        PeopleDataset(outputs)


@pytest.mark.parametrize("world,rank,wanted", [(2, 0, {0}), (2, 1, {1}), (3, 2, {0, 1})])
def test_processes_that_train_together_see_other_people(manager, monkeypatch, world, rank, wanted):
    """Of two processes one trains on the first person and one on the second; a third one has to share."""
    monkeypatch.setattr(comms, "get_rank", lambda: rank)
    monkeypatch.setattr(comms, "get_world_size", lambda: world)
    one = manager()
    seen = {int(one.next_train(step)[0].metadata["subject"][0, 0]) for step in range(30)}
    assert seen == wanted


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    """Other people, other losses, the same gradients and weights, the encoders' included."""
    multiprocessing.set_forkserver_preload(["tests.data.people_ranks"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(train_people_on_rank, args=(2, tmp_path, port), nprocs=2, start_method="forkserver")
    one, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert set(one["seen"]) <= {0, 2} and set(other["seen"]) <= {1, 3} and len(one["seen"]) == STEPS
    assert one["losses"] != other["losses"]
    for name, gradient in one["gradients"].items():
        assert torch.equal(gradient, other["gradients"][name]), name
        assert torch.equal(one["weights"][name], other["weights"][name]), name
    for encoder in ("geometry_encoder", "texture_encoder"):
        assert any(bool(g.any()) for name, g in one["gradients"].items() if name.startswith(encoder))
