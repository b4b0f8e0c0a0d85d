"""Editing a photograph itself: what a change does to the prior's face is carried over into the photograph's own maps.

The restorer reads an aligned face as the generator's 32 px map, latents for the slots above it, and scales and shifts
of its larger maps: a likeness that latents alone never reach (0.1 from the photograph in identity), in a space that
has no directions. The latents of a plain likeness have directions, and show somebody a little different. As in the
Feature-Style encoder (arXiv 2202.02183), the second moves the first, by the difference of the maps of two latents; and
where it moves it far, the face is drawn of the likeness's map instead, because the photograph's finer maps no longer
fit. What the drawn face lacks of the photograph, grain, hair and background, is laid over it again where nothing
changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from studio import images
from studio.networks.generator import Generator
from studio.networks.image_head import ImageHead
from studio.networks.restorer import START_BLOCK, Restored, Restorer, draw_prior, enlarged
from studio.tone import Tone, luma, with_tint, with_tone

# Of the change of the map's 512 channels in one place, over their root mean square on the face: where it is this much,
# the photograph's own map and detail count for 1/e.
TOLERANCE = 0.4
BLURRED = 32  # px of the drawn picture; the photograph's shades of this size are kept even where it changes
# Rows of an FFHQ-aligned face that a change is let into, in shares of the side: between the first and the second it
# fades in, between the third and the fourth out. What is not named may change all of the face.
LOWER, EYES = (0.5, 0.6, 1.0, 1.1), (0.3, 0.38, 0.58, 0.66)
ROWS = {"smile": LOWER, "mouth": LOWER, "eyes": EYES, "brow": EYES, "glasses": EYES}


class FaceInPhoto:
    """One face of a photograph, as the restorer reads it, and the latents that say what moving does to it.

    Args:
        generator: the prior.
        head: finishes the drawn face, 512 px with the real one.
        restorer: reads; `Restorer.prepare` must have been called.
        crop: (1,3,S,S) float32 RGB in [0,1], FFHQ-aligned; S is 512, as the real head draws.
        mask: (1,1,S,S) in [0,1], the face.
        w: (1,slots,D) W+ latents of a likeness.
        tone: `tone_curve` of a monochrome photograph, or None.
    """

    def __init__(
        self,
        generator: Generator,
        head: ImageHead,
        restorer: Restorer,
        crop: Tensor,
        mask: Tensor,
        w: Tensor,
        tone: Tone | None = None,
    ) -> None:
        self.generator, self.head, self.restorer, self.tone = generator, head, restorer, tone
        self.crop = crop if tone is None else luma(crop).expand_as(crop)
        small = images.resize(self.crop, restorer.config.size, restorer.config.size)
        self.parts = restorer(small.to(restorer.device, restorer.dtype))
        self.w = w.to(generator.device)
        self.features = self.map_of(self.w)
        self.mask = F.interpolate(mask, self.features.shape[2:], mode="area").to(self.features)
        self.lacking = self.crop - self.drawn(self.parts)

    def map_of(self, w: Tensor) -> Tensor:
        """The generator's map (1,C,32,32) of latents, float32."""
        return self.generator.features(w.to(self.generator.dtype), START_BLOCK).float()

    def drawn(self, parts: Restored) -> Tensor:
        """The face (1,3,S,S) that the prior draws of these, on the CPU; a monochrome photograph's in grey."""
        face = draw_prior(self.generator, self.head, parts, self.restorer.dictionary).float().cpu() / 2 + 0.5
        face = images.resize(face, *self.crop.shape[2:])
        return face if self.tone is None else luma(face).expand_as(face)

    def moved(self, w: Tensor, changes: Iterable[str] = ()) -> tuple[Tensor, Tensor]:
        """The photograph's face as it is where the latents of its likeness are others.

        Args:
            w: (1,slots,D) W+ latents, moved away from those of the likeness.
            changes: names of what is to change, which say in which `ROWS`; none of them: everywhere.

        Returns:
            The face (1,3,S,S) float32 RGB in [0,1], in the photograph's tone; and (1,1,S,S), 1 where the photograph
            was left as it is, near 0 where the face is another.
        """
        w = w.to(self.w)
        there = self.map_of(w)
        change = (there - self.features) * self.mask * rows(list(changes), there.shape[2]).to(there)
        amount = change.square().mean(1, keepdim=True) / self.features.square().mean()
        own = torch.exp(-amount / TOLERANCE**2)  # (1,1,32,32)

        def weakened(part: Tensor) -> Tensor:
            return part * enlarged(own, part.shape[2])

        spatial = [(weakened(scale), weakened(shift)) for scale, shift in self.parts.spatial]
        styles = self.parts.styles
        if styles is not None:
            styles = styles + (w - self.w)[:, -styles.shape[1] :]
        features = there + own * (self.parts.features + change - there)
        face = self.drawn(replace(self.parts, features=features, spatial=spatial, styles=styles))
        kept = enlarged(own.cpu(), face.shape[2])
        shades = enlarged(F.avg_pool2d(self.lacking, BLURRED), face.shape[2])
        face = (face + shades + kept * (self.lacking - shades)).clamp(0, 1)
        if self.tone is None:  # a sepia face on a coloured card keeps its tint
            return (face + (1 - kept) * (with_tint(face, self.crop) - face)).clamp(0, 1), kept
        return with_tone(face, self.tone).clamp(0, 1), kept


def rows(changes: list[str], count: int) -> Tensor:
    """(1,1,count,1) in [0,1]: how much each row of an aligned face takes part in the changes of these names."""
    y = (torch.arange(count) + 0.5) / count
    shares = [torch.ones(count)] if not changes else []
    for name in changes:
        if name not in ROWS:
            shares.append(torch.ones(count))
            continue
        start, full, fading, end = ROWS[name]
        shares.append(((y - start) / (full - start)).clamp(0, 1) * ((end - y) / (end - fading)).clamp(0, 1))
    return torch.stack(shares).amax(0).view(1, 1, count, 1)
