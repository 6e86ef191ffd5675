import json

import numpy as np
import pytest
import torch
from nerfstudio.cameras.camera_paths import get_path_from_json
from PIL import Image

from dataparsers.idr import IdrDataParserConfig
from dataparsers.procedural_object import ProceduralObjectDataParserConfig
from nerfstudio_ext.cli.data import Make
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.procedural.object_scene import ObjectScene, ObjectSceneOptions
from nerfstudio_ext.procedural.rigs import look_at_origin, rig_poses


def content(poses, fovs, width=24, height=16):
    """What the viewer writes."""
    entries = [
        {
            "camera_to_world": torch.cat([pose, torch.tensor([[0.0, 0, 0, 1]])]).flatten().tolist(),
            "fov": fov,
            "aspect": width / height,
        }
        for pose, fov in zip(poses, fovs)
    ]
    sizes = {"render_width": width, "render_height": height}
    return {"camera_type": "perspective", **sizes, "fps": 24, "seconds": 1.0, "keyframes": [], "camera_path": entries}


def written(folder, found):
    path = folder / "path.json"
    path.write_text(json.dumps(found))
    return path


def options(path, **more):
    return ObjectSceneOptions("spheres", rig="path", camera_path=path, **{"size": 24, **more})


def test_a_rig_as_a_path_draws_the_same(tmp_path):
    path = written(tmp_path, content(rig_poses("ring", 3, 2.6), [50.0] * 3, 16, 16))
    drawn = ObjectScene(options(path, size=16)).view(2)
    wanted = ObjectScene(ObjectSceneOptions("spheres", num_views=3, size=16, rig="ring")).view(2)
    assert torch.allclose(drawn.rgb, wanted.rgb, atol=1e-5) and torch.equal(drawn.mask, wanted.mask)


def test_cameras_are_those_that_the_host_renders(tmp_path):
    found = content(rig_poses("hemisphere", 5, 2.2), [30.0, 40.0, 50.0, 60.0, 70.0])
    path = written(tmp_path, found)
    parser = ProceduralObjectDataParserConfig(
        object="spheres", rig="path", camera_path=path, size=24, train_views="0,3", max_test_views=None
    )
    outputs = parser.setup().get_dataparser_outputs("train")
    cameras, wanted = outputs.cameras, get_path_from_json(found)
    scene = outputs.metadata["object_views"]
    assert (scene.width, scene.height, len(scene.poses)) == (24, 16, 5)
    for k, index in enumerate((0, 3)):
        ours, theirs = cameras.generate_rays(camera_indices=k), wanted.generate_rays(camera_indices=index)
        assert torch.allclose(ours.directions, theirs.directions, atol=1e-5)
        assert torch.allclose(ours.origins, theirs.origins)
        assert torch.allclose(scene.rays(index), theirs.directions, atol=1e-5)
        view = scene.view(index)
        points = (ours.origins + view.depth[..., None] * ours.directions)[view.mask]
        assert view.rgb.shape == (16, 24, 3) and scene.object.sdf(points).abs().max() < 3e-4


def test_written_path_is_read_back(tmp_path):
    path = written(tmp_path, content(rig_poses("ring", 9, 2.6), [50.0] * 9, 16, 24))
    Make("spheres", tmp_path / "it", views=4, size=24, rig="path", camera_path=path).main()
    outputs = IdrDataParserConfig(data=tmp_path / "it", train_views="1,2").setup().get_dataparser_outputs("train")
    assert Image.open(outputs.image_filenames[0]).size == (16, 24)
    scene = ObjectScene(options(path, num_views=4))
    assert torch.allclose(scene.poses, rig_poses("ring", 9, 2.6)[[0, 2, 4, 6]]), "evenly chosen"
    assert torch.allclose(outputs.cameras.generate_rays(camera_indices=1).directions, scene.rays(2), atol=1e-5)


def test_another_path_under_the_same_name_is_drawn_anew(tmp_path):
    path = written(tmp_path, content(rig_poses("ring", 2, 2.6), [50.0] * 2))
    before = ObjectScene(options(path)).folder
    written(tmp_path, content(rig_poses("ring", 2, 2.7), [50.0] * 2))
    assert ObjectScene(options(path)).folder != before


def change(**entry):
    def edit(found):
        found["camera_path"][1].update(entry)

    return edit


def matrix(position=(0.0, -2.6, 0.0), scale=1.0):
    pose = torch.cat([look_at_origin(torch.tensor([position])), torch.tensor([[[0.0, 0, 0, 1]]])], dim=1)[0]
    pose[:3, :3] *= scale
    return pose.tolist()


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda found: found.update(camera_path=[]), r"path\.json holds no cameras: add two keyframes"),
        (lambda found: found.pop("camera_path"), r"is no camera path \(KeyError: 'camera_path'\)"),
        (lambda found: found.update(camera_type="fisheye"), "pictures of the kind fisheye"),
        (change(camera_to_world=matrix((0.0, -0.6, 0.0))), "Camera 1 of .* stands 0.60 from the origin, inside"),
        (change(camera_to_world=matrix((0.0, -9.0, 0.0))), "stands 9.00 from the origin, behind the background at 8"),
        (change(camera_to_world=[float("nan")] * 16), "Camera 1 .* not finite"),
        (change(camera_to_world=matrix(scale=2.0)), "pose of camera 1 .* holds no rotation"),
        (change(camera_to_world=[1.0] * 9), "Camera 1 of .* is none .ValueError"),
        (change(fov=None), "Camera 1 of .* is none .TypeError"),
        (change(fov=180), "fov of 180 degrees"),
        (change(aspect=1.0), "Camera 1 of .* pictures of another shape .1. than the first .1.5."),
    ],
)
def test_bad_paths_are_named(tmp_path, edit, sentence):
    found = content(rig_poses("ring", 3, 2.6), [50.0] * 3)
    edit(found)
    with pytest.raises(InputError, match=sentence):
        ObjectScene(options(written(tmp_path, found)))


def test_paths_that_are_none_are_named(tmp_path):
    with pytest.raises(InputError, match=r"There is no camera path .*path\.json"):
        ObjectScene(options(tmp_path / "path.json"))
    (tmp_path / "path.json").write_text("{half")
    with pytest.raises(InputError, match=r"is no camera path .JSONDecodeError"):
        ObjectScene(options(tmp_path / "path.json"))
    away = rig_poses("ring", 2, 2.6)
    away[:, :, :3] = away[:, :, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    path = written(tmp_path, content(away, [50.0] * 2))
    with pytest.raises(InputError, match=r"No camera of .* sees the object"):
        ObjectScene(options(path))
    for wrong in (dict(rig="path"), dict(rig="ring", camera_path=path)):
        with pytest.raises(InputError, match="belong together"):
            ObjectScene(ObjectSceneOptions("spheres", **wrong))


def test_far_cameras_may_stand_anywhere_without_background(tmp_path):
    path = written(tmp_path, content(rig_poses("ring", 1, 20.0), [10.0]))
    view = ObjectScene(options(path, background=False)).view(0)
    assert bool(view.mask.any()) and np.isfinite(view.rgb.numpy()).all()
