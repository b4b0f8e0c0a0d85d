"""Editing a face: find it in the prior, move it along directions, measure, correct."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from studio import images, weights
from studio.errors import InputError, NoFaceError, StudioError
from studio.faces.align import ffhq_transform, warp
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.identity.similarity import SAME_PERSON
from studio.images import Photo
from studio.latents import search
from studio.latents.edit import move_to
from studio.latents.measure import Resemblance, measure_all, place_aligned
from studio.networks.generator import Generator
from studio.networks.latent_space import AGE, LatentSpace

ANGLES = ("yaw", "pitch")
AS_IT_SHOULD_BE = (*ANGLES, AGE)  # asked for in degrees and years; the others as a change, in spreads
CORRECTIONS = 3
MOST_SPREADS = 4.0  # further out than this, pictures stop being faces
MOST_DEGREES = 60.0
YEARS = (30.0, 80.0)  # that the reading was learned from, and the prior reaches
SIZE = 256
STEPS = 100  # of the search for a likeness
COMPARED = 64  # px, at which a photo and its likeness are compared; finer detail is the identity's business
INVERSION = search.Objective(pixels=60.0, cross=0.003, threshold=1e-4)
IDENTITY_WEIGHT = 3.0
RATE = 0.5


@dataclass
class EditReport:
    """What an edit did.

    Attributes:
        asked: attribute to what was asked for: degrees (yaw, pitch), years (age), change in spreads (the others).
        before, after: attribute to its measured value: degrees, years, or spreads from the average generated face.
        inversion_distance: identity distance between the photo and its likeness in the prior, before the edit; None
            for a generated face. The search minimises it, so that it flatters.
        edit_distance: identity distance between the likeness and the result.
        total_distance: identity distance between the photo and the result; None for a generated face.
    """

    asked: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]
    inversion_distance: float | None
    edit_distance: float
    total_distance: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


class Editor:
    """Finds faces in the prior and moves them.

    Args:
        generator: the prior.
        space: its directions.
        finder: finds faces, and measures them.
        encoder: says who they are.
    """

    def __init__(self, generator: Generator, space: LatentSpace, finder: FaceFinder, encoder: IdentityEncoder) -> None:
        self.generator = generator.requires_grad_(False).to(memory_format=torch.channels_last)
        self.space, self.finder, self.encoder = space, finder, encoder

    @classmethod
    def from_pretrained(cls, device: str = "cpu") -> Self:
        """The editor with the weights of the weight store, on a device.

        Raises:
            MissingWeightsError: they are not on this machine and could not be fetched.
        """
        return cls(
            Generator.from_pretrained(weights.path("generator")).to(device),
            LatentSpace.from_pretrained(weights.path("directions")).to(device),
            FaceFinder.from_pretrained().to(device),
            IdentityEncoder.from_pretrained().to(device),
        )

    @torch.no_grad()
    def sample(self, seed: int, truncation: float = 0.7) -> Tensor:
        """W+ latents (1,16,512) of a generated person."""
        z = torch.randn(1, self.generator.config.style_dim, generator=torch.Generator().manual_seed(seed))
        return self.generator.slots(self.generator.latents(z.to(self.generator.dtype), truncation)).clone()

    @torch.no_grad()
    def aligned(self, photo: Photo) -> tuple[Tensor, Tensor]:
        """The only face of a photo, FFHQ-aligned (3,256,256) in [0,1], and its identity vector (128,).

        Raises:
            NoFaceError: there is none.
            InputError: there are several.
        """
        faces = self.finder(photo.pixels)
        if not len(faces):
            raise NoFaceError(
                f"the photo must show a face, none was found in {photo.name}: cut it closer, or give another one"
            )
        if len(faces) > 1:
            raise InputError(f"the photo must show one face, {photo.name} shows {len(faces)}: cut one out")
        crop = warp(photo.pixels, ffhq_transform(faces.mesh, SIZE), SIZE)[0].clamp(0, 1)
        return crop, self.encoder.embed(photo.pixels, faces.mesh)[0]

    def invert(
        self,
        crop: Tensor,
        person: Tensor,
        steps: int = STEPS,
        on_step: Callable[[int, Tensor, Tensor], Tensor | None] | None = None,
    ) -> Tensor:
        """Search the prior for a face.

        Args:
            crop: (3,256,256) FFHQ-aligned, RGB in [0,1].
            person: (128,) its identity vector.
            steps: of the search; about 100 give a likeness.
            on_step: see `search.search`.

        Returns:
            W+ latents (1,16,512).
        """
        # The caller may have switched gradients off in one way or the other; tensors of inference mode cannot have any.
        with torch.inference_mode(False), torch.enable_grad():
            quick = search.quick_copy(self.generator)
            start = self.space(search.nearest(self.space, crop.clone(), 1, embedding=person.clone()))
            found = search.search(
                lambda coordinates: search.render(quick, self.space.latents(coordinates), SIZE),
                start[:, None].repeat(1, self.generator.num_slots, 1),
                images.resize(crop.clone(), COMPARED, COMPARED).to(start.device),
                replace(INVERSION, extra=Resemblance(self.finder, self.encoder, person.clone(), IDENTITY_WEIGHT)),
                steps=steps,
                rate=RATE,
                on_step=on_step,
            )
        return self.space.latents(found.v)

    def likeness(
        self,
        photo: Photo,
        steps: int = STEPS,
        on_step: Callable[[int, Tensor, Tensor], Tensor | None] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Find the only face of a photo in the prior: `aligned`, then `invert`.

        Returns:
            W+ latents (1,16,512), the person's identity vector (128,), the aligned face (3,256,256).

        Raises:
            NoFaceError: there is no face.
            InputError: there are several, or what was found is not the person.
        """
        crop, person = self.aligned(photo)
        w = self.invert(crop, person, steps, on_step)
        check_likeness(float((self.look(w)[1] - person.cpu()).norm()))
        return w, person, crop

    @torch.no_grad()
    def look(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Measure one face, W+ (1,16,512): its attributes (A,), identity vector (128,) and picture (1,3,256,256).

        Raises:
            StudioError: the mesh sees no face there.
        """
        picture = search.render(self.generator, w, SIZE).clamp(0, 1)
        return *self.measured(picture), picture

    @torch.no_grad()
    def measured(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Attributes (A,) and identity vector (128,) of one aligned face (1,3,S,S) in [0,1], on the CPU.

        Raises:
            StudioError: the mesh sees no face there.
        """
        found = place_aligned(self.finder, picture)
        if not found.seen[0]:
            raise StudioError("the edit must stay a face, and left what the prior can draw: ask for less")
        values, vectors = measure_all(self.space, self.encoder, picture, found.mesh)
        return values[0], vectors[0]

    @torch.no_grad()
    def edit(self, w: Tensor, changes: Mapping[str, float], person: Tensor | None = None) -> tuple[Tensor, EditReport]:
        """Move one face, measure, and correct what was missed.

        Args:
            w: (1,16,512) W+ latents.
            changes: attribute to its angle in degrees (yaw, pitch), to years (age, as read off the identity vector), or
                to its change in spreads of generated faces.
            person: (128,) identity vector of the photo that `w` stands for, for the report.

        Returns:
            The moved latents (1,16,512), and what was done.

        Raises:
            InputError: an unknown attribute, or a change beyond what the prior can draw.
            StudioError: the result is no face any more.
        """
        check_changes(self.space, changes)
        spread = self.space.attribute_spread.float().cpu()
        before, identity, _ = self.look(w)
        aims = {
            name: float(value) if name in AS_IT_SHOULD_BE else float(before[i] + value * spread[i])
            for name, value in changes.items()
            for i in (self.space.number(name),)
        }
        moved, values = move_to(self.space, w, aims, lambda latents: self.look(latents)[0], CORRECTIONS)
        _, after, _ = self.look(moved)
        report = EditReport(
            asked=dict(changes),
            before=as_reported(self.space, before),
            after=as_reported(self.space, values),
            inversion_distance=None if person is None else float((person.cpu() - identity).norm()),
            edit_distance=float((identity - after).norm()),
            total_distance=None if person is None else float((person.cpu() - after).norm()),
        )
        return moved, report

    @torch.no_grad()
    def draw(self, w: Tensor) -> Tensor:
        """W+ latents (N,16,512) to pictures (N,3,1024,1024) RGB in [0,1]."""
        return (self.generator(w.to(self.generator.dtype)).float() / 2 + 0.5).clamp(0, 1).cpu()


def as_reported(space: LatentSpace, values: Tensor) -> dict[str, float]:
    """Attributes (A,) by name: degrees, years, or spreads from the average generated face."""
    mean, spread = space.attribute_mean.float().cpu(), space.attribute_spread.float().cpu()
    return {
        name: round(float(values[i] if name in AS_IT_SHOULD_BE else (values[i] - mean[i]) / spread[i]), 2)
        for i, name in enumerate(space.config.attributes)
    }


def check_changes(space: LatentSpace, changes: Mapping[str, float]) -> None:
    """Refuse attributes that there are not, and changes that leave the faces that the prior knows."""
    for name, value in changes.items():
        space.number(name)
        low, high, unit = -MOST_SPREADS, MOST_SPREADS, "spreads"
        if name in ANGLES:
            low, high, unit = -MOST_DEGREES, MOST_DEGREES, "degrees"
        elif name == AGE:
            low, high, unit = *YEARS, "years"
        if not low <= value <= high:
            raise InputError(f"{name} must be from {low:g} to {high:g} {unit}, got {value:g}: ask for less")


def check_likeness(distance: float) -> None:
    """Refuse to go on with a likeness that is not the person.

    Raises:
        InputError: the identity distance to the photo is `SAME_PERSON` or more.
    """
    if not distance < SAME_PERSON:
        raise InputError(
            f"the prior must hold a likeness of the photo before it is edited, the best one is {distance:.2f} away "
            f"({SAME_PERSON} is the limit): raise the steps, or give a sharper photo"
        )
