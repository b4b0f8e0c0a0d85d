"""Change one thing of a face: a smile, glasses, the light, an age, in the photograph itself; or turn its likeness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from studio import checks, images, weights
from studio.base import StudioPipeline
from studio.callbacks import StepEnd, replaced
from studio.detect import Together
from studio.errors import InputError, StudioError
from studio.faces import align
from studio.faces.paste import blend, soft_mask
from studio.faces.select import LEAST
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.identity.portrait import Portrait, portrait
from studio.identity.similarity import SAME_PERSON
from studio.images import Photo
from studio.latents import bank
from studio.latents.attributes import ANGLES, aims, as_reported, asked, check_changes, check_in_photo, ways
from studio.latents.edit import move, move_to
from studio.latents.in_photo import FaceInPhoto
from studio.latents.likeness import OnStep, by_inversion, by_pulse
from studio.latents.measure import measure_all, place_aligned
from studio.latents.prior import SEARCHED, quick_draw, render
from studio.networks.detector import FaceDetector
from studio.networks.finder import FinderNet
from studio.networks.generator import Generator
from studio.networks.head_parts import PARTS, HeadParts
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.latent_space import LatentSpace
from studio.networks.mesh import FaceMesh
from studio.networks.restorer import Restorer

SIDES = {"photo": 512, "likeness": SEARCHED}  # px, of the aligned face
STEPS = {"photo": 40, "likeness": 100}  # of the search for a likeness: one that says what a change does, one to show
METHODS = ("auto", *STEPS)
TRUNCATION = 0.7  # of a person who is drawn
LOOKS = 3  # at a changed photograph, each with another share of the change
SHARES = (0.4, 2.0)  # least and most of the plain change; further out faces fall apart
NEAR = 0.1  # of what was asked for: near enough
CORRECTIONS = 3  # of a likeness that moved
MADE = {
    "photo": "the face of a photo, changed by a prior of faces",
    "likeness": "a likeness out of the prior, moved along its directions",
}

Changed = tuple[Photo, Tensor, Tensor, Tensor, Tensor]  # photo, face (3,S,S), latents, attributes, identity vector
ImageLike = str | Path | bytes | Image.Image | np.ndarray | Tensor | Photo
StepCallback = Callable[["EditPipeline", int, int, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass
class EditReport:
    """What an edit did to one face.

    Attributes:
        method: "photo" or "likeness".
        asked: attribute to what was asked for: degrees (yaw, pitch), years (age), change in standard deviations of
            generated faces (the others).
        before, after: attribute to its measured value: degrees, years, or standard deviations from the average
            generated face.
        likeness_distance: identity distance (dlib) between the face of the photo and its likeness in the prior: the one
            that is edited, or whose change is carried over. The search for it followed the encoder that measures, so
            that it flatters. None for a generated person.
        edit_distance: between the face before and after: in the photo, or of the likeness.
        identity_distance: between the face of the photo and the result; None for a generated person.
        same_person: that is below 0.6; None likewise.
        face: index of the face, 0 is the largest; faces_found: how many there were. None likewise.
        note: what the picture is.
    """

    method: str
    asked: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]
    likeness_distance: float | None
    edit_distance: float
    identity_distance: float | None
    same_person: bool | None
    face: int | None
    faces_found: int | None
    note: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class Sitter:
    """One face, ready to be changed as often as one likes.

    Attributes:
        method: "photo" or "likeness".
        w: (1,16,512) W+ latents of the likeness, or of a generated person.
        seen: (A,) attributes of the face that is changed: the photo's, or the likeness.
        vector: (E,) identity vector of that face.
        portrait: the face of the photo, aligned to 512 px, or 256 for a likeness; None for a generated person.
        likeness_distance: identity distance between it and its likeness; None likewise.
        hair: (1,1,32,32) probability that a cell of the crop is hair; of "photo" alone.
        inside: the photo's face as the prior reads it; likewise.
    """

    method: str
    w: Tensor
    seen: Tensor
    vector: Tensor
    portrait: Portrait | None
    likeness_distance: float | None
    hair: Tensor | None = None
    inside: FaceInPhoto | None = None


@dataclass(frozen=True)
class Edited:
    """What became of a face.

    Attributes:
        photo: the picture: the photo with the changed face in it, or the likeness.
        face: (3,S,S) the changed face, FFHQ-aligned, float32 RGB in [0,1]; 512 px in the photo, 1024 of a likeness.
        w: (1,16,512) the moved latents.
        report: what was done.
    """

    photo: Photo
    face: Tensor
    w: Tensor
    report: EditReport


@dataclass
class EditOutput(BaseOutput):
    """Result of `EditPipeline`.

    Attributes:
        images: one picture per input, as `output_type` says: the photo with the changed face in it, or the likeness.
        reports: one `EditReport` per input.
        photos: the same pictures as `Photo`, with alpha, colour profile, EXIF and bit depth of the photo; pass one to
            `studio.images.save`.
        faces: the changed face of each, FFHQ-aligned, (3,S,S) float32 RGB in [0,1]; 512 px in the photo, 1024 of a
            likeness.
        latents: (1,16,512) float32 moved W+ latents of each likeness, for `studio.latents.edit`.
        prepared: each input as it was before, for another call.
    """

    images: list[Image.Image] | list[np.ndarray] | list[Tensor]
    reports: list[EditReport]
    photos: list[Photo]
    faces: list[Tensor]
    latents: list[Tensor]
    prepared: list[Sitter]


class EditPipeline(StudioPipeline):
    """Changes a face in the photograph itself, or its likeness out of the prior.

    In the photo, a likeness in latents says what a change does to the prior's map of the face, and that difference is
    added to the photo's own map (`studio.latents.in_photo`, after the Feature-Style encoder, arXiv 2202.02183). A
    likeness is found by PULSE (arXiv 2003.03808) with the identity beside the pixels, and moved along its directions.
    Both are measured, and corrected where they missed what was asked for.
    """

    known_names: ClassVar[tuple[str, ...]] = ("edit",)
    model_cpu_offload_seq = "parts"
    _exclude_from_cpu_offload: ClassVar[list[str]] = [
        *("generator", "space", "restorer", "head", "quick_head"),
        *StudioPipeline._exclude_from_cpu_offload,
    ]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    def __init__(
        self,
        generator: Generator,
        space: LatentSpace,
        restorer: Restorer,
        parts: HeadParts,
        head: ImageHead,
        quick_head: ImageHead,
        detector: FinderNet,
        full_range: FaceDetector,
        back: FaceDetector,
        mesh: FaceMesh,
        identity: IdentityNet,
    ) -> None:
        super().__init__()
        self.register_modules(
            generator=generator,
            space=space,
            restorer=restorer,
            parts=parts,
            head=head,
            quick_head=quick_head,
            detector=detector,
            full_range=full_range,
            back=back,
            mesh=mesh,
            identity=identity,
        )
        for network in (generator, restorer, head, quick_head, detector, full_range, back, mesh):
            network.to(memory_format=torch.channels_last)
        for network in (generator, restorer, head, quick_head, identity, mesh):
            network.requires_grad_(False)  # gradients go to the latents, and pass through these
        restorer.prepare(generator)

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        return weights.components(
            generator="generator",
            space="directions",
            restorer="restore",
            parts="parts",
            head="head_512",
            quick_head="head_256",
        )

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike | Sitter | Sequence[ImageLike | Sitter] | None = None,
        method: str = "auto",
        face: int | None = None,
        yaw: float | None = None,
        pitch: float | None = None,
        smile: float | None = None,
        mouth: float | None = None,
        eyes: float | None = None,
        brow: float | None = None,
        light: float | None = None,
        glasses: float | None = None,
        age: float | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> EditOutput | Any:
        """Change the face of one photo or of a list of them.

        Args:
            image: a path, bytes, PIL image, (H,W,3) array, (3,H,W) tensor in [0,1] or `Photo`; what `prepare` made of
                one; or a list of these, an array (B,H,W,3) or a tensor (B,3,H,W). None edits a generated person, of
                `generator` or `latents`.
            method: "photo" changes the photo itself, which no head can be turned in. "likeness" changes a face of the
                prior that is like the photo's, aligned, 1024 px. "auto": a likeness where the head is turned or where
                there is no photo, else the photo.
            face: index of the face to change, 0 is the largest; None asks for a photo of one face.
            yaw: degrees as they should be, -60 to 60; 0 looks into the camera, above 0 to the left of the picture. None
                leaves it as it is, here and below.
            pitch: likewise; above 0 looks up, a level head is near -8.
            smile: change in standard deviations of generated faces, -4 to 4; likewise the five below.
            mouth: how far it is open.
            eyes: how far they are open.
            brow: how high the brows are.
            light: above 0, more from the right of the picture.
            glasses: below 0 takes them off, above 0 puts them on.
            age: 30 to 80 years as they should be, as read off the identity vector (6 years off in the mean).
            num_inference_steps: of the search for a photo's likeness, 1 or more; None takes 40 in the photo, else 100.
            generator: draws the person to be edited where there is no photo, or a list with one for each person.
            latents: (1,16,512) W+ latents of the likeness, which is then not searched for (`Sitter.w` of an earlier
                call); without a photo, of the person to be edited (one of the `latents` of another pipeline).
            callback_on_step_end: called with (pipeline, step, step, {"latents": (1,16,512)}) after each step of the
                search; the next step starts from the "latents" it returns, and what it raises ends the call.
            callback_on_step_end_tensor_inputs: names of the tensors it is given; None gives all.
            output_type: "pil", "np" ((H,W,3) float32 in [0,1]) or "pt" ((3,H,W) float32 in [0,1]).
            return_dict: False returns a tuple of the output's fields.

        Returns:
            `EditOutput`.

        Raises:
            InputError: an argument outside its range or beside one that it does not go with, nothing to change in a
                photo, several faces and no choice, a face that is too small, or a likeness that is not the person.
            NoFaceError: a photo without a face.
            ImageError: an image that cannot be used.
            StudioError: the result is no face any more.

        Example:
            >>> from studio import EditPipeline
            >>> pipeline = EditPipeline.from_pretrained("edit")
            >>> prepared = pipeline.prepare("examples/portrait.jpg", num_inference_steps=1)  # slow, and once
            >>> pipeline(prepared, smile=1).images[0].save("smiling.png")
            >>> pipeline(prepared, glasses=2, age=60).reports[0].asked
            {'glasses': 2.0, 'age': 60.0}
        """
        changes = asked(
            yaw=yaw,
            pitch=pitch,
            smile=smile,
            mouth=mouth,
            eyes=eyes,
            brow=brow,
            light=light,
            glasses=glasses,
            age=age,
        )
        checks.runs(self)
        checks.output_type(output_type)
        told = (callback_on_step_end, callback_on_step_end_tensor_inputs)
        StepEnd(self, *told, self._callback_tensor_inputs)  # refused before the first photo
        batch = images.batch(image)
        drawn_by = checks.generators(generator, len(batch), "face")
        if latents is not None and len(batch) != 1:
            raise InputError(f"latents must be given with one face, got {len(batch)}: call once for each")
        methods = [method_of(one, method, changes) for one in batch]
        searching = {"face": face, "num_inference_steps": num_inference_steps, "latents": latents}
        for one, how in zip(batch, methods, strict=True):
            check(self.space, changes, how)
            if isinstance(one, Sitter):
                check_unused("a face that is prepared", **searching, generator=generator)
        sitters = [  # 1. find, read, search
            one
            if isinstance(one, Sitter)
            else self.prepare(one, how, face, num_inference_steps, drawing, latents, *told)
            for one, how, drawing in zip(batch, methods, drawn_by, strict=True)
        ]
        done = [self.edit(sitter, changes) for sitter in sitters]  # 2. change, measure, correct
        self.maybe_free_model_hooks()
        output = EditOutput(
            [images.as_type(one.photo.pixels, output_type) for one in done],
            [one.report for one in done],
            [one.photo for one in done],
            [one.face for one in done],
            [one.w.float().cpu() for one in done],
            sitters,
        )
        return output if return_dict else output.to_tuple()

    # ---- the steps, each usable alone

    @torch.no_grad()
    def prepare(
        self,
        image: ImageLike | None = None,
        method: str = "photo",
        face: int | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
    ) -> Sitter:
        """Find a face, read it, and search for its likeness: the slow part, once for all changes.

        Args:
            image: see `__call__`, but one photo, or None for a generated person.
            method: "photo" or "likeness"; a generated person is always the second.
            face: see `__call__`, as all below.
            num_inference_steps: see there.
            generator: see there.
            latents: see there.
            callback_on_step_end: see there.
            callback_on_step_end_tensor_inputs: see there.

        Raises:
            InputError: several faces and no choice, an index that there is not, too few pixels, an argument outside its
                range, or a likeness that is not the person.
            NoFaceError: the photo shows none.
            StudioError: the likeness is no face.
        """
        if method not in STEPS:
            raise InputError(f"method must be one of {', '.join(map(repr, STEPS))}, got {method!r}: choose one of them")
        steps = STEPS[method] if num_inference_steps is None else num_inference_steps
        if not (type(steps) is int and steps >= 1):
            raise InputError(f"num_inference_steps must be a whole number of 1 or more, got {steps!r}: pass one")
        told = StepEnd(self, callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        w = None
        if latents is not None:
            check_unused("latents", generator=generator, num_inference_steps=num_inference_steps)
            w = self.known(latents)
        if image is None:
            check_unused("a generated person", face=face, num_inference_steps=num_inference_steps)
            return self.likeness_of(self.person(generator) if w is None else w)
        check_unused("a photo", generator=generator)
        photo = images.load(image)
        one = portrait(photo, face, SIDES[method], self.finder(), self.encoder(), LEAST["edit"], "face 0")
        find = self.photo_likeness if method == "photo" else self.likeness
        if w is None:
            with self.steps(steps, told) as on_step:
                w = find(one, steps, on_step)
        if method == "photo":
            return self.photo_of(one, w)
        sitter = self.likeness_of(w, one)
        check_likeness(sitter.likeness_distance)
        return sitter

    def person(self, generator: torch.Generator | None) -> Tensor:
        """W+ latents (1,16,512) of a generated person.

        Raises:
            InputError: no generator.
        """
        if generator is None:
            raise InputError("a photo, a generator or latents must say whose face, got none: pass one of them")
        z = checks.normal((1, self.generator.config.style_dim), generator)
        z = z.to(self._execution_device, self.generator.dtype)
        return self.generator.slots(self.generator.latents(z, TRUNCATION)).clone()

    def known(self, latents: Tensor) -> Tensor:
        """The caller's W+ latents (1,16,512), float32, on this pipeline's device.

        Raises:
            InputError: see `checks.latents`.
        """
        shape = (1, self.generator.num_slots, self.generator.config.style_dim)
        return checks.latents(latents, shape).to(self._execution_device)

    def photo_likeness(
        self, one: Portrait, steps: int = STEPS["photo"], on_step: OnStep = lambda step, w: None
    ) -> Tensor:
        """W+ latents (1,16,512) of the likeness that says what a change does to a photo."""
        crop = images.resize(one.crop, SEARCHED, SEARCHED).to(self._execution_device)
        start = bank.estimate(self.space, crop, one.person, grey=one.tone is not None)
        return by_inversion(
            quick_draw(self.generator, self.quick_head, one.tone),
            lambda picture: self.measured(picture)[0],
            crop,
            self.generator.slots(self.space.latents(start)),
            self.measured(crop[None])[0],
            self.space,
            self.finder(),
            self.identity,
            steps,
            on_step,
        )

    def likeness(
        self,
        one: Portrait,
        steps: int = STEPS["likeness"],
        on_step: OnStep = lambda step, w: None,
    ) -> Tensor:
        """W+ latents (1,16,512) of the likeness that is itself shown."""
        finder, encoder = self.finder(), self.encoder()
        return by_pulse(self.generator, self.space, finder, encoder, one.crop, one.person, steps, on_step)

    def photo_of(self, one: Portrait, w: Tensor) -> Sitter:
        """A photo that is ready to be changed, by what changes do to its likeness (1,16,512)."""
        seen, _ = self.measured(images.resize(one.crop[None], SEARCHED, SEARCHED))
        mask = soft_mask(one.mesh, one.to_photo, one.crop.shape[-1])
        inside = FaceInPhoto(self.generator, self.head, self.restorer, one.crop[None], mask, w, one.tone)
        features = inside.parts.features.to(self._execution_device, self.parts.dtype)
        hair = self.parts(features)[:, [PARTS.index("hair")]].float().cpu()
        person = one.person.cpu()
        apart = float((self.look(inside.w)[1] - person).norm())
        return Sitter("photo", inside.w, seen, person, one, apart, hair, inside)

    def likeness_of(self, w: Tensor, one: Portrait | None = None) -> Sitter:
        """A face of the prior, W+ latents (1,16,512), that is ready to be changed."""
        seen, vector = self.look(w)
        return Sitter("likeness", w, seen, vector, one, None if one is None else apart_from(one, vector))

    @torch.no_grad()
    def edit(self, sitter: Sitter, changes: Mapping[str, float]) -> Edited:
        """Change one face, measure it, and correct what was missed.

        Args:
            sitter: the face.
            changes: attribute to its angle in degrees (yaw, pitch), to years (age), or to its change in standard
                deviations.

        Raises:
            InputError: an unknown attribute, a change beyond what the prior can draw; in a photo nothing, or a turn.
            StudioError: the result is no face any more.
        """
        check(self.space, changes, sitter.method)
        change = self.edit_photo if sitter.method == "photo" else self.edit_likeness
        photo, face, w, values, vector = change(sitter, changes)
        one = sitter.portrait
        distance = None if one is None else apart_from(one, vector)
        report = EditReport(
            method=sitter.method,
            asked=dict(changes),
            before=as_reported(self.space, sitter.seen),
            after=as_reported(self.space, values),
            likeness_distance=sitter.likeness_distance,
            edit_distance=float((sitter.vector - vector).norm()),
            identity_distance=distance,
            same_person=None if distance is None else distance < SAME_PERSON,
            face=None if one is None else one.face,
            faces_found=None if one is None else one.faces_found,
            note=f"synthetic: {MADE[sitter.method]}",
        )
        return Edited(photo, face, w, report)

    def edit_likeness(self, sitter: Sitter, changes: Mapping[str, float]) -> Changed:
        """Move a likeness until it measures as asked for, and draw it."""
        wanted = aims(self.space, sitter.seen, changes)
        w, values = move_to(self.space, sitter.w, wanted, lambda latents: self.look(latents)[0], CORRECTIONS)
        face = self.draw(w)[0]
        return Photo(face), face, w, values, self.look(w)[1]

    def edit_photo(self, sitter: Sitter, changes: Mapping[str, float]) -> Changed:
        """Change a face in its place, more or less where that was not what was asked for, and put it back."""
        steps = ways(self.space, sitter.seen, changes)
        shares = dict.fromkeys(steps, 1.0)
        best = None
        for _ in range(LOOKS):
            w = sitter.w
            for name, step in steps.items():
                w = move(self.space, w, name, shares[name] * step)
            face, kept = sitter.inside.moved(w, steps)
            values, vector = self.measured(images.resize(face, SEARCHED, SEARCHED))
            got = {
                name: float(values[i] - sitter.seen[i]) / step if step else 1.0
                for name, step in steps.items()
                for i in (self.space.number(name),)
            }
            miss = max(abs(share - 1) for share in got.values())
            cost = miss + apart_from(sitter.portrait, vector)  # a change that hardly comes is not worth the person
            if best is None or cost < best[0]:
                best = cost, face, kept, w, values, vector
            if miss < NEAR:
                break
            least, most = SHARES
            shares = {name: min(max(shares[name] / max(got[name], 0.5), least), most) for name in steps}
        _, face, kept, w, values, vector = best
        return self.put_back(sitter, face, kept), face[0], w, values, vector

    def put_back(self, sitter: Sitter, face: Tensor, kept: Tensor) -> Photo:
        """The photo with this face (1,3,512,512) in it; where it was `kept`, with detail that is finer still."""
        one = sitter.portrait
        mask = soft_mask(one.mesh, one.to_photo, face.shape[-1], sitter.hair)
        fine = kept * float(align.scale_of(one.to_photo)[0] > 1)
        pixels = blend(one.photo.pixels, face, mask, one.to_photo, one.crop[None], fine)
        return one.photo.with_pixels(pixels.clamp(0, 1))

    # ---- what the steps use

    @contextmanager
    def steps(self, total: int, told: StepEnd) -> Iterator[OnStep]:
        """A progress bar, and what a search calls after each step, with its latents."""
        with self.progress_bar(total=total) as bar:

            def on_step(step: int, w: Tensor) -> Tensor | None:
                bar.update()
                return replaced(told(step, step, latents=w))

            yield on_step

    @torch.no_grad()
    def draw(self, w: Tensor) -> Tensor:
        """W+ latents (N,16,512) to pictures (N,3,1024,1024) float32 RGB in [0,1], on the CPU."""
        return (self.generator(w.to(self.generator.dtype)).float() / 2 + 0.5).clamp(0, 1).cpu()

    @torch.no_grad()
    def look(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """`measured` of the generator's picture of latents (1,16,512)."""
        return self.measured(render(self.generator, w, SEARCHED))

    @torch.no_grad()
    def measured(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Attributes (A,) and identity vector (E,) of one aligned picture (1,3,S,S), on the CPU.

        Raises:
            StudioError: the mesh sees no face there.
        """
        picture = picture.clamp(0, 1)
        found = place_aligned(self.finder(), picture)
        if not found.seen[0]:
            raise StudioError("the edit must stay a face, and left what the prior can draw: ask for less")
        values, vectors = measure_all(self.space, self.encoder(), picture, found.mesh)
        return values[0], vectors[0]

    def finder(self) -> FaceFinder:
        """Finds faces with this pipeline's networks."""
        return FaceFinder(Together(self.detector, self.full_range, self.back), self.mesh)

    def encoder(self) -> IdentityEncoder:
        """Embeds faces with this pipeline's network."""
        return IdentityEncoder(self.identity)


# ---- plain functions of the steps


def method_of(image: Any, method: str, changes: Mapping[str, float]) -> str:
    """What is changed, "photo" or "likeness": of a photo, of what is prepared, or of a generated person (None).

    Raises:
        InputError: no method, or one that does not go with it.
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}: choose one of them")
    turned = any(name in changes for name in ANGLES)
    own = image.method if isinstance(image, Sitter) else "likeness" if image is None or turned else "photo"
    if method == "auto":
        return own
    if image is None and method == "photo":
        raise InputError("method 'photo' needs a photo, got a generated person: pass 'likeness'")
    if isinstance(image, Sitter) and method != own:
        raise InputError(
            f"method must be the one that the face was prepared with, {own!r}, got {method!r}: prepare again"
        )
    return method


def check(space: LatentSpace, changes: Mapping[str, float], method: str) -> None:
    """Refuse changes that cannot be made.

    Raises:
        InputError: an unknown attribute, a change beyond what the prior can draw; in a photo none, or a turn.
    """
    if method == "photo":
        check_in_photo(changes)
    check_changes(space, changes)


def check_unused(what: str, **arguments: Any) -> None:
    """Refuse arguments that mean nothing beside `what`: all must be None."""
    for name, value in arguments.items():
        if value is not None:
            raise InputError(f"{name} means nothing beside {what}, got {value!r}: leave it out")


def apart_from(one: Portrait, vector: Tensor) -> float:
    """Identity distance between the face of a photo and an identity vector (E,)."""
    return float((vector - one.person.cpu()).norm())


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
