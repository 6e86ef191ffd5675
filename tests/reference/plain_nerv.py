"""The six networks, their losses and Adan, written plainly: the library is tested for equality and timed against this.

One line per line of the papers' text: NCHW memory, 1x1 convolutions for what is computed once per frame, full spectra,
one loop over the parameters. Nothing here is tuned, and nothing is shared with the library.
"""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytorch_msssim
import torch
import torch.nn.functional as F
from torch import nn

COMMON = dict(strides=(5, 2, 2, 2, 2), base=1.25, frequencies=80, embedding_channels=16, encoder_width=64)
SETTINGS = {
    "nerv": dict(frequencies=40, stem_hidden=512, condition=None, lower_width=96),
    "nerv-boost": dict(stem_hidden=256, condition=(64, 32), lower_width=12),
    "e-nerv": dict(token_width=256, condition=(128, 128), lower_width=96),
    "e-nerv-boost": dict(token_width=128, condition=(64, 32), lower_width=12),
    "hnerv": dict(condition=None, lower_width=12),
    "hnerv-boost": dict(condition=(64, 32), lower_width=12),
}
KINDS = tuple(SETTINGS)


def plain_code(positions, base, num_frequencies):
    """Sines, then cosines, of pi base^k t in float64; [positions, channels]."""
    t = torch.tensor(positions, dtype=torch.float64)
    phase = torch.stack([math.pi * base**k * t for k in range(num_frequencies)], dim=1)
    return torch.cat([torch.sin(phase), torch.cos(phase)], dim=1)


def mlp(*widths, activation):
    """1x1 convolutions, each followed by the activation."""
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 1), activation]
    return nn.Sequential(*layers)


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)


class TAT(nn.Module):
    """Temporal-aware affine transform: x (gamma + 1) + beta."""

    def __init__(self, channels, condition):
        super().__init__()
        self.scale_1, self.scale_2 = nn.Conv2d(condition, condition, 1), nn.Conv2d(condition, channels, 1)
        self.shift_1, self.shift_2 = nn.Conv2d(condition, condition, 1), nn.Conv2d(condition, channels, 1)

    def forward(self, x, z):
        gamma = self.scale_2(F.relu(self.scale_1(z)))
        beta = self.shift_2(F.relu(self.shift_1(z)))
        return x * (gamma + 1) + beta


class TATResidual(nn.Module):
    def __init__(self, channels, condition):
        super().__init__()
        self.tat_1 = TAT(channels, condition)
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.tat_2 = TAT(channels, condition)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, z):
        y = F.gelu(self.conv_1(self.tat_1(x, z)))
        return x + self.conv_2(self.tat_2(y, z))


class Block(nn.Module):
    """Convolution, pixel shuffle, activation; E-NeRV modulates before, the boosted methods after."""

    def __init__(self, before, after, stride, kernel, activation, condition, instance, boosted, factorised):
        super().__init__()
        pad, shuffle = kernel // 2, nn.PixelShuffle(stride)
        if not factorised:
            self.conv = nn.Sequential(nn.Conv2d(before, after * stride**2, kernel, padding=pad), shuffle)
        elif before <= after:
            thin = before // 4
            up = nn.Conv2d(before, thin * stride**2, 3, padding=1)
            self.conv = nn.Sequential(up, shuffle, nn.Conv2d(thin, after, 3, padding=1))
        else:
            up = nn.Conv2d(after, after * stride**2, 3, padding=1)
            self.conv = nn.Sequential(nn.Conv2d(before, after, 3, padding=1), up, shuffle)
        self.activation = activation
        self.gamma_beta = mlp(condition, 2 * before, activation=activation) if instance else None
        self.residual = TATResidual(after, condition) if boosted else None

    def forward(self, x, z):
        if self.gamma_beta is not None:
            gamma, beta = self.gamma_beta(z).chunk(2, dim=1)
            x = F.instance_norm(x) * gamma + beta
        x = self.activation(self.conv(x))
        return x if self.residual is None else self.residual(x, z)


class LayerNorm(nn.Module):
    """Over the channels of every pixel."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm(channels)
        self.expand = nn.Conv2d(channels, 4 * channels, 1)
        self.reduce = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x):
        y = self.reduce(F.gelu(self.expand(self.norm(self.depthwise(x)))))
        return x + self.scale[None, :, None, None] * y


class Encoder(nn.Sequential):
    def __init__(self, strides, width, embedding_channels):
        super().__init__()
        before = 3
        for i, stride in enumerate(strides):
            after = width if i < len(strides) - 1 else embedding_channels
            patchify = nn.Conv2d(before, after, stride, stride=stride)
            self.extend([patchify, LayerNorm(after)] if i == 0 else [LayerNorm(before), patchify])
            self.append(ConvNeXt(after))
            before = after
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


class Transformer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * 64, bias=False)
        self.out = nn.Linear(heads * 64, width)
        self.up = nn.Linear(width, width // 2)
        self.down = nn.Linear(width // 2, width)

    def forward(self, x):
        frames, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(frames, tokens, 3, self.heads, 64).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(2, 3) / 64**0.5, dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(frames, tokens, -1))
        return x + self.down(F.gelu(self.up(x)))


class GridStem(nn.Module):
    def __init__(self, code, base, tokens, f, grid, activation):
        super().__init__()
        rows = plain_code([i / grid[0] for i in range(grid[0])], base, code // 2).T[:, :, None]
        columns = plain_code([j / grid[1] for j in range(grid[1])], base, code // 2).T[:, None, :]
        space = torch.cat([rows.expand(-1, *grid), columns.expand(-1, *grid)])
        self.register_buffer("space", space[None].float())
        self.time_mlp = mlp(code, 2 * tokens, tokens, activation=activation)
        self.space_mlp = mlp(2 * code, tokens, activation=activation)
        self.block_1 = Transformer(tokens, 1)
        self.block_2 = Transformer(tokens, 8)
        self.project = mlp(tokens, f, activation=activation) if f != tokens else nn.Identity()

    def forward(self, code):
        space = self.block_1(self.space_mlp(self.space).flatten(2).transpose(1, 2))
        time = self.time_mlp(code).flatten(2).transpose(1, 2)
        x = self.block_2(space * time).transpose(1, 2)
        return self.project(x.reshape(*x.shape[:2], *self.space.shape[2:]))


class PlainNetwork(nn.Module):
    """One video: `encode` frames [B, 3, H, W] in [0, 1] (hybrid kinds only), `decode` 0-based frame indices.

    `f` is the width after the stem; other keywords replace the papers' settings above.
    """

    def __init__(self, kind, height, width, num_frames, f, **changes):
        super().__init__()
        self.size, settings = (height, width), SimpleNamespace(**{**COMMON, **SETTINGS[kind], **changes})
        self.strides = strides = settings.strides
        boosted, family = kind.endswith("-boost"), kind.replace("-boost", "")
        self.grid = grid = tuple(math.ceil(side / math.prod(strides)) for side in self.size)
        activation = Sine() if boosted else nn.GELU()

        first, span = int(boosted), max(num_frames - 1, 1) if kind == "e-nerv" else num_frames
        times = [(i + first) / span for i in range(num_frames)]
        code = plain_code(times, settings.base, settings.frequencies).float()
        self.register_buffer("code", code[:, :, None, None])
        channels, condition = code.shape[1], settings.condition and settings.condition[-1]
        self.condition = condition and mlp(channels, *settings.condition, activation=activation)

        self.encoder, self.stem_residual = None, None
        if family == "hnerv":
            self.encoder = Encoder(strides, settings.encoder_width, settings.embedding_channels)
            self.stem = mlp(settings.embedding_channels, f, activation=activation)
            self.stem_residual = TATResidual(f, condition) if boosted else None
        elif family == "nerv":
            self.stem = mlp(channels, settings.stem_hidden, f * grid[0] * grid[1], activation=activation)
        else:
            self.stem = GridStem(channels, settings.base, settings.token_width, f, grid, activation)

        self.blocks = nn.ModuleList()
        before = f
        for i, stride in enumerate(strides):
            if family == "hnerv":
                after, kernel = max(round(before / 1.2), settings.lower_width), min(1 + 2 * i, 3 if boosted else 5)
            elif i == 0:
                after, kernel = (3 * f if family == "e-nerv" else f), 3
            else:
                after, kernel = max(before // 2, settings.lower_width), 3
            block = dict(kernel=kernel, activation=activation, condition=condition, boosted=boosted)
            block |= dict(instance=kind == "e-nerv", factorised=family == "e-nerv" and i == 0)
            self.blocks.append(Block(before, after, stride, **block))
            if boosted and i >= max(1, len(strides) - 3):
                self.blocks.append(Block(after, after, 1, **block))
            before = after
        self.head = nn.Conv2d(before, 3, 3, padding=1) if family == "hnerv" else nn.Conv2d(before, 3, 1)

    def encode(self, frames):
        rows, columns = (-side % math.prod(self.strides) for side in self.size)
        return self.encoder(F.pad(frames, (0, columns, 0, rows), mode="replicate"))

    def decode(self, indices, embeddings=None):
        code = self.code[indices]
        z = None if self.condition is None else self.condition(code)
        x = self.stem(code if embeddings is None else embeddings).reshape(len(code), -1, *self.grid)
        if self.stem_residual is not None:
            x = self.stem_residual(x, z)
        for block in self.blocks:
            x = block(x, z)
        x = 0.5 * torch.tanh(self.head(x)) + 0.5
        return x[:, :, : self.size[0], : self.size[1]]


def plain_ssim(pred, target):
    shorter = min(target.shape[-2:])
    return pytorch_msssim.ssim(pred, target, data_range=1, win_size=min(11, shorter - 1 + shorter % 2))


def plain_ms_ssim(pred, target):
    shorter = min(target.shape[-2:])
    if shorter < 65:
        return plain_ssim(pred, target)
    window = 11 if shorter > 160 else 7 if shorter > 96 else 5
    return pytorch_msssim.ms_ssim(pred, target, data_range=1, win_size=window)


def plain_frequency_l1(pred, target):
    """Mean over channels, frequencies, real and imaginary parts."""
    difference = torch.fft.fft2(pred, dim=(-2, -1)) - torch.fft.fft2(target, dim=(-2, -1))
    return torch.stack([difference.real, difference.imag]).abs().mean()


def plain_loss(name, pred, target):
    """`l2` (HNeRV), `l1-ssim` (NeRV, E-NeRV) or `high-frequency` (boosted)."""
    if name == "l2":
        return F.mse_loss(pred, target)
    l1 = F.l1_loss(pred, target)
    if name == "l1-ssim":
        return 0.7 * l1 + 0.3 * (1 - plain_ssim(pred, target))
    assert name == "high-frequency", name
    return 60 * (0.7 * l1 + 0.3 * (1 - plain_ms_ssim(pred, target))) + plain_frequency_l1(pred, target)


class PlainAdan(torch.optim.Optimizer):
    """Adan without weight decay, one parameter after the other."""

    def __init__(self, params, lr, betas=(0.98, 0.92, 0.99), eps=1e-8):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta_1, beta_2, beta_3 = group["betas"]
            for p in group["params"]:
                g, state = p.grad, self.state[p]
                if not state:
                    state["step"], state["last"] = 0, g.clone()
                    state["m"], state["v"], state["n"] = (torch.zeros_like(p) for _ in range(3))
                state["step"] += 1
                k, d = state["step"], g - state["last"]
                state["m"] = beta_1 * state["m"] + (1 - beta_1) * g
                state["v"] = beta_2 * state["v"] + (1 - beta_2) * d
                state["n"] = beta_3 * state["n"] + (1 - beta_3) * (g + beta_2 * d) ** 2
                m, v, n = state["m"] / (1 - beta_1**k), state["v"] / (1 - beta_2**k), state["n"] / (1 - beta_3**k)
                p -= group["lr"] * (m + beta_2 * v) / (torch.sqrt(n) + group["eps"])
                state["last"] = g.clone()
