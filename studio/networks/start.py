"""How layers begin before they are trained."""

from __future__ import annotations

from torch import nn


def silent(*layers: nn.Module) -> None:
    """Set all parameters of layers to 0, so that what they add is nothing at first."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
