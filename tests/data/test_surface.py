import json

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

from dataparsers.idr import IdrDataParserConfig
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.cli.data import Make
from nerfstudio_ext.data.surface import SurfaceDataManagerConfig, select_views
from nerfstudio_ext.data.surface_dataset import SurfaceDataset
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions
from nerfstudio_ext.procedural.objects import get_object
from nerfstudio_ext.procedural.rigs import rig_poses


def outputs_of(folder, views=4, mask_size=(12, 8), **more):
    """Pictures of 12x8 pixels with masks as a stock dataparser gives them."""
    for k in range(views):
        Image.fromarray(np.full((8, 12, 3), 20 * k, np.uint8)).save(folder / f"{k}.png")
        mask = np.zeros(mask_size[::-1], np.uint8)
        mask[: mask_size[1] // 2] = 255
        Image.fromarray(mask).save(folder / f"mask_{k}.png")
    cameras = Cameras(rig_poses("ring", views, 4.0), fx=10.0, fy=10.0, cx=6.0, cy=4.0, width=12, height=8)
    files = dict(image_filenames=[folder / f"{k}.png" for k in range(views)])
    return DataparserOutputs(
        **files, cameras=cameras, mask_filenames=[folder / f"mask_{k}.png" for k in range(views)], **more
    )


def test_masks_of_a_stock_parser_are_foreground(tmp_path):
    item = SurfaceDataset(outputs_of(tmp_path))[2]
    assert "mask" not in item, "the host would train the object's pixels only"
    assert torch.equal(item["fg_mask"][:, 0, 0], torch.tensor([1.0] * 4 + [0.0] * 4))


def test_masks_of_another_size_are_named(tmp_path):
    dataset = SurfaceDataset(outputs_of(tmp_path, mask_size=(6, 4)))
    with pytest.raises(InputError, match=r"mask_1\.png is 6x4, but its picture is 12x8"):
        dataset[1]


def test_missing_masks_are_named(tmp_path):
    outputs = outputs_of(tmp_path)
    (tmp_path / "mask_2.png").unlink()
    with pytest.raises(InputError, match=r"no picture .*mask_2\.png, which the data names"):
        SurfaceDataset(outputs)[2]


def test_inverted_masks_of_a_stock_parser_are_refused(tmp_path):
    outputs = outputs_of(tmp_path)
    SurfaceDataset(outputs).require_upright_masks()
    for k in range(4):
        Image.fromarray(np.full((8, 12), 255, np.uint8)).save(tmp_path / f"mask_{k}.png")
    with pytest.raises(InputError, match=r"mask_0\.png call 100% of all pixels object.*invert them"):
        SurfaceDataset(outputs).require_upright_masks()


@pytest.mark.parametrize("side", [2, 3])
def test_masks_that_are_white_around_the_object_are_refused(tmp_path, side):
    """Objects of a quarter and of half of the picture; upright they pass, and so do those that fill it."""
    outputs = outputs_of(tmp_path)
    mask = np.zeros((8, 12), bool)
    mask[4 - side : 4 + side, 6 - 2 * side // 2 - 1 : 6 + 2 * side // 2 + 1] = True
    large = np.ones((8, 12), bool)
    large[:2, :4] = False
    for shown, wanted in ((mask, True), (large, True), (~mask, False)):
        for k in range(4):
            Image.fromarray((255 * shown).astype(np.uint8)).save(tmp_path / f"mask_{k}.png")
        if wanted:
            SurfaceDataset(outputs).require_upright_masks()
        else:
            with pytest.raises(InputError, match=r"call 100% of the pictures' rims object .*invert them"):
                SurfaceDataset(outputs).require_upright_masks()


def with_alpha(folder, hidden, views=4):
    """Pictures as a parser without masks gives them: red squares, their surroundings hidden by an alpha channel."""
    outputs = outputs_of(folder, views)
    outputs.mask_filenames = None
    for path in outputs.image_filenames:
        picture = np.zeros((8, 12, 4), np.uint8)
        picture[..., :3] = [10, 20, 30]
        picture[2:6, 3:9, :3] = [200, 0, 0]
        picture[..., 3] = 255 - hidden
        picture[2:6, 3:9, 3] = 255
        Image.fromarray(picture).save(path)
    return outputs


def test_alpha_is_the_mask_whatever_the_parser(tmp_path):
    dataset = SurfaceDataset(with_alpha(tmp_path, hidden=255))
    item = dataset[1]
    assert dataset.has_masks and float(item["fg_mask"].mean()) == 0.25 and item["fg_mask"].shape == (8, 12, 1)
    assert item["image"].shape == (8, 12, 3)
    assert torch.equal(item["image"][0, 0], torch.ones(3)), "what the alpha hides is not to be learned"
    dataset.require_upright_masks()
    Image.new("RGB", (12, 8)).save(dataset.image_filenames[3])
    with pytest.raises(InputError, match=r"3\.png has no alpha channel"):
        SurfaceDataset(dataset._dataparser_outputs)[0]


def test_alpha_that_hides_nothing_is_no_mask(tmp_path):
    dataset = SurfaceDataset(with_alpha(tmp_path, hidden=0))
    assert not dataset.has_masks and "fg_mask" not in dataset[0] and dataset[0]["image"].shape == (8, 12, 3)


def test_inverted_alpha_is_refused(tmp_path):
    outputs = with_alpha(tmp_path, hidden=255)
    for path in outputs.image_filenames:
        Image.fromarray(np.zeros((8, 12, 4), np.uint8)).save(path)
    with pytest.raises(InputError, match=r"alpha channels .* call 0%"):
        SurfaceDataset(outputs).require_upright_masks()


def test_pictures_of_unknown_kinds_are_refused(tmp_path):
    outputs = outputs_of(tmp_path)
    Image.fromarray(np.full((8, 12), 40000, np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"0\.png is a picture of the kind I;16"):
        SurfaceDataset(outputs)[0]


def test_grey_and_reduced_pictures_are_read(tmp_path):
    outputs = outputs_of(tmp_path)
    Image.fromarray(np.full((8, 12), 51, np.uint8)).save(tmp_path / "0.png")
    item = SurfaceDataset(outputs, 0.5)[0]
    assert torch.allclose(item["image"], torch.full((4, 6, 3), 0.2)) and item["fg_mask"].shape == (4, 6, 1)


def test_depth_is_in_units_of_the_cameras():
    """Rings of radius 4 are brought to 3 / 1.1, and what is known of the depth with them."""
    parser = ProceduralObjectDataParserConfig(size=24, views=8, num_views=4, radius=4.0)
    dataset = SurfaceDataManagerConfig(dataparser=parser).setup(device="cpu", test_mode="inference").train_dataset
    scene, indices = dataset.metadata["object_views"], dataset.metadata["view_indices"]
    item, view = dataset[0], scene.view(indices[0])
    centre = dataset.cameras.camera_to_worlds[0, :, 3]
    rays = dataset.cameras.generate_rays(camera_indices=0)
    points = centre + item["gt_depth"] * rays.directions
    scale = 3 / 1.1 / 4
    assert scene.object.sdf(points[view.mask] / scale).abs().max() < 1e-3


def test_written_truth_is_read(tmp_path):
    Make("vase", tmp_path / "vase", views=5, size=16, radius=4.0).main()
    parser = IdrDataParserConfig(data=tmp_path / "vase", train_views="0,3")
    found = SurfaceDataManagerConfig(dataparser=parser).setup(device="cpu", test_mode="inference").train_dataset
    view = ObjectScene(ObjectSceneOptions("vase", num_views=5, size=16, radius=4.0)).view(3)
    assert torch.allclose(found[1]["gt_depth"][..., 0], view.depth * (3 / 1.1 / 4), atol=1e-3)
    assert torch.allclose(found[1]["gt_normals"], view.normals)
    half = SurfaceDataManagerConfig(dataparser=parser, camera_res_scale_factor=0.5)
    assert half.setup(device="cpu", test_mode="inference").train_dataset[1]["gt_depth"].shape == (8, 8, 1)
    np.save(tmp_path / "vase" / "depth" / "003.npy", np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"003\.npy holds numbers of the shape \(3, 3, 1\)"):
        found[1]
    (tmp_path / "vase" / "depth" / "000.npy").unlink()
    assert (
        "gt_depth_filenames"
        not in IdrDataParserConfig(data=tmp_path / "vase").setup().get_dataparser_outputs("train").metadata
    )


@pytest.mark.parametrize("source", ["procedural", "idr"])
def test_surface_is_scored_in_units_of_the_source(tmp_path, capsys, source):
    if source == "procedural":
        parser = ProceduralObjectDataParserConfig(object="spheres", size=8, views=8, num_views=4, radius=5.2)
    else:
        Make("spheres", tmp_path / "it", views=8, size=8, radius=5.2).main()
        parser = IdrDataParserConfig(data=tmp_path / "it", num_views=4)
    found = SurfaceDataManagerConfig(dataparser=parser).setup(device="cpu", test_mode="inference")
    scale, target = 3 / 1.1 / 5.2, get_object("spheres")

    class Model:
        device = torch.device("cpu")
        grown = 0.0

        def signed_distance(self, points):
            return (target.sdf(points / scale) - self.grown) * scale

    exact, model = found.scene_metrics(Model()), Model()
    assert exact["chamfer"] < 0.02 and exact["f_score"] > 0.99 and exact["normal_consistency"] > 0.97
    model.grown = 0.1
    assert 0.08 < found.scene_metrics(model)["surface_completeness"] < 0.12
    assert "Surface against the true one" in capsys.readouterr().out
    model.grown = -5.0
    assert found.scene_metrics(model) == {} and "was not scored" in capsys.readouterr().out
    assert found.scene_metrics(torch.nn.Identity()) == {}, "no distance, no surface"


def test_model_is_told_what_only_the_data_knows(tmp_path):
    parser = ProceduralObjectDataParserConfig(size=8, views=8, num_views=4, radius=4.0)
    opened = SurfaceDataManagerConfig(dataparser=parser).setup(device="cpu", test_mode="inference").train_dataset
    assert opened.metadata["opened"] and "has_masks" not in opened.metadata
    training = SurfaceDataManagerConfig(dataparser=parser).setup(device="cpu", test_mode="val").train_dataset
    assert training.metadata["has_masks"] and not training.metadata["opened"]
    assert training.metadata["camera_reach"] == pytest.approx(3 / 1.1, rel=1e-3)


def test_chosen_views_take_along_what_is_theirs(tmp_path):
    outputs = outputs_of(tmp_path, metadata={"names": ["a", "b", "c", "d"], "scale": 2.0, "points": torch.zeros(4, 3)})
    chosen = select_views(outputs, [3, 1])
    assert [path.name for path in chosen.image_filenames] == ["3.png", "1.png"]
    assert [path.name for path in chosen.mask_filenames] == ["mask_3.png", "mask_1.png"]
    assert chosen.metadata["names"] == ["d", "b"] and len(chosen.metadata["points"]) == 4
    assert torch.equal(chosen.cameras.camera_to_worlds, outputs.cameras.camera_to_worlds[[3, 1]])


@pytest.fixture
def blender(tmp_path):
    """A scene in Blender's layout: 6 training and 5 test views of 8x8 pixels with an alpha channel."""
    for split, count in (("train", 6), ("val", 2), ("test", 5)):
        (tmp_path / split).mkdir()
        frames = []
        for k, pose in enumerate(rig_poses("hemisphere", count, 4.0)):
            matrix = torch.cat([pose, torch.tensor([[0.0, 0, 0, 1]])])
            frames.append({"file_path": f"./{split}/r_{k}", "transform_matrix": matrix.tolist()})
            picture = np.zeros((8, 8, 4), np.uint8)
            picture[2:6, 2:6] = [200, 30 * k, 0, 255]
            Image.fromarray(picture).save(tmp_path / split / f"r_{k}.png")
        text = json.dumps({"camera_angle_x": 0.7, "frames": frames})
        (tmp_path / f"transforms_{split}.json").write_text(text)
    return tmp_path


def manager(folder, **options):
    config = SurfaceDataManagerConfig(dataparser=BlenderDataParserConfig(data=folder), **options)
    return config.setup(device="cpu", test_mode="test")


def test_views_of_any_parser_can_be_chosen(blender, capsys):
    found = manager(blender, train_views="1,4", max_test_views=2)
    names = [path.name for path in found.train_dataset.image_filenames]
    assert names == ["r_1.png", "r_4.png"] and "2 training views: r_1, r_4" in capsys.readouterr().out
    assert [path.name for path in found.eval_dataset.image_filenames] == ["r_0.png", "r_2.png"]
    assert len(manager(blender, num_views=3).train_dataset) == 3
    assert len(manager(blender).train_dataset) == 6
    for everything in (dict(num_views=6), dict(train_views="5,4,3,2,1,0")):
        found = manager(blender, **everything)
        assert [path.name for path in found.train_dataset.image_filenames] == [f"r_{k}.png" for k in range(6)]
        assert len(found.eval_dataset) == 5, "what is held out is another part of the data"
    with pytest.raises(InputError, match=r"num-views 7 does not fit .*choose 1 to 6"):
        manager(blender, num_views=7)
    with pytest.raises(InputError, match="give one of them"):
        manager(blender, train_views="0,1", num_views=6)
    with pytest.raises(InputError, match="max-test-views 0 leaves no view"):
        manager(blender, max_test_views=0)
    with pytest.raises(InputError, match="view 6, but the training part"):
        manager(blender, train_views="6")


def test_stock_cameras_are_normalised_and_alpha_is_the_mask(blender):
    found = manager(blender, num_views=4)
    radii = found.train_dataset.cameras.camera_to_worlds[:, :, 3].norm(dim=-1)
    assert float(radii.max()) == pytest.approx(3 / 1.1, rel=1e-3)
    item = found.train_dataset[0]
    assert float(item["fg_mask"].mean()) == pytest.approx(0.25) and item["image"].shape == (8, 8, 3)
    assert torch.equal(item["image"][0, 0], torch.ones(3)), "blended with white"


def test_what_becomes_of_transparency_is_said_once(blender, tmp_path, capsys):
    manager(blender, num_views=4)
    said = capsys.readouterr().out
    assert said.count("alpha channels") == 1
    assert said.count("of their rays hit the sphere of radius 1") == 1
    assert "what these hide is white, and the channels are the foreground masks; the dataparser's --alpha-color" in said
    config = SurfaceDataManagerConfig(dataparser=BlenderDataParserConfig(data=blender, alpha_color="black"))
    capsys.readouterr()
    found = config.setup(device="cpu", test_mode="test")
    assert "what these hide is black" in capsys.readouterr().out
    assert torch.equal(found.train_dataset[0]["image"][0, 0], torch.zeros(3))


def test_transparency_of_a_parser_without_a_choice_is_said(tmp_path, capsys):
    Make("spheres", tmp_path / "it", views=4, size=8).main()
    options = dict(dataparser=IdrDataParserConfig(data=tmp_path / "it", num_views=2))
    capsys.readouterr()
    SurfaceDataManagerConfig(**options).setup(device="cpu", test_mode="test")
    assert "alpha" not in capsys.readouterr().out, "opaque pictures are not spoken of"
    for path in (tmp_path / "it" / "image").iterdir():
        picture = Image.open(path).convert("RGBA")
        picture.putalpha(Image.open(tmp_path / "it" / "mask" / path.name))
        picture.save(path)
    SurfaceDataManagerConfig(**options).setup(device="cpu", test_mode="test")
    said = capsys.readouterr().out
    assert "not used besides, since there are masks; save them on another background to choose otherwise" in said
