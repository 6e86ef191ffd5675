import torch

from nerfstudio_ext.human.skinning import bone_transforms, rotation_matrix, skin, unskin

PARENTS = (-1, 0, 1, 1)


def rig(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    joints = torch.rand(4, 3, generator=generator, dtype=dtype)
    weights = torch.rand(50, 4, generator=generator, dtype=dtype)
    vertices = torch.rand(50, 3, generator=generator, dtype=dtype)
    return vertices, joints, weights / weights.sum(1, keepdim=True)


def test_rotation_matrix_turns_about_the_axis():
    quarter = rotation_matrix(torch.tensor([0.0, 0.0, torch.pi / 2]))
    torch.testing.assert_close(quarter @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))


def test_skinning_equals_a_slow_loop():
    vertices, joints, weights = rig()
    turns = rotation_matrix(torch.randn(3, 4, 3, dtype=torch.float64))
    posed = skin(vertices, weights, bone_transforms(turns, joints, PARENTS))
    for frame in range(3):
        for v in range(0, 50, 7):
            total = torch.zeros(3, dtype=torch.float64)
            for bone in range(4):
                x, at = vertices[v], bone
                while at >= 0:
                    x = turns[frame, at] @ (x - joints[at]) + joints[at]
                    at = PARENTS[at]
                total += weights[v, bone] * x
            torch.testing.assert_close(posed[frame, v], total)


def test_unskinning_undoes_it_and_gradients_flow():
    vertices, joints, weights = rig()
    angles = (0.3 * torch.randn(2, 4, 3, dtype=torch.float64)).requires_grad_()
    transforms = bone_transforms(rotation_matrix(angles), joints, PARENTS)
    posed = skin(vertices, weights, transforms)
    torch.testing.assert_close(unskin(posed, weights, transforms), vertices.expand(2, -1, -1))
    posed.square().sum().backward()
    assert bool((angles.grad.abs() > 0).any(-1).all())
