"""Taking a lattice out of a drawn picture: what repeats itself from cell to cell.

A generator that doubles its maps step by step draws each cell of a coarse map with a pattern of its own, and where the
map hardly changes, in hair say, the cells repeat it: single peaks at multiples of 1/8 in the spectrum, up to a hundred
times as high as what is around them. Nothing in a photograph keeps step with those cells, so that what neighbouring
cells share is the lattice and nothing else.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from studio.imaging.pyramid import blur

PERIOD = 8  # px of a cell: the generator's map of 64 px in a picture of 512
LARGEST = 0.1  # of the picture's range, at which one pixel's say is cut: a catchlight is no lattice
PASSES = 2  # of the 5-tap blur over cells


def without_lattice(picture: Tensor) -> Tensor:
    """Subtract from each cell what the cells around it share.

    Args:
        picture: (N,C,S,S) in about [0,1]; S divisible by 8.

    Returns:
        (N,C,S,S), not clamped.
    """
    low = F.interpolate(F.avg_pool2d(picture, PERIOD), picture.shape[2:], mode="bilinear", align_corners=False)
    cells = F.pixel_unshuffle((picture - low).clamp(-LARGEST, LARGEST), PERIOD)  # (N, C·64, S/8, S/8)
    for _ in range(PASSES):
        cells = blur(cells)
    cells = cells.unflatten(1, (picture.shape[1], -1))
    return picture - F.pixel_shuffle((cells - cells.mean(2, keepdim=True)).flatten(1, 2), PERIOD)
