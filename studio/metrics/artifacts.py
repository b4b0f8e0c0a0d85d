"""What damage and restoring leave behind: blocks, halos, weaves, seams and lines.

All take (N,3,H,W) float32 RGB in [0,1] and give (N,) float32, one number per image. Each is made to be compared with
the same number of the original: a clean face has some of everything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import InputError
from studio.metrics.image import luma

PERIODS = (3, 40)  # px, of blocks: 8 px of JPEG enlarged five times, or square pixels
EDGES = 0.02  # share of the pixels with the steepest slopes, where halos are looked for
REACH = 12  # px along the slope
LEAST_RISE = 0.08  # of brightness across an edge
PATCH = 64  # px, of the windows in which weaves are looked for
LOWEST = 5  # cycles per window; slower ones are locks of hair
RING = 24  # px on both sides of a mask's edge


def blockiness(images: Tensor) -> Tensor:
    """How strongly the slopes between neighbouring columns and rows repeat at some period.

    The mean slope of each column (row) over those beside it, as a signal along the picture; of its spectrum the
    strongest period from 3 to 40 px over the median one.

    Returns:
        (N,) ≥ 1; clean faces lie near 3 to 6, square pixels above 10.
    """
    grey = _grey(images)
    found = []
    for dim in (2, 3):
        slope = grey.diff(dim=dim).abs().mean(5 - dim).squeeze(1)  # (N, S-1)
        slope = slope - F.avg_pool1d(F.pad(slope[:, None], (8, 8), mode="reflect"), 17, 1)[:, 0]
        power = torch.fft.rfft(slope * torch.hann_window(slope.shape[1], periodic=False)).abs()
        count = slope.shape[1]
        band = power[:, count // PERIODS[1] + 1 : count // PERIODS[0] + 1]
        found.append(band.amax(1) / band.median(1).values.clamp_min(1e-8))
    return torch.stack(found).amax(0)


def overshoot(images: Tensor) -> Tensor:
    """Halos: how far brightness beside the steepest edges goes, on average, beyond the plateaus that it settles at.

    Returns:
        (N,) ≥ 0, of the height of the edge.
    """
    grey = _grey(images)
    smooth = F.avg_pool2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), 3, 1)
    sobel = smooth.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    gx, gy = (F.conv2d(smooth, kernel[None, None], padding=1) for kernel in (sobel, sobel.T))
    steep = (gx.square() + gy.square()).sqrt()
    height, width = grey.shape[2:]
    margin = REACH + 2
    inner = torch.zeros_like(steep)
    inner[:, :, margin:-margin, margin:-margin] = 1
    found = []
    for i in range(len(images)):
        values = (steep[i, 0] * inner[i, 0]).flatten()
        best = values.topk(max(1, int(EDGES * values.numel()))).indices
        y, x = best // width, best % width
        length = values[best].clamp_min(1e-8)
        along = torch.arange(-REACH, REACH + 1, dtype=grey.dtype)
        px = x[:, None] + along * (gx[i, 0].flatten()[best] / length)[:, None]  # (K, 2·REACH+1), dark to bright
        py = y[:, None] + along * (gy[i, 0].flatten()[best] / length)[:, None]
        grid = torch.stack([(2 * px + 1) / width - 1, (2 * py + 1) / height - 1], -1)[None]
        profile = F.grid_sample(grey[i : i + 1], grid, mode="bilinear", align_corners=False)[0, 0]
        dark, bright = profile[:, :4].mean(1), profile[:, -4:].mean(1)
        sure = bright - dark > LEAST_RISE
        if not sure.any():
            found.append(grey.new_zeros(()))
            continue
        normal = ((profile - dark[:, None]) / (bright - dark).clamp_min(LEAST_RISE)[:, None])[sure]
        mean = normal.clamp(-1, 2).mean(0)  # what is beside single edges averages out, what is beside all of them stays
        found.append(torch.maximum(mean[REACH + 1 :].amax() - 1, -mean[:REACH].amin()).clamp_min(0))
    return torch.stack(found)


def weave(images: Tensor, masks: Tensor) -> Tensor:
    """Lattices: single frequencies that stand out of their surroundings in the spectrum of a region, such as hair.

    Args:
        images: (N,3,H,W).
        masks: (N,1,h,w) in [0,1], where to look; windows count that it covers by 60 %.

    Returns:
        (N,): the strongest frequency over the median of those around it, of the spectra of all windows together; not a
        number where no window is covered. Clean hair lies near 4, a lattice above 8.
    """
    grey = _grey(images)
    cover = F.interpolate(masks.float(), size=grey.shape[2:], mode="bilinear", align_corners=False)
    step = PATCH // 2
    windows = F.unfold(grey, PATCH, stride=step).transpose(1, 2)  # (N, L, PATCH²)
    covered = F.unfold(cover, PATCH, stride=step).mean(1) > 0.6  # (N, L)
    hann = torch.hann_window(PATCH, periodic=False)
    taper = (hann[:, None] * hann[None]).flatten()
    radius = torch.hypot(
        *torch.meshgrid(torch.fft.fftfreq(PATCH) * PATCH, torch.arange(PATCH // 2 + 1.0), indexing="ij")
    )
    found = []
    for own, use in zip(windows, covered, strict=True):
        if not use.any():
            found.append(grey.new_tensor(float("nan")))
            continue
        patches = own[use]
        patches = (patches - patches.mean(1, keepdim=True)) * taper
        power = torch.fft.rfft2(patches.view(-1, PATCH, PATCH)).abs().square()
        power = (power / power.sum((1, 2), keepdim=True).clamp_min(1e-12)).mean(0)
        around = F.pad(power[None, None], (3, 3, 3, 3), mode="reflect").unfold(2, 7, 1).unfold(3, 7, 1)
        peaks = power / around.flatten(4).median(4).values[0, 0].clamp_min(1e-12)
        looked_at = (radius >= LOWEST) & (radius <= PATCH * 0.45)
        found.append(peaks[looked_at].amax())
    return torch.stack(found)


def edge_contrast(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Fine detail just inside of a mask's edge over that just outside: a composite has one side sharper, or noisier.

    Args:
        images: (N,3,H,W).
        masks: (N,1,H,W) in [0,1].

    Returns:
        (N,) twice: the ratio of the root mean squares of the finest octave (noise), and of the next one (sharpness).
    """
    grey = _grey(images)
    inside = (masks > 0.5).float()
    grown, shrunk = _spread(inside), 1 - _spread(1 - inside)
    within, without = inside - shrunk, grown - inside
    ratios = []
    for _ in range(2):
        small = F.avg_pool2d(grey, 2)
        band = (grey - F.interpolate(small, size=grey.shape[2:], mode="bilinear", align_corners=False)).square()
        rings = (F.interpolate(ring, size=grey.shape[2:], mode="nearest") for ring in (within, without))
        energy = [(band * ring).sum((1, 2, 3)) / ring.sum((1, 2, 3)).clamp_min(1) for ring in rings]
        ratios.append((energy[0].clamp_min(1e-10) / energy[1].clamp_min(1e-10)).sqrt())
        grey = small
    return ratios[0], ratios[1]


def _spread(x: Tensor) -> Tensor:
    """The largest value within RING px along both sides; one side after the other, which is much quicker."""
    x = F.max_pool2d(x, (2 * RING + 1, 1), 1, (RING, 0))
    return F.max_pool2d(x, (1, 2 * RING + 1), 1, (0, RING))


def _grey(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 2 * PATCH:
        raise InputError(f"images must be (N,3,H,W) of {2 * PATCH} px or more, got {tuple(images.shape)}: enlarge them")
    return luma(images)
