import ast
import inspect

import pytest
import torch

from nerfstudio_ext.procedural import pictures
from nerfstudio_ext.procedural.pictures import BODIES, _clouds, _Dice, _noise, procedural_pictures
from nerfstudio_ext.procedural.rigs import look_at_origin


def dice(seed=0):
    return _Dice(torch.Generator().manual_seed(seed))


def test_pictures_show_something_and_differ():
    drawn = procedural_pictures(3, 32)
    assert all(picture.shape == (32, 32, 3) and picture.std() > 0.03 for picture in drawn)
    assert (drawn[0] - drawn[1]).abs().mean() > 0.05
    assert torch.equal(drawn[2] * 255, (drawn[2] * 255).round()), "8 bit, whatever the machine rounds"
    assert torch.equal(drawn[1], procedural_pictures(2, 32)[1]), "the number asked for changes nothing"
    assert not torch.equal(drawn[0], procedural_pictures(1, 32, seed=1)[0])


def test_test_objects_are_not_among_them():
    """A codebook learned from these has not seen what it is judged by."""
    tree = ast.parse(inspect.getsource(pictures))
    taken = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.endswith((".objects", ".object_scene"))
        for alias in node.names
    }
    assert taken == {"trace", "Points", "SdfObject", "Values"}


@pytest.mark.parametrize("seed", range(6))
def test_solids_may_be_traced(seed):
    """Their values never exceed the way to any other point, and no solid leaves the unit sphere or is nothing."""
    distance = dice(seed).solid()
    a = torch.rand(2000, 3, dtype=torch.float64) * 2.4 - 1.2
    b = a + 0.05 * torch.randn(2000, 3, dtype=torch.float64)
    assert ((distance(a) - distance(b)).abs() <= (a - b).norm(dim=-1) + 1e-9).all()
    assert (distance(a)[a.norm(dim=-1) > 1.1] > 0).all()


def test_every_body_has_an_inside():
    sizes = torch.tensor([0.3, 0.4, 0.2], dtype=torch.float64)
    for body in BODIES:
        assert body(torch.zeros(1, 3, dtype=torch.float64), sizes) < -0.1
        assert body(torch.full((1, 3), 0.9, dtype=torch.float64), sizes) > 0


def test_noise_is_even_and_clouds_are_smooth():
    cells = torch.randint(-50, 50, (5000, 3))
    values = _noise(cells, 5)
    assert values.min() >= 0 and values.max() < 1
    assert abs(float(values.mean()) - 0.5) < 0.02 and abs(float(values.std()) - 12**-0.5) < 0.02
    p = torch.rand(500, 3, dtype=torch.float64) * 9
    near = _clouds(p, 1) - _clouds(p + 1e-4, 1)
    assert near.abs().max() < 0.01 and _clouds(p, 1).std() > 0.05


def test_cameras_keep_their_precision():
    assert look_at_origin(torch.ones(1, 3, dtype=torch.float64)).dtype == torch.float64
