"""Pictures to learn codebooks from: random solids in random patterns before random backgrounds.

They share no shape, no pattern and no background with the objects that methods are tried on (`objects.py`), so that a
codebook learned here has not seen what it is judged by. Arithmetic is in double precision and colours are rounded to 8
bit: other machines draw the same pictures.
"""

import math
from typing import Callable, List, Tuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfstudio_ext.procedural.object_scene import trace
from nerfstudio_ext.procedural.objects import Points, SdfObject, Values
from nerfstudio_ext.procedural.rigs import look_at_origin

FIELD_OF_VIEW = math.radians(45)
Pattern = Callable[[Points], Points]


def procedural_pictures(count: int = 128, size: int = 64, seed: int = 0) -> List[Float[Tensor, "size size 3"]]:
    """Square pictures in [0, 1], each of another solid; the first ones do not depend on how many are asked for.

    Args:
        count: How many.
        size: Width and height in pixels.
        seed: Decides everything else.
    """
    generators = [torch.Generator().manual_seed(seed * 1_000_003 + k) for k in range(count)]
    return [_Dice(generator).picture(size) for generator in generators]


class _Dice:
    """Draws random things; each call goes on where the last one ended."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def number(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def choice(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self._generator))

    def colour(self) -> Float[Tensor, "3"]:
        return torch.rand(3, generator=self._generator, dtype=torch.float64) * 0.9 + 0.05

    def direction(self) -> Float[Tensor, "3"]:
        vector = torch.randn(3, generator=self._generator, dtype=torch.float64)
        return vector / vector.norm()

    def rotation(self) -> Float[Tensor, "3 3"]:
        x = self.direction()
        z = torch.linalg.cross(x, self.direction())
        z = z / z.norm()
        return torch.stack([x, torch.linalg.cross(z, x), z])

    def solid(self) -> Callable[[Points], Values]:
        """Two to five simple bodies that flow into one another or not, sometimes with a slot cut out."""
        bodies = [(self.choice(len(BODIES)), self._placed()) for _ in range(2 + self.choice(4))]
        flow = (0.0, 0.06, 0.15)[self.choice(3)]
        slot = (self.direction(), self.number(0.03, 0.08)) if self.choice(3) == 0 else None

        def distance(p: Points) -> Values:
            result = None
            for kind, (rotation, centre, sizes) in bodies:
                part = BODIES[kind]((p - centre) @ rotation.T, sizes)
                result = part if result is None else _union(result, part, flow)
            assert result is not None
            return result if slot is None else torch.maximum(result, slot[1] - (p @ slot[0]).abs())

        return distance

    def _placed(self) -> Tuple[Tensor, Tensor, Tensor]:
        sizes = torch.tensor([self.number(0.18, 0.45) for _ in range(3)], dtype=torch.float64)
        return self.rotation(), self.direction() * self.number(0.0, 0.4), sizes

    def pattern(self) -> Pattern:
        """Colours of points in space: clouds, stripes, checks, cells or spots in two or more colours."""
        kind, a, b, c = self.choice(5), self.colour(), self.colour(), self.colour()
        rate, turn, salt = math.exp(self.number(math.log(1.2), math.log(6.0))), self.rotation(), self.choice(1 << 20)
        warp = self.number(0.0, 0.4)

        def colours(p: Points) -> Points:
            q = (p + warp * (_clouds(3 * p, salt + 7) - 0.5)[:, None]) @ turn.T * rate
            grain = _clouds(2 * q, salt + 3)[:, None]
            if kind == 0:
                share = _clouds(q, salt)[:, None]
            elif kind == 1:
                share = torch.sigmoid(8 * torch.sin(2 * q[:, :1]))
            elif kind == 2:
                share = (torch.floor(q).sum(-1, keepdim=True).long() % 2).double()
            else:
                near, cell = _cells(q, salt)
                if kind == 3:
                    tint = torch.stack([_noise(cell, salt + k) for k in range(3)], dim=-1)
                    return (0.7 * tint + 0.3 * a) * (0.8 + 0.2 * grain)
                share = torch.sigmoid(20 * (near - 0.35))[:, None]
            return a + share * (b - a) + 0.25 * (grain - 0.5) * c

        return colours

    def picture(self, size: int) -> Float[Tensor, "size size 3"]:
        """One solid in front of a background that is infinitely far away."""
        target = SdfObject(self.solid(), self.pattern())
        background, sun, ambient = self.pattern(), self.direction(), self.number(0.35, 0.8)
        place = self.direction() * self.number(2.1, 2.8)
        pose = look_at_origin(place[None])[0]
        pixel = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1
        y, x = torch.meshgrid(-pixel, pixel, indexing="ij")
        local = torch.stack([x, y, torch.full_like(x, -1 / math.tan(FIELD_OF_VIEW / 2))], dim=-1).reshape(-1, 3)
        directions = torch.nn.functional.normalize(local @ pose[:, :3].T, dim=-1)
        depth, hit = trace(target, place.expand_as(directions), directions)
        rgb = background(1.5 * directions)
        points = place + depth[hit, None] * directions[hit]
        light = (target.normals(points) @ sun).clamp(min=0)[:, None]
        rgb[hit] = target.albedo(points) * (ambient + (1 - ambient) * light)
        return ((rgb.clamp(0, 1) * 255).round() / 255).reshape(size, size, 3).float()


def _ellipsoid(p: Points, sizes: Tensor) -> Values:
    return ((p / sizes).norm(dim=-1) - 1) * sizes.min()


def _octahedron(p: Points, sizes: Tensor) -> Values:
    return (p.abs().sum(-1) - 1.4 * sizes[0]) / math.sqrt(3)


def _cylinder(p: Points, sizes: Tensor) -> Values:
    q = torch.stack([p[:, :2].norm(dim=-1) - 0.7 * sizes[0], p[:, 2].abs() - sizes[1]], dim=-1)
    return q.clamp(min=0).norm(dim=-1) + q.amax(dim=-1).clamp(max=0)


def _hexagon(p: Points, sizes: Tensor) -> Values:
    """Prism over a hexagon."""
    x, y, z = p.abs().unbind(-1)
    return torch.maximum(torch.maximum(math.sqrt(0.75) * x + 0.5 * y, y) - 0.8 * sizes[0], z - sizes[1])


BODIES = (_ellipsoid, _octahedron, _cylinder, _hexagon)
"""Lower bounds of the distance to bodies about the origin, of three half sizes in world units."""


def _union(a: Values, b: Values, flow: float) -> Values:
    if flow == 0:
        return torch.minimum(a, b)
    h = (flow - (a - b).abs()).clamp(min=0) / flow
    return torch.minimum(a, b) - h * h * (flow / 4)


def _noise(cell: Int[Tensor, "points 3"], salt: int) -> Values:
    """A number in [0, 1) for each cell of the integer grid (mixing of bits; products wrap around)."""
    h = cell[:, 0] * 73856093 ^ cell[:, 1] * 19349663 ^ cell[:, 2] * 83492791 ^ salt * 2654435761
    h = (h ^ (h >> 15)) * 2246822519 & 0xFFFFFFFF
    h = (h ^ (h >> 13)) * 3266489917 & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF).double() / (1 << 24)


def _clouds(p: Points, salt: int) -> Values:
    """Smooth noise of three octaves in [0, 1]."""
    total, weight = torch.zeros_like(p[:, 0]), 0.5
    for octave in range(3):
        q = p * 2**octave
        cell, share = torch.floor(q), q - torch.floor(q)
        share = share * share * (3 - 2 * share)
        value = torch.zeros_like(total)
        for corner in range(8):
            bits = torch.tensor([corner >> axis & 1 for axis in range(3)])
            part = torch.where(bits > 0, share, 1 - share).prod(-1)
            value = value + part * _noise(cell.long() + bits, salt + octave)
        total, weight = total + weight * value, weight / 2
    return total / 0.875


def _cells(p: Points, salt: int) -> Tuple[Values, Int[Tensor, "points 3"]]:
    """Distance to the nearest of the points that lie at random in the cells of the integer grid, and its cell."""
    home = torch.floor(p).long()
    best, chosen = torch.full_like(p[:, 0], math.inf), home
    for index in range(27):
        cell = home + torch.tensor([index // 9 - 1, index // 3 % 3 - 1, index % 3 - 1])
        centre = cell + torch.stack([_noise(cell, salt + 11 + k) for k in range(3)], dim=-1)
        distance = (p - centre).norm(dim=-1)
        chosen = torch.where((distance < best)[:, None], cell, chosen)
        best = torch.minimum(best, distance)
    return best, chosen
