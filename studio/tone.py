"""The tone of photographs: grey, sepia and duotone prints have one colour for each brightness, and keep it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
MONOCHROME_REST = 0.012  # root mean square of what colour leaves a curve of brightness by, in a photo of one tone
TINTED = (0.006, 0.012)  # the same of one face: a print below, a colour photograph above


def luma(x: Tensor) -> Tensor:
    """Rec. 601 luma, (N,3,H,W) -> (N,1,H,W)."""
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def tone_curve(photo: Tensor) -> Tensor | None:
    """The colour of a monochrome photograph as a function of its luma.

    Grey, sepia and duotone prints have one colour per brightness. A quadratic is fitted to R-Y and B-Y over Y.

    Args:
        photo: (3,H,W) RGB in [0,1].

    Returns:
        (3,2) coefficients of 1, y, y^2 for R-Y and B-Y, all zero for exact grey; None for a colour photograph.
    """
    curve, rest = fitted_tone(F.interpolate(photo[None], size=(64, 64), mode="area")[0])
    if rest > MONOCHROME_REST:
        return None
    exact_grey = bool((photo[0] == photo[1]).all() and (photo[1] == photo[2]).all())
    return torch.zeros_like(curve) if exact_grey else curve


def fitted_tone(small: Tensor) -> tuple[Tensor, Tensor]:
    """The quadratic of `tone_curve` (3,2) for a small picture (3,H,W), and the root mean square of what it leaves."""
    y = luma(small[None]).flatten()
    colour = torch.stack([small[0].flatten() - y, small[2].flatten() - y], 1)  # (HW, 2)
    basis = torch.stack([torch.ones_like(y), y, y * y], 1)
    curve = torch.linalg.lstsq(basis, colour, driver="gelsd").solution
    return curve, (colour - basis @ curve).square().mean().sqrt()


def apply_tone(y: Tensor, curve: Tensor) -> Tensor:
    """Luma (N,1,H,W) in [0,1] and a `tone_curve` -> RGB (N,3,H,W) of that luma."""
    basis = torch.cat([torch.ones_like(y), y, y * y], 1)  # (N, 3, H, W)
    red, blue = (torch.einsum("nchw,c->nhw", basis, curve[:, i])[:, None] for i in range(2))
    green = -(LUMA[0] * red + LUMA[2] * blue) / LUMA[1]
    return y + torch.cat([red, green, blue], 1)


def with_tone(pictures: Tensor, curve: Tensor | None) -> Tensor:
    """Colour pictures (N,3,H,W) as they are without a `tone_curve`, in its tone with one."""
    return pictures if curve is None else apply_tone(luma(pictures), curve.to(pictures))


def match_tone(restored: Tensor, photo: Tensor) -> Tensor:
    """Give a restored face the brightness, contrast and colour of the photo it goes back into.

    Undoing a print's fading in the face alone would set it off from the rest of the photo, so each channel of the
    result gets the mean and spread that the photo's face has at 1/32 of the size, where damage averages out.

    Args:
        restored: (N,3,S,S) RGB.
        photo: (N,3,S,S), the same faces as they are in the photo.

    Returns:
        (N,3,S,S).
    """
    low = [F.avg_pool2d(x, 32)[:, :, 3:-3, 4:-4] for x in (restored, photo)]  # the face, without most background
    means = [x.mean((2, 3), keepdim=True) for x in low]
    spreads = [x.std((2, 3), keepdim=True).clamp_min(1e-3) for x in low]
    gain = (spreads[1] / spreads[0]).clamp(0.4, 2.5)
    return (restored - means[0]) * gain + means[1]


def with_tint(restored: Tensor, photo: Tensor) -> Tensor:
    """Keep a face in the tint of its photo where the photo as a whole is no monochrome, but this face is.

    A sepia print on a coloured card, or one yellowed unevenly, has no `tone_curve`; the prior's blue eyes and red lips
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
        curve, rest = fitted_tone(low)
        y = luma(face)
        seen = y.clamp(*luma(low[None]).aminmax())  # a quadratic says nothing of brightness that it was not fitted to
        on_curve = y + apply_tone(seen, curve) - seen
        coloured = ((rest - TINTED[0]) / (TINTED[1] - TINTED[0])).clamp(0, 1)
        toned.append(face + (1 - coloured) * (on_curve - face))
    return torch.cat(toned)
