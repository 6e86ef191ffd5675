import sys

import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_model import anny_body
from nerfstudio_ext.human.skinning import rotation_matrix


@pytest.fixture(scope="module")
def body():
    pytest.importorskip("anny")
    return anny_body({"gender": 0.3})


@pytest.mark.extra("anny")
@pytest.mark.slow
def test_poses_are_those_of_the_package(body):
    """The package's own skinning, to 1e-5 m, for random rotations of all joints."""
    import anny

    model = anny.Anny(skinning_method="lbs")
    turns = rotation_matrix(0.3 * torch.randn(3, len(body.parents), 3))
    pose = torch.eye(4).repeat(3, len(body.parents), 1, 1)
    pose[..., :3, :3] = turns
    theirs = model(pose_parameters=pose, phenotype_kwargs={"gender": 0.3})["vertices"]
    assert float((body.pose(turns) - theirs).abs().max()) < 1e-5
    assert float((theirs - theirs[:1]).abs().max()) > 0.05


@pytest.mark.extra("anny")
@pytest.mark.slow
def test_the_body_is_a_standing_person_in_metres(body):
    low, high = body.rest_vertices.amin(0), body.rest_vertices.amax(0)
    assert 1.4 < float(high[2] - low[2]) < 2.0
    torch.testing.assert_close(body.weights.sum(1), torch.ones(len(body.weights)))
    left = body.joints[body.joint_names.index("upperarm01.L")]
    assert float(left[0]) > 0.05, "it faces -y, so its left is at +x"
    with pytest.raises(InputError, match="no joint 'tail'"):
        body.rotations({"tail": torch.zeros(1, 3)})


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "anny", None)
    with pytest.raises(InputError, match=r"nerfstudio-ext\[human\]"):
        anny_body({})
