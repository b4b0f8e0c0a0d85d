"""The latent encoder: an aligned face, clean or damaged, to the latents that would draw it.

Plain regression, as in the first step of e4e (arXiv 2102.02766) without its residual ones: what it cannot tell, it
averages. So it gives searches their start, and never a result.
"""

from __future__ import annotations

import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel
from studio.networks.restorer import ResidualBlock, stage


class LatentEncoder(StrictModel):
    """Aligned face -> Gaussian coordinates of its structure and of its texture (see `LatentSpace`).

    Args:
        size: side of the input, a multiple of 32.
        widths: channels at 1/4, 1/8, 1/16 and 1/32 of the size.
        hidden: width of the last layer but one.
        latent_dim: length of one latent.
    """

    @register_to_config
    def __init__(
        self,
        size: int = 96,
        widths: tuple[int, ...] = (64, 96, 128, 160),
        hidden: int = 256,
        latent_dim: int = 512,
    ) -> None:
        super().__init__()
        c4, c8, c16, c32 = widths
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, c4, 3, padding=1),
            ResidualBlock(c4),
            stage(c4, c8, 1),
            stage(c8, c16, 1),
            stage(c16, c32, 1),
        )
        flat = c32 * (size // 32) ** 2
        self.head = nn.Sequential(
            nn.Flatten(), nn.SiLU(), nn.Linear(flat, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode faces.

        Args:
            x: (N,3,S,S) RGB in [0,1], FFHQ-aligned, S at least the network's size; it is shrunk to it.

        Returns:
            (N,2,D) float32 Gaussian coordinates: of the style layers below 7, and of the others.

        Raises:
            InputError: another shape.
        """
        size = self.config.size
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] != x.shape[3] or x.shape[2] < size:
            raise InputError(f"faces must be (N,3,S,S) of {size} px or more, got {tuple(x.shape)}: align them first")
        if x.shape[2] > size:
            x = F.interpolate(x, (size, size), mode="area")
        return self.head(self.body((x - 0.5).to(self.dtype))).float().unflatten(1, (2, -1))
