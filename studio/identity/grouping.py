"""Which identity vectors belong together: plain functions on tensors.

Average linkage (Sokal and Michener 1958) with the update of Lance and Williams (Computer Journal 1967): the mean
distance decides, because with the nearest one a single resemblance chains strangers together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from studio import images
from studio.errors import InputError
from studio.identity.similarity import distances


def group(vectors: Tensor, photos: Sequence[int], threshold: float) -> list[list[int]]:
    """Join groups, the two nearest first, while the mean distance between their members is at most a threshold.

    Args:
        vectors: (N,D) identity vectors.
        photos: N numbers; two vectors of one photograph are two people, and are never in one group.
        threshold: largest mean distance of two groups that are joined.

    Returns:
        Groups of indices: every index is in one of them, in ascending order; the largest group comes first, and of
        equally large ones that with the first index.

    Raises:
        InputError: another number of photos than vectors.
    """
    if vectors.ndim != 2 or len(vectors) != len(photos):
        raise InputError(
            f"vectors must be (N,D) with N photos, got {tuple(vectors.shape)} and {len(photos)}: pair them"
        )
    groups = {i: [i] for i in range(len(vectors))}
    apart = distances(vectors, vectors).double().cpu().numpy()
    where = np.asarray(photos)
    apart[where[:, None] == where] = np.inf  # with itself, too
    while groups:
        a, b = sorted(divmod(int(apart.argmin()), len(vectors)))
        if not apart[a, b] <= threshold:
            break
        share = len(groups[a]) / (len(groups[a]) + len(groups[b]))
        apart[a] = apart[:, a] = share * apart[a] + (1 - share) * apart[b]
        apart[a, a] = apart[b] = apart[:, b] = np.inf
        groups[a] += groups.pop(b)
    return sorted((sorted(one) for one in groups.values()), key=lambda one: (-len(one), one[0]))


def mean_distances(vectors: Tensor) -> Tensor:
    """Mean distance of each vector (N,D) to the others, (N,); N at least 2."""
    return distances(vectors, vectors).sum(1) / (len(vectors) - 1)


def detail(chips: Tensor, eye_distance: float, smallest: float) -> Tensor:
    """How much of aligned faces would be lost if they were shrunk to a smallest eye distance: 0 nothing, 1 all.

    A face that loses nothing is as poor as one of that size, however many pixels it has.

    Args:
        chips: (N,3,S,S) RGB in [0,1].
        eye_distance: px between the eyes in a chip.
        smallest: px between the eyes in the shrunk chip, less than `eye_distance`.

    Returns:
        (N,), the root of the share of the chips' variance that is lost.
    """
    size = chips.shape[-1]
    small = round(size * smallest / eye_distance)
    grey = chips.mean(1, keepdim=True)
    kept = images.resize(images.resize(grey, small, small), size, size)
    lost = (grey - kept).flatten(1).std(1)
    return lost / grey.flatten(1).std(1).clamp_min(1e-3)
