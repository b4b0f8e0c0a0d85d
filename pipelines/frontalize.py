"""Turn a head: a photo of a face in, the same person looking into the camera (or elsewhere) out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from studio.faces.paste import soft_mask
from studio.faces.select import LEAST
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.identity.portrait import Portrait, portrait
from studio.identity.similarity import SAME_PERSON
from studio.images import Photo
from studio.latents import bank
from studio.latents.edit import move_to
from studio.latents.identity_steps import identity_steps
from studio.latents.inversion import STRUCTURE_SLOTS
from studio.latents.likeness import by_inversion
from studio.latents.measure import Measured, attributes, measure_all, place_aligned
from studio.latents.prior import SEARCHED, quick_draw, render
from studio.networks.detector import FaceDetector
from studio.networks.finder import FinderNet
from studio.networks.frontalizer import Frontalizer
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.latent_space import LatentSpace
from studio.networks.mesh import FaceMesh
from studio.tone import Tone, with_tone

YAW, PITCH = (-45.0, 45.0), (-35.0, 20.0)  # degrees that the prior draws; beyond them faces fall apart
SMALLEST = 16  # px, of the output
CLOSE = 12.0  # degrees of change up to which the photo's own background still fits around the head
RELAXED = {"smile": -1.0, "mouth": -1.0}  # spreads from the mean of generated faces, most of which smile
KEPT = ("smile", "mouth")
LAST_CORRECTIONS = 3
SIDE = 50.0  # degrees of yaw beyond which the prior draws no likeness of a photo at its own angle
STEPS = {"network": 20, "search": 40}  # of the search for a likeness, by where it starts
METHODS = tuple(STEPS)
NOTE = "synthetic: a likeness out of the prior, turned. The identity encoder took part, so its distances flatter"

ImageLike = str | Path | bytes | Image.Image | np.ndarray | Tensor | Photo
StepCallback = Callable[["FrontalizePipeline", int, int, dict[str, Tensor]], dict[str, Tensor] | None]
OnStep = Callable[[Tensor], Tensor | None]  # latents after a step to those that the next one starts from


@dataclass
class FrontalizeReport:
    """What was done to one face.

    Attributes:
        yaw, pitch: asked for, in degrees as `studio.faces.pose` measures them; None where it was left as it was.
        pose_before: yaw, pitch, roll of the face in the photo, degrees.
        pose_after: yaw and pitch of the result, measured in the picture without its background.
        method: "network" or "search".
        search_steps: steps of the search for a likeness that were taken; 0 where the network's front was turned as it
            was predicted.
        expression_before, expression_after: width of the smile and opening of the mouth, in spreads from the average
            generated face, of the photo (network) or its likeness (search), and of the result.
        likeness_distance: identity distance (dlib) between the photo and what was found for it in the prior, before
            that is turned: its likeness, or the front that the network predicts where no step is taken from there.
        identity_distance: between the photo and the result.
        same_person: that is below 0.6. Where it is not, the result shows somebody else.
        background: "photo" where the photo's own is kept around the head, else "generated".
        face: index of the face in the photo, 0 is the largest; faces_found: how many there were.
        note: what the picture is.
    """

    yaw: float
    pitch: float | None
    pose_before: list[float]
    pose_after: list[float]
    method: str
    search_steps: int
    expression_before: dict[str, float]
    expression_after: dict[str, float]
    likeness_distance: float
    identity_distance: float
    same_person: bool
    background: str
    face: int
    faces_found: int
    note: str = NOTE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass
class FrontalizeOutput(BaseOutput):
    """Result of `FrontalizePipeline`.

    Attributes:
        images: one FFHQ-aligned square picture per input, as `output_type` says.
        reports: one `FrontalizeReport` per input.
        crops: the aligned face of each input, (3,256,256) float32 RGB in [0,1].
        latents: (1,16,512) float32 W+ latents of each result, for `studio.latents.edit`.
    """

    images: list[Image.Image] | list[np.ndarray] | list[Tensor]
    reports: list[FrontalizeReport]
    crops: list[Tensor]
    latents: list[Tensor]


@dataclass(frozen=True)
class Subject(Portrait):
    """The face of a photo that is turned, aligned to 256 px.

    Attributes:
        seen: (A,) attributes of the crop.
    """

    seen: Tensor


class FrontalizePipeline(StudioPipeline):
    """Finds the front of a face in the prior, turns it as asked, and brings it back to the person.

    A two-pathway network as in TP-GAN (arXiv 1704.04086) predicts the front, or a regression something like the photo.
    From there a search finds a likeness at the photo's own angle, which is turned along the mean change of latents with
    the measured angle. What turning does to the identity is taken back by gradient steps that hold the pose.
    """

    known_names: ClassVar[tuple[str, ...]] = ("frontalize",)
    model_cpu_offload_seq = "frontalizer"
    _exclude_from_cpu_offload: ClassVar[list[str]] = [
        *("generator", "head", "space"),
        *StudioPipeline._exclude_from_cpu_offload,
    ]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    def __init__(
        self,
        generator: Generator,
        head: ImageHead,
        space: LatentSpace,
        frontalizer: Frontalizer,
        detector: FinderNet,
        full_range: FaceDetector,
        back: FaceDetector,
        mesh: FaceMesh,
        identity: IdentityNet,
    ) -> None:
        super().__init__()
        self.register_modules(
            generator=generator,
            head=head,
            space=space,
            frontalizer=frontalizer,
            detector=detector,
            full_range=full_range,
            back=back,
            mesh=mesh,
            identity=identity,
        )
        for network in (generator, head, detector, full_range, back, mesh):
            network.to(memory_format=torch.channels_last)
        for network in (generator, head, frontalizer, identity, mesh):
            network.requires_grad_(False)  # gradients go to the latents, and pass through these

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        return weights.components(generator="generator", head="head_256", space="directions", frontalizer="frontal")

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike | Sequence[ImageLike],
        yaw: float = 0.0,
        pitch: float | None = None,
        expression: str = "keep",
        background: str = "keep",
        face: int | None = None,
        method: str = "network",
        num_inference_steps: int | None = None,
        refinement_steps: int = 30,
        size: int | None = None,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> FrontalizeOutput | Any:
        """Turn the face of one photo or of a list of them.

        Args:
            image: a path, bytes, PIL image, (H,W,3) array, (3,H,W) tensor in [0,1] or `Photo`; or a list of these.
                Grey, sepia and duotone photos give pictures of the same tone.
            yaw: -45 to 45 degrees; 0 looks into the camera, above 0 to the left side of the picture.
            pitch: -35 to 20 degrees, as the mesh measures it (a level head is near -8); None leaves it as it is.
            expression: "keep" the smile and the mouth, or "neutral": mouth closed, no smile.
            background: "keep" the photo's own where the head turns by no more than 12 degrees (it would not fit around
                another outline; the report says which it is), or "generated".
            face: index of the face to turn, 0 is the largest; None asks for a photo of one face.
            method: what the search for a likeness starts from: "network" predicts the person's front, "search" has a
                regression alone, takes longer and leaves faces beyond 45 degrees unfinished.
            num_inference_steps: of that search; None takes 20 and 40. The network's front can do with 0: it is then
                turned and refined as it was predicted, which takes half the time and follows tone and hair less. So is
                that of a face turned by more than 50 degrees, whatever is given: the prior draws no likeness of such a
                side.
            refinement_steps: towards the person after turning, 0 or more.
            size: side of the result in pixels; None gives the prior's 1024.
            callback_on_step_end: called with (pipeline, step, step, {"latents": (1,16,512)}) after each step of
                searching and refining; the next step starts from the "latents" it returns (of a front that was not
                searched, refining moves the first slots alone), and what it raises ends the call.
            callback_on_step_end_tensor_inputs: names of the tensors it is given; None gives all.
            output_type: "pil", "np" ((H,W,3) float32 in [0,1]) or "pt" ((3,H,W) float32 in [0,1]).
            return_dict: False returns a tuple of the output's fields.

        Returns:
            `FrontalizeOutput`.

        Raises:
            InputError: an argument outside its range, several faces and no choice, or a face that is too small.
            NoFaceError: a photo without a face.
            ImageError: an image that cannot be used.

        Example:
            >>> from studio import FrontalizePipeline
            >>> pipeline = FrontalizePipeline.from_pretrained("frontalize")
            >>> output = pipeline("examples/portrait.jpg", num_inference_steps=1, refinement_steps=1)
            >>> output.images[0].save("front.png")
            >>> output.reports[0].yaw
            0.0
        """
        checks.runs(self)
        size = self.generator.image_size if size is None else size
        check_arguments(
            yaw, pitch, expression, background, face, method, num_inference_steps, refinement_steps, output_type
        )
        check_size(size, self.generator.image_size)
        told = StepEnd(self, callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        batch = images.batch(image)
        subjects = [self.subject(images.load(item), face) for item in batch]  # 1. read, find, align
        pictures, reports, latents = [], [], []
        for subject in subjects:
            steps = STEPS[method] if num_inference_steps is None else num_inference_steps
            if method == "network" and abs(subject.pose[0]) > SIDE:
                steps = 0
            with self.steps(steps + refinement_steps, told) as on_step:
                w = self.front(subject) if method == "network" else None  # 2. find in the prior
                w = self.likeness(subject, steps, on_step, w) if steps else w
                turned = self.turn(subject, w, yaw, pitch, expression, subject.seen)  # 3. turn
                slots = None if steps else STRUCTURE_SLOTS  # the colours of a front as predicted are to stay
                turned = self.refine(subject, turned, yaw, pitch, refinement_steps, on_step, slots)  # 4. to the person
            picture, kept = self.picture(subject, turned, size, background)  # 5. draw, background
            reports.append(self.report(subject, method, steps, w, turned, yaw, pitch, kept))  # 6. measure
            pictures.append(images.as_type(picture, output_type))
            latents.append(turned.float().cpu())
        self.maybe_free_model_hooks()
        output = FrontalizeOutput(pictures, reports, [subject.crop for subject in subjects], latents)
        return output if return_dict else output.to_tuple()

    # ---- the steps, each usable alone

    def subject(self, photo: Photo, face: int | None = None) -> Subject:
        """The face of a photo that is turned.

        Raises:
            NoFaceError: the photo shows none.
            InputError: several and no choice, an index that there is not, or too few pixels.
        """
        one = portrait(photo, face, SEARCHED, self.finder(), self.encoder(), LEAST["turn"])
        return Subject(**vars(one), seen=self.look(one.crop[None])[0])

    def front(self, subject: Subject) -> Tensor:
        """W+ latents (1,16,512) of the person from the front, as the network predicts them."""
        size = self.frontalizer.config.size
        affine = align.ffhq_transform(subject.mesh, size)
        face = align.warp(subject.photo.pixels, affine, size).clamp(0, 1)
        if subject.tone is not None:
            face = face.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        mesh = torch.from_numpy(align.into_crop(subject.mesh, affine, size))
        given = (part.to(self._execution_device) for part in (face, mesh, subject.person[None].float()))
        pairs = self.space.latents(self.frontalizer(*given))  # (1, 2, D)
        slots = torch.arange(self.generator.num_slots, device=pairs.device)
        return pairs[:, (slots >= STRUCTURE_SLOTS).long()]

    def likeness(
        self,
        subject: Subject,
        steps: int = 40,
        on_step: OnStep = lambda w: None,
        start: Tensor | None = None,
    ) -> Tensor:
        """W+ latents (1,16,512) of the prior's face that is most like the photo's.

        `start` says where the search begins, with a front that is turned to the photo's pose first; None takes a
        regression's estimate.
        """
        crop = subject.crop.to(self._execution_device)
        if start is None:
            estimate = bank.estimate(self.space, crop, subject.person, grey=subject.tone is not None)
            start = self.generator.slots(self.space.latents(estimate))
        return by_inversion(
            self.quick_draw(subject.tone),
            lambda picture: self.look(picture)[0],
            crop,
            start,
            subject.seen,
            self.space,
            self.finder(),
            self.identity,
            steps,
            lambda step, w: on_step(w),
        )

    def turn(
        self,
        subject: Subject,
        w: Tensor,
        yaw: float = 0.0,
        pitch: float | None = None,
        expression: str = "keep",
        before: Tensor | None = None,
    ) -> Tensor:
        """Move latents (1,16,512) along the directions until the pose and the expression measure as asked for.

        What is to be kept is that of `before`, attributes (A,); None keeps that of the latents.
        """
        draw = self.quick_draw(subject.tone)

        def measure(latents: Tensor) -> Tensor:
            return self.look(draw(latents))[0]

        before = measure(w) if before is None else before
        aims = {**pose_aims(yaw, pitch, before), **self.expression_aims(expression, before)}
        return move_to(self.space, w, aims, measure)[0]

    def refine(
        self,
        subject: Subject,
        w: Tensor,
        yaw: float = 0.0,
        pitch: float | None = None,
        steps: int = 20,
        on_step: OnStep = lambda w: None,
        slots: int | None = None,
    ) -> Tensor:
        """Bring turned latents (1,16,512) back to the person, and correct what that did to the pose.

        `slots` says how many of the first slots move; None moves all, the colours too.
        """
        before = self.look(self.exact(w, subject.tone))[0]
        aims = pose_aims(yaw, pitch, before)
        moved = identity_steps(
            self.quick_draw(subject.tone),
            w,
            subject.person,
            self.space,
            self.finder(),
            self.encoder(),
            steps=steps,
            pose=torch.tensor([[aims["yaw"], aims["pitch"]]]),
            slots=slots,
            on_step=lambda step, latents, _: on_step(latents) if step else None,
        )
        return move_to(
            self.space,
            moved.w,
            aims,
            lambda latents: self.look(self.exact(latents, subject.tone))[0],
            LAST_CORRECTIONS,
        )[0]

    def picture(self, subject: Subject, w: Tensor, size: int, background: str = "keep") -> tuple[Tensor, str]:
        """The result (3,size,size) RGB in [0,1], and whose background it has: "photo" or "generated"."""
        drawn = (self.generator(w.to(self.generator.dtype)).float() / 2 + 0.5).clamp(0, 1).cpu()
        drawn = with_tone(images.resize(drawn, size, size), subject.tone).clamp(0, 1)
        after = place_aligned(self.finder(), images.resize(drawn, SEARCHED, SEARCHED)).mesh
        angles = attributes(images.resize(drawn, SEARCHED, SEARCHED), after)[0, :2]
        if background == "generated" or np.abs(angles - subject.pose[:2]).max() > CLOSE:
            return drawn[0], "generated"
        to_photo = align.ffhq_transform(subject.mesh, size)
        around = align.warp(subject.photo.pixels, to_photo, size).clamp(0, 1)
        to_picture = np.array([[[1.0, 0, 0], [0, 1.0, 0]]], np.float32)
        mask = torch.maximum(
            soft_mask(subject.mesh, to_photo, size), soft_mask(after * (size / SEARCHED), to_picture, size)
        )
        return (around + mask * (drawn - around))[0], "photo"

    def report(
        self,
        subject: Subject,
        method: str,
        search_steps: int,
        found: Tensor,
        turned: Tensor,
        yaw: float,
        pitch: float | None,
        background: str,
    ) -> FrontalizeReport:
        """Measure what was found in the prior and the result, W+ (1,16,512) both, against the photo."""
        (before, first), (after, last) = (self.look(self.exact(w, subject.tone)) for w in (found, turned))
        person = subject.person.float().cpu()
        distance = float((last - person).norm())
        return FrontalizeReport(
            yaw=yaw,
            pitch=pitch,
            pose_before=[round(angle, 2) for angle in subject.pose],
            pose_after=[round(float(angle), 2) for angle in after[:2]],
            method=method,
            search_steps=search_steps,
            expression_before=self.expression(subject.seen if method == "network" else before),
            expression_after=self.expression(after),
            likeness_distance=float((first - person).norm()),
            identity_distance=distance,
            same_person=distance < SAME_PERSON,
            background=background,
            face=subject.face,
            faces_found=subject.faces_found,
        )

    # ---- what the steps use

    def quick_draw(self, tone: Tone | None) -> Callable[[Tensor], Tensor]:
        """W+ latents to pictures (N,3,256,256) RGB, about [0,1], with gradients, through the quick head."""
        return quick_draw(self.generator, self.head, tone)

    def exact(self, w: Tensor, tone: Tone | None) -> Tensor:
        """W+ latents to the generator's own pictures (N,3,256,256) RGB in [0,1]."""
        return with_tone(render(self.generator, w, SEARCHED), tone).clamp(0, 1)

    def look(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Attributes (A,) and identity vector (E,) of one aligned picture (1,3,S,S), on the CPU.

        Raises:
            StudioError: the mesh sees no face there.
        """
        pictures = pictures.clamp(0, 1)
        found: Measured = place_aligned(self.finder(), pictures)
        if not found.seen[0]:
            raise StudioError("the turned picture must be a face, and left what the prior can draw: turn it less")
        values, vectors = measure_all(self.space, self.encoder(), pictures, found.mesh)
        return values[0], vectors[0]

    def expression_aims(self, expression: str, before: Tensor) -> dict[str, float]:
        """Attribute to wanted value, for an expression to keep (attributes (A,) of the likeness) or a neutral one."""
        if expression == "keep":
            return {name: float(before[self.space.number(name)]) for name in KEPT}
        mean, spread = self.space.attribute_mean.float().cpu(), self.space.attribute_spread.float().cpu()
        return {name: float((mean + spreads * spread)[self.space.number(name)]) for name, spreads in RELAXED.items()}

    def expression(self, values: Tensor) -> dict[str, float]:
        """Smile and mouth of attributes (A,), in spreads from the average generated face."""
        mean, spread = self.space.attribute_mean.float().cpu(), self.space.attribute_spread.float().cpu()
        return {name: round(float(((values - mean) / spread)[self.space.number(name)]), 2) for name in KEPT}

    @contextmanager
    def steps(self, total: int, told: StepEnd) -> Iterator[OnStep]:
        """A progress bar, and what to call after each step, with its latents."""
        done = 0
        with self.progress_bar(total=total) as bar:

            def on_step(w: Tensor) -> Tensor | None:
                nonlocal done
                bar.update()
                done += 1
                return replaced(told(done - 1, done - 1, latents=w))

            yield on_step

    def finder(self) -> FaceFinder:
        """Finds faces with this pipeline's networks."""
        return FaceFinder(Together(self.detector, self.full_range, self.back), self.mesh)

    def encoder(self) -> IdentityEncoder:
        """Embeds faces with this pipeline's network."""
        return IdentityEncoder(self.identity)


# ---- plain functions of the steps


def check_arguments(
    yaw: float,
    pitch: float | None,
    expression: str,
    background: str,
    face: int | None,
    method: str,
    num_inference_steps: int | None,
    refinement_steps: int,
    output_type: str,
) -> None:
    """Refuse what `__call__` cannot do."""
    for name, value, (least, most) in (("yaw", yaw, YAW), ("pitch", pitch, PITCH)):
        if not (name == "pitch" and value is None) and not (
            isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        ):
            raise InputError(f"{name} must be from {least:g} to {most:g} degrees, got {value!r}: turn it less")
    for name, value, known in (
        ("expression", expression, ("keep", "neutral")),
        ("background", background, ("keep", "generated")),
        ("method", method, METHODS),
        ("output_type", output_type, ("pil", "np", "pt")),
    ):
        if value not in known:
            raise InputError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}: choose one of them")
    if face is not None and not (type(face) is int and face >= 0):
        raise InputError(f"face must be an index from 0 on, got {face!r}: 0 is the largest face")
    counts = [("refinement_steps", refinement_steps, 0)]
    if num_inference_steps is not None:
        counts.append(("num_inference_steps", num_inference_steps, 0 if method == "network" else 1))
    for name, value, least in counts:
        if not (type(value) is int and value >= least):
            raise InputError(f"{name} must be a whole number of {least} or more, got {value!r}: pass one")


def check_size(size: int, most: int) -> None:
    """Refuse sides that the prior does not draw."""
    if not (type(size) is int and SMALLEST <= size <= most):
        raise InputError(f"size must be a whole number of {SMALLEST} to {most} px, got {size!r}: pass one")


def pose_aims(yaw: float, pitch: float | None, before: Tensor) -> dict[str, float]:
    """Wanted yaw and pitch in degrees, where `before` are the attributes (A,) that a pitch of None keeps."""
    return {"yaw": float(yaw), "pitch": float(before[1]) if pitch is None else float(pitch)}
