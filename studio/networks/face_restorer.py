"""What a network needs to be one of the restorers that `RestorePipeline` takes: ours, or one that others published."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

PHOTO_SHARE = 0.5  # of the photo itself at fidelity 1, where a network has no such setting of its own
SIZE = 512  # px, side of the crops


class FaceRestorer(Protocol):
    """A network that restores an aligned face of 512 px as a whole.

    Attributes:
        template: how its crops are aligned: by the five points of facexlib, as GFPGAN's and its descendants' are, or as
            the faces of FFHQ.
        fidelity_means: what `fidelity` does, for docs and reports.
    """

    template: Literal["facexlib", "ffhq"]
    fidelity_means: str

    def restore(self, crops: Tensor, fidelity: Tensor) -> Tensor:
        """Restored faces.

        Args:
            crops: (N,3,512,512) RGB in [0,1], aligned by `template`.
            fidelity: (N,) in [0,1], how much the photo counts.

        Returns:
            (N,3,512,512) RGB in about [0,1].
        """
        ...


def channels_last(network: nn.Module) -> None:
    """Lay the weights of convolutions out as CPUs and GPUs are quickest with; others, of five dimensions say, stay."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            layer: Any = module  # torch declares no `to` of a layout alone
            layer.to(memory_format=torch.channels_last)


def with_photo(restored: Tensor, crops: Tensor, fidelity: Tensor) -> Tensor:
    """Restored faces up to a fidelity of 0.5, and ever more of the photo itself above: half at 1."""
    share = PHOTO_SHARE * (2 * fidelity - 1).clamp(min=0).view(-1, 1, 1, 1).to(restored)
    return restored + share * (crops - restored)
