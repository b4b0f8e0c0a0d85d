"""Image heads: a picture from an early map of the generator, at half or a quarter of its size.

The published generator has one image head, behind its last block. A linear read-out of an earlier map reaches only
about 24 dB; two styled convolutions at the map's own size and an inverse Haar step reach more at a fraction of the
cost of the blocks they stand for. They are distilled from the generator's own pictures (`studio/training/heads.py`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.generator import SLOPE, Generator, Modulation, StyledConv, inverse_haar
from studio.networks.loading import StrictModel


class ImageHead(StrictModel):
    """Map of the generator after `start` blocks -> picture of twice the map's size.

    Args:
        start: number of blocks that the map has passed: 5 gives 256 px, 6 gives 512 px with the real generator.
        channels_in: of that map.
        size: side of that map.
        width: channels between the two convolutions.
        style_dim: length of one latent.
    """

    @register_to_config
    def __init__(
        self, start: int = 6, channels_in: int = 128, size: int = 256, width: int = 64, style_dim: int = 512
    ) -> None:
        super().__init__()
        self.conv1 = StyledConv(style_dim, channels_in, width, size)
        self.conv2 = StyledConv(style_dim, width, width, size)
        self.to_image_modulation = Modulation(style_dim, width, 1 / math.sqrt(width))
        self.to_image = nn.Conv2d(width, 12, 1)
        for conv in (self.conv1, self.conv2):  # learned here, where the generator has a constant
            noise = nn.Parameter(conv.noise)
            del conv.noise
            conv.noise = noise

    @torch.no_grad()
    def initialise(self, features: Tensor) -> None:
        """Start close to a linear read-out: pass channels through, each in units of its spread in `features`."""
        for conv, spread in ((self.conv1, features.std((0, 2, 3)).clamp_min(1e-4)), (self.conv2, None)):
            conv.depthwise.zero_()
            conv.depthwise[:, 0, 1, 1] = 1.0 if spread is None else 1 / spread
            nn.init.kaiming_normal_(conv.pointwise, a=SLOPE)
        for modulation in (self.conv1.modulation, self.conv2.modulation, self.to_image_modulation):
            modulation.linear.weight.zero_()
            modulation.linear.bias.fill_(1 / modulation.scale)
        nn.init.normal_(self.to_image.weight, std=0.01)
        self.to_image.bias = nn.Parameter(torch.zeros_like(self.to_image.weight[:, 0, 0, 0]))

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        """Finish a picture.

        Args:
            features: (N, channels_in, size, size), as `Generator.features(w, start)` returns.
            w: W+ latents (N, layers, style_dim). Read are the style layers of the block that would come next, and the
                image head's.

        Returns:
            (N,3,2·size,2·size) RGB, about [-1,1], not clamped.

        Raises:
            InputError: a map of another shape.
        """
        wanted = (self.config.channels_in, self.config.size, self.config.size)
        if features.ndim != 4 or features.shape[1:] != wanted:
            raise InputError(
                f"features must be (N,{wanted[0]},{wanted[1]},{wanted[2]}), got {tuple(features.shape)}: "
                f"pass the map after {self.config.start} blocks"
            )
        return self.finish(features, w)

    def finish(self, features: Tensor, w: Tensor) -> Tensor:
        """`forward` of a map of any side that fits the noise of the two convolutions, unchecked."""
        start = self.config.start
        x = self.conv2(self.conv1(features, w[:, 1 + 2 * start]), w[:, 2 + 2 * start])
        x = x * self.to_image_modulation(w[:, -1])[:, :, None, None]
        return inverse_haar(self.to_image(x))

    def render(self, generator: Generator, w: Tensor) -> Tensor:
        """Latents W or W+ to pictures, through the first `start` blocks of `generator` and this head."""
        w = generator.slots(w)
        return self(generator.features(w, self.config.start), w)


def target(image: Tensor, size: int) -> Tensor:
    """What a head of `size` should give: the generator's picture (N,3,S,S), averaged over blocks."""
    return F.interpolate(image, size=(size, size), mode="area")
