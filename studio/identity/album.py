"""Many photographs: whose faces are they? Every face is found and embedded, and the faces are grouped by person.

"One person" means no more than a small mean distance between identity vectors (`studio.identity.grouping`);
`studio bench album` measures how often that is wrong, and every album says so.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from studio import images, weights
from studio.errors import ImageError, InputError
from studio.faces import align
from studio.find import FaceFinder
from studio.identity.compare import SMALLEST_EYE_DISTANCE
from studio.identity.encoder import IdentityEncoder
from studio.identity.grouping import detail, group, mean_distances
from studio.images import Photo

FIGURES = weights.COMMITTED / "figures" / "album.json"  # what `studio bench album --out` wrote
THRESHOLD = 0.45  # mean distance; the largest of `studio bench album` with a B-cubed precision of at least 0.99
CROP = 192  # px, of the faces to look at
CHIP_EYES = 52.5  # px between the eyes in the encoder's chip of 150
LEAST_DETAIL = (
    0.09  # see `detail`; of faces shrunk to 9 px between the eyes all lie below, to 16 px 6 % (`studio bench album`)
)
COLUMNS = ("photo", "face", "person", "distance", "eye_distance", "x0", "y0", "x1", "y1", "reason")


@dataclass(frozen=True, eq=False)
class AlbumFace:
    """One face of one photograph.

    Attributes:
        photo: index of the photograph.
        index: of the face in it, 0 is the largest.
        box: x0, y0, x1, y1 in pixels of the photograph.
        eye_distance: px between the eyes.
        crop: the face, aligned, (3,192,192) uint8 RGB.
        vector: its identity, (128,) float32.
        reason: why it is set aside; empty where it is grouped.
        distance: mean distance to the rest of its group; None where there is no rest.
    """

    photo: int
    index: int
    box: tuple[float, ...]
    eye_distance: float
    crop: Tensor
    vector: Tensor
    reason: str
    distance: float | None = None


@dataclass(frozen=True, eq=False)
class Album:
    """Faces grouped by person.

    Attributes:
        names: of the photographs, those that could not be read too.
        faces: all faces, photograph by photograph.
        people: for each person the indices of the faces. Whoever is seen most comes first; one seen once is alone.
        threshold: mean distance up to which groups were joined.
        failed: index of a photograph that could not be read -> why.
    """

    names: list[str]
    faces: list[AlbumFace]
    people: list[list[int]]
    threshold: float
    failed: dict[int, str]

    @property
    def set_aside(self) -> list[int]:
        """Indices of the faces that are not grouped."""
        return [i for i, face in enumerate(self.faces) if face.reason]

    @property
    def without_face(self) -> list[int]:
        """Indices of the photographs in which no face was found."""
        return sorted({*range(len(self.names))} - {face.photo for face in self.faces} - {*self.failed})

    @property
    def sentence(self) -> str:
        """The album in words, with how often such groups were wrong where it was measured."""
        again = sum(len(person) > 1 for person in self.people)
        aside = Counter(self.faces[i].reason.split(":")[0] for i in self.set_aside)
        seen = f", {again} of them in more than one photo" if again else ""
        said = (
            f"{counted(len(self.faces), 'face')} in {counted(len(self.names), 'photo')}: "
            f"{counted(len(self.people), 'person', 'people')}{seen}."
        )
        if aside:
            said += f" Set aside: {', '.join(f'{count} {reason}' for reason, count in aside.items())}."
        if self.without_face:
            said += f" No face was found in {counted(len(self.without_face), 'photo')}."
        if self.failed:
            said += f" {counted(len(self.failed), 'file')} could not be read."
        return f"{said} {error_rates(self.threshold)}" if again else said

    def rows(self) -> list[dict[str, Any]]:
        """One JSON-able dict per face, with the keys `COLUMNS`; `person` counts from 1, and is None if set aside."""
        person = {i: number for number, members in enumerate(self.people, 1) for i in members}
        return [
            {
                "photo": self.names[face.photo],
                "face": face.index,
                "person": person.get(i),
                "distance": None if face.distance is None else round(face.distance, 3),
                "eye_distance": round(face.eye_distance, 1),
                **dict(zip(("x0", "y0", "x1", "y1"), (round(value, 1) for value in face.box), strict=True)),
                "reason": face.reason,
            }
            for i, face in enumerate(self.faces)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything but pictures and vectors, JSON-able."""
        return {
            "sentence": self.sentence,
            "threshold": self.threshold,
            "photos": len(self.names),
            "people": len(self.people),
            "faces": self.rows(),
            "without_face": [self.names[i] for i in self.without_face],
            "failed": [{"photo": self.names[i], "reason": reason} for i, reason in self.failed.items()],
        }

    def to_csv(self) -> str:
        """`rows` for a spreadsheet; a name that it would take for a formula gets a quote before it."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in self.rows():
            formula = row["photo"].startswith(("=", "+", "-", "@", "\t", "\r"))
            writer.writerow({**row, "photo": f"'{row['photo']}" if formula else row["photo"]})
        return stream.getvalue()


class AlbumMaker:
    """Finds the faces of photographs and groups them by person.

    Args:
        finder: of faces.
        encoder: of identities.
    """

    def __init__(self, finder: FaceFinder, encoder: IdentityEncoder) -> None:
        self.finder = finder
        self.encoder = encoder

    @classmethod
    def from_pretrained(cls) -> AlbumMaker:
        """With the weights of the store, on the CPU.

        Raises:
            MissingWeightsError: not here and could not be fetched.
        """
        return cls(FaceFinder.from_pretrained(), IdentityEncoder.from_pretrained())

    def __call__(
        self,
        photos: Sequence[images.Source | Photo],
        threshold: float = THRESHOLD,
        *,
        names: Sequence[str] | None = None,
        max_pixels: int = images.MAX_PIXELS,
        on_photo: Callable[[int, int], None] = lambda done, count: None,
    ) -> Album:
        """Group the faces of photographs; one that cannot be read is listed as failed, and the rest goes on.

        Args:
            photos: anything that `studio.images.load` takes; one of them is in memory at a time.
            threshold: largest mean distance of two groups that are joined, above 0.
            names: of the photographs; None takes their files' names.
            max_pixels: a photograph with more fails.
            on_photo: called with (photographs done, photographs in all) before each, and at the end.

        Raises:
            InputError: no photograph, another number of names, or a threshold that is not above 0.
        """
        check_arguments(len(photos), threshold)
        if names is not None and len(names) != len(photos):
            raise InputError(f"names must be {len(photos)}, one for each photo, got {len(names)}: pair them")
        called: list[str] = []
        faces: list[AlbumFace] = []
        failed: dict[int, str] = {}
        for i, source in enumerate(photos):
            on_photo(i, len(photos))
            try:
                photo = images.load(source, max_pixels=max_pixels)
            except ImageError as error:
                failed[i] = str(error)
                called.append(names[i] if names else f"photo {i + 1}")
                continue
            called.append(names[i] if names else photo.name)
            faces += self.look(photo, i)
        on_photo(len(photos), len(photos))
        faces, people = grouped(faces, threshold)
        return Album(called, faces, people, threshold, failed)

    @torch.inference_mode()
    def look(self, photo: Photo, number: int = 0) -> list[AlbumFace]:
        """The faces of one photograph, not yet grouped, those that are too poor for it with the reason.

        Args:
            photo: where to look.
            number: index of the photograph.
        """
        faces = self.finder(photo.pixels)
        if not len(faces):
            return []
        chips = self.encoder.chips(photo.pixels, faces.mesh)
        vectors = self.encoder.embed_chips(chips).cpu()
        crops = align.warp(photo.pixels, align.ffhq_transform(faces.mesh, CROP), CROP).clamp(0, 1)
        details = detail(chips, CHIP_EYES, SMALLEST_EYE_DISTANCE)
        return [
            AlbumFace(
                number,
                k,
                tuple(faces.boxes[k].tolist()),
                float(faces.eye_distances[k]),
                crops[k].mul(255).round().byte().cpu(),
                vectors[k],
                why_aside(float(faces.eye_distances[k]), float(details[k])),
            )
            for k in range(len(faces))
        ]


def check_arguments(count: int, threshold: float) -> None:
    """Refuse what an album cannot be made of.

    Raises:
        InputError: no photograph, or a threshold that is not above 0.
    """
    if not count:
        raise InputError("an album needs at least one photo, got none: choose files first")
    if not threshold > 0:
        raise InputError(f"threshold must be a distance above 0, got {threshold}: {THRESHOLD} is the usual one")


def why_aside(eyes: float, found: float) -> str:
    """Why a face is not grouped, or an empty text.

    Args:
        eyes: px between the eyes.
        found: what `detail` says.
    """
    if eyes < SMALLEST_EYE_DISTANCE:
        return f"too small: {eyes:.0f} px between the eyes, {SMALLEST_EYE_DISTANCE:.0f} are needed"
    if found < LEAST_DETAIL:
        return f"too blurred: shows no more than a face with {SMALLEST_EYE_DISTANCE:.0f} px between the eyes"
    return ""


def grouped(faces: Sequence[AlbumFace], threshold: float) -> tuple[list[AlbumFace], list[list[int]]]:
    """The faces with their distances, and for each person the indices of the faces."""
    kept = [i for i, face in enumerate(faces) if not face.reason]
    if not kept:
        return list(faces), []
    vectors = torch.stack([faces[i].vector for i in kept])
    people = [[kept[k] for k in one] for one in group(vectors, [faces[i].photo for i in kept], threshold)]
    apart: dict[int, float] = {}
    for person in people:
        if len(person) > 1:
            values = mean_distances(torch.stack([faces[i].vector for i in person])).tolist()
            apart |= dict(zip(person, values, strict=True))
    return [replace(face, distance=apart.get(i)) for i, face in enumerate(faces)], people


@cache
def figures() -> dict[str, Any]:
    """The committed result of `studio bench album`."""
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def error_rates(threshold: float) -> str:
    """How often groups made with a threshold were wrong, of the nearest one that was measured."""
    found = min(figures()["sweep"], key=lambda row: abs(row["threshold"] - threshold))
    people = figures()["people"]
    return (
        f"Groups can be wrong: of {people} people with two photos each, grouped at {found['threshold']:g}, "
        f"{1 - found['precision']:.0%} of the pairs put together were two people, and {1 - found['recall']:.0%} of the "
        "pairs of one person were not put together. This is no evidence of who somebody is."
    )


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"
