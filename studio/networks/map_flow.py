"""Drawing one face where a damaged photograph allows many: a flow over the generator's own map.

A regression of the generator's 32 px map from a damaged face gives the mean of all faces that it may have been, and
the generator draws a veil of it. Here that mean is where a face begins, and a short straight flow leads from it, with a
little noise, to one map that the generator could have had: posterior-mean rectified flow (Ohayon et al., arXiv
2410.00418, algorithm 1; rectified flow, Liu et al., arXiv 2209.03003). It runs in whitened principal components of the
map; what lies outside of them stays as it was regressed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel
from studio.networks.start import silent

FREQUENCIES = 32  # of the time
GROUPS = 8
CALM = 0.7  # of the noise that the flow begins with, to draw with: with less the weave in hair grows, with more NIQE


class TimedBlock(nn.Module):
    """Norm, SiLU, 3x3, norm scaled and shifted by the time, SiLU, 3x3, sum; without a time, plain."""

    def __init__(self, channels: int, time: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Linear(time, 2 * channels) if time else None
        silent(self.conv2)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """Map (N,C,H,W) and, where the block has one, what the time became (N,T), to a map of the same shape."""
        y = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.time is not None:
            scale, shift = self.time(time)[:, :, None, None].chunk(2, 1)
            y = y * (1 + scale) + shift
        return x + self.conv2(F.silu(y))


class Attention(nn.Module):
    """Every place of a map looks at every other one (4 heads): both eyes at each other, say."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.enter = nn.Conv2d(channels, 3 * channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)
        silent(self.leave)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N,C,H,W) to a map of the same shape."""
        n, c, h, w = x.shape
        parts = self.enter(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w)
        q, k, v = parts.transpose(3, 4).unbind(1)  # (N, heads, HW, c)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, c, h, w)
        return x + self.leave(mixed)


class MapFlow(StrictModel):
    """Velocity of the generator's map on its way from what was regressed to what a face has.

    Args:
        feature_channels: of the generator's map.
        components: principal components that flow.
        size: side of the damaged picture; the map has size/8.
        width: channels at the map's size and below.
        stem_width: channels at size/4.
        noise: standard deviation of what is added to the regressed map at the start, in whitened units.

    Buffers, float32: `mean` (feature_channels,), `basis` (feature_channels,components) and `spread` (components,) of
    the map over generated faces.
    """

    @register_to_config
    def __init__(
        self,
        feature_channels: int = 512,
        components: int = 256,
        size: int = 256,
        width: int = 176,
        stem_width: int = 96,
        noise: float = 0.5,
    ) -> None:
        super().__init__()
        time = 192
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, stem_width, 3, padding=1),
            TimedBlock(stem_width),
            TimedBlock(stem_width),
        )
        self.down = nn.Conv2d(stem_width, width, 3, stride=2, padding=1)
        self.regressed = nn.Conv2d(components, width, 1)
        self.seen = nn.ModuleList(TimedBlock(width) for _ in range(2))
        self.context_down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.context = nn.Sequential(TimedBlock(width), Attention(width), TimedBlock(width))
        self.context_up = nn.Conv2d(width, width, 1)

        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.enter = nn.Conv2d(components, width, 3, padding=1)
        self.before = nn.ModuleList(TimedBlock(width, time) for _ in range(2))
        self.inner_down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.inner = nn.ModuleList([TimedBlock(width, time), Attention(width), TimedBlock(width, time)])
        self.inner_up = nn.Conv2d(width, width, 1)
        self.after = nn.ModuleList(TimedBlock(width, time) for _ in range(2))
        self.leave = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, components, 3, padding=1))
        silent(self.leave[-1])
        self.register_buffer("mean", torch.zeros(feature_channels))
        self.register_buffer("basis", torch.eye(feature_channels, components))
        self.register_buffer("spread", torch.ones(components))

    def whiten(self, features: Tensor) -> Tensor:
        """The generator's map (N,C,H,W) to its whitened components (N,K,H,W), float32."""
        centred = features.float() - self.mean.float()[:, None, None]
        return torch.einsum("nchw,ck->nkhw", centred, self.basis.float()) / self.spread.float()[:, None, None]

    def features(self, components: Tensor, regressed: Tensor) -> Tensor:
        """Back from `whiten`: the map (N,C,H,W) with these components, and for the rest those of another map."""
        change = (components - self.whiten(regressed)) * self.spread.float()[:, None, None]
        return regressed + torch.einsum("nkhw,ck->nchw", change, self.basis.float())

    def condition(self, seen: Tensor, regressed: Tensor) -> Tensor:
        """What the velocity needs to know of a face, once for all steps.

        Args:
            seen: (N,3,size,size) RGB in [0,1], the damaged face.
            regressed: (N,K,size/8,size/8), whitened components that the restorer read of it.

        Returns:
            (N,width,size/8,size/8).
        """
        h = self.down(self.stem(seen - 0.5)) + self.regressed(regressed)
        for block in self.seen:
            h = block(h)
        return h + self.context_up(F.interpolate(self.context(self.context_down(h)), scale_factor=2.0))

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """The velocity at x = (1 - t) · start + t · face.

        Args:
            x: (N,K,H,H) whitened components.
            time: (N,) t in [0,1].
            condition: see `condition`.

        Returns:
            (N,K,H,H), face - start.

        Raises:
            InputError: another number of components.
        """
        if x.ndim != 4 or x.shape[1] != self.config.components:
            raise InputError(f"maps must be (N,{self.config.components},H,H), got {tuple(x.shape)}: whiten them first")
        rates = torch.exp(-math.log(1000) * torch.arange(FREQUENCIES, device=x.device) / FREQUENCIES)
        angles = 100 * time.float()[:, None] * rates
        t = self.time(torch.cat([angles.sin(), angles.cos()], 1).to(x.dtype))  # (N, T)
        h = self.enter(x) + condition
        for block in self.before:
            h = block(h, t)
        inner = self.inner_down(h)
        for block in self.inner:
            inner = block(inner, t) if isinstance(block, TimedBlock) else block(inner)
        h = h + self.inner_up(F.interpolate(inner, scale_factor=2.0))
        for block in self.after:
            h = block(h, t)
        return self.leave(h)

    def start(self, regressed: Tensor, noise: Tensor) -> Tensor:
        """Where a face begins: the regressed components (N,K,H,H) and standard normal noise of the same shape."""
        return regressed + self.config.noise * noise

    def sample(
        self, seen: Tensor, features: Tensor, noise: Tensor, steps: int = 4, graded: int | None = None
    ) -> Tensor:
        """One map for each damaged face, by Euler's method.

        Args:
            seen: (N,3,size,size) RGB in [0,1], the damaged faces, of the network's dtype.
            features: (N,C,H,H) float32, the map that the restorer read of each.
            noise: (N,K,H,H) standard normal; another one gives another face.
            steps: of the flow.
            graded: how many of the last steps a gradient goes through, in training; None: all.

        Returns:
            (N,C,H,H) float32.
        """
        regressed = self.whiten(features)
        condition = self.condition(seen, regressed.to(seen.dtype))
        x = self.start(regressed, noise.to(regressed))
        first = 0 if graded is None else steps - graded
        for step in range(steps):
            t = torch.full((len(x),), step / steps, device=x.device)
            with torch.set_grad_enabled(torch.is_grad_enabled() and step >= first):
                x = x + self(x.to(seen.dtype), t, condition).float() / steps
        return self.features(x, features)
