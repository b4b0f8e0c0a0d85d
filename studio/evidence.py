"""Joining what a photograph says of a face with what the prior supplies.

The *evidence* is a least-error estimate: right, but smooth wherever the photograph does not tell. The *prior* is a
generated face: sharp, but not quite this person. Both are split into bands of one octave (a Laplacian pyramid, Burt
and Adelson 1983). In every band and place just as much of the prior is added to the evidence as brings its local
energy up to the prior's, and the more had to be added, there or half as much an octave finer, the more of the whole
band is the prior's own, since two estimates together err less than one. A sharp photograph so stays what it is, and a
blurred one is filled in.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.imaging.pyramid import collapse, double, local_mean, pyramid
from studio.tone import luma

SURE = 8  # power of the coherence; of 2, 4 and 8 the one with the best identity and landmarks on twelve portraits
EXCESS = 3.0  # amplitude of a photo's octave over the prior's, above which it is no face
REGIONS = 12  # across a face, in which it is looked at
KEPT = (0.6, 0.9)  # share of a band that cleaning must leave for it to be signal: none of it below, all of it above
HANDED_ON = 0.5  # of an octave's uncertainty, to the next coarser one
NOISY = (0.4, 0.8)  # the same over a region of luma: noisy below, clean above
COLOUR_BANDS = 3  # finest octaves of a noisy photo whose colours are the prior's


def fill_gain(evidence: Tensor, prior: Tensor) -> Tensor:
    """How much of the prior's band to add to the evidence's band.

    Solves |e + g p|^2 = |p|^2 for g over a neighbourhood; 0 where the evidence already has the prior's energy, and
    at most 1.

    Args:
        evidence: one band, (N,3,H,W).
        prior: the same band.

    Returns:
        g, (N,1,H,W) in [0,1].
    """
    ee, pp, ep = local_mean(evidence.square()), local_mean(prior.square()), local_mean(evidence * prior)
    pp = pp.clamp_min(1e-8)
    root = (ep.square() + pp * (pp - ee)).clamp_min(0).sqrt()
    return torch.where(ee < pp, (root - ep) / pp, torch.zeros_like(ee)).clamp(0, 1)


def fuse(evidence: Tensor, prior: Tensor, fidelity: float | Tensor) -> Tensor:
    """One face out of evidence and prior.

    Args:
        evidence: (N,3,S,S) RGB.
        prior: (N,3,S,S) RGB.
        fidelity: 0 gives the prior in the evidence's colours; 0.5 the evidence where it is sharp, and where it is not,
            filled up and half replaced by the prior; 1 the evidence alone; other numbers what lies between. A number,
            or (N,) one per face.

    Returns:
        (N,3,S,S) RGB, not clamped.
    """
    fidelity = torch.as_tensor(fidelity, dtype=evidence.dtype, device=evidence.device).view(-1, 1, 1, 1)
    from_evidence, from_prior = pyramid(evidence), pyramid(prior)
    trust, fill = (2 * fidelity).clamp(max=1), (2 - 2 * fidelity).clamp(max=1)
    joined, unsure = [], None
    for e, p in zip(from_evidence[:-1], from_prior[:-1], strict=True):
        # A measured number: a gradient through it would reward evidence for being weak.
        gain = fill_gain(e.detach(), p.detach())
        filled = e + fill * gain * p
        # Where the photo lacks an octave, the next one is there but less certain.
        unsure = gain if unsure is None else torch.maximum(gain, HANDED_ON * F.avg_pool2d(unsure, 2))
        share = 1 - trust + trust * (1 - fidelity).clamp(max=0.5) * unsure  # of the prior
        joined.append(filled + share * (p - filled))
    return collapse([*joined, from_evidence[-1]])


def keep_shading(restored: Tensor, photo: Tensor) -> Tensor:
    """Take the lowest octave, cells of 32 px, from the photo itself: its light and colour at that size are no damage.

    Without it, a face on white paper comes back with a grey halo, where the restorer takes the white for blown out.

    Args:
        restored: (N,3,S,S) RGB.
        photo: (N,3,S,S), the same faces as they are in the photo.

    Returns:
        (N,3,S,S).
    """
    return collapse([*pyramid(restored)[:-1], pyramid(photo)[-1]])


# ---- detail above the network's own size


def plausible(photo: Tensor, prior: Tensor) -> Tensor:
    """Whether an octave of a photo holds no more than a face can.

    A printing screen, engraved lines or coarse grain have several times the energy that the prior ever draws, over
    whole regions. Up to `EXCESS` times the prior's amplitude a band passes, above it falls off with the fourth power.

    Args:
        photo: one band, (N,3,H,W).
        prior: the same band, (N,3,H,W).

    Returns:
        (N,1,H,W) in (0,1].
    """
    size = photo.shape[2:]
    cells = [max(1, side // REGIONS) for side in size]
    energies = [F.avg_pool2d(x.square().mean(1, keepdim=True), cells) for x in (photo, prior)]
    share = (EXCESS**2 * energies[1] / energies[0].clamp_min(1e-10)).clamp(max=1) ** 2
    return F.interpolate(share, size=size, mode="bilinear", align_corners=False)


def with_native_detail(evidence: Tensor, seen: Tensor, native: Tensor, prior: Tensor) -> Tensor:
    """Carry the photograph's finest octave over to evidence of half the size, where it can be trusted.

    The network sees the face at half size. Where it left the finest octave it sees as it was, that octave was
    signal, and so is the one above; where it changed it, that was noise, dots or blocks.

    Args:
        evidence: (N,3,S,S) what the network returned.
        seen: (N,3,S,S) what the network was given.
        native: (N,3,2S,2S) the face that `seen` was shrunk from.
        prior: (N,3,2S,2S), says what is `plausible`.

    Returns:
        (N,3,2S,2S).
    """
    finest, drawn = pyramid(native, 1)[0], pyramid(prior, 1)[0]
    return double(evidence) + double(kept_detail(seen, evidence)) * plausible(finest, drawn) * finest


def with_sure_detail(evidence: Tensor, photo: Tensor, prior: Tensor) -> Tensor:
    """Give the evidence back what cleaning took from it though it was no damage.

    In each octave and place the photo's own band is weighed by a high power of the coherence of both,
    <e,x>^2 / (|e|^2 |x|^2): near 1 where the evidence explains the photo, near 0 where the photo holds grain, dots or
    blocks that it does not; and by how much of it the evidence kept, <e,x> / |x|^2. What is left of a printing screen
    passes both, so no more than what is `plausible` comes back.

    Args:
        evidence: (N,3,S,S).
        photo: (N,3,S,S) the face that it was estimated from.
        prior: (N,3,S,S).

    Returns:
        (N,3,S,S).
    """
    from_evidence, from_photo, from_prior = (pyramid(x) for x in (evidence, photo, prior))
    bands = []
    for e, x, p in zip(from_evidence[:-1], from_photo[:-1], from_prior[:-1], strict=True):
        shared, of_photo = local_mean(e * x).clamp_min(0), local_mean(x.square()).clamp_min(1e-10)
        coherence = shared.square() / (local_mean(e.square()) * of_photo).clamp_min(1e-10)
        # What is left of noise agrees with the photo, too; but most of it was taken away.
        kept = ramp(shared / of_photo, *KEPT)
        bands.append(e + coherence.clamp(max=1) ** SURE * kept * plausible(x, p) * (x - e))
    return collapse([*bands, from_evidence[-1]])


def with_prior_colour(
    evidence: Tensor, seen: Tensor, cleaned: Tensor, prior: Tensor, share: float | Tensor = 1.0
) -> Tensor:
    """Take the fine colours of a noisy photograph from the prior: cleaning leaves coloured speckle behind.

    How noisy a region is can be told from brightness, of whose finest octave cleaning then leaves little.

    Args:
        evidence: (N,3,S,S).
        seen: (N,3,S/2,S/2) what the network was given.
        cleaned: (N,3,S/2,S/2) what it returned.
        prior: (N,3,S,S).
        share: of the colours that are taken where it is noisy; a number, or (N,1,1,1).

    Returns:
        (N,3,S,S) of the same luma.
    """
    before, after = (luma(pyramid(x, 1)[0]) for x in (seen, cleaned))
    cells = [max(1, side // REGIONS) for side in before.shape[2:]]
    shared, of_photo = (F.avg_pool2d(x, cells) for x in (before * after, before.square()))
    noisy = share * (1 - ramp(shared / of_photo.clamp_min(1e-10), *NOISY))
    bands = pyramid(evidence)
    for i, p in enumerate(pyramid(prior)[:COLOUR_BANDS]):
        e = bands[i]
        here = F.interpolate(noisy, size=e.shape[2:], mode="bilinear", align_corners=False)
        bands[i] = e + here * ((p - luma(p)) - (e - luma(e)))
    return collapse(bands)


def kept_detail(before: Tensor, after: Tensor) -> Tensor:
    """Where restoration left the finest octave as it was: there it was signal, and so is what is finer still.

    Args:
        before: (N,3,S,S) what was restored.
        after: (N,3,S,S) the result.

    Returns:
        (N,1,S,S): 1 where the octave changed by little, 0 where it changed by half of what there was and more.
    """
    finest_in, finest_out = pyramid(before, 1)[0], pyramid(after, 1)[0]
    change = local_mean((finest_out - finest_in).square())
    return ramp(1 - (change / local_mean(finest_in.square()).clamp_min(1e-6)).sqrt(), 0.5, 0.9)


def ramp(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, straight between."""
    return ((x - low) / (high - low)).clamp(0, 1)
