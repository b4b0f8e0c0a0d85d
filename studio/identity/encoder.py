"""From a photograph and its face meshes to identity vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from studio import weights
from studio.errors import InputError
from studio.faces.align import dlib_transform, warp
from studio.networks.identity import IdentityNet

BATCH = 32  # chips that pass through the network at once; bounds the memory of a group of a hundred faces


class IdentityEncoder:
    """dlib's identity network with the alignment it was trained on.

    Every face is seen twice, as it is and mirrored, and the two vectors are averaged: photographs of before 1900
    (tintypes, daguerreotypes) are often mirrored, and the average also separates people a little better.

    Differentiable with respect to the picture. Wrap calls in `torch.no_grad()` when no gradient is needed.

    Args:
        net: the network, on the device and in the dtype it is to run in.
    """

    def __init__(self, net: IdentityNet) -> None:
        self.net = net

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> Self:
        """Load the network, frozen, float32, on the CPU.

        Args:
            folder: a converted network; the weight store's "identity" when not given (fetched on first use).

        Raises:
            MissingWeightsError: not here and could not be fetched.
            WeightsError: the folder holds something else.
        """
        net = IdentityNet.from_pretrained(folder if folder is not None else weights.path("identity"))
        return cls(net.requires_grad_(False))

    @property
    def size(self) -> int:
        """Side of a chip in pixels."""
        return self.net.config.size

    def to(self, device: torch.device | str) -> Self:
        """Move the network to a device; returns the encoder itself."""
        self.net.to(device)
        return self

    def embed(self, image: Tensor, mesh: np.ndarray) -> Tensor:
        """Identity vectors of the faces in one photograph.

        Args:
            image: (3,H,W) float32 RGB in [0,1].
            mesh: (N,468,3) float32, pixels of the photograph.

        Returns:
            (N,128) float32; N may be 0.

        Raises:
            InputError: another shape.
        """
        return self.embed_chips(self.chips(image, mesh))

    def chips(self, image: Tensor, mesh: np.ndarray) -> Tensor:
        """The aligned faces: (3,H,W) RGB in [0,1] and meshes (N,468,3) -> (N,3,150,150) float32 RGB in [0,1]."""
        if image.ndim != 3 or image.shape[0] != 3:
            raise InputError(f"a photograph must be (3,H,W), got {tuple(image.shape)}: pass one at a time")
        if not len(mesh):
            return image.new_empty(0, 3, self.size, self.size)
        return warp(image, dlib_transform(mesh, self.size), self.size)

    def embed_chips(self, chips: Tensor) -> Tensor:
        """Identity vectors of aligned faces.

        Args:
            chips: (N,3,150,150) RGB in [0,1], as `chips` makes them.

        Returns:
            (N,128) float32 on the network's device; N may be 0.

        Raises:
            InputError: another shape.
        """
        size = self.size
        if chips.ndim != 4 or chips.shape[1:] != (3, size, size):
            raise InputError(f"chips must be (N,3,{size},{size}), got {tuple(chips.shape)}: make them with chips()")
        chips = chips.to(self.net.device, self.net.dtype)
        if not len(chips):
            return chips.new_empty(0, self.net.config.embedding_dim, dtype=torch.float32)
        parts = [self.net(torch.cat([part, part.flip(-1)])) for part in chips.split(BATCH)]
        return torch.cat([torch.stack(part.float().chunk(2)).mean(0) for part in parts])
