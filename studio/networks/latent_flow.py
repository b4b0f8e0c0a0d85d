"""A prior over latents given who should be seen: a velocity field for flow matching (Lipman et al., arXiv 2210.02747).

The latent of a face is one point of 512 Gaussian coordinates (`LatentSpace`), and what it should be like is one
identity vector, so that a residual MLP does what a U-Net does for pictures. The identity and the time enter through
scale, shift and gate of each block (adaLN-Zero, Peebles and Xie, arXiv 2212.09748). An identity that is left out is a
learned vector, for classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

The identity says little about most coordinates (background, clothes, light), and much of what it says is linear.
Were latents and identities jointly normal, the velocity would be known: a linear regression on the identity gives its
mean, and the rest keeps its spread. The network only learns what to add to that flow.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel

FREQUENCIES = 32  # of the time
RIDGE = 3e-4  # of the regression: the variance that noise adds to each number of an identity vector
TIMES = 1000  # diffusers' timesteps run from 0, a latent, to this, noise


class Block(nn.Module):
    """Normalise, scale and shift by the condition, two linear layers, and a gate that is shut at first."""

    def __init__(self, width: int, hidden: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(condition, 3 * width)
        self.up = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(hidden, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N,width) and (N,condition) to (N,width)."""
        scale, shift, gate = self.modulation(condition).chunk(3, 1)
        y = self.norm(x) * (1 + scale) + shift
        return x + gate * self.down(self.dropout(F.silu(self.up(y))))


class LatentFlow(StrictModel):
    """Velocity of latents on their way from noise to faces of one person.

    Args:
        dim: length of the latents' Gaussian coordinates.
        identity_dim: length of an identity vector.
        width: of the residual stream.
        hidden: inside a block.
        condition: length of what identity and time become.
        depth: number of blocks.
        dropout: in the blocks, while training.

    Buffers, float32: `mean`, `spread` (dim,) of the Gaussian coordinates of the faces it was trained on;
    `identity_mean`, `identity_spread` (identity_dim,) of their identity vectors; `expected` (identity_dim,dim), the
    regression of standardised coordinates on centred identity vectors, and `rest` (dim,), the spread that it leaves.
    """

    @register_to_config
    def __init__(
        self,
        dim: int = 512,
        identity_dim: int = 128,
        width: int = 384,
        hidden: int = 512,
        condition: int = 192,
        depth: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))
        self.register_buffer("identity_mean", torch.zeros(identity_dim))
        self.register_buffer("identity_spread", torch.ones(identity_dim))
        self.register_buffer("expected", torch.zeros(identity_dim, dim))
        self.register_buffer("rest", torch.ones(dim))
        self.unknown = nn.Parameter(torch.zeros(condition))
        self.identity = nn.Sequential(
            nn.Linear(identity_dim, condition), nn.SiLU(), nn.Dropout(dropout), nn.Linear(condition, condition)
        )
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.enter = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(Block(width, hidden, condition, dropout) for _ in range(depth))
        self.leave = nn.Linear(width, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @torch.no_grad()
    def fit(self, coordinates: Tensor, identities: Tensor) -> None:
        """Set the statistics from Gaussian coordinates (N,dim) of faces and their identity vectors (N,identity_dim)."""
        self.mean.copy_(coordinates.mean(0))
        self.spread.copy_(coordinates.std(0).clamp_min(1e-3))
        self.identity_mean.copy_(identities.mean(0))
        self.identity_spread.copy_(identities.std(0).clamp_min(1e-3))
        seen = (identities - self.identity_mean).double()
        wanted = self.standardise(coordinates).double()
        ridge = RIDGE * len(seen) * torch.eye(seen.shape[1], dtype=torch.float64)
        self.expected.copy_(torch.linalg.solve(seen.T @ seen + ridge, seen.T @ wanted))
        self.rest.copy_((wanted - seen @ self.expected.double()).std(0).clamp(0.1, 1))

    def standardise(self, coordinates: Tensor) -> Tensor:
        """Gaussian coordinates (N,dim) to what flows: mean 0 and spread 1 over the training faces."""
        return (coordinates - self.mean.to(coordinates)) / self.spread.to(coordinates)

    def coordinates(self, sample: Tensor) -> Tensor:
        """Back from `standardise`."""
        return sample * self.spread.to(sample) + self.mean.to(sample)

    def forward(
        self, sample: Tensor, timestep: Tensor, identity: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """The velocity noise - latent at x = (1 - t) · latent + t · noise, as diffusers' schedulers take it.

        Args:
            sample: (N,dim) x, see `standardise`.
            timestep: (N,) or (), 1000 · t.
            identity: (N,identity_dim) identity vectors as the encoder gives them; None for anybody.
            known: (N,) bool, False leaves out that row's identity; None keeps all.

        Returns:
            (N,dim).

        Raises:
            InputError: another shape.
        """
        self._check(sample, identity)
        t = (timestep.to(sample) / TIMES).expand(len(sample))[:, None]  # (N, 1)
        who = self.unknown.to(sample).expand(len(sample), -1)
        middle, spread = torch.zeros_like(sample), torch.ones_like(sample)
        if identity is not None:
            known = torch.ones(len(sample), dtype=torch.bool, device=sample.device) if known is None else known
            centred = identity.to(sample) - self.identity_mean
            who = torch.where(known[:, None], self.identity(centred / self.identity_spread), who)
            middle = known[:, None] * (centred @ self.expected)
            spread = torch.where(known[:, None], self.rest, spread)
        condition = F.silu(who + self.time(waves(t)))
        x = self.enter(sample)
        for block in self.blocks:
            x = block(x, condition)
        return normal_velocity(sample, t, middle, spread) + self.leave(x)

    def _check(self, sample: Tensor, identity: Tensor | None) -> None:
        if sample.ndim != 2 or sample.shape[1] != self.config.dim:
            raise InputError(f"samples must be (N,{self.config.dim}), got {tuple(sample.shape)}: one latent per face")
        wanted = (len(sample), self.config.identity_dim)
        if identity is not None and tuple(identity.shape) != wanted:
            raise InputError(f"identities must be {wanted}, got {tuple(identity.shape)}: one for each sample")


def normal_velocity(x: Tensor, t: Tensor, middle: Tensor, spread: Tensor) -> Tensor:
    """E[noise - latent | x] at x = (1 - t) · latent + t · noise, of a latent with normal coordinates (all (N,dim))."""
    variance = spread.square()
    gain = (t - (1 - t) * variance) / ((1 - t).square() * variance + t.square())
    return gain * (x - (1 - t) * middle) - middle


def waves(t: Tensor) -> Tensor:
    """Sines and cosines of a time (N,1) in [0,1] -> (N, 2 · FREQUENCIES)."""
    rates = torch.exp(torch.linspace(0, math.log(100), FREQUENCIES, device=t.device)).to(t)
    return torch.cat([(t * rates).sin(), (t * rates).cos()], 1)


def guided(flow: LatentFlow, sample: Tensor, timestep: Tensor, identity: Tensor | None, scale: float) -> Tensor:
    """Velocity under classifier-free guidance (arXiv 2207.12598, equation 6, with w = scale - 1).

    Args:
        flow: the network.
        sample: (N,dim).
        timestep: (), 1000 · t.
        identity: (N,identity_dim), or None for anybody: then `scale` has no meaning.
        scale: 1 is the distribution that was learned; more makes the identity count for more, and the faces alike.
    """
    if identity is None or scale == 1:
        return flow(sample, timestep, identity)
    known = torch.arange(2 * len(sample), device=sample.device) < len(sample)
    both = flow(torch.cat([sample, sample]), timestep, torch.cat([identity, identity]), known)
    given, anybody = both.chunk(2)
    return anybody + scale * (given - anybody)
