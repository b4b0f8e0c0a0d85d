"""CodeFormer (arXiv 2206.11253): a transformer predicts the codes of a clean face, a generator draws them.

`fidelity` is the paper's w: 0 is what the codes alone say, 1 takes over most of the encoder's features. Tensors have
the published names.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.networks.loading import StrictModel
from studio.networks.vq import Codebook, Down, ResBlock, Up, attend, normalize

SHORTCUT = "conv_out"
SLOPE = 0.2
EPSILON = 1e-5


class Attention(nn.Module):
    """Self-attention among the places of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = normalize(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        y = self.norm(x)
        return x + self.proj_out(attend(self.q(y), self.k(y), self.v(y)))


class Blocks(nn.Module):
    """Encoder or generator: one list of blocks, as the file numbers them."""

    def __init__(self, blocks: Iterator[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


def encoder_blocks(width: int, multipliers: tuple[int, ...], codes_dim: int) -> Iterator[nn.Module]:
    """From the picture to the codes; every level but the last halves the size, the last has attention."""
    yield nn.Conv2d(3, width, 3, padding=1)
    before, last = width, len(multipliers) - 1
    for level, multiplier in enumerate(multipliers):
        for _ in range(2):
            yield ResBlock(before, multiplier * width, SHORTCUT)
            before = multiplier * width
            if level == last:
                yield Attention(before)
        if level != last:
            yield Down(before)
    yield ResBlock(before, before, SHORTCUT)
    yield Attention(before)
    yield ResBlock(before, before, SHORTCUT)
    yield normalize(before)
    yield nn.Conv2d(before, codes_dim, 3, padding=1)


def generator_blocks(width: int, multipliers: tuple[int, ...], codes_dim: int) -> Iterator[nn.Module]:
    """From the codes to the picture."""
    before = multipliers[-1] * width
    yield nn.Conv2d(codes_dim, before, 3, padding=1)
    yield ResBlock(before, before, SHORTCUT)
    yield Attention(before)
    yield ResBlock(before, before, SHORTCUT)
    last = len(multipliers) - 1
    for level in range(last, -1, -1):
        for _ in range(2):
            yield ResBlock(before, multipliers[level] * width, SHORTCUT)
            before = multipliers[level] * width
            if level == last:
                yield Attention(before)
        if level:
            yield Up(before)
    yield normalize(before)
    yield nn.Conv2d(before, 3, 3, padding=1)


class Layer(nn.Module):
    """A transformer layer, normalized first; positions are added to queries and keys."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """(N, places, dim) -> the same shape."""
        y = self.norm1(x)
        placed = y + positions
        x = x + self.self_attn(placed, placed, y, need_weights=False)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class Fuse(nn.Module):
    """Scales and shifts the generator's features by the encoder's (controllable feature transformation, eq. 6)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encode_enc = ResBlock(2 * channels, channels, SHORTCUT)
        self.scale, self.shift = (
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(2)
        )

    def forward(self, encoded: Tensor, drawn: Tensor, w: Tensor) -> Tensor:
        """Two maps (N, C, H, W) and (N, 1, 1, 1) -> (N, C, H, W)."""
        both = self.encode_enc(torch.cat((encoded, drawn), 1))
        return drawn + w * (drawn * self.scale(both) + self.shift(both))


def spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of a map (N, C, H, W), as (N, C, 1, 1)."""
    flat = x.float().flatten(2)
    deviation = (flat.var(2) + EPSILON).sqrt()
    return flat.mean(2)[..., None, None].to(x), deviation[..., None, None].to(x)


class CodeFormer(StrictModel):
    """Aligned face -> restored face.

    Args:
        size: side of the face.
        width: channels at that size.
        multipliers: channels at each half of it, in widths.
        codes: how many codes there are.
        codes_dim: length of a code.
        dim: width of the transformer.
        heads: of its attention.
        layers: of the transformer.
        fused: sizes, in px, at which the encoder's features are taken over.
    """

    template = "facexlib"
    fidelity_means = "the paper's w: 0 the codes alone, 1 most of the photo's own features"

    @register_to_config
    def __init__(
        self,
        size: int = 512,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 8),
        codes: int = 1024,
        codes_dim: int = 256,
        dim: int = 512,
        heads: int = 8,
        layers: int = 9,
        fused: tuple[int, ...] = (32, 64, 128, 256),
    ) -> None:
        super().__init__()
        multipliers = tuple(multipliers)
        self.encoder = Blocks(encoder_blocks(width, multipliers, codes_dim))
        self.quantize = Codebook(codes, codes_dim)
        self.generator = Blocks(generator_blocks(width, multipliers, codes_dim))
        side = size >> (len(multipliers) - 1)  # of the map of codes
        self.position_emb = nn.Parameter(torch.zeros(side * side, dim))
        self.feat_emb = nn.Linear(codes_dim, dim)
        self.ft_layers = nn.ModuleList(Layer(dim, heads, 2 * dim) for _ in range(layers))
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, codes, bias=False))
        self.fuse_convs_dict = nn.ModuleDict(
            {str(at): Fuse(multipliers[(size // at).bit_length() - 1] * width) for at in fused}
        )

    def encode(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """The map of codes as it was read, (N, codes_dim, h, w), and the features before each halving, by size."""
        features = {}
        for block in self.encoder.blocks:
            if isinstance(block, Down):
                features[x.shape[-1]] = x
            x = block(x)
        return x, features

    def logits(self, read: Tensor) -> Tensor:
        """The map that was read (N, codes_dim, h, w) -> scores of the codes at each place, (N, h·w, codes)."""
        x = self.feat_emb(read.flatten(2).transpose(1, 2))  # (N, places, dim)
        for layer in self.ft_layers:
            x = layer(x, self.position_emb)
        return self.idx_pred_layer(x)

    def forward(self, x: Tensor, w: Tensor | float = 0.5, adain: bool = True) -> Tensor:
        """Restore faces.

        Args:
            x: (N,3,size,size) RGB in [-1,1], aligned by the template.
            w: (N,) or one number in [0,1].
            adain: give the codes the statistics of what was read, which keeps the photo's colours.

        Returns:
            (N,3,size,size) RGB in about [-1,1].
        """
        read, features = self.encode(x)
        w = torch.as_tensor(w, device=x.device, dtype=x.dtype).expand(len(x))
        return self.draw(self.logits(read), read, features, w, adain)

    def draw(self, logits: Tensor, read: Tensor, features: dict[int, Tensor], w: Tensor, adain: bool) -> Tensor:
        """The picture of the most likely codes, see `forward`, `encode` and `logits`."""
        w = w.view(-1, 1, 1, 1)
        codes = logits.argmax(2).view(-1, *read.shape[2:])
        y = self.quantize.look_up(codes).to(read)
        if adain:
            (mean, deviation), (wanted_mean, wanted_deviation) = spread(y), spread(read)
            y = (y - mean) / deviation * wanted_deviation + wanted_mean
        fused = self.config.fused if bool((w > 0).any()) else ()
        doubled = False
        for block in self.generator.blocks:
            y = block(y)
            if doubled and y.shape[-1] in fused:  # after the first block of each size
                y = self.fuse_convs_dict[str(y.shape[-1])](features[y.shape[-1]], y, w)
            doubled = isinstance(block, Up)
        return y

    def restore(self, crops: Tensor, fidelity: Tensor) -> Tensor:
        """See `studio.networks.face_restorer.FaceRestorer`."""
        return self(2 * crops - 1, fidelity) / 2 + 0.5
