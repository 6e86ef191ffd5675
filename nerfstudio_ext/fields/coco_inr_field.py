"""The four networks of CoCo-INR: distance and colour of the object, density and colour of what lies behind it.

Each may read prototypes that were distilled from a codebook. The prototypes depend on parameters only, so a `Context`
is worked out once per training step and once per set of weights, and handed to every evaluation of the step.
"""

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple, Type, cast

import torch
from jaxtyping import Float
from nerfstudio.configs.base_config import InstantiateConfig
from torch import Tensor, nn

from nerfstudio_ext.codebook.attention import (
    Attention,
    CodebookAttention,
    CoordinateAttention,
    KeysValues,
    attention_entropy,
)
from nerfstudio_ext.surface.feature_grid import FeatureGrid
from nerfstudio_ext.surface.sdf_network import SdfNetwork, SharpSoftplus, encode_frequencies, encoded_dims

Context = Dict[str, List[KeysValues]]
"""Keys and values of the prototypes for each network that reads them; empty where none does."""


@dataclass
class CoCoINRFieldConfig(InstantiateConfig):
    """Architecture; the defaults are the paper's."""

    _target: Type = field(default_factory=lambda: CoCoINRField)
    num_prototypes: int = 256
    """Prototypes of each network."""
    prototype_width: int = 128
    """Numbers in each prototype."""
    heads: int = 4
    """Attention heads."""
    head_width: int = 32
    """Width of each head."""
    depth: int = 3
    """Self-attention blocks among the prototypes."""
    layers: int = 4
    """Hidden layers of the distance network and of the background's density."""
    width: int = 256
    """Width of those layers, and of the feature that they hand to the colour."""
    skip: Optional[int] = None
    """Hidden layer of the distance network that sees the input again (VolSDF: 4)."""
    colour_layers: int = 0
    """Hidden layers of the colour networks; 0 is the one linear layer that suffices after attention."""
    colour_attentions: int = 2
    """How often the object's colour reads the prototypes."""
    position_octaves: int = 6
    """Octaves of the position's encoding."""
    colour_octaves: int = 0
    """Octaves of the position's encoding for the object's colour; 0 is the paper's bare position."""
    direction_octaves: int = 4
    """Octaves of the view direction's encoding."""
    background_octaves: int = 10
    """Octaves of the encoding of background points."""
    grid_sizes: Tuple[int, ...] = ()
    """Points along each side of grids of trained features that join the encoding of the position for the distance
    (not in the paper; fine detail in far fewer steps); none: the encoding alone."""
    grid_radius: float = 1.2
    """Half the side of the cube about the origin that the grids fill, in units of the normalised scene."""
    initial_radius: float = 0.6
    """Radius of the sphere that training starts from, in units of the normalised scene."""


class CoCoINRField(nn.Module):
    """The networks; see the module's text.

    Args:
        config: Architecture.
        codebook: Code vectors; none makes the prototypes themselves parameters, and an empty table stands for the one
            of the checkpoint that will be loaded.
        attention: Whether points read prototypes at all; without, the networks are VolSDF's.
    """

    codebook: Optional[Tensor]

    def __init__(
        self,
        config: CoCoINRFieldConfig,
        codebook: Optional[Float[Tensor, "codes width"]] = None,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("codebook", codebook if attention else None)
        self._cached: Optional[Context] = None
        self.register_load_state_dict_post_hook(CoCoINRField._forget)

        encoded = encoded_dims(3, config.position_octaves)
        self.grid = FeatureGrid(config.grid_sizes, config.grid_radius) if config.grid_sizes else None
        position = encoded + (self.grid.width if self.grid is not None else 0)
        direction = encoded_dims(3, config.direction_octaves)
        beyond = encoded_dims(4, config.background_octaves)
        colour = encoded_dims(3, config.colour_octaves) + direction + 3 + config.width
        background_colour = direction + config.width
        readers: Dict[str, CoordinateAttention] = {}
        if attention:
            readers = {
                "sdf": self._reader(position, 1, SharpSoftplus()),
                "colour": self._reader(colour, config.colour_attentions, nn.GELU()),
                "background_density": self._reader(beyond, 1, SharpSoftplus()),
                "background_colour": self._reader(background_colour, 1, nn.GELU()),
            }
        self.readers = nn.ModuleDict(readers)
        self.prototypes = nn.ModuleDict({name: self._prototype_source() for name in readers})

        extra = 2 if attention else 1
        self.sdf_network = SdfNetwork(
            extra * position,
            config.width,
            config.layers,
            1 + config.width,
            config.initial_radius,
            config.skip,
            features=range(encoded, position),
        )
        self.colour_network = _mlp(colour, config.width, config.colour_layers, 3, nn.ReLU)
        self.background_density = _mlp(extra * beyond, config.width, config.layers, 1 + config.width, SharpSoftplus)
        self.background_colour = _mlp(background_colour, config.width, config.colour_layers, 3, nn.ReLU)

    def _reader(self, query_width: int, blocks: int, activation: nn.Module) -> CoordinateAttention:
        c = self.config
        return CoordinateAttention(query_width, c.prototype_width, c.heads, c.head_width, blocks, activation)

    def _prototype_source(self) -> nn.Module:
        c = self.config
        if self.codebook is None:
            return Prototypes(torch.randn(c.num_prototypes, c.prototype_width))
        return CodebookAttention(
            self.codebook.shape[1], c.num_prototypes, c.prototype_width, c.heads, c.head_width, c.depth
        )

    def context(self) -> Context:
        """Keys and values of all prototypes: anew while gradients are recorded, otherwise kept until weights change."""
        if torch.is_grad_enabled() or self._cached is None:
            context = {
                name: cast(CoordinateAttention, reader).keys_values(self.prototypes[name](self.codebook))
                for name, reader in self.readers.items()
            }
            if torch.is_grad_enabled():
                return context
            self._cached = context
        return self._cached

    def train(self, mode: bool = True) -> "CoCoINRField":
        self._cached = None
        return super().train(mode)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "CoCoINRField":
        # What moves to another device or precision leaves the cached numbers behind.
        self._cached = None
        return super()._apply(fn, recurse)

    def _forget(self, *_) -> None:
        self._cached = None

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        """Take the codebook's size from the checkpoint where it is not known yet; torch loads submodules after this."""
        stored = state_dict.get(f"{prefix}codebook")
        if self.codebook is not None and not len(self.codebook) and stored is not None:
            self.codebook = torch.empty_like(stored, device=self.codebook.device)
            self.prototypes = nn.ModuleDict({name: self._prototype_source() for name in self.readers}).to(
                self.codebook.device
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def bake(self) -> None:
        """Put the prototypes in the place of what computes them; outputs stay the same, training does not go on."""
        with torch.no_grad():
            for name in self.readers:
                self.prototypes[name] = Prototypes(self.prototypes[name](self.codebook).detach(), trained=False)
        self.codebook, self._cached = None, None

    def _position(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n encoded"]:
        """What the distance network sees of a point, and asks the prototypes with."""
        h = encode_frequencies(x, self.config.position_octaves)
        return h if self.grid is None else torch.cat([h, self.grid(x)], dim=-1)

    def sdf_and_feature(
        self, x: Float[Tensor, "n 3"], context: Context
    ) -> Tuple[Float[Tensor, "n"], Float[Tensor, "n width"]]:
        """Signed distance, negative inside, and the feature for the colour, at points of the normalised frame."""
        h = self._position(x)
        if "sdf" in context:
            h = torch.cat([h, self.readers["sdf"](h, context["sdf"])], dim=-1)
        out = self.sdf_network(h)
        return out[:, 0], out[:, 1:]

    def sdf(self, x: Float[Tensor, "n 3"], context: Context) -> Float[Tensor, "n"]:
        """Signed distance alone."""
        return self.sdf_and_feature(x, context)[0]

    def sdf_gradient(
        self, x: Float[Tensor, "n 3"], context: Context
    ) -> Tuple[Float[Tensor, "n"], Float[Tensor, "n width"], Float[Tensor, "n 3"]]:
        """Distance, feature and the distance's gradient; the gradient can be differentiated again in training."""
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            sdf, feature = self.sdf_and_feature(x, context)
            (gradient,) = torch.autograd.grad(sdf.sum(), x, create_graph=recording, retain_graph=recording)
        if not recording:
            sdf, feature = sdf.detach(), feature.detach()
        return sdf, feature, gradient

    def colour(
        self,
        x: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        gradient: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n width"],
        context: Context,
    ) -> Float[Tensor, "n 3"]:
        """Colour in [0, 1] of points seen along unit directions."""
        place = encode_frequencies(x, self.config.colour_octaves)
        views = encode_frequencies(directions, self.config.direction_octaves)
        h = torch.cat([place, views, gradient, feature], dim=-1)
        if "colour" in context:
            h = self.readers["colour"](h, context["colour"])
        return torch.sigmoid(self.colour_network(h))

    def background(
        self, points: Float[Tensor, "n 4"], directions: Float[Tensor, "n 3"], context: Context
    ) -> Tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Density and colour of points outside the sphere, given as `inverted_sphere_points`."""
        h = encode_frequencies(points, self.config.background_octaves)
        if "background_density" in context:
            h = torch.cat([h, self.readers["background_density"](h, context["background_density"])], dim=-1)
        out = self.background_density(h)
        h = torch.cat([encode_frequencies(directions, self.config.direction_octaves), out[:, 1:]], dim=-1)
        if "background_colour" in context:
            h = self.readers["background_colour"](h, context["background_colour"])
        return out[:, 0].abs(), torch.sigmoid(self.background_colour(h))

    @torch.no_grad()
    def prototype_maps(self, x: Float[Tensor, "n 3"]) -> Tuple[Float[Tensor, "n 1"], Float[Tensor, "n 3"]]:
        """How widely points spread over the distance network's prototypes (0 for one, 1 for all alike), and which ones
        they read: each prototype has a colour in [0, 1] of its own, mixed by attention."""
        read = cast(Attention, cast(CoordinateAttention, self.readers["sdf"]).reads[0])
        h = self._position(x)
        weights = read.weights(h, self.context()["sdf"][0])
        # Hues a golden section apart: neighbours in the list are far apart on the circle.
        hues = torch.arange(weights.shape[-1], device=x.device) * 0.618034
        palette = 0.5 + 0.5 * torch.cos(2 * torch.pi * (hues[:, None] + torch.arange(3, device=x.device) / 3))
        return attention_entropy(weights), weights.mean(0) @ palette


class Prototypes(nn.Module):
    """Prototypes as they are: trained freely, or baked."""

    def __init__(self, values: Float[Tensor, "prototypes width"], trained: bool = True) -> None:
        super().__init__()
        self.values = nn.Parameter(values, requires_grad=trained)

    def forward(self, codebook: Optional[Tensor]) -> Float[Tensor, "prototypes width"]:
        return self.values


def _mlp(inputs: int, width: int, layers: int, outputs: int, activation) -> nn.Sequential:
    """Fully connected network with torch's own initialisation."""
    parts: List[nn.Module] = []
    for k in range(layers):
        parts += [nn.Linear(inputs if k == 0 else width, width), activation()]
    return nn.Sequential(*parts, nn.Linear(inputs if layers == 0 else width, outputs))
