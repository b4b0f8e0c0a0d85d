"""Choosing faces of a photo."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from studio.errors import InputError, NoFaceError
from studio.faces.faces import Faces


def select(faces: Faces, choice: str | int | Sequence[int] | np.ndarray) -> list[int]:
    """Indices of the chosen faces.

    Args:
        faces: the faces of one photo.
        choice: "all", "largest" (by box area), "given" (those that the caller pointed at), an index, or several;
            indices count from 0.

    Returns:
        Indices into `faces`: in ascending order for "all" and "given", as given for a list. "all" and "largest" of no
        faces are none.

    Raises:
        InputError: an unknown word, something that is not an index, an index out of range or given twice.
    """
    if isinstance(choice, str):
        if choice == "all":
            return list(range(len(faces)))
        if choice == "largest":
            sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
            return [int(sides.prod(1).argmax())] if len(faces) else []
        if choice == "given":
            if not faces.given.any():
                raise InputError('faces "given" must be pointed at, no box is given: pass boxes, or "all"')
            return np.flatnonzero(faces.given).tolist()
        raise InputError(f'faces must be "all", "largest", "given", an index or a list of indices, got {choice!r}')
    many = isinstance(choice, Sequence | np.ndarray) and np.ndim(choice) > 0
    indices = [_index(one, len(faces)) for one in (choice if many else [choice])]
    for i in indices:
        if indices.count(i) > 1:
            raise InputError(f"every face must be named once, got {i} twice in {indices}")
    return indices


def meant(faces: Faces, face: int | None, name: str, largest: str = "face=0") -> int:
    """Index of the one face of a photo that is meant.

    Args:
        faces: of the photo.
        face: its index, 0 is the largest; None wants a photo of one face.
        name: of the photo.
        largest: how one says that the largest is meant.

    Raises:
        NoFaceError: there is none.
        InputError: several and no choice, or no such face.
    """
    count = len(faces)
    if not count:
        raise NoFaceError(f"the photo must show a face, none was found in {name}: cut it closer, or give another one")
    if face is None and count > 1:
        raise InputError(f"one face must be chosen, {name} shows {count}: pass {largest} for the largest")
    index = face or 0
    if not (type(index) is int and 0 <= index < count):
        raise InputError(f"face must be from 0 to {count - 1} for {name}, got {face!r}: pass one of them")
    return index


def parse(text: str) -> str | list[int]:
    """Turn what people write, "all", "largest", "given" or "0,2", into what `select` takes.

    Raises:
        InputError: something else.
    """
    text = str(text).strip().lower()
    if text in ("all", "largest", "given"):
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"faces must be all, largest, given or numbers such as 0,2, got {text[:50]!r}: use one"
        ) from None


def parse_box(text: str) -> tuple[float, ...]:
    """Turn what people write, "10,20,110,140", into a box (x0, y0, x1, y1).

    Raises:
        InputError: something else.
    """
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"a box must be x0,y0,x1,y1 in pixels, such as 10,20,110,140, got {text[:50]!r}") from None
    return x0, y0, x1, y1


def parse_boxes(text: str | None) -> list[tuple[float, ...]]:
    """Several of `parse_box`, parted by semicolons; none of an empty text."""
    return [parse_box(part) for part in (text or "").split(";") if part.strip()]


def _index(value: object, count: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        index = operator.index(value)  # ty: ignore[invalid-argument-type] - its TypeError is the check
    except TypeError:
        raise InputError(f"a face must be named by its index, an integer, got {value!r}") from None
    if not 0 <= index < count:
        known = f"the photo has {count} faces, 0 to {count - 1}" if count else "no face was found, give its box"
        known = "the photo has one face, which is 0" if count == 1 else known
        raise InputError(f"a face index must be in range, got {index}: {known}")
    return index
