"""Editing the face of a photograph where it is: the photograph comes back with this one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from studio import images, weights
from studio.errors import InputError
from studio.faces import align
from studio.faces.paste import blend, soft_mask
from studio.faces.select import meant
from studio.identity.similarity import SAME_PERSON
from studio.images import Photo
from studio.latents import search
from studio.latents.edit import move, move_to
from studio.latents.editor import ANGLES, AS_IT_SHOULD_BE, SIZE, Editor, as_reported, check_changes
from studio.latents.in_photo import FaceInPhoto
from studio.latents.inversion import invert
from studio.networks.head_parts import PARTS, HeadParts
from studio.networks.image_head import ImageHead
from studio.networks.restorer import Restorer
from studio.tone import Tone, tone_curve, with_tone

CROP = 512
SMALLEST_EYE_DISTANCE = 8.0  # photo pixels; below it there is nothing of a person to keep
STEPS = 40  # of the search for the likeness whose change is carried over
ALIKE = ("yaw", "pitch", "smile", "mouth")  # what the start of that search has of the photograph
LOOKS = 3  # at the result, each with another share of the change
SHARES = (0.4, 2.0)  # least and most of the plain change; further out faces fall apart
NEAR = 0.1  # of what was asked for: near enough
NOTE = "synthetic: the face of the photograph, changed by a prior of faces"


@dataclass(frozen=True)
class Sitter:
    """One face of a photograph, ready to be changed.

    Attributes:
        photo: the photograph.
        crop: (1,3,512,512) FFHQ-aligned, RGB in [0,1].
        to_photo: (1,2,3) crop pixels to photo pixels.
        mesh: (1,468,3) in pixels of the photo.
        hair: (1,1,32,32) probability that a cell of the crop is hair.
        person: (128,) identity vector.
        seen: (A,) attributes of the crop.
        inside: the face as the prior reads it.
        likeness_distance: identity distance between the face and its likeness in latents.
        index, found: which one of how many faces.
    """

    photo: Photo
    crop: Tensor
    to_photo: np.ndarray
    mesh: np.ndarray
    hair: Tensor
    person: Tensor
    seen: Tensor
    inside: FaceInPhoto
    likeness_distance: float
    index: int
    found: int


@dataclass
class PhotoEditReport:
    """What an edit did to a photograph.

    Attributes:
        asked: attribute to what was asked for: years (age), change in spreads of generated faces (the others).
        before, after: attribute to its measured value: degrees, years, or spreads from the average generated face.
        likeness_distance: identity distance (dlib) between the face and its likeness in latents, whose change was
            carried over. Its search followed the encoder that measures, so that it flatters.
        identity_distance: between the face before and after.
        same_person: that is below 0.6.
        face: index of the face, 0 is the largest; faces_found: how many there were.
        note: what the picture is.
    """

    asked: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]
    likeness_distance: float
    identity_distance: float
    same_person: bool
    face: int
    faces_found: int
    note: str = NOTE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


class PhotoEditor:
    """Changes a smile, glasses, the light, the age of a face, and leaves the rest of the photograph as it is.

    Args:
        editor: the prior, its directions, and what finds and measures faces.
        restorer: reads the photograph's face.
        parts: where the head has hair.
        head: draws the changed face, 512 px with the real one.
        quick: draws what the search for a likeness looks at, 256 px.
    """

    def __init__(self, editor: Editor, restorer: Restorer, parts: HeadParts, head: ImageHead, quick: ImageHead) -> None:
        self.editor, self.restorer, self.parts, self.head, self.quick = editor, restorer, parts, head, quick
        for network in (restorer, head, quick):
            network.requires_grad_(False).to(memory_format=torch.channels_last)
        restorer.prepare(editor.generator)

    @classmethod
    def from_pretrained(cls, device: str = "cpu", editor: Editor | None = None) -> Self:
        """The editor with the weights of the weight store, on a device.

        `editor` is one that is loaded already, on the same device.

        Raises:
            MissingWeightsError: they are not on this machine and could not be fetched.
        """
        return cls(
            editor or Editor.from_pretrained(device),
            Restorer.from_pretrained(weights.path("restore")).to(device),
            HeadParts.from_pretrained(weights.path("parts")).to(device),
            ImageHead.from_pretrained(weights.path("head_512")).to(device),
            ImageHead.from_pretrained(weights.path("head_256")).to(device),
        )

    @torch.no_grad()
    def find(
        self,
        photo: Photo,
        face: int | None = None,
        steps: int = STEPS,
        on_step: Callable[[int], None] | None = None,
        w: Tensor | None = None,
    ) -> Sitter:
        """Find a face of a photograph, read it, and search for its likeness in latents.

        Args:
            photo: the photograph.
            face: index of the face, 0 is the largest; None asks for a photo of one face.
            steps: of the search, 1 or more.
            on_step: called with the number of steps that are done.
            w: (1,slots,D) the likeness, `Sitter.inside.w` of an earlier call for this face; nothing is then searched.

        Raises:
            NoFaceError: the photo shows none.
            InputError: several and no choice, an index that there is not, too few pixels, or too few steps.
            StudioError: its likeness is no face.
        """
        if not (type(steps) is int and steps >= 1):
            raise InputError(f"steps must be a whole number of 1 or more, got {steps!r}: pass one")
        editor = self.editor
        faces = editor.finder(photo.pixels)
        index = meant(faces, face, photo.name, "face 0")
        one = faces[[index]]
        if float(one.eye_distances[0]) < SMALLEST_EYE_DISTANCE:
            raise InputError(
                f"a face must have {SMALLEST_EYE_DISTANCE:.0f} px between its eyes to be edited, the one in "
                f"{photo.name} has {float(one.eye_distances[0]):.1f}: upsample it first"
            )
        to_photo = align.ffhq_transform(one.mesh, CROP)
        crop = align.warp(photo.pixels, to_photo, CROP).clamp(0, 1)
        tone = tone_curve(photo.pixels, crop)
        person = editor.encoder.embed(photo.pixels, one.mesh)[0]
        seen, _ = editor.measured(images.resize(crop, SIZE, SIZE))
        if w is None:
            w = self.likeness(images.resize(crop, SIZE, SIZE)[0], person, seen, tone, steps, on_step)
        mask = soft_mask(one.mesh, to_photo, CROP)
        inside = FaceInPhoto(editor.generator, self.head, self.restorer, crop, mask, w, tone)
        features = inside.parts.features.to(self.parts.device, self.parts.dtype)
        hair = self.parts(features)[:, [PARTS.index("hair")]].float().cpu()
        apart = float((editor.look(inside.w)[1] - person.cpu()).norm())
        return Sitter(photo, crop, to_photo, one.mesh, hair, person, seen, inside, apart, index, len(faces))

    def likeness(
        self,
        crop: Tensor,
        person: Tensor,
        seen: Tensor,
        tone: Tone | None,
        steps: int,
        on_step: Callable[[int], None] | None,
    ) -> Tensor:
        """W+ latents (1,slots,D) of the prior's face that is most like an aligned one (3,256,256)."""
        editor, space = self.editor, self.editor.space
        with torch.inference_mode(False):
            prior, head = search.quick_copy(editor.generator), search.quick_copy(self.quick)
            tone = None if tone is None else tone.copied()

        def draw(w: Tensor) -> Tensor:
            return with_tone(search.render(prior, w, SIZE, head), tone)

        crop = crop.to(editor.generator.device)
        start = editor.generator.slots(space.latents(search.estimate(space, crop, person, grey=tone is not None)))
        aims = {name: float(seen[space.number(name)]) for name in ALIKE}
        start, _ = move_to(space, start.clone(), aims, lambda w: editor.measured(draw(w).clamp(0, 1))[0])
        return invert(
            draw,
            crop,
            start,
            space,
            editor.finder,
            editor.encoder.net,
            steps=steps,
            on_step=lambda step, w: on_step(step) if step and on_step is not None else None,
        )

    @torch.no_grad()
    def edit(self, sitter: Sitter, changes: Mapping[str, float]) -> tuple[Photo, Tensor, PhotoEditReport]:
        """Change one face, measure it, and change it more or less where that was not what was asked for.

        Args:
            sitter: the face.
            changes: attribute to its change in spreads of generated faces; age to years, as read off the identity
                vector.

        Returns:
            The photograph with the changed face in it, the changed face (3,512,512) FFHQ-aligned, what was done.

        Raises:
            InputError: nothing to change, an unknown attribute, a change beyond what the prior can draw, or a turn.
            StudioError: the result is no face any more.
        """
        editor, space = self.editor, self.editor.space
        check_in_photo(space, changes)
        spread = space.attribute_spread.float().cpu()
        steps = {}  # by how much each attribute is to change, in its own unit
        for name, value in changes.items():
            i = space.number(name)
            steps[name] = float(value - sitter.seen[i]) if name in AS_IT_SHOULD_BE else float(value * spread[i])
        shares = dict.fromkeys(steps, 1.0)
        best = None
        for _ in range(LOOKS):
            w = sitter.inside.w
            for name, step in steps.items():
                w = move(space, w, name, shares[name] * step)
            face, kept = sitter.inside.moved(w, steps)
            values, vector = editor.measured(images.resize(face, SIZE, SIZE))
            got = {
                name: float(values[space.number(name)] - sitter.seen[space.number(name)]) / step if step else 1.0
                for name, step in steps.items()
            }
            miss = max(abs(share - 1) for share in got.values())
            distance = float((vector - sitter.person.cpu()).norm())
            if best is None or miss + distance < best[0]:  # a change that hardly comes is not worth the person
                best = miss + distance, face, kept, values, distance
            if miss < NEAR:
                break
            least, most = SHARES
            shares = {name: min(max(shares[name] / max(got[name], 0.5), least), most) for name in steps}
        _, face, kept, values, distance = best
        report = PhotoEditReport(
            asked=dict(changes),
            before=as_reported(space, sitter.seen),
            after=as_reported(space, values),
            likeness_distance=sitter.likeness_distance,
            identity_distance=distance,
            same_person=distance < SAME_PERSON,
            face=sitter.index,
            faces_found=sitter.found,
        )
        return self.put_back(sitter, face, kept), face[0], report

    def put_back(self, sitter: Sitter, face: Tensor, kept: Tensor) -> Photo:
        """The photograph with this face (1,3,512,512) in it; where it was `kept`, with detail that is finer still."""
        mask = soft_mask(sitter.mesh, sitter.to_photo, CROP, sitter.hair)
        fine = kept * float(align.scale_of(sitter.to_photo)[0] > 1)
        pixels = blend(sitter.photo.pixels, face, mask, sitter.to_photo, sitter.crop, fine)
        return sitter.photo.with_pixels(pixels.clamp(0, 1))


def check_in_photo(space: Any, changes: Mapping[str, float]) -> None:
    """Refuse what cannot be changed in a photograph.

    Raises:
        InputError: nothing, a turn, an unknown attribute, or a change beyond what the prior can draw.
    """
    if not changes:
        raise InputError("a change is needed, got none: ask for a smile, glasses or an age")
    if turned := [name for name in ANGLES if name in changes]:
        raise InputError(f"{turned[0]} can't be changed in the photograph itself: edit its likeness instead")
    check_changes(space, changes)
