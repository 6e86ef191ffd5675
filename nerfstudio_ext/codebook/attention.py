"""Attention of CoCo-INR (Yin et al. 2022): a codebook is distilled into prototypes, which points then read.

Attention is written out: the fused kernels have no second derivatives, which a loss on the gradient of a signed
distance needs.
"""

from typing import Iterable, List, Tuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

KeysValues = Tuple[Tensor, Tensor]
"""Keys and values of the rows, each [heads, rows, head_width]; folded, the projections of query and result are
multiplied in: [query_width, heads * rows] and [heads * rows, query_width]."""


class Attention(nn.Module):
    """Multi-head attention of queries to rows of another table.

    Args:
        query_width: Width of the queries and of the result.
        context_width: Width of the rows attended to.
        heads: Number of heads.
        head_width: Width of each.
        fold: Multiply the projections of query and result into the rows: two products per query instead of four, worth
            it where very many narrow queries read few rows.
    """

    def __init__(self, query_width: int, context_width: int, heads: int, head_width: int, fold: bool = False) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads, self.head_width, self.fold = heads, head_width, fold
        self.norm_query, self.norm_context = nn.LayerNorm(query_width), nn.LayerNorm(context_width)
        self.to_query = nn.Linear(query_width, inner, bias=False)
        self.to_key_value = nn.Linear(context_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, query_width)

    def keys_values(self, context: Float[Tensor, "rows context_width"]) -> KeysValues:
        """What the rows offer; the same for every query, so it is worked out once."""
        keys, values = (self._split(x) for x in self.to_key_value(self.norm_context(context)).chunk(2, dim=-1))
        keys = keys * self.head_width**-0.5
        if not self.fold:
            return keys, values
        shape = (self.heads, self.head_width, -1)
        keys = keys @ self.to_query.weight.view(shape)
        values = values @ self.to_out.weight.T.reshape(shape)
        return keys.flatten(0, 1).T, values.flatten(0, 1)

    def forward(self, queries: Float[Tensor, "n query_width"], rows: KeysValues) -> Float[Tensor, "n query_width"]:
        if self.fold:
            return torch.addmm(self.to_out.bias, self._folded_weights(queries, rows).flatten(1), rows[1])
        return self.to_out((self.weights(queries, rows) @ rows[1]).transpose(0, 1).flatten(1))

    def weights(self, queries: Float[Tensor, "n query_width"], rows: KeysValues) -> Float[Tensor, "heads n rows"]:
        """How much each query takes of each row; sums to one over the rows."""
        if self.fold:
            return self._folded_weights(queries, rows).transpose(0, 1)
        return torch.softmax(self._split(self.to_query(self.norm_query(queries))) @ rows[0].transpose(1, 2), dim=-1)

    def _folded_weights(self, queries: Tensor, rows: KeysValues) -> Float[Tensor, "n heads rows"]:
        return torch.softmax((self.norm_query(queries) @ rows[0]).unflatten(-1, (self.heads, -1)), dim=-1)

    def _split(self, x: Float[Tensor, "n inner"]) -> Float[Tensor, "heads n head_width"]:
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(0, 1)


class GatedFeedForward(nn.Module):
    """Linear, GEGLU, linear, after a layer norm."""

    def __init__(self, width: int, factor: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * factor * width)
        self.narrow = nn.Linear(factor * width, width)

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        a, gate = self.widen(self.norm(x)).chunk(2, dim=-1)
        return self.narrow(a * F.gelu(gate))


class CodebookAttention(nn.Module):
    """Learned queries read the codebook once, then one another: the prototypes (method card section 2.3).

    Args:
        codebook_width: Width of the code vectors.
        num_prototypes: Learned queries.
        width: Width of the prototypes.
        heads: Attention heads.
        head_width: Width of each.
        depth: Self-attention blocks after the codebook was read.
    """

    def __init__(
        self, codebook_width: int, num_prototypes: int, width: int, heads: int, head_width: int, depth: int
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_prototypes, width))
        self.read = Attention(width, codebook_width, heads, head_width)
        self.read_forward = GatedFeedForward(width)
        self.blocks = nn.ModuleList(
            nn.ModuleList([SelfAttention(width, heads, head_width), GatedFeedForward(width)]) for _ in range(depth)
        )

    def forward(self, codebook: Float[Tensor, "codes codebook_width"]) -> Float[Tensor, "prototypes width"]:
        z = self.queries + self.read(self.queries, self.read.keys_values(codebook))
        z = z + self.read_forward(z)
        for attention, feed_forward in cast(Iterable[nn.ModuleList], self.blocks):
            z = z + attention(z)
            z = z + feed_forward(z)
        return z


class SelfAttention(nn.Module):
    """Attention of rows among themselves, with one norm before it."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.attention = Attention(width, width, heads, head_width)
        self.attention.norm_context = self.attention.norm_query

    def forward(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        return self.attention(x, self.attention.keys_values(x))


class CoordinateAttention(nn.Module):
    """Points read the prototypes, never one another (method card section 2.4).

    Args:
        query_width: Width of the points' features, kept.
        prototype_width: Width of the prototypes.
        heads: Attention heads.
        head_width: Width of each.
        blocks: How often the prototypes are read; a feed-forward step follows the last time.
        activation: Within that step.
    """

    def __init__(
        self, query_width: int, prototype_width: int, heads: int, head_width: int, blocks: int, activation: nn.Module
    ) -> None:
        super().__init__()
        fold = query_width <= heads * head_width
        self.reads = nn.ModuleList(
            Attention(query_width, prototype_width, heads, head_width, fold) for _ in range(blocks)
        )
        self.forward_step = nn.Sequential(
            nn.LayerNorm(query_width),
            nn.Linear(query_width, query_width),
            activation,
            nn.Linear(query_width, query_width),
        )

    def keys_values(self, prototypes: Float[Tensor, "prototypes width"]) -> List[KeysValues]:
        """Keys and values of every block."""
        return [cast(Attention, read).keys_values(prototypes) for read in self.reads]

    def forward(self, h: Float[Tensor, "n query_width"], rows: List[KeysValues]) -> Float[Tensor, "n query_width"]:
        for read, keys_values in zip(self.reads, rows):
            h = h + read(h, keys_values)
        return h + self.forward_step(h)


def attention_entropy(weights: Float[Tensor, "heads n rows"]) -> Float[Tensor, "n 1"]:
    """How widely each query spreads over the rows, averaged over heads: 0 for one row, 1 for all alike."""
    entropy = -(weights * torch.log(weights.clamp(min=1e-9))).sum(-1).mean(0)
    return entropy[:, None] / torch.log(torch.tensor(float(weights.shape[-1])))
