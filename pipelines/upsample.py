"""Faces that a tiny picture could show: a search of the prior for what shrinks to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from studio.errors import InputError
from studio.faces import align
from studio.faces.select import one_face
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.identity.similarity import distances
from studio.images import Photo
from studio.latents import bank, consistency, search
from studio.latents.measure import Resemblance, embed, place_aligned
from studio.latents.prior import MAP_BLOCK, picture, quick_copy, render
from studio.networks.detector import FaceDetector
from studio.networks.finder import FinderNet
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.latent_space import LatentSpace
from studio.networks.mesh import FaceMesh
from studio.tone import Tone, apply_tone, luma, tone_curve, with_tone

SMALLEST, LARGEST = 8, 128  # px, side of the small face
SEARCHED = 256  # px, side of the pictures that are compared while searching
MOST_SAMPLES = 16
RATE = 1.0
LATENTS_FIRST = 0.6  # of the steps: where the map moves from the start, it does what latents could have done
REFERENCE_WEIGHT = 0.5  # of the squared identity distance, beside 100 of the downscale error
NOTE = "guesses: many people look like this when shrunk; none of these pictures says who it was"

ImageLike = str | Path | bytes | Image.Image | np.ndarray | Tensor | Photo
StepCallback = Callable[["UpsamplePipeline", int, int, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass
class SampleReport:
    """How one sample was found.

    Attributes:
        downscale_error: mean squared error over pixels and RGB channels in [0,1] between the small face and the
            returned picture, shrunk to its size (bicubic, antialiased). For a monochrome input both are compared in
            their tone.
        converged: that error is at most the threshold.
        drawn_error: the same of the picture that the prior draws, before it was made consistent.
        found: that error is at most the threshold.
        face_error: `drawn_error` inside the ellipse in which aligned faces lie: a background that the prior cannot
            draw (a flag, lettering) keeps it high when the face has long been found.
        map_shift: how far the generator's map was moved, root mean square in spreads of its channels; 0 where the
            latents alone draw the face.
        best_step: the step that was kept, from 0.
        reference_distance: identity distance to the reference photo; None without one. The search minimises it, so
            that it flatters.
    """

    downscale_error: float
    converged: bool
    drawn_error: float
    found: bool
    face_error: float
    map_shift: float
    best_step: int
    reference_distance: float | None


@dataclass
class UpsampleReport:
    """What is known about the samples of one small face.

    Attributes:
        size: side of the small face in pixels.
        scale: the output is exactly this many times larger.
        threshold: downscale error that counts as found.
        samples: one per sample.
        identity_distances: (K,K) dlib distances between the samples; below 0.6 two faces are hard to tell apart.
        mean_identity_distance: over all pairs; None for a single sample. Large means that the small face leaves the
            person open.
        note: what the pictures are.
    """

    size: int
    scale: float
    threshold: float
    samples: list[SampleReport]
    identity_distances: list[list[float]]
    mean_identity_distance: float | None
    note: str = NOTE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass
class UpsampleOutput(BaseOutput):
    """Result of `UpsamplePipeline`.

    Attributes:
        images: per input a list of samples, as `output_type` says.
        reports: one `UpsampleReport` per input.
        small: the small face of each input that the samples were searched for, (3,n,n) float32 RGB in [0,1].
        latents: per input (K,16,512) float32 W+ latents of the samples. With `move_map=False` they are the faces, for
            `studio.latents.edit`; without their maps, moved ones are other people.
        maps: per input (K,512,32,32) float32, what was added to the generator's own map after `prior.MAP_BLOCK`
            blocks, or None with `move_map=False`. `UpsamplePipeline.draw` makes the pictures of both again.
    """

    images: list[list[Image.Image]] | list[list[np.ndarray]] | list[list[Tensor]]
    reports: list[UpsampleReport]
    small: list[Tensor]
    latents: list[Tensor]
    maps: list[Tensor | None]


class UpsamplePipeline(StudioPipeline):
    """Large faces whose picture, shrunk, is a given small one.

    PULSE (arXiv 2003.03808) from the nearest samples of a bank, with the best step kept, a second part in which the
    generator's map moves too, and a last step that makes the picture shrink to the small one exactly; see
    `studio.latents.search`.
    The answer is never *the* face: several samples are drawn, and how much they differ is reported.
    """

    known_names: ClassVar[tuple[str, ...]] = ("upsample",)
    model_cpu_offload_seq = "identity"
    _exclude_from_cpu_offload: ClassVar[list[str]] = [
        *("generator", "head", "space"),
        *(name for name in StudioPipeline._exclude_from_cpu_offload if name != "identity"),
    ]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "downscale_error"]

    def __init__(
        self,
        generator: Generator,
        head: ImageHead,
        space: LatentSpace,
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
            detector=detector,
            full_range=full_range,
            back=back,
            mesh=mesh,
            identity=identity,
        )
        for network in (generator, head, detector, full_range, back, mesh):
            network.to(memory_format=torch.channels_last)
        for network in (generator, head, identity):
            network.requires_grad_(False)  # gradients go to the latents, and pass through these

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        return weights.components(generator="generator", head="head_256", space="directions")

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike | Sequence[ImageLike],
        scale: int | None = None,
        num_images_per_prompt: int = 4,
        num_inference_steps: int = 50,
        threshold: float = search.EPSILON,
        move_map: bool = True,
        consistent: bool = True,
        aligned: bool = True,
        reference: ImageLike | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> UpsampleOutput | Any:
        """Search large faces for one small face or a list of them.

        Args:
            image: a small face, 8 to 128 px a side: a path, bytes, PIL image, (H,W,3) array, (3,H,W) tensor in [0,1]
                or `Photo`; or a list of these. Grey, sepia and duotone inputs give samples of the same tone.
            scale: 1 or more: the output is exactly this many times the small face's size, 1024 px at the most. None
                gives 1024 px.
            num_images_per_prompt: 1 to 16.
            num_inference_steps: of the search at the most, 1 or more; it ends earlier where all samples are found.
            threshold: downscale error below which a sample counts as found (PULSE: 2e-3).
            move_map: after 60 % of the steps, move the generator's map at 32 px along with the latents: what latents
                cannot say is drawn then too. False searches latents alone, as PULSE does, and seldom gets there.
            consistent: add to each picture what it still lacks of the small face (back-projection), blurred as it is
                there: it then shrinks to the small one, also where the prior could not draw it. False gives the
                picture that the prior draws.
            aligned: the input is a square picture of a face placed as in FFHQ (eyes a little above the middle). False:
                the input is a whole photo in which one face is found and cut out first.
            reference: a photo of the person who should be seen; the samples then also resemble this person.
            generator: draws other starting points, or a list with one for each small face; None takes the nearest ones.
            latents: (K,16,512) Gaussian coordinates to start from, for each small face the same.
            callback_on_step_end: called with (pipeline, step, step, {"latents": (K,16,512) Gaussian coordinates,
                "downscale_error": (K,)}) after each step; "latents" of the dict it returns, if any, replace those.
            callback_on_step_end_tensor_inputs: names of the tensors it is given; None gives all.
            output_type: "pil", "np" ((H,W,3) float32 in [0,1]) or "pt" ((3,H,W) float32 in [0,1]).
            return_dict: False returns a tuple of the output's fields.

        Returns:
            `UpsampleOutput`.

        Raises:
            InputError: an argument outside its range, a picture that is not square where `aligned` says so, or more
                than one face where one is needed.
            NoFaceError: no face where one is needed.
            ImageError: an image that cannot be used.

        Example:
            >>> from PIL import Image
            >>> from studio import UpsamplePipeline
            >>> pipeline = UpsamplePipeline.from_pretrained("upsample")
            >>> small = Image.open("examples/portrait.jpg").resize((32, 32))
            >>> output = pipeline(small, num_images_per_prompt=2, num_inference_steps=20)
            >>> output.images[0][0].save("guess.png")
            >>> len(output.reports[0].samples)
            2
        """
        checks.runs(self)
        checks.numbers(threshold=threshold)
        checks.true_or_false(move_map=move_map, consistent=consistent, aligned=aligned)
        check_arguments(scale, num_images_per_prompt, num_inference_steps, threshold, output_type)
        batch = images.batch(image)
        shape = num_images_per_prompt, self.generator.num_slots, self.space.config.dim
        start = checks.latents(latents, shape)
        seeds = seeds_of(generator, len(batch))
        on_step = StepEnd(self, callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        wanted = self.embed_reference(reference)
        smalls = [self.small_face(images.load(item), aligned, scale) for item in batch]  # 1. read, find, cut out
        outputs: list[list[Any]] = []
        reports, kept, maps = [], [], []
        for small, seed in zip(smalls, seeds, strict=True):
            tone = tone_curve(small)
            v = self.start(small, num_images_per_prompt, seed, wanted, tone) if start is None else start  # 2. start
            v = v.to(self._execution_device)
            found = self.search(v, small, tone, wanted, num_inference_steps, threshold, move_map, on_step)  # 3. search
            w = self.space.latents(found.v)
            size = small.shape[-1] * scale if scale else self.generator.image_size
            drawn = self.draw(w, size, tone, found.added)  # 4. draw
            pictures = self.make_consistent(drawn, small, tone) if consistent else drawn  # 5. add what is missing
            reports.append(self.report(pictures, drawn, small, found, wanted, threshold))  # 6. compare
            outputs.append([images.as_type(picture, output_type) for picture in pictures])
            kept.append(w.float().cpu())
            maps.append(None if found.added is None else found.added.cpu())
        self.maybe_free_model_hooks()
        output = UpsampleOutput(outputs, reports, smalls, kept, maps)
        return output if return_dict else output.to_tuple()

    # ---- the steps, each usable alone

    def small_face(self, photo: Photo, aligned: bool = True, scale: int | None = None) -> Tensor:
        """The small face that is searched for, (3,n,n) float32 RGB in [0,1]."""
        pixels = photo.pixels if aligned else self.cut_out(photo)
        _, height, width = pixels.shape
        if height != width:
            raise InputError(
                f"an aligned face must be square, {photo.name} is {width}x{height}: "
                "cut the face out, or have it found (--find; in Python aligned=False)"
            )
        if not SMALLEST <= width <= LARGEST:
            raise InputError(
                f"a small face must be {SMALLEST} to {LARGEST} px a side, {photo.name} has {width} px: "
                + ("there is nothing to go by" if width < SMALLEST else "restore larger ones instead")
            )
        if scale and width * scale > self.generator.image_size:
            raise InputError(
                f"the output must be at most {self.generator.image_size} px a side, scale {scale} of {width} px is "
                f"{width * scale}: use a smaller one"
            )
        return pixels

    def cut_out(self, photo: Photo) -> Tensor:
        """The only face of a photo, FFHQ-aligned, at the photo's own resolution: (3,n,n)."""
        faces = self.finder()(photo.pixels)
        lost = "cut it out as a square, eyes a little above the middle, and leave --find out (in Python: aligned=True)"
        one_face(faces, None, photo.name, largest="", lost=lost)
        to_photo = align.ffhq_transform(faces.mesh, 1)
        side = max(1, round(float(np.hypot(to_photo[0, 0, 0], to_photo[0, 1, 0]))))
        if side > LARGEST:
            raise InputError(
                f"a small face must be at most {LARGEST} px a side when cut out, {photo.name} has one of {side} px: "
                "use RestorePipeline"
            )
        return align.warp(photo.pixels, align.ffhq_transform(faces.mesh, side), side)[0].clamp(0, 1)

    def start(
        self,
        small: Tensor,
        num_images_per_prompt: int = 4,
        seed: int | None = None,
        wanted: Tensor | None = None,
        tone: Tone | None = None,
    ) -> Tensor:
        """Gaussian coordinates (K,16,512) of bank samples that look like the small face, and like the person wanted."""
        rng = None if seed is None else torch.Generator().manual_seed(seed)
        w = bank.nearest(self.space, small, num_images_per_prompt, rng, wanted, grey=tone is not None)
        return self.space(w)[:, None].repeat(1, self.generator.num_slots, 1)

    def search(
        self,
        v: Tensor,
        small: Tensor,
        tone: Tone | None = None,
        wanted: Tensor | None = None,
        steps: int = 50,
        threshold: float = search.EPSILON,
        move_map: bool = True,
        on_step: StepEnd | None = None,
    ) -> search.Found:
        """Move Gaussian coordinates (K,16,512), then maps too, until pictures shrink to the small face (3,n,n).

        Args:
            v: where to start.
            small: the small face, RGB in [0,1].
            tone: its `tone_curve`.
            wanted: (128,) identity descriptor to resemble, or None.
            steps: how many.
            threshold: see `__call__`.
            move_map: see `__call__`.
            on_step: `callback_on_step_end` of `__call__`.
        """
        # The caller may have switched gradients off in one way or the other; tensors of inference mode cannot have any.
        with self.progress_bar(total=steps) as bar, torch.inference_mode(False), torch.enable_grad():
            v, target, wanted = (None if x is None else x.clone().to(v.device) for x in (v, small, wanted))
            tone = None if tone is None else tone.copied()
            prior, head = quick_copy(self.generator), quick_copy(self.head)

            maps = None
            if move_map:
                maps = search.MapMove(
                    prior.features(self.space.latents(v).to(prior.dtype), MAP_BLOCK).float(),
                    after=round(LATENTS_FIRST * steps),
                )

            def draw(coordinates: Tensor, added: Tensor | None = None) -> Tensor:
                return with_tone(render(prior, self.space.latents(coordinates), SEARCHED, head, added), tone)

            def exact(coordinates: Tensor, added: Tensor | None = None) -> Tensor:
                w = self.space.latents(coordinates)
                each = [
                    render(prior, w[i : i + 1], SEARCHED, added=None if added is None else added[i : i + 1])
                    for i in range(len(w))
                ]
                return with_tone(torch.cat(each), tone)

            def told(step: int, moved: Tensor, error: Tensor) -> Tensor | None:
                bar.update()
                return None if on_step is None else replaced(on_step(step, step, latents=moved, downscale_error=error))

            extra = None if wanted is None else Resemblance(self.finder(), self.encoder(), wanted, REFERENCE_WEIGHT)
            objective = search.Objective(threshold=threshold, extra=extra)
            return search.search(
                draw, v, target, objective, steps=steps, rate=RATE, exact=exact, maps=maps, on_step=told
            )

    def draw(self, w: Tensor, size: int | None = None, tone: Tone | None = None, maps: Tensor | None = None) -> Tensor:
        """Latents to pictures (K,3,size,size) float32 RGB in [0,1].

        Args:
            w: (K,16,512) W+ latents.
            size: side of the pictures in pixels; None is the generator's.
            tone: the `tone_curve` of the small face.
            maps: (K,512,32,32) added to the generator's own maps, as in `UpsampleOutput.maps`; None adds nothing.
        """
        size = size or self.generator.image_size
        w = w.to(self.generator.device)
        each = [None] * len(w) if maps is None else maps.split(1)
        pictures = torch.cat(
            [picture(self.generator, one, added=added) for one, added in zip(w.split(1), each, strict=True)]
        )
        pictures = images.resize(pictures.clamp(0, 1), size, size)
        return with_tone(pictures, tone).clamp(0, 1).cpu()

    def make_consistent(self, pictures: Tensor, small: Tensor, tone: Tone | None = None) -> Tensor:
        """Pictures (K,3,S,S) that shrink to the small face (3,n,n), in its tone; see `consistency.back_project`."""
        if tone is None:
            return consistency.back_project(pictures, small)
        grey = consistency.back_project(luma(pictures), luma(small[None])[0])
        return apply_tone(grey, tone).clamp(0, 1)

    def report(
        self,
        pictures: Tensor,
        drawn: Tensor,
        small: Tensor,
        found: search.Found,
        wanted: Tensor | None,
        threshold: float,
    ) -> UpsampleReport:
        """Measure finished pictures, and those that the prior draws, (K,3,S,S) both, against what they should be."""
        errors, of_drawn = consistency.downscale_error(pictures, small), consistency.downscale_error(drawn, small)
        of_face = consistency.face_error(drawn, small)
        seen = images.resize(pictures, SEARCHED, SEARCHED)
        vectors = embed(self.encoder(), seen, place_aligned(self.finder(), seen).mesh).cpu()
        apart = distances(vectors, vectors)
        count = len(pictures)
        mean = float(apart.sum() / (count * (count - 1))) if count > 1 else None
        to_wanted = [None] * count if wanted is None else (vectors - wanted.cpu()).norm(dim=1).tolist()
        return UpsampleReport(
            size=small.shape[-1],
            scale=pictures.shape[-1] / small.shape[-1],
            threshold=threshold,
            samples=[
                SampleReport(
                    downscale_error=float(errors[i]),
                    converged=bool(errors[i] <= threshold),
                    drawn_error=float(of_drawn[i]),
                    found=bool(of_drawn[i] <= threshold),
                    face_error=float(of_face[i]),
                    map_shift=float(found.map_shift[i]),
                    best_step=int(found.step[i]),
                    reference_distance=to_wanted[i],
                )
                for i in range(count)
            ],
            identity_distances=[[round(float(value), 4) for value in row] for row in apart],
            mean_identity_distance=mean,
        )

    def embed_reference(self, reference: ImageLike | None) -> Tensor | None:
        """Descriptor (128,) of the only face of the reference photo."""
        if reference is None:
            return None
        photo = images.load(reference)
        faces = self.finder()(photo.pixels)
        one_face(faces, None, photo.name, what="the reference", largest="", lost="cut it closer")
        return self.encoder().embed(photo.pixels, faces.mesh)[0]

    def finder(self) -> FaceFinder:
        """Finds faces with this pipeline's networks."""
        return FaceFinder(Together(self.detector, self.full_range, self.back), self.mesh)

    def encoder(self) -> IdentityEncoder:
        """Embeds faces with this pipeline's network."""
        return IdentityEncoder(self.identity)


# ---- plain functions of the steps


def check_arguments(
    scale: int | None,
    num_images_per_prompt: int,
    num_inference_steps: int,
    threshold: float,
    output_type: str,
) -> None:
    """Refuse what `__call__` cannot do."""
    counts = {"num_images_per_prompt": num_images_per_prompt, "num_inference_steps": num_inference_steps}
    for name, value in {"scale": scale, **counts}.items():
        if not (name == "scale" and value is None) and not (type(value) is int and value >= 1):
            raise InputError(f"{name} must be a whole number of 1 or more, got {value!r}: pass one")
    if num_images_per_prompt > MOST_SAMPLES:
        raise InputError(
            f"num_images_per_prompt must be at most {MOST_SAMPLES}, got {num_images_per_prompt}: they share the memory"
        )
    if not threshold > 0:
        raise InputError(f"threshold must be above 0, got {threshold}: {search.EPSILON} is PULSE's")
    checks.output_type(output_type)


def seeds_of(generator: checks.Generators, count: int) -> list[int | None]:
    """A seed for each small face, out of generators of any device; one generator gives one for all."""
    given = checks.generators(generator, count, "small face")
    if not isinstance(generator, list | tuple):
        return [drawn_seed(generator)] * count
    return [drawn_seed(one) for one in given]


def drawn_seed(generator: torch.Generator | None) -> int | None:
    """A seed out of one generator."""
    if generator is None:
        return None
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
