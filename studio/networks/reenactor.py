"""Drawing a moved face: what a dense motion warps is mended, what it uncovers is invented.

As in DaGAN (Hong et al., arXiv 2203.06605, section 3.3) depth asks and appearance answers: the wanted frame's depth
makes the queries of an attention over the still, whose depth and appearance make keys and values. What the warped
still shows well is kept as it is: the network draws a picture and a mask of where that picture is taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.networks.loading import StrictModel

STEP = 32  # sides are multiples of this


def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution and what follows it."""
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.LeakyReLU(0.2))


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,h,w) -> the same shape."""
        return x + self.second(self.first(x))


class DepthAsks(nn.Module):
    """Attention of the wanted frame's depth to the still.

    Args:
        width: channels of the appearance, and of the answer.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.asks = nn.Sequential(conv(4, width // 2), nn.Conv2d(width // 2, width, 1))
        self.keys, self.values, self.out = (nn.Conv2d(width, width, 1) for _ in range(3))

    def remember(self, still: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the still's appearance (N,C,h,w), once for all frames."""
        return self.split(self.keys(still)), self.split(self.values(still))

    def split(self, x: Tensor) -> Tensor:
        """(N,C,h,w) -> (N,heads,h*w,C/heads)."""
        return x.flatten(2).unflatten(1, (self.heads, -1)).mT

    def forward(self, wanted: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Geometry of the frames (N,4,h,w) and what is remembered -> (N,C,h,w)."""
        side = wanted.shape[-2:]
        found = F.scaled_dot_product_attention(self.split(self.asks(wanted)), keys, values)
        return self.out(found.mT.flatten(1, 2).unflatten(2, side))


class Reenactor(StrictModel):
    """Draws frames of a moved face.

    Args:
        widths: channels at a half, a quarter, an eighth and a sixteenth of the frame's side.
        appearance: channels of what is read in the still, at a quarter of its side.
    """

    @register_to_config
    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 96, 128), appearance: int = 48) -> None:
        super().__init__()
        first, second, third, last = widths
        self.read = nn.Sequential(conv(4 * 16, 64), conv(64, appearance), Residual(appearance))  # of the still
        self.read_deeper = nn.Sequential(conv(appearance, third, 2), Residual(third))
        self.start = conv(7 * 4, first)
        self.down = nn.Sequential(conv(first, second, 2))
        self.join = nn.Sequential(conv(second + appearance, second), Residual(second))
        self.deeper = conv(second, third, 2)
        self.attention = DepthAsks(third)
        self.middle = nn.Sequential(Residual(third), Residual(third))
        self.bottom = nn.Sequential(conv(third, last, 2), Residual(last), Residual(last), conv(last, third))
        self.rise = nn.Sequential(conv(2 * third, third), Residual(third))
        self.narrow_third, self.narrow_second = conv(third, second), conv(second, first)
        self.rise_second = nn.Sequential(conv(2 * second, second), Residual(second))
        self.rise_first = nn.Sequential(conv(2 * first, first), conv(first, first))
        self.out = nn.Conv2d(first, 4 * 4, 3, padding=1)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            bias = torch.zeros(4 * 4)
            bias[12:] = -1.0  # at first, most of the warped still is kept
            self.out.bias = nn.Parameter(bias)

    def look(self, still: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is read in stills, once for all frames.

        Args:
            still: (N,3,S,S) RGB in [0,1], S a multiple of 32.
            depth: (N,1,h,w) z in sides of the crop.

        Returns:
            Appearance (N,A,S/4,S/4), keys and values of the attention.
        """
        depth = resized(depth, still.shape[-1]).to(still)
        appearance = self.read(F.pixel_unshuffle(torch.cat([still * 2 - 1, depth * 2], 1), 4))
        return appearance, *self.attention.remember(self.read_deeper(appearance))

    def forward(
        self, warped: Tensor, geometry: Tensor, source: Tensor, looked: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Frames of N faces.

        Args:
            warped: (N,3,S,S) RGB in [0,1], the stills moved by `studio.motion.dense`.
            geometry: (N,4,h,w): what is covered, z, what is inside the lips, and inside the lids.
            source: (N,2,h,w) where the pixels come from, in sides of the still.
            looked: of `look`, for N stills or for one; None looks at the frames themselves.

        Returns:
            What is drawn (N,3,S,S) float32, about [0,1], and where it is to be taken instead of what was warped,
            (N,1,S,S) in [0,1].

        Raises:
            InputError: the shapes do not go together.
        """
        size = warped.shape[-1]
        if warped.ndim != 4 or warped.shape[1] != 3 or size % STEP or warped.shape[2] != size or geometry.shape[1] != 4:
            raise InputError(
                f"frames must be (N,3,S,S) with S a multiple of {STEP} and geometry (N,4,h,w), got "
                f"{tuple(warped.shape)}, {tuple(geometry.shape)}"
            )
        looked = looked or self.look(warped, geometry[:, 1:2])
        appearance, keys, values = (part.expand(len(warped), *part.shape[1:]) for part in looked)
        full, eighth = (resized(geometry, side).to(warped) for side in (size, size // 8))
        x = self.start(F.pixel_unshuffle(torch.cat([warped * 2 - 1, full], 1), 2))
        moved = F.grid_sample(appearance, places(source, size // 4).to(appearance), "bilinear", "border", False)
        y = self.join(torch.cat([self.down(x), moved], 1))
        z = self.deeper(y)
        z = self.middle(z + self.attention(eighth, keys, values))
        z = self.rise(torch.cat([z, larger(self.bottom(z))], 1))
        y = self.rise_second(torch.cat([larger(self.narrow_third(z)), y], 1))
        x = self.rise_first(torch.cat([larger(self.narrow_second(y)), x], 1))
        out = F.pixel_shuffle(self.out(x).float(), 2)  # (N, 4, S, S)
        return warped.float() + out[:, :3], out[:, 3:].sigmoid()


def resized(x: Tensor, side: int) -> Tensor:
    """Maps (N,C,h,w) of another side, float32."""
    return F.interpolate(x.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)


def places(source: Tensor, side: int) -> Tensor:
    """Where `grid_sample` looks for frames (N,side,side,2) of a flow's source (N,2,h,w)."""
    return F.interpolate(source, (side, side), mode="bilinear", align_corners=False).permute(0, 2, 3, 1) * 2 - 1


def larger(x: Tensor) -> Tensor:
    """Maps of twice the side."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
