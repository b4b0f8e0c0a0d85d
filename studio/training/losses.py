"""Losses of the restorer: plain regression, and what a picture must keep of a person.

Pictures are RGB in [0,1]. The identity network and the mesh are also judges in the benchmarks; each public number
that they give after training with them says so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.imaging.pyramid import pyramid
from studio.networks.identity import IdentityNet
from studio.networks.mesh import SIZE as MESH_SIZE
from studio.networks.mesh import FaceMesh

# The identity chip on an FFHQ-aligned face of side 1, the mean over 256 generated faces (the spread is 0.03 in
# size and 0.016 in place). Alignment fixes the eyes and the mouth, so that a constant chip does and costs no mesh.
CHIP_SCALE = 0.689
CHIP_ORIGIN = (0.155, 0.258)
MESH_CROP = (0.06, 0.12, 0.88)  # x, y and side of the mesh's crop on an aligned face of side 1, as `find` cuts it
EYES = ((33, 133), (263, 362))


def feature_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 over normalised maps; its linear part keeps rare large features from ruling the step."""
    return F.smooth_l1_loss(predicted, target, beta=0.3)


def estimate_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """L1 over pixels and over neighbour differences, both (N,3,S,S) in [0,1]; the second asks for edges."""
    loss = F.l1_loss(predicted, target)
    for dim in (2, 3):
        loss = loss + F.l1_loss(predicted.diff(dim=dim), target.diff(dim=dim))
    return loss


def chips(faces: Tensor, shift: tuple[float, float] = (0.0, 0.0), zoom: float = 1.0) -> Tensor:
    """Constant identity chips of FFHQ-aligned faces.

    Args:
        faces: (N,3,S,S).
        shift: of the chip, x and y, in shares of S.
        zoom: of its side.

    Returns:
        (N,3,150,150).
    """
    side = faces.shape[2]
    cut = min(side, round(zoom * CHIP_SCALE * side))
    centre = [(origin + CHIP_SCALE / 2 + move) * side for origin, move in zip(CHIP_ORIGIN, shift, strict=True)]
    x0, y0 = (min(max(round(middle - cut / 2), 0), side - cut) for middle in centre)
    return F.interpolate(faces[:, :, y0 : y0 + cut, x0 : x0 + cut], size=(150, 150), mode="bilinear", antialias=True)


def jitter(rng: torch.Generator) -> tuple[tuple[float, float], float]:
    """A small shift and zoom for `chips`, so that no network learns to please one exact crop."""
    x, y, z = (2 * torch.rand(3, generator=rng) - 1).tolist()
    return (0.025 * x, 0.025 * y), 1 + 0.06 * z


def descriptor_loss(net: IdentityNet, predicted: Tensor, target: Tensor, rng: torch.Generator) -> Tensor:
    """Mean distance of identity descriptors: the identity-preserving loss of GFP-GAN (arXiv 2101.04061, equation 6).

    The same small random shift and zoom is used for both pictures.
    """
    shift, zoom = jitter(rng)
    with torch.no_grad():
        wanted = net(chips(target, shift, zoom)).float()
    found = net(chips(predicted.clamp(0, 1), shift, zoom)).float()
    return (found - wanted).square().sum(1).add(1e-6).sqrt().mean()


def landmark_loss(net: FaceMesh, predicted: Tensor, target: Tensor) -> Tensor:
    """Mean distance of the mesh's points in the picture plane, in shares of the eye distance."""
    x0, y0, side = (round(share * target.shape[2]) for share in MESH_CROP)

    def points(faces: Tensor) -> Tensor:
        crop = faces[:, :, y0 : y0 + side, x0 : x0 + side]
        return net(F.interpolate(crop, size=(MESH_SIZE, MESH_SIZE), mode="bilinear", antialias=True))[0].float()

    with torch.no_grad():
        wanted = points(target)
        right, left = (wanted[:, list(pair), :2].mean(1) for pair in EYES)
        eye_distance = (right - left).norm(dim=1).clamp_min(1.0)
    offset = (points(predicted.clamp(0, 1)) - wanted)[..., :2]
    return (offset.square().sum(2).add(1e-6).sqrt().mean(1) / eye_distance).mean()


def energy_loss(predicted: Tensor, target: Tensor, bands: int = 3) -> Tensor:
    """How far the local contrast of each octave is from the target's.

    Every error of pixels is smallest for a blurred picture. This one does not ask where a hair lies, only that there
    is as much of it: root mean squares over 16 x 16 cells of each band of a Laplacian pyramid, L1 of their difference.
    """
    loss = predicted.new_zeros(())
    for i, (found, wanted) in enumerate(zip(pyramid(predicted, bands)[:-1], pyramid(target, bands)[:-1], strict=True)):
        cell = max(4, 16 >> i)
        rms = [F.avg_pool2d(x.square().mean(1, keepdim=True), cell).add(1e-6).sqrt() for x in (found, wanted)]
        loss = loss + F.l1_loss(*rms)
    return loss


def grid_loss(predicted: Tensor, target: Tensor, period: int = 8, cells: tuple[int, ...] = (2, 4)) -> Tensor:
    """How much more a picture repeats itself from cell to cell than its target does.

    A scale or shift that is the same over a region of the generator's 32, 64 or 128 px maps draws one small pattern
    in every cell of it: a grid. The picture without its low-pass is cut into cells of `period` px, cells of
    2 x 2 and of 4 x 4 neighbours are averaged, and what is left is what they share; a face has next to none of it. The
    small squares see grids that change from place to place, the large ones those that are weak.
    """

    def shared(x: Tensor) -> list[Tensor]:
        low = F.interpolate(F.avg_pool2d(x, period), scale_factor=float(period), mode="bilinear", align_corners=False)
        patterns = F.pixel_unshuffle(x - low, period)
        return [F.avg_pool2d(patterns, n, stride=1).square().mean(1).add(1e-6).sqrt() for n in cells]

    terms = [F.relu(p - t).mean() for p, t in zip(shared(predicted), shared(target), strict=True)]
    return torch.stack(terms).mean()


def coarse_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of the L1 at 1/1, 1/2, 1/4 and 1/8 of the size: place and colour weigh more than fine texture."""
    return sum(F.l1_loss(F.avg_pool2d(predicted, k), F.avg_pool2d(target, k)) for k in (1, 2, 4, 8)) / 4


def consistency_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of the L1 at 1/4 and 1/8 of the size, for a photograph of which nobody knows what it was like when new.

    Whatever a restoration adds or takes away, shrunk it must be the photograph again; grain, dots and scratches, which
    it should not keep, are mostly gone at that size.
    """
    return sum(F.l1_loss(F.avg_pool2d(predicted, k), F.avg_pool2d(target, k)) for k in (4, 8)) / 2


def identity_loss(net: IdentityNet, predicted: Tensor, target: Tensor) -> Tensor:
    """Distance between intermediate maps of the identity network, relative to the target's own size.

    Deep features change smoothly where the 128-d descriptor hardly moves, so they also guide a face that is not
    recognisable yet (the identity-preserving loss of GFP-GAN, arXiv 2101.04061, equation 6, on maps).
    """
    with torch.no_grad():
        wanted = net.features(chips(target))
    found = net.features(chips(predicted.clamp(0, 1)))
    terms = [(f - w).square().mean() / w.square().mean().clamp_min(1e-6) for f, w in zip(found, wanted, strict=True)]
    return torch.stack(terms).mean()
