import numpy as np
import pytest
import torch

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.human.body_keypoints import body_keypoints
from nerfstudio_ext.procedural.person import BODY_KEYPOINTS, make_person

NAMES = tuple(BODY_KEYPOINTS.values())


@pytest.mark.extra("anny")
def test_joints_of_posed_bodies_are_found_from_their_skin():
    """Of people of any build; moving a body moves its joints with it."""
    for seed in range(3):
        person = make_person(np.random.default_rng(seed))
        found = body_keypoints(person.body, NAMES)
        apart = (found - person.keypoints).norm(dim=-1)
        assert float(apart.mean()) < 0.015 and float(apart.max()) < 0.05
    moved = body_keypoints(1.1 * person.body + torch.tensor([2.0, 0.0, -1.0]), NAMES)
    torch.testing.assert_close(moved, 1.1 * found + torch.tensor([2.0, 0.0, -1.0]), atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="not the free model"):
        body_keypoints(person.body[:100], NAMES)
