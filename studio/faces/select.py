"""Choosing faces of a photo."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple

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


class Least(NamedTuple):
    """What a face must have for a task: px between its eyes, and the words of the refusal."""

    eyes: float
    purpose: str
    instead: str


# Below these, there is nothing of a person to keep, to move, or to know.
LEAST = {
    "turn": Least(8.0, "to be turned", "use UpsamplePipeline first"),
    "edit": Least(8.0, "to be edited", "upsample it first"),
    "move": Least(12.0, "to be moved", "restore or enlarge it first"),
    "recognise": Least(12.0, "to say who it is", "give a larger one"),
}


def one_face(
    faces: Faces,
    face: int | None,
    name: str,
    least: Least | None = None,
    *,
    what: str = "the photo",
    largest: str = "face=0",
    lost: str = "cut it closer, or give another one",
) -> int:
    """Index of the one face of a photo that is meant.

    Args:
        faces: of the photo.
        face: its index, 0 is the largest; None wants a photo of one face.
        name: of the photo.
        least: how large it must be, one of `LEAST`; None takes any.
        what: what the photo is called.
        largest: how one says that the largest is meant; empty where no choice is given.
        lost: what to do where there is none.

    Raises:
        NoFaceError: there is none.
        InputError: several and no choice, no such face, or one that is too small.
    """
    count = len(faces)
    if not count:
        raise NoFaceError(f"{what} must show a face, none was found in {name}: {lost}")
    if face is None and count > 1:
        if not largest:
            raise InputError(f"{what} must show one face, {name} shows {count}: cut one out")
        raise InputError(f"one face must be chosen, {name} shows {count}: pass {largest} for the largest")
    index = 0 if face is None else face
    if not (type(index) is int and 0 <= index < count):
        raise InputError(f"face must be from 0 to {count - 1} for {name}, got {face!r}: pass one of them")
    eyes = float(faces.eye_distances[index])
    if least is not None and eyes < least.eyes:
        raise InputError(
            f"a face must have {least.eyes:.0f} px between its eyes {least.purpose}, the one in {name} has {eyes:.1f}: "
            f"{least.instead}"
        )
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
