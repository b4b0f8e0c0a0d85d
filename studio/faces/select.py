"""Choosing faces of a photo."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from studio.errors import InputError
from studio.faces.faces import Faces


def select(faces: Faces, choice: str | int | Sequence[int] | np.ndarray) -> list[int]:
    """Indices of the chosen faces.

    Args:
        faces: the faces of one photo.
        choice: "all", "largest" (by box area), an index, or several; indices count from 0.

    Returns:
        Indices into `faces`: in ascending order for "all", as given for a list. "all" and "largest" of no faces are
        none.

    Raises:
        InputError: an unknown word, something that is not an index, an index out of range or given twice.
    """
    if isinstance(choice, str):
        if choice == "all":
            return list(range(len(faces)))
        if choice == "largest":
            sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
            return [int(sides.prod(1).argmax())] if len(faces) else []
        raise InputError(f'faces must be "all", "largest", an index or a list of indices, got {choice!r}')
    many = isinstance(choice, Sequence | np.ndarray) and np.ndim(choice) > 0
    indices = [_index(one, len(faces)) for one in (choice if many else [choice])]
    for i in indices:
        if indices.count(i) > 1:
            raise InputError(f"every face must be named once, got {i} twice in {indices}")
    return indices


def parse(text: str) -> str | list[int]:
    """Turn what people write, "all", "largest" or "0,2", into what `select` takes.

    Raises:
        InputError: something else.
    """
    text = str(text).strip().lower()
    if text in ("all", "largest"):
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"faces must be all, largest or numbers such as 0,2, got {text[:50]!r}: use one") from None


def _index(value: object, count: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        index = operator.index(value)
    except TypeError:
        raise InputError(f"a face must be named by its index, an integer, got {value!r}") from None
    if not 0 <= index < count:
        known = f"the photo has {count} faces, 0 to {count - 1}" if count else "no face was found in the photo"
        raise InputError(f"a face index must be in range, got {index}: {known}")
    return index
