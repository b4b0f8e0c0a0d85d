"""Who a latent shows, read without drawing it: a small network from w to the identity vector of its face.

A face has to be drawn, found and embedded to know whose it is (60 ms of a core); this guess takes next to nothing, and
has a gradient. With it a sampler can be led to a person on the way, as MPGD does with pictures (He et al.,
arXiv 2311.16424): the estimate of the latent is moved, and the rest of the path stays the flow's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel

RIDGE = 3e-3  # of the regression, beside inputs of spread 1


class Block(nn.Module):
    """Normalise, two linear layers, and a skip."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N,width) to (N,width)."""
        return x + self.down(self.dropout(F.silu(self.up(self.norm(x)))))


class LatentReader(StrictModel):
    """Latents w of whole faces to their identity vectors: a linear regression, and what a network adds to it.

    Args:
        dim: length of a latent.
        identity_dim: length of an identity vector.
        width: of the residual stream.
        depth: number of blocks.
        dropout: in the blocks, while training.

    Buffers, float32: `mean` (dim,) and `spread` (1,) of latents, `identity_mean` (identity_dim,), and the regression
    `linear` (dim,identity_dim) of centred identity vectors on standardised latents.
    """

    @register_to_config
    def __init__(
        self, dim: int = 512, identity_dim: int = 128, width: int = 512, depth: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(1))
        self.register_buffer("identity_mean", torch.zeros(identity_dim))
        self.register_buffer("linear", torch.zeros(dim, identity_dim))
        self.enter = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.leave = nn.Linear(width, identity_dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @torch.no_grad()
    def fit(self, latents: Tensor, identities: Tensor) -> None:
        """Set statistics and regression from latents (N,dim) and identity vectors (N,identity_dim)."""
        self.mean.copy_(latents.mean(0))
        self.spread.fill_(float((latents - self.mean).std()))
        self.identity_mean.copy_(identities.mean(0))
        seen = ((latents - self.mean) / self.spread).double()
        wanted = (identities - self.identity_mean).double()
        ridge = RIDGE * len(seen) * torch.eye(seen.shape[1], dtype=torch.float64)
        self.linear.copy_(torch.linalg.solve(seen.T @ seen + ridge, seen.T @ wanted))

    def forward(self, w: Tensor) -> Tensor:
        """Latents w (N,dim) to identity vectors (N,identity_dim), with gradients.

        Raises:
            InputError: another shape.
        """
        if w.ndim != 2 or w.shape[1] != self.config.dim:
            raise InputError(f"latents must be (N,{self.config.dim}), got {tuple(w.shape)}: one for each whole face")
        w = (w - self.mean.to(w)) / self.spread.to(w)
        x = F.silu(self.enter(w))
        for block in self.blocks:
            x = block(x)
        return self.identity_mean.to(w) + w @ self.linear.to(w) + self.leave(x)


def nearer(read: Callable[[Tensor], Tensor], x: Tensor, wanted: Tensor, rate: float, steps: int) -> Tensor:
    """Gradient steps of x on the squared distance of what is read from it.

    Args:
        read: x (N,D) to identity vectors (N,E), with gradients.
        x: (N,D).
        wanted: (N,E) identity vectors.
        rate: of a step.
        steps: how many.

    Returns:
        (N,D), without a gradient.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x, wanted = x.detach().clone(), wanted.detach().clone()
        for _ in range(steps):
            x.requires_grad_(True)
            (slope,) = torch.autograd.grad((read(x) - wanted).square().sum(), x)
            x = (x - rate * slope).detach()
    return x
