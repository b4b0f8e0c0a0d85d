"""Skin and hair, read off the generator's own map.

After three blocks the generator's cells already know what they will become: clustered, they fall into skin, hair,
clothes and backgrounds (Collins et al., arXiv 2004.14367, found the same in StyleGAN). The restorer predicts that map
for a photograph, so that one linear layer over it is a face parser.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel

PARTS = ("rest", "skin", "hair")


class HeadParts(StrictModel):
    """The generator's map after block 3 -> what each cell shows.

    Args:
        channels: of the map.

    Buffers, float32: `mean`, `std` (1,channels,1,1) of the map's channels over generated faces.
    """

    @register_to_config
    def __init__(self, channels: int = 512) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.classify = nn.Conv2d(channels, len(PARTS), 1)

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities of `PARTS`.

        Args:
            features: (N,channels,H,W), as `Generator.features(w, 3)` or a `Restorer` gives them.

        Returns:
            (N,3,H,W), they sum to 1.

        Raises:
            InputError: another number of channels.
        """
        channels = self.config.channels
        if features.ndim != 4 or features.shape[1] != channels:
            raise InputError(
                f"features must be (N,{channels},H,W), got {tuple(features.shape)}: pass the map after block 3"
            )
        return self.classify(directions(features, self.mean, self.std)).softmax(1)


def directions(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Cells (N,C,H,W) in units of their spread, each of length 1: how bright or strong one is does not count."""
    return F.normalize((features - mean) / std, dim=1)
