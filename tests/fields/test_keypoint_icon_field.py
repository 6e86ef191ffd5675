"""The field of KeypointICON: points keep their codes, modes see what they should, and the sides belong to the mask."""

import dataclasses

import pytest
import torch
import trimesh

from nerfstudio_ext.engine.errors import InputError
from nerfstudio_ext.fields.keypoint_icon_field import KeypointIconField, KeypointIconFieldConfig
from nerfstudio_ext.human.body_surface import BodySurface
from nerfstudio_ext.human.photo import Photo
from nerfstudio_ext.human.photo_camera import PhotoCamera

SMALL = KeypointIconFieldConfig(
    side_width=4,
    side_halvings=2,
    side_blocks=1,
    stem=4,
    hourglass_width=8,
    hourglass_depth=1,
    stacks=2,
    features=3,
    widths=(16, 16, 8),
)
KEYPOINTS = 5


def photo(batch: int = 2) -> Photo:
    mask = torch.zeros(batch, 1, 32, 32)
    mask[..., 4:28, 8:24] = 1
    motion = torch.cat([torch.eye(3), torch.tensor([[0.0], [0.0], [3.0]])], dim=1).expand(batch, 3, 4)
    camera = PhotoCamera(
        motion, torch.full((batch, 1), 3.0), torch.zeros(batch, 2), torch.arange(batch)[:, None] % 2 == 0
    )
    return Photo(torch.rand(batch, 3, 32, 32) * mask, mask, camera, torch.rand(batch, KEYPOINTS, 3) - 0.5)


def built(**changes) -> KeypointIconField:
    return dataclasses.replace(SMALL, **changes).setup(num_keypoints=KEYPOINTS)


def asked(field: KeypointIconField, given: Photo, points: torch.Tensor) -> torch.Tensor:
    return field.logits(field.encode(given, field.sides(given)), points)


@pytest.mark.parametrize(
    "changes", [{}, {"visibility": "depth"}, {"visibility": "mean"}, {"raw_normals": True}, {"encoding": "z"}]
)
def test_every_stack_learns_from_every_input(changes):
    field, given = built(**changes).train(), photo()
    logits = asked(field, given, torch.rand(2, 7, 3) - 0.5)
    assert logits.shape == (2, 2, 7)
    logits.square().sum().backward()
    unused = [name for name, p in field.named_parameters() if p.grad is None or not p.grad.any()]
    # The far side's colours are for the eye alone: they have no say in the occupancy.
    assert all(name.startswith(("near_side", "far_side")) for name in unused)
    assert len(field.eval().logits(field.encode(given, field.sides(given)), torch.rand(2, 7, 3))) == 1


def test_moving_points_about_moves_their_answers_with_them():
    """The published configuration mixed the codes of different points by a reshape; here they stay with theirs."""
    field, given, points = built().eval(), photo(), torch.rand(2, 9, 3) - 0.5
    order = torch.randperm(9)
    torch.testing.assert_close(asked(field, given, points[:, order]), asked(field, given, points)[..., order])
    alone = asked(field, given, points[:, 3:4])
    torch.testing.assert_close(asked(field, given, points)[..., 3:4], alone)


def test_people_in_one_batch_do_not_see_each_other():
    field, given, points = built().eval(), photo(), torch.rand(2, 9, 3) - 0.5
    both = asked(field, given, points)
    for k in range(2):
        one = Photo(
            given.rgb[k : k + 1], given.mask[k : k + 1], given.camera[torch.tensor([k])], given.keypoints[k : k + 1]
        )
        torch.testing.assert_close(asked(field, one, points[k : k + 1])[:, 0], both[:, k], atol=1e-5, rtol=1e-4)


def test_keypoints_and_nothing_else_tell_points_behind_each_other_apart():
    """All features come from the picture; without an encoding, points on one ray are the same point."""
    given = photo(2)
    points = torch.tensor([0.1, 0.0, -0.2]).expand(2, 1, 3)
    behind = points + torch.tensor([0.0, 0.0, 0.4])  # the second camera's rays run along z
    for encoding, same in (("none", True), ("rel_z_decay", False)):
        field = built(encoding=encoding).eval()
        near, far = (asked(field, given, x)[0, 1] for x in (points, behind))
        assert torch.allclose(near, far, atol=1e-6) == same


def test_sides_are_unit_normals_on_the_mask_and_nothing_beside_it():
    given = photo()
    sides = built().sides(given)
    for normals in (sides.normals, sides.back_normals):
        torch.testing.assert_close(normals.norm(dim=1, keepdim=True), given.mask, atol=1e-4, rtol=0)
    assert not (sides.back_rgb * (1 - given.mask)).any()


def test_depth_chooses_the_side_that_a_point_is_on():
    field, given = built(visibility="depth").eval(), photo(1)
    encoded = field.encode(given, field.sides(given))
    changed = [maps.clone() for maps in encoded.maps]
    for maps in changed:
        maps[:, 3:] += 1.0
    behind = dataclasses.replace(encoded, maps=changed)
    points = given.keypoints.mean(1)[:, None] + torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    moved = (field.logits(encoded, points) - field.logits(behind, points))[0, 0].abs()
    assert float(moved[0]) == 0 and float(moved[1]) > 0


def test_the_mean_of_the_sides_cannot_tell_them_apart():
    field, given = built(visibility="mean").eval(), photo(1)
    encoded = field.encode(given, field.sides(given))
    swapped = dataclasses.replace(encoded, maps=[maps.roll(3, dims=1) for maps in encoded.maps])
    other = dataclasses.replace(encoded, maps=[torch.cat([x[:, :3], x[:, 3:] + 1], dim=1) for x in encoded.maps])
    points = torch.rand(1, 9, 3) - 0.5
    torch.testing.assert_close(field.logits(encoded, points), field.logits(swapped, points))
    assert not torch.allclose(field.logits(encoded, points), field.logits(other, points), atol=1e-4)


def test_depth_alone_is_measured_from_the_person():
    """A camera that looks along parallel rays sees the same from further away, and so must the network."""
    field, near = built(encoding="z").eval(), photo(2)
    further = near.camera.world_to_camera + torch.tensor([[0.0] * 4] * 2 + [[0.0, 0.0, 0.0, 1.7]])
    camera = dataclasses.replace(near.camera, world_to_camera=further, perspective=torch.zeros(2, 1) > 0)
    near = dataclasses.replace(near, camera=dataclasses.replace(near.camera, perspective=camera.perspective))
    points = torch.rand(2, 9, 3) - 0.5
    torch.testing.assert_close(
        asked(field, near, points), asked(field, dataclasses.replace(near, camera=camera), points)
    )


@pytest.mark.parametrize("changes", [{"encoding": "body"}, {"visibility": "mesh"}])
def test_bodies_are_read_or_asked_for(changes):
    """Each person by its own body: the answers about the other one do not move when one body does."""
    field, given = built(**changes).eval(), photo()
    points = torch.rand(2, 40, 3) - 0.5
    with pytest.raises(InputError, match="body without clothes"):
        asked(field, given, points)
    bodies = [ball_at(0.0), ball_at(0.0)]
    moved = [bodies[0], ball_at(0.4)]
    one, other = (asked(field, dataclasses.replace(given, bodies=tuple(b)), points)[0] for b in (bodies, moved))
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1], atol=1e-5)


def ball_at(place: float) -> BodySurface:
    mesh = trimesh.creation.icosphere(3, 0.3)
    vertices = torch.tensor(mesh.vertices).float() + place
    return BodySurface(vertices, torch.tensor(mesh.faces), vertices)
