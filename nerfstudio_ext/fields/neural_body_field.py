"""Structured latent codes on a body, and the networks that read them (Neural Body, sections 3.1 to 3.4)."""

from dataclasses import dataclass, field
from typing import List, Literal, Tuple, Type

import torch
from jaxtyping import Float, Int
from nerfstudio.configs.base_config import InstantiateConfig
from torch import Tensor, nn

from nerfstudio_ext.human.body_grid import BodyFrame
from nerfstudio_ext.human.sparse_conv import NormName, SparseTower, sample
from nerfstudio_ext.surface.sdf_network import encode_frequencies, encoded_dims

AWAKE = 0.1
"""Median density per metre that a field starts with at least: next to nothing, but on the open side."""


@dataclass
class NeuralBodyFieldConfig(InstantiateConfig):
    """Architecture; the defaults are the paper's."""

    _target: Type = field(default_factory=lambda: NeuralBodyField)
    code_width: int = 16
    """Numbers in the code of each vertex."""
    channels: Tuple[int, int, int, int] = (32, 64, 128, 128)
    """Features of the levels at 1/2, 1/4, 1/8 and 1/16 of the grid's resolution."""
    norm: NormName = "batch"
    """Normalisation in the tower: batch (the paper's; its running means lag in short trainings) or layer."""
    width: int = 256
    """Width of the density network."""
    colour_width: int = 128
    """Width of the colour network's last hidden layer."""
    latent_width: int = 128
    """Numbers in the latent code of each frame."""
    position_octaves: int = 10
    """Octaves of the encoded position, which only the colour sees."""
    direction_octaves: int = 4
    """Octaves of the encoded viewing direction."""
    level_mapping: Literal["exact", "official"] = "exact"
    """Where the levels are read: at their exact place, or as the published code does it, up to one voxel of a level off
    at the far side of the grid."""


class NeuralBodyField(nn.Module):
    """Density from the diffused codes alone; colour from codes, frame, position (metres) and direction.

    Args:
        config: Architecture.
        num_vertices: Vertices of the body.
        num_frames: Frames that have a latent code.
    """

    def __init__(self, config: NeuralBodyFieldConfig, num_vertices: int, num_frames: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.codes = nn.Parameter(torch.randn(num_vertices, config.code_width))
        self.latents = nn.Parameter(torch.randn(num_frames, config.latent_width))
        self.tower = SparseTower(config.code_width, config.channels, config.norm)
        self.trunk = nn.Sequential(
            nn.Linear(sum(config.channels), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.density_head = nn.Linear(width, 1)
        self.feature_head = nn.Linear(width, width)
        self.latent_head = nn.Linear(width + config.latent_width, width)
        encoded = encoded_dims(3, config.direction_octaves) + encoded_dims(3, config.position_octaves)
        self.view_head = nn.Linear(width + encoded, config.colour_width)
        self.colour_head = nn.Linear(config.colour_width, 3)

    def volumes(self, frame: BodyFrame) -> List[Tensor]:
        """The codes diffused around the body of one frame: features of the sites of four levels."""
        return self.tower(self.codes, frame.tables)

    def hidden(self, points: Float[Tensor, "n 3"], frame: BodyFrame, volumes: List[Tensor]) -> Float[Tensor, "n width"]:
        """What density and colour share at world points."""
        voxels, grids = frame.voxels(points), frame.tables.rows
        levels = [
            sample(features, grids[level], self._place(voxels, grids[level], level))
            for level, features in enumerate(volumes, 1)
        ]
        return self.trunk(torch.cat(levels, dim=-1))

    def _place(self, voxels: Float[Tensor, "n 3"], grid: Int[Tensor, "z y x"], level: int) -> Float[Tensor, "n 3"]:
        """Voxels of the finest level in voxels of another one."""
        # A stride-2 convolution centres its output j on input 2 j, so level l is read at q / 2^l exactly.
        place = voxels / 2**level
        if self.config.level_mapping == "exact":
            return place
        # The published code stretches [0, shape] of the finest grid over [0, shape_l - 1] of the level.
        shape = (voxels.new_tensor(grid.shape) - 2) * 2**level
        return place - voxels / shape

    @torch.no_grad()
    def wake(self, points: Float[Tensor, "n 3"], frame: BodyFrame) -> None:
        """Raise the density's bias where fewer than half of the points have any: behind a rectifier that is shut at
        nearly all of them nothing would be learned."""
        raw = self.density_head(self.hidden(points, frame, self.volumes(frame)))[:, 0]
        if float((raw > 0).float().mean()) < 0.5:
            self.density_head.bias += AWAKE - raw.median()

    def density(self, hidden: Float[Tensor, "n width"]) -> Float[Tensor, "n"]:
        """Volume density per metre."""
        return torch.relu(self.density_head(hidden))[:, 0]

    def colour(
        self,
        hidden: Float[Tensor, "n width"],
        points: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        latent: Float[Tensor, "latent"],
    ) -> Float[Tensor, "n 3"]:
        """Colours in [0, 1] at points seen along unit directions, with the latent code of their frame; both are in
        the world's frame (the paper's) or both in the body's."""
        latent = latent.expand(len(points), -1)
        mixed = self.latent_head(torch.cat([self.feature_head(hidden), latent], dim=-1))
        encoded = [
            encode_frequencies(directions, self.config.direction_octaves),
            encode_frequencies(points, self.config.position_octaves),
        ]
        return torch.sigmoid(self.colour_head(torch.relu(self.view_head(torch.cat([mixed, *encoded], dim=-1)))))
