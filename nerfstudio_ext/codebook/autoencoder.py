"""Learning a codebook as image tokenizers do: the code vectors between an encoder and a decoder (VQ-VAE, van den Oord
et al. 2017, with the moving averages of their appendix A.1), both small enough for two cores.

The networks are thrown away; the table is what stays. Unlike the quick route this one learns what a picture can be
rebuilt from, and its sums depend on the machine: the same seed gives the same table on one machine only.
"""

from dataclasses import dataclass
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nerfstudio_ext.codebook.learn import LearnedCodebook, nearest_codes, require_table, usage_report
from nerfstudio_ext.engine.errors import InputError

STRIDE = 8
"""Pixels along each side of what one code stands for."""


@dataclass
class AutoencoderOptions:
    """Size of the table and how it is learned."""

    codes: int = 1024
    """Code vectors."""
    width: int = 64
    """Numbers in each."""
    steps: int = 4000
    """Training steps."""
    batch: int = 16
    """Crops in a step."""
    crop: int = 64
    """Side of the crops in pixels, a multiple of 8."""
    lr: float = 3e-4
    """Adam's learning rate."""
    commitment: float = 0.25
    """Weight of the loss that draws the encoder to its codes."""
    decay: float = 0.99
    """Of the moving averages that the codes are."""
    patience: int = 200
    """Steps after which an unused code starts again at a random output of the encoder."""
    seed: int = 0
    """Decides crops and initial weights."""


class MovingCodebook(nn.Module):
    """Code vectors that follow the mean of what falls to them; they have no gradient.

    Args:
        codes: Code vectors.
        width: Numbers in each.
        decay: Of the moving averages.
        patience: Steps without use after which a code starts again.
    """

    table: Tensor
    counts: Tensor
    sums: Tensor
    idle: Tensor

    def __init__(self, codes: int, width: int, decay: float, patience: int) -> None:
        super().__init__()
        self.decay, self.patience = decay, patience
        self.register_buffer("table", torch.randn(codes, width) / width**0.5)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.table.clone())
        # All start as unused, so that the first step puts them among the encoder's outputs.
        self.register_buffer("idle", torch.full((codes,), patience))

    def forward(self, z: Float[Tensor, "n width"]) -> Tuple[Float[Tensor, "n width"], Int[Tensor, "n"]]:
        """Nearest code of each row, with the gradient of the row itself; follows the rows while training."""
        if self.training:
            self._restart(z.detach())
        codes = nearest_codes(z.detach(), self.table)
        shown = self.table[codes]
        if self.training:
            self._follow(z.detach(), codes)
        return z + (shown - z).detach(), codes

    def _restart(self, z: Tensor) -> None:
        old = torch.nonzero(self.idle >= self.patience).flatten()
        if len(old):
            self.table[old] = z[torch.randint(len(z), (len(old),))]
            self.sums[old], self.counts[old], self.idle[old] = self.table[old], 1.0, 0

    def _follow(self, z: Tensor, codes: Tensor) -> None:
        number = len(self.table)
        fresh = torch.bincount(codes, minlength=number).to(z)
        self.idle = torch.where(fresh > 0, torch.zeros_like(self.idle), self.idle + 1)
        self.counts.lerp_(fresh, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, codes, z), 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + 1e-5) / (total + number * 1e-5) * total
        self.table = self.sums / smooth[:, None]


class VqAutoencoder(nn.Module):
    """Three halvings, a residual block, codes, and the way back.

    Args:
        options: Widths of the codebook, and how its codes move.
    """

    def __init__(self, options: AutoencoderOptions) -> None:
        super().__init__()
        down = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in ((3, 32), (32, 64), (64, 64))]
        up = [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in ((64, 64), (64, 32), (32, 3))]
        self.encoder = nn.Sequential(
            down[0], nn.GELU(), down[1], nn.GELU(), down[2], _Residual(64), nn.Conv2d(64, options.width, 1)
        )
        self.codebook = MovingCodebook(options.codes, options.width, options.decay, options.patience)
        self.decoder = nn.Sequential(
            nn.Conv2d(options.width, 64, 1), _Residual(64), up[0], nn.GELU(), up[1], nn.GELU(), up[2]
        )

    def forward(
        self, pictures: Float[Tensor, "batch 3 height width"]
    ) -> Tuple[Float[Tensor, "batch 3 height width"], Int[Tensor, "n"], Float[Tensor, ""]]:
        """Rebuilt pictures, the codes used, and the mean squared distance of the encoder's outputs to their codes."""
        z = self.encoder(pictures - 0.5)
        rows = z.permute(0, 2, 3, 1)
        shown, codes = self.codebook(rows.reshape(-1, rows.shape[-1]))
        apart = (rows.reshape(shown.shape) - shown.detach()).square().mean()
        return self.decoder(shown.reshape(rows.shape).permute(0, 3, 1, 2)) + 0.5, codes, apart


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def learn_by_autoencoder(
    pictures: Sequence[Float[Tensor, "height width 3"]], options: AutoencoderOptions
) -> LearnedCodebook:
    """Learn a table from pictures in [0, 1]; every tenth of them is held out.

    Returns:
        The table, and the report of `learn_codebook`, in which flat means the mean colour of each crop.

    Raises:
        InputError: The size is that of no table, fewer than two pictures are as large as a crop, or the crop is no
            multiple of 8.
    """
    require_table(options.codes, options.width)
    large = [picture for picture in pictures if min(picture.shape[:2]) >= options.crop]
    if len(large) < 2 or options.crop % STRIDE:
        raise InputError(
            f"{len(large)} of {len(pictures)} pictures are at least {options.crop} pixels wide and high, and the "
            f"autoencoder needs two, and crops of a multiple of {STRIDE} pixels: give more or larger pictures."
        )
    held, train = large[::10], [picture for k, picture in enumerate(large) if k % 10]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = VqAutoencoder(options).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
        for _ in range(options.steps):
            batch = _crops(train, options.batch, options.crop)
            shown, _, apart = model(batch)
            optimizer.zero_grad(set_to_none=True)
            (F.l1_loss(shown, batch) + options.commitment * apart).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            used = torch.cat([model(_crops(train, 16, options.crop))[1] for _ in range(32)])
            batch = _crops(held, 128, options.crop)
            shown, codes, _ = model(batch)
    flat = (batch - batch.mean(dim=(2, 3), keepdim=True)).square().mean()
    gain = float(-10 * torch.log10((batch - shown.clamp(0, 1)).square().mean() / flat))
    table = model.codebook.table.clone()
    return LearnedCodebook(table, usage_report(table, used, codes, gain))


def _crops(pictures: Sequence[Tensor], count: int, size: int) -> Float[Tensor, "count 3 size size"]:
    """Random squares of random pictures, half of them mirrored."""
    crops = []
    for index in torch.randint(len(pictures), (count,)).tolist():
        picture = pictures[index]
        top, left = (int(torch.randint(side - size + 1, ())) for side in picture.shape[:2])
        crop = picture[top : top + size, left : left + size]
        crops.append(crop.flip(1) if bool(torch.rand(()) < 0.5) else crop)
    return torch.stack(crops).permute(0, 3, 1, 2)
