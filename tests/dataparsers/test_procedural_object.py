import pytest
import torch

from dataparsers._common import split_views
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.data.surface_dataset import SurfaceDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.engine.meeting_point import meeting_point


def parse(split="train", **options):
    config = ProceduralObjectDataParserConfig(**{"views": 12, "size": 16, **options})
    return config.setup().get_dataparser_outputs(split)


def test_splits_share_no_view():
    train, test = parse(num_views=4), parse("test", num_views=4)
    assert len(train.cameras) == 4 and len(test.cameras) == 8
    assert not set(train.metadata["view_indices"]) & set(test.metadata["view_indices"])
    assert parse("val", num_views=4).metadata["view_indices"] == test.metadata["view_indices"]


def test_views_can_be_named():
    outputs = parse(train_views="3,7,1")
    assert outputs.metadata["view_indices"] == [1, 3, 7]
    assert outputs.image_filenames[1].name == "view_003.png"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(train_views="3,40"), "view 40.*0 to 11"),
        (dict(train_views="3,3"), "twice"),
        (dict(train_views="a"), "indices with commas"),
        (dict(num_views=12), "--num-views 12"),
        (dict(num_views=4, max_test_views=0), "--max-test-views 0"),
        (dict(object="teapot"), "teapot.*torus-box"),
        (dict(train_views="0,1,2,3,4,5,6,7,8,9,10,11"), "none is left to test"),
        (dict(train_views="0,1", num_views=4), "--train-views and --num-views .*give one of them"),
    ],
)
def test_mistakes_are_named(options, sentence):
    with pytest.raises(InputError, match=sentence):
        parse(**options)


def test_dataset_draws_what_the_scene_holds():
    outputs = parse(num_views=2)
    dataset = SurfaceDataset(outputs)
    item = dataset[1]
    view = outputs.metadata["object_views"].view(outputs.metadata["view_indices"][1])
    assert (item["image"] - view.rgb).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(item["fg_mask"][..., 0] > 0, view.mask) and "mask" not in item
    assert torch.equal(item["gt_normals"], view.normals)


def test_rays_of_the_cameras_meet_the_surface():
    """The drawn picture and nerfstudio's rays agree on pixel centres and axes."""
    outputs = parse(num_views=2)
    scene = outputs.metadata["object_views"]
    for k, index in enumerate(outputs.metadata["view_indices"]):
        bundle = outputs.cameras.generate_rays(camera_indices=k)
        assert torch.allclose(bundle.directions, scene.rays(index), atol=1e-6)
        view = scene.view(index)
        points = (bundle.origins + view.depth[..., None] * bundle.directions)[view.mask]
        assert scene.object.sdf(points).abs().max() < 3e-4


def test_farthest_views_spread():
    angles = torch.arange(12) * (torch.pi / 6)
    positions = torch.stack([angles.cos(), angles.sin(), torch.zeros(12)], dim=-1)
    assert split_views(positions, None, 4, "farthest", None, "a ring").train == [0, 3, 6, 9]
    assert split_views(positions, None, 3, "even", 2, "a ring").test == [1, 6]


def test_axes_meet():
    positions = torch.randn(6, 3) * 3
    target = torch.tensor([0.3, -0.2, 0.5])
    point, determined = meeting_point(positions, target - positions)
    assert determined and torch.allclose(point, target, atol=1e-4)
    point, determined = meeting_point(positions, torch.tensor([[0.0, 0, -1]]).expand(6, 3))
    assert not determined and point[2] < positions[:, 2].min()


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_parallel_axes_go_by_the_spread_of_the_cameras(unit):
    positions = torch.tensor([[-0.01, 0.0, 0.0], [0.0, 0.0, 0.0], [0.01, 0.0, 0.0]]) * unit
    point, determined = meeting_point(positions, torch.tensor([[0.0, 0, -1]]).expand(3, 3))
    assert not determined and torch.allclose(point, torch.tensor([0.0, 0, -0.03]) * unit)
    point, _ = meeting_point(torch.zeros(1, 3), torch.tensor([[0.0, 0, -1]]))
    assert torch.allclose(point, torch.tensor([0.0, 0, -1]))
