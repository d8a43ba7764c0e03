"""Peers of `motion_tokenizers.py`: T2M-GPT's VQ-VAE and MoMask's residual one, written again from what is published.

Features "B T 263" -> conv k3 -> 2 x [conv k4 stride 2 -> residual blocks of dilation 9, 3, 1] -> conv k3 -> codes, and
the mirror with nearest upsampling. A quantizer computes all distances and learns by products with one-hot matrices.
What only one side would do is left out of both: MoMask's dropouts and its noise on distances.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Peer(nn.Module):
    """T2M-GPT's VQ-VAE; with more levels, MoMask's residual one."""

    def __init__(self, levels: int, width: int) -> None:
        super().__init__()
        down = [m for _ in range(2) for m in (nn.Conv1d(width, width, 4, 2, 1), *_blocks(width))]
        self.encoder = nn.Sequential(nn.Conv1d(263, width, 3, 1, 1), nn.ReLU(), *down, nn.Conv1d(width, width, 3, 1, 1))
        up = [
            m
            for _ in range(2)
            for m in (*_blocks(width), nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv1d(width, width, 3, 1, 1))
        ]
        self.decoder = nn.Sequential(
            *(nn.Conv1d(width, width, 3, 1, 1), nn.ReLU(), *up),
            *(nn.Conv1d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv1d(width, 263, 3, 1, 1)),
        )
        self.levels = nn.ModuleList(EMAQuantizer(512, width) for _ in range(levels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, commitment and perplexity of features "B T 263"."""
        rest = self.encoder(x.permute(0, 2, 1).float())
        out, losses, perplexities = torch.zeros_like(rest), [], []
        for level in self.levels:
            quantized, loss, perplexity = level(rest)
            rest = rest - quantized.detach()
            out = out + quantized
            losses.append(loss)
            perplexities.append(perplexity)
        return self.decoder(out).permute(0, 2, 1), torch.stack(losses).mean(), torch.stack(perplexities).mean()

    def encode(self, x: Tensor) -> Tensor:
        """Codes "B t levels"."""
        rest = self.encoder(x.permute(0, 2, 1).float())
        batch, width, steps = rest.shape
        rest, codes = rest.permute(0, 2, 1).contiguous().view(-1, width), []
        for level in self.levels:
            codes.append(level.quantize(rest))
            rest = rest - F.embedding(codes[-1], level.codebook)
        return torch.stack(codes, dim=-1).view(batch, steps, -1)

    @torch.no_grad()
    def parting(self, x: Tensor, mine: Tensor, theirs: Tensor) -> float:
        """How far two codings "B t levels" of features "B T 263" are from a tie.

        Largest relative difference, in fp64, of the distances to the two codes of a step's first level that differs.
        """
        largest, exact = 0.0, copy.deepcopy(self).double()
        latents = exact.encoder(x.double().permute(0, 2, 1)).permute(0, 2, 1)
        for place in (mine != theirs).any(-1).nonzero().tolist():
            rest, pair = latents[tuple(place)], zip(mine[tuple(place)], theirs[tuple(place)], strict=True)
            for level, (a, b) in zip(exact.levels, pair, strict=True):
                if a != b:
                    near, far = sorted(float((rest - level.codebook[code]).square().sum()) for code in (a, b))
                    largest = max(largest, far / near - 1)
                    break
                rest = rest - level.codebook[a]
        return largest

    def decode(self, codes: Tensor) -> Tensor:
        """Features of codes "B t levels"."""
        latents = sum(F.embedding(codes[..., place], level.codebook) for place, level in enumerate(self.levels))
        return self.decoder(latents.permute(0, 2, 1).contiguous()).permute(0, 2, 1)


class Block(nn.Module):
    """ReLU, dilated conv, ReLU, conv of one, added."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.activation1, self.activation2 = nn.ReLU(), nn.ReLU()
        self.conv1 = nn.Conv1d(width, width, 3, 1, dilation, dilation)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.activation2(self.conv1(self.activation1(x))))


class EMAQuantizer(nn.Module):
    """Codes by the full distance matrix; EMA, usage and perplexity by one-hot products; dead codes from the batch."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size, self.started = size, False
        self.register_buffer("codebook", torch.zeros(size, width))
        self.register_buffer("sums", torch.zeros(size, width))
        self.register_buffer("counts", torch.ones(size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, width, steps = x.shape
        flat = x.permute(0, 2, 1).contiguous().view(-1, width)
        if not self.started:
            self.codebook, self.started = _tiled(flat, self.size).detach().clone(), True
            self.sums = self.codebook.clone()
        codes = self.quantize(flat)
        quantized = F.embedding(codes, self.codebook)
        perplexity = self.update(flat, codes)
        loss = F.mse_loss(flat, quantized.detach())
        quantized = flat + (quantized - flat).detach()
        return quantized.view(batch, steps, width).permute(0, 2, 1).contiguous(), loss, perplexity

    def quantize(self, x: Tensor) -> Tensor:
        turned = self.codebook.t()
        distance = (x**2).sum(-1, keepdim=True) - 2 * x @ turned + (turned**2).sum(0, keepdim=True)
        return distance.min(dim=-1)[1]

    @torch.no_grad()
    def update(self, x: Tensor, codes: Tensor) -> Tensor:
        onehot = torch.zeros(self.size, len(x)).scatter_(0, codes.view(1, -1), 1)
        counts = onehot.sum(-1)
        self.sums = 0.99 * self.sums + 0.01 * (onehot @ x)
        self.counts = 0.99 * self.counts + 0.01 * counts
        used = (self.counts.view(-1, 1) >= 1.0).float()
        mean = self.sums / self.counts.view(-1, 1)
        self.codebook = used * mean + (1 - used) * _tiled(x, self.size)
        share = counts / counts.sum()
        return torch.exp(-(share * torch.log(share + 1e-7)).sum())


def _blocks(width: int) -> list[Block]:
    return [Block(width, dilation) for dilation in (9, 3, 1)]


def _tiled(x: Tensor, size: int) -> Tensor:
    if len(x) < size:
        repeats = -(-size // len(x))
        x = x.repeat(repeats, 1)
        x = x + torch.randn_like(x) * 0.01 / np.sqrt(x.shape[1])
    return x[:size]
