"""Face mesh: 468 three-dimensional points from one face crop (Kartynnik et al., arXiv 1907.06724)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.blaze import SameConv, single
from studio.networks.loading import StrictModel

SIZE = 192
POINTS = 468


class Head(nn.Module):
    """The last 3x3 features to a vector: squeeze, one block, one unpadded 3x3 convolution; (N,C,3,3) -> (N,out)."""

    def __init__(self, c_in: int, c_mid: int, c_out: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(SameConv(c_in, c_mid), nn.PReLU(c_mid))
        self.block = single(c_mid, c_mid, prelu=True)
        self.out = nn.Conv2d(c_mid, c_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return self.out(self.block(self.squeeze(x))).flatten(1)


class FaceMesh(StrictModel):
    """MediaPipe's face mesh.

    Args:
        channels: channels of the six stages; the stem makes the first, each later stage halves the size.
        head_channels: channels inside the two heads.
    """

    @register_to_config
    def __init__(self, channels: Sequence[int] = (16, 32, 64, 128, 128, 128), head_channels: int = 32) -> None:
        super().__init__()
        if len(channels) != 6:
            raise InputError(f"channels must name six stages, got {len(channels)}: give six numbers")
        self.stem = nn.Sequential(SameConv(3, channels[0], 3, 2), nn.PReLU(channels[0]))
        stages = [single(channels[0], channels[0], prelu=True) for _ in range(2)]
        for c_in, c_out in pairwise(channels[:5]):
            stages.append(single(c_in, c_out, 2, prelu=True))
            stages += [single(c_out, c_out, prelu=True) for _ in range(2)]
        self.body = nn.Sequential(*stages)
        c_in, c_out = channels[4:]
        self.points = nn.Sequential(
            single(c_in, c_out, 2, prelu=True),
            single(c_out, c_out, prelu=True),
            single(c_out, c_out, prelu=True),
            Head(c_out, head_channels, POINTS * 3),
        )
        self.presence = nn.Sequential(single(c_in, c_out, 2, prelu=True), Head(c_out, head_channels, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Places the mesh on face crops.

        Args:
            x: (N,3,192,192) float32 RGB in [0,1]: 1.5 times the face box, eyes level.

        Returns:
            Points (N,468,3) in pixels of the crop (z in the same unit, smaller is nearer the camera, zero at the head's
            middle) and a logit (N,) that says whether a face is there.

        Raises:
            InputError: the input has another shape.
        """
        if x.ndim != 4 or x.shape[1:] != (3, SIZE, SIZE):
            raise InputError(f"the mesh takes (N,3,{SIZE},{SIZE}), got {tuple(x.shape)}: warp the face to that size")
        features = self.body(self.stem(x))  # (N, C, 6, 6)
        return self.points(features).unflatten(1, (POINTS, 3)), self.presence(features).squeeze(1)
