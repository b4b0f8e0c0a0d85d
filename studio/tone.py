"""The tone of photographs: grey, sepia and duotone prints have one colour for each brightness, and keep it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
# Root mean square of what colour leaves a curve of brightness by, in a bright photo of one tone.
MONOCHROME_REST = 0.012
LARGEST_REST = 3.0  # times that: of any place of a face, or it is a tinted cheek
BRIGHT = 0.8  # luma; of a darker photo less is allowed, in proportion
LEAST_REST = 0.0015  # never less, or rounding to 8 bits would be colour
PHOTO_CELLS, FACE_CELLS = 64, 12  # a side; noise averages out in them, cheeks and lips do not
TINTED = (0.006, 0.012)  # the same of one face: a print below, a colour photograph above


@dataclass(frozen=True)
class Tone:
    """The colour of a monochrome photograph as a function of its luma.

    Attributes:
        curve: (3,2) float32, coefficients of 1, y, y^2 for R-Y and B-Y; all zero for exact grey.
        low, high: the luma in [0,1] that it was fitted to; beyond, hue and saturation are those of the nearer end.
    """

    curve: Tensor
    low: float = 0.0
    high: float = 1.0

    def copied(self) -> Tone:
        """One whose curve may take part in gradients, though this one was found in inference mode."""
        return Tone(self.curve.clone(), self.low, self.high)


def luma(x: Tensor) -> Tensor:
    """Rec. 601 luma, (N,3,H,W) -> (N,1,H,W)."""
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def tone_curve(photo: Tensor, faces: Tensor | None = None) -> Tone | None:
    """The tone of a monochrome photograph.

    Grey, sepia and duotone prints have one colour per brightness. A quadratic is fitted to R-Y and B-Y over Y, of photo
    and faces together, and every face is asked whether it lies on it: small people before a large sky do not, nor
    does a grey print with tinted cheeks. How far they may lie beside it goes by how bright the photo is.

    Args:
        photo: (3,H,W) RGB in [0,1].
        faces: (N,3,S,S) RGB in [0,1], aligned crops of its faces, or None.

    Returns:
        The tone, or None for a colour photograph.
    """
    cells = [F.interpolate(photo[None], size=(PHOTO_CELLS, PHOTO_CELLS), mode="area")[0].flatten(1)]
    for face in () if faces is None else faces:
        side = face.shape[1]
        middle = face[None, :, side // 5 : side - side // 8, side // 5 : side - side // 5]
        cells.append(F.interpolate(middle, size=(FACE_CELLS, FACE_CELLS), mode="area")[0].flatten(1))
    together = torch.cat(cells, 1)
    tone, rest = fitted_tone(together[:, None])
    bright = float(luma(together[None, :, None]).quantile(0.95))
    allowed = max(LEAST_REST, MONOCHROME_REST * min(1.0, bright / BRIGHT))
    for part in rest.split([one.shape[1] for one in cells]):
        if part.square().mean().sqrt() > allowed:
            return None
    if len(cells) > 1 and rest[cells[0].shape[1] :].max() > LARGEST_REST * allowed:
        return None
    exact_grey = bool((photo[0] == photo[1]).all() and (photo[1] == photo[2]).all())
    return Tone(torch.zeros_like(tone.curve)) if exact_grey else tone


def fitted_tone(small: Tensor) -> tuple[Tone, Tensor]:
    """The tone of a small picture (3,H,W), and how far the colour of each of its pixels (H·W,) lies beside it.

    Distances are root mean squares over R-Y and B-Y.
    """
    y = luma(small[None]).flatten()
    colour = torch.stack([small[0].flatten() - y, small[2].flatten() - y], 1)  # (HW, 2)
    basis = torch.stack([torch.ones_like(y), y, y * y], 1)
    curve = torch.linalg.lstsq(basis, colour, driver="gelsd").solution
    rest = (colour - basis @ curve).square().mean(1).sqrt()
    return Tone(curve, float(y.min()), float(y.max())), rest


def apply_tone(y: Tensor, tone: Tone) -> Tensor:
    """Luma (N,1,H,W) and a `Tone` -> RGB (N,3,H,W) of that luma."""
    known = y.clamp(tone.low, tone.high)
    basis = torch.cat([torch.ones_like(y), known, known * known], 1)  # (N, 3, H, W)
    beyond = y / known.clamp_min(1e-6)
    red, blue = (beyond * torch.einsum("nchw,c->nhw", basis, tone.curve.to(y)[:, i])[:, None] for i in range(2))
    green = -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1]
    return y + torch.cat([red, green, blue], 1)


def with_tone(pictures: Tensor, tone: Tone | None) -> Tensor:
    """Colour pictures (N,3,H,W) as they are without a `Tone`, in its tone with one."""
    return pictures if tone is None else apply_tone(luma(pictures), tone)


def match_tone(restored: Tensor, photo: Tensor) -> Tensor:
    """Give a restored face the brightness, contrast and colour of the photo it goes back into.

    Undoing a print's fading in the face alone would set it off from the rest of the photo, so each channel of the
    result gets the mean and spread that the photo's face has at 16 x 16 cells, where damage averages out.

    Args:
        restored: (N,3,S,S) RGB; S divisible by 16.
        photo: (N,3,S,S), the same faces as they are in the photo.

    Returns:
        (N,3,S,S).
    """
    cell = restored.shape[2] // 16
    low = [F.avg_pool2d(x, cell)[:, :, 3:-3, 4:-4] for x in (restored, photo)]  # the face, without most background
    means = [x.mean((2, 3), keepdim=True) for x in low]
    spreads = [x.std((2, 3), keepdim=True).clamp_min(1e-3) for x in low]
    gain = (spreads[1] / spreads[0]).clamp(0.4, 2.5)
    return (restored - means[0]) * gain + means[1]


def with_tint(restored: Tensor, photo: Tensor) -> Tensor:
    """Keep a face in the tint of its photo where the photo as a whole is no monochrome, but this face is.

    A sepia print on a coloured card, or one yellowed unevenly, has no `Tone`; the prior's blue eyes and red lips
    would be new there. The colours of the photo's face at 1/32 of its size are fitted as a function of luma; the less
    they leave that curve, the more the result is put on it.

    Args:
        restored: (N,3,S,S) RGB.
        photo: (N,3,S,S), the same faces as they are in the photo.

    Returns:
        (N,3,S,S) of the same luma.
    """
    toned = []
    for face, low in zip(restored.split(1), F.avg_pool2d(photo, 32)[:, :, 3:-3, 4:-4], strict=True):
        tone, rest = fitted_tone(low)
        on_curve = apply_tone(luma(face), tone)
        coloured = ((rest.square().mean().sqrt() - TINTED[0]) / (TINTED[1] - TINTED[0])).clamp(0, 1)
        toned.append(face + (1 - coloured) * (on_curve - face))
    return torch.cat(toned)
