"""The one face of a photo that is meant: where it lies, how it looks into the camera, and who it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from studio.faces import align
from studio.faces.select import Least, one_face
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.images import Photo
from studio.tone import Tone, tone_curve


@dataclass(frozen=True)
class Portrait:
    """One face of a photo.

    Attributes:
        photo: the photo.
        crop: (3,S,S) FFHQ-aligned, RGB in [0,1].
        to_photo: (1,2,3) crop pixels to photo pixels.
        person: (E,) identity vector.
        mesh: (1,468,3) in pixels of the photo.
        pose: yaw, pitch, roll in degrees.
        tone: `tone_curve` of a monochrome photo.
        face, faces_found: which one of how many, 0 is the largest.
    """

    photo: Photo
    crop: Tensor
    to_photo: np.ndarray
    person: Tensor
    mesh: np.ndarray
    pose: list[float]
    tone: Tone | None
    face: int
    faces_found: int


def portrait(
    photo: Photo,
    face: int | None,
    side: int,
    finder: FaceFinder,
    encoder: IdentityEncoder,
    least: Least,
    largest: str = "face=0",
) -> Portrait:
    """Find the face of a photo that is meant, align it, and say who it is.

    Args:
        photo: the photo.
        face: index of the face, 0 is the largest; None wants a photo of one face.
        side: of the aligned face, px.
        finder: finds faces.
        encoder: says who they are.
        least: how large the face must be.
        largest: how one says that the largest is meant.

    Raises:
        NoFaceError: there is none.
        InputError: several and no choice, no such face, or one that is too small.
    """
    faces = finder(photo.pixels)
    index = one_face(faces, face, photo.name, least, largest=largest)
    one = faces[[index]]
    to_photo = align.ffhq_transform(one.mesh, side)
    crop = align.warp(photo.pixels, to_photo, side).clamp(0, 1)
    person, tone = encoder.embed(photo.pixels, one.mesh)[0], tone_curve(photo.pixels, crop)
    return Portrait(photo, crop[0], to_photo, person, one.mesh, one.pose[0].tolist(), tone, index, len(faces))
