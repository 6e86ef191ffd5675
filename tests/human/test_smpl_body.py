import json
import math
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.spatial.transform import Rotation

from nerfstudio_ext.cli.human import Smpl
from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_motion import read_body, read_frame_ids
from nerfstudio_ext.human.keypoints import SKELETONS
from nerfstudio_ext.human.skinning import rotation_matrix
from nerfstudio_ext.human.smpl_body import easymocap_motion, from_smplx, read_smpl
from nerfstudio_ext.human.smpl_params import read_params

VERTICES, JOINTS, SHAPES = 40, 24, 10
PARENTS = [4294967295, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]


LARGER = {"smplh": (52, 10), "smplx": (55, 20), "smplx 400": (55, 400)}
"""Joints, and shape directions of their files."""


def family_parents(joints):
    """Of SMPL's 22 body joints, with chains of three for each finger at the wrists, and jaw and eyes at the head."""
    if joints == JOINTS:
        return PARENTS
    face = [15] * 3 if joints == 55 else []
    hands = [wrist if k % 3 == 0 else 22 + len(face) + 15 * side + k - 1
             for side, wrist in enumerate((20, 21)) for k in range(15)]  # fmt: skip
    return [*PARENTS[:22], *face, *hands]


def contents(joints=JOINTS, shapes=SHAPES):
    """A body of the family's layout with random numbers; no licensed data."""
    random = np.random.default_rng(0)
    weights, regressor = random.random((VERTICES, joints)), random.random((joints, VERTICES))
    hands = {} if joints == JOINTS else {
        **{f"hands_components{side}": random.normal(size=(45, 45)) for side in "lr"},
        **{f"hands_mean{side}": 0.3 * random.normal(size=45) for side in "lr"},
    }  # fmt: skip
    return {
        "v_template": random.uniform(-1, 1, (VERTICES, 3)),
        "f": random.integers(0, VERTICES, (60, 3)).astype(np.uint32),
        "shapedirs": 0.05 * random.normal(size=(VERTICES, 3, shapes)),
        "posedirs": 0.02 * random.normal(size=(VERTICES, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([family_parents(joints), range(joints)], dtype=np.uint32),
        **hands,
    }


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "body.npz", **contents())
    return tmp_path / "body.npz"


def plain(pose, betas, blend_shapes=True, c=None):
    """The published equations, joint by joint and vertex by vertex, in double precision."""
    c = contents() if c is None else c
    parents = c["kintree_table"][0].astype(int)
    shaped = c["v_template"] + c["shapedirs"] @ betas
    joints = c["J_regressor"] @ shaped
    turns = Rotation.from_rotvec(pose).as_matrix()
    posed = shaped + (c["posedirs"] @ (turns[1:] - np.eye(3)).ravel() if blend_shapes else 0)
    world = []
    for joint, turn in enumerate(turns):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = turn, joints[joint] - (joints[parents[joint]] if joint else 0)
        world.append(world[parents[joint]] @ local if joint else local)
    result = np.zeros((VERTICES, 3))
    for vertex in range(VERTICES):
        for joint in range(len(turns)):
            moved = world[joint][:3, :3] @ (posed[vertex] - joints[joint]) + world[joint][:3, 3]
            result[vertex] += c["weights"][vertex, joint] * moved
    return result


@pytest.mark.parametrize("blend_shapes", [True, False])
def test_poses_are_those_of_the_equations(path, blend_shapes):
    torch.manual_seed(0)
    poses, betas = 0.5 * torch.randn(3, JOINTS, 3), torch.randn(SHAPES)
    found = read_smpl(path).shaped(betas, blend_shapes).pose(rotation_matrix(poses))
    for frame in range(3):
        wanted = plain(poses[frame].double().numpy(), betas.double().numpy(), blend_shapes)
        np.testing.assert_allclose(found[frame].numpy(), wanted, atol=1e-5)


@pytest.fixture(params=list(LARGER))
def larger(request, tmp_path):
    """Contents and file of a body with hands; the file holds a Python object beside, as SMPL-X's do."""
    arrays = contents(*LARGER[request.param])
    np.savez(tmp_path / "larger.npz", **arrays, joint2num=np.array({"jaw": 22}, dtype=object))
    return request.param, arrays, tmp_path / "larger.npz"


def test_hands_and_faces_are_those_of_the_equations(larger):
    """Whole poses, and EasyMocap's few numbers of hands; SMPL-X's expressions are shapes of their own."""
    name, arrays, path = larger
    body, joints = read_smpl(path), LARGER[name][0]
    torch.manual_seed(0)
    few = 0.3 * torch.randn(2, 78 if joints == 52 else 87)
    betas, expressions = torch.randn(10), torch.randn(2, 10)
    face = few[:, 78:]
    hands = [few[:, 66 + 6 * k : 72 + 6 * k] @ torch.from_numpy(arrays[f"hands_components{side}"][:6]).float()
             + torch.from_numpy(arrays[f"hands_mean{side}"]).float() for k, side in enumerate("lr")]  # fmt: skip
    whole = torch.cat([few[:, :66], face, *hands], dim=1).view(2, joints, 3)
    torch.testing.assert_close(body.whole_poses(few), whole)
    assert torch.equal(body.whole_poses(whole.flatten(1)), whole)
    shown = joints == 55
    if not shown:
        with pytest.raises(InputError, match="name 10 expressions, but the body's file knows 0"):
            body.shaped(betas, expressions=expressions)
        expressions = torch.zeros(2, 10)
    found = body.shaped(betas, expressions=expressions).pose(rotation_matrix(body.whole_poses(few)))
    for frame in range(2):
        numbers = np.zeros(arrays["shapedirs"].shape[2])
        numbers[:10] = betas
        if shown:
            start = 300 if name == "smplx 400" else 10
            numbers[start : start + 10] = expressions[frame]
        wanted = plain(whole[frame].double().numpy(), numbers, c=arrays)
        np.testing.assert_allclose(found[frame].numpy(), wanted, atol=3e-5)
    assert (body.expression_directions is not None) == shown
    zero = torch.zeros(2, 3)
    motion = easymocap_motion(body, few, betas, zero, zero, expressions=expressions)
    assert motion.vertices.shape == (2, VERTICES, 3)
    with pytest.raises(InputError, match="another family"):
        body.whole_poses(few[:, 1:])


def test_shapes_that_a_file_does_not_know_are_refused(path):
    """Zeros beyond those that it knows say nothing."""
    body, betas = read_smpl(path), torch.zeros(16)
    betas[:10] = torch.randn(10)
    torch.testing.assert_close(body.shaped(betas).rest_vertices, body.shaped(betas[:10]).rest_vertices)
    betas[12] = 0.5
    with pytest.raises(InputError, match="name 16 shapes, but the body's file knows 10"):
        body.shaped(betas)


def test_hands_that_a_file_does_not_tell_are_asked_for(larger, tmp_path):
    name, arrays, _ = larger
    np.savez(tmp_path / "bare.npz", **{key: value for key, value in arrays.items() if "hands" not in key})
    with pytest.raises(InputError, match="no hands_componentsl"):
        read_smpl(tmp_path / "bare.npz").whole_poses(torch.zeros(1, 78 if name == "smplh" else 87))
    np.savez(tmp_path / "odd.npz", **{**arrays, "hands_meanr": np.zeros(7)})
    with pytest.raises(InputError, match="must have 45 columns"):
        read_smpl(tmp_path / "odd.npz")


@pytest.mark.extra("smplx")
def test_hands_and_faces_are_those_of_the_package(larger, monkeypatch):
    """The makers' own code, where somebody has installed it; it is no dependency."""
    import smplx

    name, arrays, path = larger
    kind = name.split()[0]
    landmarks = {"lmk_faces_idx": np.zeros(51, int), "lmk_bary_coords": np.full((51, 3), 1 / 3)}
    kinds = {"smplh": smplx.SMPLH, "smplx": smplx.SMPLX}
    options = {"num_betas": 10, "num_pca_comps": 6, "flat_hand_mean": False, "use_face_contour": False}
    np.savez(path, **arrays, **landmarks)
    # Its key points are vertices of the real bodies, which ours are too small for.
    known = smplx.body_models.VERTEX_IDS
    monkeypatch.setitem(known, kind, dict.fromkeys(known[kind], 0))
    theirs = kinds[kind](str(path), ext="npz", batch_size=2, **options)
    torch.manual_seed(0)
    few, betas, expressions = 0.3 * torch.randn(2, 87), torch.randn(10), torch.randn(2, 10)
    given = {"global_orient": few[:, :3], "body_pose": few[:, 3:66], "left_hand_pose": few[:, 66:72],
             "right_hand_pose": few[:, 72:78], "betas": betas.expand(2, -1)}  # fmt: skip
    if kind == "smplx":
        given |= {"jaw_pose": few[:, 78:81], "leye_pose": few[:, 81:84], "reye_pose": few[:, 84:],
                  "expression": expressions}  # fmt: skip
    body = read_smpl(path)
    expressions = expressions if kind == "smplx" else None
    whole = rotation_matrix(body.whole_poses(few[:, : 78 if kind == "smplh" else 87]))
    found = body.shaped(betas, expressions=expressions).pose(whole)
    torch.testing.assert_close(found, theirs(**given).vertices.detach(), rtol=0, atol=3e-5)


@pytest.mark.extra("smplx")
def test_easymocaps_bodies_stand_where_the_package_puts_them(path):
    """The package's global_orient and transl, converted, as Rh and Th."""
    import smplx

    ids = dict.fromkeys(smplx.body_models.VERTEX_IDS["smplh"], 0)
    theirs = smplx.SMPL("", data_struct=smplx.utils.Struct(**contents()), batch_size=2, vertex_ids=ids)
    torch.manual_seed(1)
    body, betas = read_smpl(path), torch.randn(SHAPES)
    poses, orient, transl = 0.3 * torch.randn(2, 3 * (JOINTS - 1)), torch.randn(2, 3), torch.randn(2, 3)
    turn, shift = from_smplx(body, betas, orient, transl)
    wanted = theirs(betas=betas.expand(2, -1), body_pose=poses, global_orient=orient, transl=transl).vertices
    found = easymocap_motion(body, poses, betas, turn, shift).vertices
    torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-5)


def test_easymocap_turns_about_the_origin_and_smplx_about_the_pelvis(path):
    """Both give the same vertices after the conversion, to 1e-5 m."""
    torch.manual_seed(1)
    body, betas = read_smpl(path), torch.randn(SHAPES)
    poses, orient, transl = 0.3 * torch.randn(2, 3 * (JOINTS - 1)), torch.randn(2, 3), torch.randn(2, 3)
    turn, shift = from_smplx(body, betas, orient, transl)
    motion = easymocap_motion(body, poses, betas, turn, shift)
    whole = torch.cat([orient, poses], dim=1).view(2, JOINTS, 3)
    posed = body.shaped(betas).pose(rotation_matrix(whole))
    torch.testing.assert_close(motion.vertices, posed + transl[:, None], rtol=0, atol=1e-5)
    assert float((transl - shift).norm(dim=-1).min()) > 1e-3
    again = easymocap_motion(body, torch.cat([torch.ones(2, 3), poses], dim=1), betas, turn, shift)
    torch.testing.assert_close(again.vertices, motion.vertices, msg="the root's own pose does not count")
    with pytest.raises(InputError, match="156 numbers, but a body with 24 joints needs 72"):
        easymocap_motion(body, torch.zeros(2, 156), betas, turn, shift)


def test_the_body_comes_as_all_of_the_suite_do(path):
    """Joints, key points and poses are asked for as of the free body model."""
    smpl, betas = read_smpl(path), torch.randn(SHAPES)
    body = smpl.shaped(betas)
    turns = 0.4 * torch.randn(2, 3)
    rotations = body.rotations({"left_knee": turns})
    wanted = plain(np.vstack([np.zeros((4, 3)), turns[1:].numpy(), np.zeros((19, 3))]), betas.double().numpy())
    np.testing.assert_allclose(body.pose(rotations)[1].numpy(), wanted, atol=1e-5)
    assert torch.equal(body.find_keypoints()["left_wrist"] @ body.rest_vertices, body.joints[20])
    assert set(body.find_keypoints()) == set(SKELETONS["coco17"][5:])


@pytest.mark.parametrize("convention", ["easymocap", "smpl"])
def test_parameters_of_either_convention(path, tmp_path, convention):
    random, betas = np.random.default_rng(3), np.zeros(SHAPES)
    pose, root, shift = (0.3 * random.normal(size=size) for size in (72, 3, 3))
    pose[:3] = 0
    (tmp_path / "params").mkdir()
    person = {"poses": [pose.tolist()], "Rh": [root.tolist()], "Th": [shift.tolist()], "shapes": [betas.tolist()]}
    (tmp_path / "params" / "000007.json").write_text(json.dumps([person]))
    Smpl(path, tmp_path / "params", tmp_path / "out.npz", convention=convention).main()
    whole = pose.reshape(24, 3)
    if convention == "smpl":
        wanted = plain(np.vstack([root, whole[1:]]), betas) + shift
    else:
        wanted = Rotation.from_rotvec(root).apply(plain(whole, betas)) + shift
    np.testing.assert_allclose(read_body(tmp_path / "out.npz").vertices[0].numpy(), wanted, atol=1e-5)
    assert read_frame_ids(tmp_path / "out.npz") == [7]


def whole_motion(tmp_path, numbers=72, frames=25, **changes):
    """A file in the form of AMASS's: 25 frames of 120 a second."""
    random = np.random.default_rng(5)
    found = {"poses": 0.3 * random.normal(size=(frames, numbers)), "trans": random.normal(size=(frames, 3)),
             "betas": 0.5 * random.normal(size=SHAPES), "mocap_framerate": np.array(120.0),
             "gender": np.array("female"), "dmpls": np.zeros((frames, 8)), **changes}  # fmt: skip
    np.savez(tmp_path / "motion.npz", **{key: value for key, value in found.items() if value is not None})
    return tmp_path / "motion.npz", found


def test_a_whole_motion_in_one_file(path, tmp_path, capsys):
    """Root and shift as SMPL's makers mean them; frames are thinned by their times."""
    file, held = whole_motion(tmp_path)
    Smpl(path, file, tmp_path / "all.npz").main()
    told = capsys.readouterr().out
    assert "25 frames of 40 vertices" in told and "gender 'female'" in told
    found = read_body(tmp_path / "all.npz")
    for frame in (0, 7):
        wanted = plain(held["poses"][frame].reshape(24, 3), held["betas"]) + held["trans"][frame]
        np.testing.assert_allclose(found.vertices[frame].numpy(), wanted, atol=1e-5)
    for fps, chosen in [(30, [0, 4, 8, 12, 16, 20, 24]), (50, [0, 2, 5, 7, 10, 12, 14, 17, 19, 22, 24]), (120, None)]:
        Smpl(path, file, tmp_path / "few.npz", fps=fps).main()
        numbers = chosen or list(range(25))
        assert read_frame_ids(tmp_path / "few.npz") == numbers
        torch.testing.assert_close(read_body(tmp_path / "few.npz").vertices, found.vertices[numbers], atol=1e-5, rtol=0)
    Smpl(path, file, tmp_path / "about.npz", convention="easymocap").main()
    still = np.vstack([np.zeros(3), held["poses"][3].reshape(24, 3)[1:]])
    wanted = Rotation.from_rotvec(held["poses"][3, :3]).apply(plain(still, held["betas"])) + held["trans"][3]
    np.testing.assert_allclose(read_body(tmp_path / "about.npz").vertices[3].numpy(), wanted, atol=1e-5)


def test_whole_motions_of_larger_bodies(larger, tmp_path):
    """Whole poses of SMPL-H (156 numbers) and SMPL-X (165); a gender that is a Python object is not read."""
    name, content, body = larger
    joints = LARGER[name][0]
    file, held = whole_motion(tmp_path, 3 * joints, frames=2, gender=np.array("male", dtype=object))
    Smpl(body, file, tmp_path / "out.npz").main()
    wanted = plain(held["poses"][1].reshape(joints, 3), np.resize(np.r_[held["betas"], np.zeros(500)],
                   content["shapedirs"].shape[2]), c=content) + held["trans"][1]  # fmt: skip
    np.testing.assert_allclose(read_body(tmp_path / "out.npz").vertices[1].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "changes,fps,message",
    [
        (dict(trans=None), None, "it lacks trans"),
        (dict(trans=np.zeros((3, 3))), None, r"poses \[25, 72\] and trans \[3, 3\]"),
        (dict(poses=np.zeros((25, 156))), None, "156 numbers, but a body with 24 joints needs 72"),
        (dict(betas=np.ones(16)), None, "shapes"),
        (dict(betas=np.array("thin")), None, "must be numbers"),
        (dict(betas=np.zeros((2, 2))), None, r"betas \[2, 2\] must be one shape"),
        (dict(poses=np.full((25, 72), np.nan)), None, "not finite"),
        (dict(mocap_framerate=None), 30, "has no mocap_framerate"),
        ({}, 240, "--fps 240 .* its motion has 120"),
        ({}, 0, "--fps 0 "),
    ],
)
def test_whole_motions_that_cannot_be_are_refused(path, tmp_path, changes, fps, message):
    file, _ = whole_motion(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        Smpl(path, file, tmp_path / "out.npz", fps=fps).main()
    with pytest.raises(InputError, match=r"is for one \.npz"):
        Smpl(path, tmp_path, tmp_path / "out.npz", fps=30).main()


def test_published_files_are_read_without_running_them(path, tmp_path):
    """Sparse regressors and chumpy's objects, whose package no longer installs."""
    module = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch
    sys.modules["chumpy"], sys.modules["chumpy.ch"] = types.ModuleType("chumpy"), module
    try:
        changed = {**contents(), "J_regressor": scipy.sparse.csc_matrix(contents()["J_regressor"])}
        changed["shapedirs"] = Ch(contents()["shapedirs"])
        (tmp_path / "body.pkl").write_bytes(pickle.dumps(changed, protocol=2))
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]
    one, other = read_smpl(tmp_path / "body.pkl"), read_smpl(path)
    assert torch.equal(one.shape_directions, other.shape_directions) and torch.equal(one.regressor, other.regressor)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"v_template": math.sqrt}))
    with pytest.raises(InputError, match=r"wants to load math\.sqrt"):
        read_smpl(tmp_path / "bad.pkl")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(weights=None), "lacks weights"),
        (dict(posedirs=np.zeros((VERTICES, 3, 9))), "posedirs is .* need .*207"),
        (dict(v_template=np.zeros((7, 3))), "v_template is .7, 3., but its 40 vertices"),
        (dict(kintree_table=np.array([[0, 2, 0, *[0] * 21], range(24)])), "does not precede"),
    ],
)
def test_other_files_are_refused(change, sentence, tmp_path):
    arrays = {key: value for key, value in {**contents(), **change}.items() if value is not None}
    np.savez(tmp_path / "body.npz", **arrays)
    with pytest.raises(InputError, match=sentence):
        read_smpl(tmp_path / "body.npz")
    with pytest.raises(InputError, match="after a form"):
        read_smpl(tmp_path / "gone.pkl")


def test_parameters_of_both_kinds_become_a_motion(path, tmp_path, capsys):
    random = np.random.default_rng(2)
    sizes = {"poses": 72, "Rh": 3, "Th": 3, "shapes": 10}
    frames = [{key: 0.2 * random.normal(size=(1, size)) for key, size in sizes.items()} for _ in range(11)]
    for kind in ("zju", "easymocap", "older"):
        (tmp_path / kind).mkdir()
    for k, frame in enumerate(frames):
        np.save(tmp_path / "zju" / f"{k}.npy", np.array(frame, dtype=object), allow_pickle=True)
        person = {key: value.tolist() for key, value in frame.items()}
        (tmp_path / "easymocap" / f"{k:06d}.json").write_text(json.dumps({"annots": [person]}))
        (tmp_path / "older" / f"{k:06d}.json").write_text(json.dumps([person]))
    motions = []
    for kind in ("zju", "easymocap", "older"):
        Smpl(path, tmp_path / kind, tmp_path / f"{kind}.npz").main()
        motions.append(read_body(tmp_path / f"{kind}.npz"))
    assert "11 frames of 40 vertices" in capsys.readouterr().out
    assert read_frame_ids(tmp_path / "zju.npz") == list(range(11)), "so that a capture finds its frames"
    assert torch.equal(motions[0].vertices, motions[1].vertices) and torch.equal(
        motions[0].vertices, motions[2].vertices
    )
    # The tenth frame comes after the ninth, not after the first.
    np.testing.assert_allclose(motions[0].root_translation[10].numpy(), frames[10]["Th"][0], atol=1e-6)
    for k, file in enumerate(sorted((tmp_path / "older").iterdir())):
        person = {**{key: value.tolist() for key, value in frames[k].items()}, "expression": [[0.1 * k] * 10]}
        file.write_text(json.dumps([person]))
    found = read_params(tmp_path / "older").expressions
    assert found is not None and found.shape == (11, 10) and float(found[10, 0]) == pytest.approx(1)
    assert read_params(tmp_path / "zju").expressions is None
    np.save(tmp_path / "zju" / "3.npy", np.array({"poses": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"3\.npy must hold"):
        read_params(tmp_path / "zju")
    (tmp_path / "older" / "000003.json").write_text("[]")
    with pytest.raises(InputError, match="no file of EasyMocap"):
        read_params(tmp_path / "older")
    with pytest.raises(InputError, match="holds no parameters"):
        read_params(tmp_path)
