from dataclasses import replace

import numpy as np
import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.procedural import human
from nerfstudio_ext.procedural.human import HumanSceneOptions, gains, human_scene, paint
from nerfstudio_ext.procedural.loose_clothes import SECTORS, skirt

OPTIONS = HumanSceneOptions(frames=3, cameras=3, size=48)


@pytest.fixture(scope="module")
def scene():
    pytest.importorskip("anny")
    pytest.importorskip("embreex")
    return human_scene(OPTIONS)


def project(scene, frame, camera):
    """Pixel positions (x, y) and distances of all vertices."""
    pose = scene.poses[camera]
    local = (scene.motion.vertices[frame] - pose[:, 3]) @ pose[:, :3]
    pixels = local[:, :2] / -local[:, 2:] * scene.focal * torch.tensor([1.0, -1.0]) + OPTIONS.size / 2
    return pixels, (scene.motion.vertices[frame] - pose[:, 3]).norm(dim=1)


@pytest.mark.extra("anny")
@pytest.mark.slow
def test_pictures_masks_depth_and_vertices_agree(scene):
    for frame in range(3):
        for camera in range(3):
            pixels, distance = project(scene, frame, camera)
            mask = scene.mask[frame, camera]
            assert 0.03 < float(mask.float().mean()) < 0.3
            assert not bool(scene.rgb[frame, camera][~mask].any()), "black beside the person"
            assert float(scene.rgb[frame, camera][mask].amax(-1).min()) > 0.02
            assert float((scene.depth[frame, camera] > 0).float().ne(mask.float()).sum()) == 0
            # Vertices fall on the mask or on a pixel beside it, and none lies before the surface.
            column, row = pixels.floor().long().unbind(1)
            near = torch.nn.functional.max_pool2d(mask.float()[None], 3, 1, 1)[0] > 0
            assert float(near[row, column].float().mean()) > 0.98
            seen = mask[row, column]
            before = scene.depth[frame, camera][row, column][seen] - distance[seen]
            assert float((before < 0.05).float().mean()) > 0.97


@pytest.mark.extra("anny")
@pytest.mark.slow
def test_the_person_moves_and_turns_and_is_drawn_once(scene, monkeypatch):
    vertices, motion = scene.motion.vertices, scene.motion
    assert float((vertices[0] - vertices[1]).norm(dim=-1).mean()) > 0.05
    assert float(motion.root_rotation[-1, 2]) == pytest.approx(2.0944, abs=1e-3)
    monkeypatch.setattr("nerfstudio_ext.procedural.human.anny_body", lambda phenotype: pytest.fail("drawn again"))
    again = human_scene(OPTIONS)
    assert torch.equal(again.rgb, scene.rgb) and torch.equal(again.motion.vertices, vertices)


@pytest.mark.extra("anny")
@pytest.mark.slow
@pytest.mark.parametrize("spoilt", ["half a file", "another file", "a cache that cannot be written"])
def test_a_spoilt_cache_is_no_reason_to_stop(spoilt, scene, monkeypatch, tmp_path):
    """Drawn as before, and put right where that can be; other processes' unfinished files are left alone."""
    monkeypatch.setenv("NERFSTUDIO_EXT_CACHE", str(tmp_path / "cache"))
    drawn = []

    def draw(motion, options):
        drawn.append(options)
        return replace(scene, motion=motion)

    monkeypatch.setattr(human, "anny_body", lambda phenotype: None)
    monkeypatch.setattr(human, "walk", lambda *rest: scene.motion)
    monkeypatch.setattr(human, "draw_motion", draw)
    if spoilt == "a cache that cannot be written":
        (tmp_path / "cache").touch()
    else:
        human_scene(OPTIONS)
        (file,) = (tmp_path / "cache" / "human").iterdir()
        whole = file.read_bytes()
        file.with_suffix(".partial.npz").touch()
        if spoilt == "half a file":
            file.write_bytes(whole[: len(whole) // 2])
        else:
            np.savez(file, vertices=np.zeros(3))
    found = human_scene(OPTIONS)
    assert torch.equal(found.rgb, scene.rgb) and torch.equal(found.depth, scene.depth)
    assert torch.equal(found.motion.vertices, scene.motion.vertices)
    if spoilt != "a cache that cannot be written":
        assert len(drawn) == 2 and torch.equal(human_scene(OPTIONS).mask, scene.mask) and len(drawn) == 2
        assert len(list(file.parent.iterdir())) == 2


@pytest.mark.extra("anny")
@pytest.mark.slow
def test_exposure_wanders_from_frame_to_frame(scene):
    bright = human_scene(replace(OPTIONS, gain=0.3))
    factor = gains(replace(OPTIONS, gain=0.3))
    assert len(set(factor.tolist())) == 3 and bool(((factor > 0.7) & (factor < 1.3)).all())
    for frame in range(3):
        torch.testing.assert_close(bright.rgb[frame], (scene.rgb[frame] * factor[frame]).clamp(max=1))
    assert torch.equal(bright.mask, scene.mask)
    with pytest.raises(InputError, match="below 1, not 1"):
        human_scene(replace(OPTIONS, gain=1.0))


@pytest.mark.extra("anny")
@pytest.mark.extra("embreex")
@pytest.mark.slow
def test_a_skirt_is_seen_and_follows_no_skeleton(scene):
    dressed = human_scene(replace(OPTIONS, loose=True))
    assert torch.equal(dressed.motion.vertices, scene.motion.vertices), "the body is the body's"
    assert bool((dressed.mask | ~scene.mask).all()) and float(dressed.mask.sum()) > 1.1 * float(scene.mask.sum())
    # Where pictures differ, cloth is before the body or where nothing was.
    changed = (dressed.rgb - scene.rgb).abs().amax(-1) > 0.05
    nearer = (scene.depth == 0) | (dressed.depth < scene.depth)
    assert float(changed.float().mean()) > 0.01 and bool(nearer[changed].all())
    # Seen from the body as a whole the waist stays, and the hem moves by centimetres.
    cloth = skirt(scene.motion)
    turns = rotation_matrix(scene.motion.root_rotation)
    local = (cloth.vertices - scene.motion.root_translation[:, None]) @ turns
    moved = (local - local[:1]).norm(dim=-1).amax(0).view(-1, SECTORS)
    assert float(moved[0].max()) < 1e-5 and float(moved[-1].mean()) > 0.04
    assert int(cloth.faces.max()) < len(cloth.colours) == cloth.vertices.shape[1]
    assert bool(((cloth.colours >= 0) & (cloth.colours <= 1)).all())


def test_colours_tell_left_from_right_and_front_from_back():
    corners = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0.5, -1.0, 0.0], [0.5, 1.0, 0.0], [0, 0, -2], [0, 0, 2]])
    left, right, front, back = paint(corners)[:4]
    assert float(left[0]) > float(left[2]) and float(right[2]) > float(right[0])
    assert float(front.sum()) > 1.3 * float(back.sum())


def test_scenes_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="two cameras"):
        human_scene(HumanSceneOptions(cameras=1))
