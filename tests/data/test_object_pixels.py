"""Rays that are drawn from the object's pixels more often than from the others."""

import pytest
import torch
from nerfstudio.data.pixel_samplers import PixelSamplerConfig

from dataparsers.idr import IdrDataParserConfig
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.cli.data import Make
from nerfstudio_ext.data.object_pixels import ObjectPixelSampler
from nerfstudio_ext.data.surface import SurfaceDataManagerConfig
from nerfstudio_ext.engine.errors import InputError


def _manager(parser, **settings):
    return SurfaceDataManagerConfig(
        dataparser=parser, train_num_rays_per_batch=400, eval_num_rays_per_batch=400, **settings
    ).setup(device="cpu", test_mode="val")


def _object_shares(share):
    manager = _manager(ProceduralObjectDataParserConfig(size=24, views=8, num_views=4), object_share=share)
    found = []
    for step in range(3):
        rays, batch = manager.next_train(step)
        cameras, rows, columns = batch["indices"].unbind(-1)
        pictures = torch.stack([manager.train_dataset[k]["image"] for k in range(4)])
        assert torch.equal(batch["image"], pictures[cameras, rows, columns]), "rays and colours are of the same pixels"
        assert len(rays) == 400 and set(cameras.tolist()) == {0, 1, 2, 3}
        found.append(float((batch["fg_mask"] > 0.5).float().mean()))
    return found, manager


def test_the_share_is_kept_and_the_rest_comes_from_anywhere():
    plain, manager = _object_shares(0.0)
    size = torch.stack([manager.train_dataset[k]["fg_mask"] for k in range(4)]).gt(0.5).float().mean().item()
    assert all(abs(found - size) < 0.1 for found in plain)
    for share in (0.5, 1.0):
        found, _ = _object_shares(share)
        assert all(abs(value - (share + (1 - share) * size)) < 0.08 for value in found), (share, found)
    for _ in range(2):
        assert abs(float(manager.next_eval(0)[1]["fg_mask"].gt(0.5).float().mean()) - size) < 0.15


@pytest.mark.parametrize("share", [-0.5, 1.5, float("nan")])
def test_no_such_share(share):
    with pytest.raises(InputError, match=r"object-share .* must be from 0 to 1"):
        _manager(ProceduralObjectDataParserConfig(size=16, views=4, num_views=2), object_share=share)


def test_without_masks_there_is_no_object(tmp_path):
    Make("spheres", tmp_path / "it", views=4, size=16).main()
    for path in (tmp_path / "it" / "mask").iterdir():
        path.unlink()
    (tmp_path / "it" / "mask").rmdir()
    parser = IdrDataParserConfig(data=tmp_path / "it", num_views=2)
    with pytest.raises(InputError, match=r"object-share 0\.5 needs foreground masks.* or add masks"):
        _manager(parser, object_share=0.5)
    for mode in ("test", "inference"):  # a finished run opens without them
        SurfaceDataManagerConfig(dataparser=parser, object_share=0.5).setup(device="cpu", test_mode=mode)


def test_pictures_of_different_sizes_are_refused():
    pictures = [torch.rand(4, 6, 3), torch.rand(6, 4, 3)]
    masks = [torch.ones(4, 6, 1), torch.ones(6, 4, 1)]
    with pytest.raises(InputError, match="and pictures of one size: without these set it to 0"):
        ObjectPixelSampler(PixelSamplerConfig(), 0.5).sample({"image": pictures, "fg_mask": masks})


@pytest.mark.parametrize("setting", ["is_equirectangular", "fisheye_crop_radius"])
def test_cameras_whose_pixels_are_drawn_otherwise_are_refused(setting):
    with pytest.raises(InputError, match="cannot be drawn from panoramas or cropped fisheyes"):
        ObjectPixelSampler(PixelSamplerConfig(**{setting: 1}), 0.5)
