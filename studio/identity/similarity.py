"""Comparing identity vectors: plain functions on tensors.

The vectors of dlib's network are compared by Euclidean distance (as in FaceNet, arXiv 1503.03832), about 0 to 1.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.errors import InputError

# dlib's threshold. On 432 pairs of real photographs no genuine pair lies above it, but one impostor pair in eight
# lies below it: near means "cannot be told apart", not "the same person". `studio bench identity` measures it.
SAME_PERSON = 0.6


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of vectors pair by pair.

    Args:
        a: (N,D), or (1,D) against all of b.
        b: (N,D), or (1,D).

    Returns:
        (N,), 0 for the same vector; below `SAME_PERSON` two faces are hard to tell apart.

    Raises:
        InputError: shapes that do not pair up.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise InputError(
            f"identity vectors must be (N,D) and (N,D), got {tuple(a.shape)} and {tuple(b.shape)}: "
            "use distances for every pair of two sets"
        )
    return (a - b).norm(dim=1)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of every vector of a (N,D) to every vector of b (M,D) -> (N,M)."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between vectors a (N,D) and b (N,D) -> (N,) in [-1,1].

    For reports beside other encoders; dlib's own threshold belongs to `distance`.
    """
    return F.cosine_similarity(a, b, dim=1)


def average(vectors: Tensor | Sequence[Tensor]) -> Tensor:
    """One vector for several photographs of one person: averaged on the sphere.

    Args:
        vectors: (N,D) or N times (D,), N at least 1.

    Returns:
        (D,), in the mean direction and of the mean length.

    Raises:
        InputError: no vector.
    """
    vectors = vectors if isinstance(vectors, Tensor) else torch.stack(list(vectors)) if len(vectors) else torch.empty(0)
    if vectors.ndim != 2 or not len(vectors):
        raise InputError(f"averaging takes (N,D) with N at least 1, got {tuple(vectors.shape)}: pass one face at least")
    return F.normalize(F.normalize(vectors, dim=1).mean(0), dim=0) * vectors.norm(dim=1).mean()


def find_outliers(vectors: Tensor, names: Sequence[str]) -> Tensor:
    """Which of the vectors (N,D) are probably of somebody else, (N,) bool: `SAME_PERSON` or more from the middle one.

    Raises:
        InputError: half of them or more.
    """
    apart = distances(vectors, vectors)
    middle = int(apart.median(1).values.argmin())
    outliers = apart[middle] >= SAME_PERSON
    if 2 * int(outliers.sum()) >= len(vectors):
        far = ", ".join(name for name, out in zip(names, outliers.tolist(), strict=True) if out)
        raise InputError(
            f"the photos must show one person, and {far} lie {SAME_PERSON} or more away from {names[middle]}: "
            "give those of one person"
        )
    return outliers
