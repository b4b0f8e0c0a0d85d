"""The restorer: a damaged face to what the generator needs, and to what the pixels themselves still say.

Feature inversion as in BDInvert (arXiv 2107.03182) and GFP-GAN (2101.04061): instead of one latent for the whole
face, predict the generator's own 32 px map, so that the place of every feature comes from the photograph; one latent
for the layers above, which colour and texture it, and what each of those layers adds to it; and a scale and shift of
the 64, 128 and 256 px maps (the spatial feature transform of GFP-GAN, section 3.3), which carry finer detail over.
Eyes, nose and mouth take detail from a dictionary (`studio.networks.dictionary`). Beside that *prior* the network
predicts the *estimate*: the least-error picture of the clean face, blurred wherever the photograph does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from studio.errors import InputError
from studio.imaging.joining import sized
from studio.networks.dictionary import LEVELS, ComponentDictionary
from studio.networks.generator import Generator
from studio.networks.image_head import ImageHead
from studio.networks.loading import StrictModel
from studio.networks.start import silent

START_BLOCK = 3  # the generator takes over after this many blocks, at 32 px
STYLE_RANK = 32  # of what the style layers' own latents can be: a full one would be half as large as all else
FINEST_OCTAVE = 1  # that a map of the input's own size draws, counted from the finest of the 512 px crop
FINE_RANK = 16  # numbers per pixel that the scale and shift of the largest map are made of


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3, SiLU, 3x3, sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N,C,H,W) to a map of the same shape."""
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


def stage(channels_in: int, channels_out: int, blocks: int) -> nn.Sequential:
    """Halve the size, then residual blocks."""
    down = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1)
    return nn.Sequential(down, *(ResidualBlock(channels_out) for _ in range(blocks)))


@dataclass
class Restored:
    """What `Restorer` returns.

    Attributes:
        features: (N,C,32,32) float32, the generator's map after block 3.
        latent: (N,D) float32, for the style layers from 7 on.
        estimate: (N,3,S,S) float32 RGB, about [0,1], not clamped; S is the input size.
        spatial: (scale, shift) of the generator's maps after the next blocks, float32. The first two (N,C,S/4,S/4): as
            large as the first of those maps, and enlarged for the second; the third (N,C,S,S). Empty when the network
            has no spatial path, two when it has no fine one.
        styles: (N,K,D) float32, what the last K style layers add to the latent; None when they all share it.
    """

    features: Tensor
    latent: Tensor
    estimate: Tensor
    spatial: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    styles: Tensor | None = None


class Restorer(StrictModel):
    """Degraded aligned face -> generator features, latent and estimate.

    Args:
        size: side of the input; the feature map has size/8.
        widths: channels at 1/4, 1/8, 1/16, 1/32 and 1/64 of the size.
        feature_channels: channels of the generator's map.
        latent_dim: length of one latent.
        spatial_channels: of the generator's maps that are scaled and shifted, at size/4 and size/2; none by default.
        fine_channels: of the map of the input's own size, which is scaled and shifted pixel by pixel; 0 leaves it.
            Needs two spatial_channels.
        style_slots: how many of the last style layers get a latent of their own; 0 gives all of them the same.
        atoms: faces in the component dictionary; 0 for none.
    """

    @register_to_config
    def __init__(
        self,
        size: int = 256,
        widths: tuple[int, ...] = (96, 192, 256, 256, 256),
        feature_channels: int = 512,
        latent_dim: int = 512,
        spatial_channels: tuple[int, ...] = (),
        fine_channels: int = 0,
        style_slots: int = 0,
        atoms: int = 0,
    ) -> None:
        super().__init__()
        c4, c8, c16, c32, c64 = widths
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, c4, 3, padding=1), ResidualBlock(c4), ResidualBlock(c4)
        )
        self.stage8 = stage(c4, c8, 2)
        self.stage16 = stage(c8, c16, 1)
        self.stage32 = stage(c16, c32, 1)
        self.stage64 = stage(c32, c64, 0)
        self.to_latent = nn.Sequential(
            nn.SiLU(), nn.Conv2d(c64, 384, size // 64), nn.Flatten(), nn.SiLU(), nn.Linear(384, latent_dim)
        )
        self.context16 = nn.Conv2d(c16, c8, 1)
        self.context32 = nn.Conv2d(c32, c8, 1)
        self.fuse = nn.Sequential(ResidualBlock(c8), ResidualBlock(c8))
        self.to_features = nn.Conv2d(c8, feature_channels, 1)
        self.context8 = nn.Conv2d(c8, c4, 1)
        self.refine = nn.Sequential(ResidualBlock(c4), ResidualBlock(c4))
        self.to_residual = nn.Conv2d(c4, 48, 3, padding=1)
        self.to_spatial = nn.ModuleList(nn.Conv2d(c4, 2 * channels, 1) for channels in spatial_channels)
        self.to_fine = None
        if fine_channels and len(spatial_channels) != 2:
            raise InputError(f"fine_channels need two spatial_channels before them, got {spatial_channels}: give both")
        if fine_channels:
            self.to_fine = nn.Sequential(
                nn.SiLU(),
                nn.Conv2d(c4, 16 * FINE_RANK, 1),
                nn.PixelShuffle(4),
                nn.Conv2d(FINE_RANK, 2 * fine_channels, 1),
            )
        self.to_styles = None
        if style_slots:
            self.to_styles = nn.Sequential(nn.Linear(384, STYLE_RANK), nn.Linear(STYLE_RANK, style_slots * latent_dim))
        self.dictionary = ComponentDictionary(atoms, (feature_channels,) * LEVELS, latent_dim) if atoms else None
        added = [part[-1] for part in (self.to_styles, self.to_fine) if part is not None]
        silent(*self.to_spatial, *added)  # at first the generator is left as it is
        # The targets' statistics, so that the heads predict numbers of size one. Filled in before training.
        self.register_buffer("features_mean", torch.zeros(1, feature_channels, 1, 1))
        self.register_buffer("features_std", torch.ones(1, feature_channels, 1, 1))
        self.register_buffer("latent_mean", torch.zeros(1, latent_dim))
        self.register_buffer("latent_std", torch.ones(1, latent_dim))

    def prepare(self, generator: Generator) -> None:
        """Have the dictionary's atoms drawn, if there is one: once, on the device where the generator is."""
        if self.dictionary is not None:
            self.dictionary.draw(generator, START_BLOCK)

    def normalised(self, x: Tensor) -> Restored:
        """The heads as trained: features and latent in units of their statistics, estimate as the change to x.

        Args:
            x: as in `forward`.

        Returns:
            `Restored` in those units, of the dtype of the computation.
        """
        h4 = self.stem(x - 0.5)  # (N, c4, S/4, S/4)
        h8 = self.stage8(h4)
        h16 = self.stage16(h8)
        h32 = self.stage32(h16)
        summary = self.to_latent[:-1](self.stage64(h32))  # (N, 384)
        latent = self.to_latent[-1](summary)
        styles = None
        if self.to_styles is not None:
            styles = self.to_styles(summary).unflatten(1, (self.config.style_slots, self.config.latent_dim))
        context = F.interpolate(self.context32(h32), scale_factor=2.0) + self.context16(h16)
        h8 = self.fuse(h8 + F.interpolate(context, scale_factor=2.0))
        h4 = self.refine(h4 + F.interpolate(self.context8(h8), scale_factor=2.0))
        change = F.pixel_shuffle(self.to_residual(h4), 4)
        maps = [layer(F.silu(h4)) for layer in self.to_spatial]
        if self.to_fine is not None:
            maps.append(self.to_fine(h4))
        spatial = [
            tuple(part.contiguous(memory_format=torch.channels_last) for part in pair.chunk(2, dim=1)) for pair in maps
        ]
        return Restored(self.to_features(h8), latent, change, spatial, styles)

    def measured(self, parts: Restored, x: Tensor) -> Restored:
        """What `normalised` gave for x, in the generator's and the picture's own units, all float32."""
        return Restored(
            parts.features.float() * self.features_std.float() + self.features_mean.float(),
            parts.latent.float() * self.latent_std.float() + self.latent_mean.float(),
            x.float() + parts.estimate.float(),
            [(scale.float(), shift.float()) for scale, shift in parts.spatial],
            None if parts.styles is None else parts.styles.float() * self.latent_std.float(),
        )

    def forward(self, x: Tensor) -> Restored:
        """Restore a batch of aligned faces.

        Args:
            x: (N,3,size,size) RGB in [0,1], FFHQ-aligned, of the network's dtype.

        Returns:
            `Restored`, all float32.

        Raises:
            InputError: another shape.
        """
        size = self.config.size
        if x.ndim != 4 or x.shape[1:] != (3, size, size):
            raise InputError(f"faces must be (N,3,{size},{size}), got {tuple(x.shape)}: align and resize them first")
        return self.measured(self.normalised(x), x)


def draw_prior(
    generator: Generator, head: ImageHead, parts: Restored, dictionary: ComponentDictionary | None = None
) -> Tensor:
    """The face that the generator draws from what the restorer read.

    Args:
        generator: frozen; its dtype is the computation's.
        head: finishes the picture.
        parts: of N faces.
        dictionary: the restorer's, drawn by the same generator; None leaves it out.

    Returns:
        (N,3,S,S) RGB, about [-1,1], not clamped; S is the head's, 512 with the real one.
    """
    dtype = generator.dtype
    if len(parts.features) > 1 and parts.features.device.type == "cpu" and not torch.is_grad_enabled():
        # A CPU is busy with one face, and one face at a time folds its factors into the kernels.
        return torch.cat([draw_prior(generator, head, one, dictionary) for one in each(parts)])
    w = generator.slots(parts.latent)
    if parts.styles is not None:
        w = torch.cat([w[:, : -parts.styles.shape[1]], w[:, -parts.styles.shape[1] :] + parts.styles], 1)
    w, x = w.to(dtype), parts.features.to(dtype)
    for level in range(head.config.start - START_BLOCK + 1):
        if level:
            x = generator.run_blocks(x, w, START_BLOCK + level - 1, START_BLOCK + level)
        if 0 < level <= len(parts.spatial):
            scale, shift = (enlarged(part.to(dtype), x.shape[2]) for part in parts.spatial[level - 1])
            x = torch.addcmul(shift, x, 1 + scale)
        if dictionary is not None and level < LEVELS:
            x = dictionary(x, level)
    return head(x.to(head.dtype), w.to(head.dtype))


def as_certain(parts: Restored, certainty: Tensor) -> Restored:
    """Scales and shifts of the generator's finest map, only as far as the photograph is certain of the octave it draws.

    They carry the photograph's own detail over, and its blur, blocks and noise where there is no detail.

    Args:
        parts: of N faces.
        certainty: (N,O,h,w) in [0,1], see `studio.networks.cleaner`.
    """
    if not parts.spatial:
        return parts
    *coarse, finest = parts.spatial
    sure = sized(certainty[:, [FINEST_OCTAVE]], finest[0].shape[2])
    return replace(parts, spatial=[*coarse, tuple(part * sure for part in finest)])


def enlarged(x: Tensor, size: int) -> Tensor:
    """A map (N,C,H,H) at the size of another, bilinear."""
    return x if x.shape[2] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def each(parts: Restored) -> list[Restored]:
    """One `Restored` per face."""
    spatial = [zip(scale.split(1), shift.split(1), strict=True) for scale, shift in parts.spatial]
    styles = [None] * len(parts.features) if parts.styles is None else parts.styles.split(1)
    columns = (parts.features.split(1), parts.latent.split(1), parts.estimate.split(1), styles)
    return [
        Restored(features, latent, estimate, [next(pairs) for pairs in spatial], own)
        for features, latent, estimate, own in zip(*columns, strict=True)
    ]
