"""Iris and eye contour: 71 + 5 three-dimensional points from one eye crop (Ablavatski et al., arXiv 2006.11341)."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.blaze import SameConv, bottleneck
from studio.networks.loading import StrictModel

SIZE = 64
CONTOUR, IRIS = 71, 5


def head(channels: int, points: int) -> nn.Sequential:
    """(N,C,8,8) -> (N,3*points,1,1)."""
    blocks = [bottleneck(channels, channels, 2 if i in (2, 5) else 1) for i in range(8)]
    return nn.Sequential(*blocks, nn.Conv2d(channels, 3 * points, 2))


class IrisNet(StrictModel):
    """MediaPipe's iris network.

    It knows eyes left in the picture only, which are the person's right ones: mirror the crop of the other one, and its
    points back.

    Args:
        channels: channels of the stem; later stages have twice as many.
    """

    @register_to_config
    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        wide = 2 * channels
        self.stem = nn.Sequential(SameConv(3, channels, 3, 2), nn.PReLU(channels))
        self.body = nn.Sequential(
            *(bottleneck(channels, channels) for _ in range(4)),
            bottleneck(channels, wide, 2),
            *(bottleneck(wide, wide) for _ in range(4)),
            bottleneck(wide, wide, 2),
        )
        self.contour = head(wide, CONTOUR)
        self.iris = head(wide, IRIS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Places the points on eye crops.

        Args:
            x: (N,3,64,64) float32 RGB in [0,1], an eye in the middle.

        Returns:
            Eye contour and brow (N,71,3) and iris (N,5,3; centre first) in pixels of the crop.

        Raises:
            InputError: the input has another shape.
        """
        if x.ndim != 4 or x.shape[1:] != (3, SIZE, SIZE):
            raise InputError(f"the iris network takes (N,3,{SIZE},{SIZE}), got {tuple(x.shape)}: resize the eye crop")
        features = self.body(self.stem(x))  # (N, C, 8, 8)
        contour, iris = self.contour(features).flatten(1), self.iris(features).flatten(1)
        return contour.unflatten(1, (CONTOUR, 3)), iris.unflatten(1, (IRIS, 3))
