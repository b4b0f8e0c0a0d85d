"""New photographs of a person, or of nobody: a prior over the generator's latents that an identity vector steers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from studio import checks, images, weights
from studio.base import StudioPipeline
from studio.callbacks import StepEnd, replaced
from studio.detect import Together
from studio.errors import InputError
from studio.faces.select import LEAST, one_face
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.identity.references import (
    NOTE,
    ReferenceReport,
    check_answers,
    check_consent,
    check_embedding,
    check_numbers,
)
from studio.identity.similarity import average, distances, find_outliers
from studio.images import Photo
from studio.latents.attributes import ANGLES, AS_IT_SHOULD_BE, as_reported, check_changes
from studio.latents.edit import move
from studio.latents.identity_steps import Moved, identity_steps
from studio.latents.measure import measure_all, place_aligned
from studio.latents.prior import quick_copy, render
from studio.networks.detector import FaceDetector
from studio.networks.finder import FinderNet
from studio.networks.generator import Generator
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.latent_flow import TIMES, LatentFlow, guided
from studio.networks.latent_reader import LatentReader, nearer
from studio.networks.latent_space import LatentSpace
from studio.networks.mesh import FaceMesh
from studio.tone import tone_curve

SIZE = 256  # px, side of the pictures that are measured
MOST_SAMPLES = 16
MOST_STEPS = 100
MOST_GUIDANCE = 10.0
SHELL = 1.0  # pictures of samples further out are less photographic, and no nearer to the person
MOST_CANDIDATES = 16  # for each picture
READ_STEPS = 10  # of the reader, in each step of the solver
READ_RATE = 10.0  # of those, at guidance 1; at more than twice that they overshoot
UNLIKE = 0.3  # identity distance that is given up for samples as unlike each other as two photographs of one person
PIXELS, POSE, EXPRESSION = 0.27, 10.0, 0.6  # mean differences of such two: root mean square, degrees, spreads
COMPARED = 64  # px, of pictures whose pixels are compared
RATE = 0.15  # of the correction, in spreads
ROUNDS = 3  # of moving along directions and measuring

SOLVERS = {"euler": FlowMatchEulerDiscreteScheduler, "heun": FlowMatchHeunDiscreteScheduler}
ImageLike = str | Path | bytes | Image.Image | np.ndarray | Tensor | Photo
StepCallback = Callable[["GeneratePipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass
class SampleReport:
    """One generated picture.

    Attributes:
        identity_distance: of the returned picture to the person, by dlib's network; below 0.6 they are hard to tell
            apart. With correction the same network was followed, so that it flatters. None without a person.
        prior_distance: the same before the correction, to the person at the age asked for if one was; None without one.
        correction_step: the step that was kept; 0 is the sample itself. None without a correction.
        seen: the mesh sees a face in the picture.
        attributes: what was measured in the returned picture: yaw and pitch in degrees, age in years (as read off the
            identity vector, give or take 6), the others in spreads from the average generated face.
    """

    identity_distance: float | None
    prior_distance: float | None
    correction_step: int | None
    seen: bool
    attributes: dict[str, float]


@dataclass
class GenerateReport:
    """What is known about the samples.

    Attributes:
        consent: it was stated that the person agreed.
        candidates: that were drawn for each picture; 1 without a person.
        references: one per photo or embedding given, in order.
        asked: attributes that were asked for.
        samples: one per picture.
        mean_identity_distance: between all pairs of samples; None for a single one.
        note: what the pictures are.
    """

    consent: bool
    candidates: int
    references: list[ReferenceReport]
    asked: dict[str, float]
    samples: list[SampleReport]
    mean_identity_distance: float | None
    note: str = NOTE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass
class GenerateOutput(BaseOutput):
    """Result of `GeneratePipeline`.

    Attributes:
        images: the samples, as `output_type` says.
        report: one `GenerateReport`.
        latents: (K,16,512) float32 W+ latents of the samples, for `studio.latents.edit`.
        identity: (128,) float32 identity vector that was asked for, for another call; None without a person.
    """

    images: list[Image.Image] | list[np.ndarray] | list[Tensor]
    report: GenerateReport
    latents: Tensor
    identity: Tensor | None = None


class GeneratePipeline(StudioPipeline):
    """Photographs of a person who is given by an identity vector, as in Arc2Face (arXiv 2403.11641).

    Arc2Face steers a text-to-image diffusion model. Here a small flow over the latents of a GAN is steered
    (`LatentFlow`), led by a network that reads the identity from a latent (`LatentReader`): it draws latents of faces
    that have about the identity, in any pose, expression and light. The nearest of several candidates are kept. A few
    gradient steps through generator and encoder then take off most of the distance that is left
    (`studio.latents.identity_steps`).

    The solver is the pipeline's scheduler, as in diffusers: `pipe.scheduler =
    FlowMatchHeunDiscreteScheduler.from_config(pipe.scheduler.config)`.
    """

    known_names: ClassVar[tuple[str, ...]] = ("generate",)
    model_cpu_offload_seq = "reader"
    _exclude_from_cpu_offload: ClassVar[list[str]] = [
        *("generator", "head", "space", "flow"),
        *StudioPipeline._exclude_from_cpu_offload,
    ]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "identity_distance"]

    def __init__(
        self,
        generator: Generator,
        head: ImageHead,
        space: LatentSpace,
        flow: LatentFlow,
        reader: LatentReader,
        scheduler: FlowMatchEulerDiscreteScheduler | FlowMatchHeunDiscreteScheduler,
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
            flow=flow,
            reader=reader,
            scheduler=scheduler,
            detector=detector,
            full_range=full_range,
            back=back,
            mesh=mesh,
            identity=identity,
        )
        for network in (generator, head, detector, full_range, back, mesh):
            network.to(memory_format=torch.channels_last)
        for network in (generator, head, identity, mesh, flow, reader):
            network.requires_grad_(False)  # gradients go to the latents, and pass through these

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        networks = weights.components(
            generator="generator", head="head_256", space="directions", flow=name, reader="reader"
        )
        return {**networks, "scheduler": FlowMatchEulerDiscreteScheduler()}

    @torch.no_grad()
    def __call__(
        self,
        identity: ImageLike | Sequence[ImageLike] | None = None,
        consent: bool = False,
        face: int | None = None,
        num_images_per_prompt: int = 4,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 12,
        correction_steps: int = 40,
        candidates: int = 8,
        yaw: float | None = None,
        pitch: float | None = None,
        smile: float | None = None,
        mouth: float | None = None,
        eyes: float | None = None,
        brow: float | None = None,
        light: float | None = None,
        glasses: float | None = None,
        age: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> GenerateOutput | Any:
        """Generate photographs of one person, or of people who do not exist.

        Args:
            identity: a photo of the person (path, bytes, PIL image, (H,W,3) array, (3,H,W) tensor in [0,1] or `Photo`),
                an identity vector (128,) of `IdentityEncoder`, or a list of these, which are averaged on the sphere.
                None generates people at random.
            consent: must be True where `identity` is given: the person agreed to be generated, or is long dead.
            face: which face of a photo with several, 0 is the largest; None wants photos of one face.
            num_images_per_prompt: 1 to 16.
            guidance_scale: 0 to 10; how much the identity counts. 1 is what was learned, more makes the samples
                resemble the person more and each other, too; 0 draws anybody. Without a person it has no meaning.
            num_inference_steps: of the solver, 1 to 100; 4 to 20 make sense.
            correction_steps: gradient steps towards the identity, 0 to 100; without a person there are none.
            candidates: drawn for each picture, 1 to 16; those are kept that come nearest to the person and are unlike
                each other. Without a person there is one.
            yaw: degrees; 0 looks into the camera, above 0 to the left of the picture. None leaves it to chance, here
                and below.
            pitch: degrees; above 0 looks up.
            smile: in spreads of generated faces from the average one, -4 to 4; likewise the five below.
            mouth: how far it is open.
            eyes: how far they are open.
            brow: how high the brows are.
            light: above 0, more from the right of the picture.
            glasses: about -1 has none, 1.5 has some.
            age: 30 to 80 years, as read off the identity vector (6 years off in the mean; children are read as adults).
            generator: for the same samples again, or a list with one for each picture, each of which is then what it
                would be alone; None draws others every time.
            latents: (K,512) standard normal noise to start from, in place of what `generator` would draw; K all
                candidates, those of the first picture first.
            callback_on_step_end: called with (pipeline, step, timestep, {"latents": (K,512)}) after each step of the
                solver, K all candidates; "latents" of the dict it returns, if any, replace those. During the correction
                it is called with "latents" (K,16,512) and "identity_distance" (K,), and the next step starts from the
                "latents" it returns.
            callback_on_step_end_tensor_inputs: names of the tensors it is given; None gives all.
            output_type: "pil", "np" ((H,W,3) float32 in [0,1]) or "pt" ((3,H,W) float32 in [0,1]).
            return_dict: False returns a tuple of the output's fields that are not None.

        Returns:
            `GenerateOutput`; pictures of 1024 px.

        Raises:
            InputError: an argument outside its range, no consent, several faces and no choice, photos of several
                people, a face that is too small to say who it is, or an identity vector that is none.
            NoFaceError: no face in a photo.
            ImageError: an image that cannot be used.

        Example:
            >>> import torch
            >>> from studio import GeneratePipeline
            >>> pipeline = GeneratePipeline.from_pretrained("generate")
            >>> output = pipeline(num_images_per_prompt=2, smile=1, generator=torch.Generator().manual_seed(1))
            >>> output.images[0].save("nobody.png")
            >>> len(output.images)
            2
        """
        checks.runs(self)
        check_arguments(
            num_images_per_prompt,
            guidance_scale,
            num_inference_steps,
            correction_steps,
            candidates,
            face,
            consent,
            output_type,
        )
        given = {
            "yaw": yaw,
            "pitch": pitch,
            "smile": smile,
            "mouth": mouth,
            "eyes": eyes,
            "brow": brow,
            "light": light,
            "glasses": glasses,
            "age": age,
        }
        given = {name: value for name, value in given.items() if value is not None}
        checks.numbers(**given)
        asked = {name: float(value) for name, value in given.items()}
        check_changes(self.space, asked)
        check_consent(identity, consent)
        checks.flow_matching(self.scheduler)
        candidates = 1 if identity is None else candidates
        shape = candidates * num_images_per_prompt, self.flow.config.dim
        noise = checks.latents(latents, shape)
        drawn_by = checks.generators(generator, num_images_per_prompt, "picture")
        on_step = StepEnd(self, callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        person, references = self.person(identity, face)  # 1. who
        aim = person if person is None or age is None else self.space.at_age(person, age)
        noise = noise if noise is not None else checks.noise(shape, drawn_by)
        sample = self.sample(noise, aim, guidance_scale, num_inference_steps, on_step)  # 2. draw latents
        alone = 1 if isinstance(generator, list | tuple) else num_images_per_prompt
        groups = self.latents(sample).split(candidates * alone)
        w = torch.cat([self.choose(group, aim, alone) for group in groups])  # 3. keep the nearest
        w = self.steer(w, asked)  # 4. turn and move
        moved = self.correct(w, aim, asked, correction_steps, on_step)  # 5. nearer to the person
        w = w if moved is None else moved.w
        pictures = self.draw(w)  # 6. draw
        report = self.report(pictures, person, references, asked, moved, consent, candidates)  # 7. compare
        shown = [images.as_type(picture, output_type) for picture in pictures]
        output = GenerateOutput(shown, report, w.float().cpu(), None if person is None else person.cpu())
        return output if return_dict else output.to_tuple()

    # ---- the steps, each usable alone

    def person(
        self, identity: ImageLike | Sequence[ImageLike] | None, face: int | None = None
    ) -> tuple[Tensor | None, list[ReferenceReport]]:
        """The identity vector (128,) that is asked for, and what became of each photo or vector."""
        if identity is None:
            return None, []
        given = list(identity) if isinstance(identity, list | tuple) else [identity]
        if not given:
            raise InputError("identity must be a photo, an embedding, a list of them or None, got an empty list")
        names, eyes, vectors, prints = [], [], [], []
        for number, one in enumerate(given):
            if isinstance(one, np.ndarray | Tensor) and one.ndim < 3:
                names.append(f"embedding {number + 1}")
                eyes.append(None)
                prints.append(False)
                vectors.append(check_embedding(one, self.identity.config.embedding_dim))
            else:
                photo = images.load(one)
                vector, eye_distance = self.embed_photo(photo, face)
                names.append(photo.name)
                eyes.append(eye_distance)
                prints.append(tone_curve(photo.pixels) is not None)
                vectors.append(vector)
        together = torch.stack([vector.float().cpu() for vector in vectors])
        outliers = find_outliers(together, names)
        middle = average(together[~outliers])
        apart = (together - middle).norm(dim=1).tolist()
        rows = zip(names, eyes, apart, outliers.tolist(), prints, strict=True)
        return middle.to(self.identity.device), [ReferenceReport(*row) for row in rows]

    def embed_photo(self, photo: Photo, face: int | None = None) -> tuple[Tensor, float]:
        """Identity vector (128,) of the face of a photo, and px between its eyes."""
        faces = self.finder()(photo.pixels)
        chosen = faces[[one_face(faces, face, photo.name, LEAST["recognise"])]]
        return self.encoder().embed(photo.pixels, chosen.mesh)[0], float(chosen.eye_distances[0])

    def sample(
        self,
        noise: Tensor,
        person: Tensor | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 12,
        on_step: StepEnd | None = None,
        read_steps: int = READ_STEPS,
    ) -> Tensor:
        """Noise (K,512) to latents of faces of the person, in what the flow calls a sample."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)  # it holds the state of one call
        scheduler.set_timesteps(num_inference_steps, device=self.flow.device)
        x = noise.to(self.flow.device, self.flow.dtype)
        who = None if person is None else person.to(x).expand(len(x), -1)
        with self.progress_bar(total=len(scheduler.timesteps)) as bar:
            for step, timestep in enumerate(scheduler.timesteps):
                velocity = guided(self.flow, x, timestep, who, guidance_scale)
                if who is not None and guidance_scale > 0:
                    # A second evaluation keeps the first one's push: at its smaller time the same shift would be more.
                    if getattr(scheduler, "state_in_first_order", True):
                        led = self.lead(x, velocity, timestep, who, guidance_scale, read_steps)
                        velocity, push = led, led - velocity
                    else:
                        velocity = velocity + push
                x = scheduler.step(velocity, timestep, x, return_dict=False)[0]
                bar.update()
                if on_step is not None:
                    x = on_step(step, timestep, latents=x).get("latents", x)
        return to_shell(x)

    def lead(
        self,
        x: Tensor,
        velocity: Tensor,
        timestep: Tensor,
        who: Tensor,
        guidance_scale: float,
        read_steps: int = READ_STEPS,
    ) -> Tensor:
        """The velocity (K,512) whose estimate of the latent, x - t · velocity, is read as more like the person."""
        t = float(timestep) / TIMES
        rate = READ_RATE * min(guidance_scale, 2.0)
        led = nearer(self.read, (x - t * velocity).float(), who.float(), rate, read_steps)
        return (x - led.to(x)) / t

    def read(self, sample: Tensor) -> Tensor:
        """Identity vectors (K,128) of samples (K,512), guessed without drawing them; with gradients."""
        w = self.space.latents(self.flow.coordinates(sample))
        return self.reader(w.to(self.reader.dtype)).float()

    def latents(self, sample: Tensor) -> Tensor:
        """What `sample` returned to W+ latents (K,16,512)."""
        w = self.space.latents(self.flow.coordinates(sample.float()))
        return self.generator.slots(w).clone()

    def choose(self, w: Tensor, person: Tensor | None, count: int) -> Tensor:
        """Of candidates (C,16,512) those that come nearest to the person and are unlike each other, (count,16,512)."""
        if person is None or len(w) == count:
            return w
        prior, head = quick_copy(self.generator), quick_copy(self.head)
        pictures = torch.cat([render(prior, one[None], SIZE, head) for one in w]).clamp(0, 1)
        values, vectors, seen = self.measure(pictures)
        distance = (vectors - person.cpu()).norm(dim=1) + ~torch.from_numpy(seen)
        faces = values / self.space.attribute_spread.float().cpu()
        alike = (
            images.resize(pictures, COMPARED, COMPARED).cpu().flatten(1) / (3**0.5 * COMPARED * PIXELS),
            values[:, :2] / POSE,
            faces[:, 2:6] / (2 * EXPRESSION),  # the root of four
        )
        return w[near_and_unlike(distance, sum(torch.cdist(each, each) for each in alike) / 3, count)]

    def steer(self, w: Tensor, asked: Mapping[str, float]) -> Tensor:
        """Move W+ latents (K,16,512) along directions until the measured attributes are those asked for, nearly."""
        for _ in range(ROUNDS if asked else 0):
            measured = self.measure(self.quick(w))[0].to(w)
            for name, wanted in asked.items():
                i = self.space.number(name)
                aim = (
                    wanted
                    if name in AS_IT_SHOULD_BE
                    else self.space.attribute_mean[i] + wanted * self.space.attribute_spread[i]
                )
                w = move(self.space, w, name, aim - measured[:, i])
        return w

    def correct(
        self,
        w: Tensor,
        person: Tensor | None,
        asked: Mapping[str, float],
        steps: int,
        on_step: StepEnd | None = None,
    ) -> Moved | None:
        """Gradient steps of W+ latents (K,16,512) towards the person; every face keeps its pose, or the one asked for.

        Returns:
            What was found, or None where there is no person or no step.
        """
        if person is None or steps == 0:
            return None
        pose = self.measure(self.quick(w))[0][:, :2]
        for i, name in enumerate(ANGLES):
            if name in asked:
                pose[:, i] = asked[name]
        prior, head = quick_copy(self.generator), quick_copy(self.head)

        def told(step: int, moved: Tensor, distance: Tensor) -> Tensor | None:
            bar.update()
            if on_step is None:
                return None
            return replaced(on_step(step, torch.tensor(0.0), latents=moved, identity_distance=distance))

        with self.progress_bar(total=steps + 1) as bar:
            return identity_steps(
                lambda latents: render(prior, latents, SIZE, head),
                w,
                person,
                self.space,
                self.finder(),
                self.encoder(),
                steps=steps,
                rate=RATE,
                pose=pose,
                age=asked.get("age"),
                exact=lambda latents: images.resize(self.draw(latents), SIZE, SIZE),
                on_step=told,
            )

    def quick(self, w: Tensor) -> Tensor:
        """W+ latents (K,16,512) to pictures (K,3,256,256) in [0,1], through the 256 px head."""
        return torch.cat([render(self.generator, one[None], SIZE, self.head) for one in w]).clamp(0, 1)

    def draw(self, w: Tensor) -> Tensor:
        """W+ latents (K,16,512) to pictures (K,3,1024,1024) float32 RGB in [0,1], on the CPU."""
        pictures = torch.cat([self.generator(one[None].to(self.generator.dtype)).float().cpu() for one in w])
        return (pictures / 2 + 0.5).clamp(0, 1)

    def measure(self, pictures: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
        """Attributes (K,A), identity vectors (K,128) and whether the mesh sees a face (K,), of aligned pictures."""
        small = pictures if pictures.shape[-1] == SIZE else images.resize(pictures, SIZE, SIZE).clamp(0, 1)
        found = place_aligned(self.finder(), small)
        return *measure_all(self.space, self.encoder(), small, found.mesh), found.seen

    def report(
        self,
        pictures: Tensor,
        person: Tensor | None,
        references: list[ReferenceReport],
        asked: Mapping[str, float],
        moved: Moved | None,
        consent: bool,
        candidates: int = 1,
    ) -> GenerateReport:
        """Measure finished pictures (K,3,S,S) against the person and each other."""
        values, vectors, seen = self.measure(pictures)
        count = len(pictures)
        to_person = [None] * count if person is None else (vectors - person.cpu()).norm(dim=1).tolist()
        apart = float(distances(vectors, vectors).sum() / (count * (count - 1))) if count > 1 else None
        samples = [
            SampleReport(
                identity_distance=to_person[i],
                prior_distance=None if moved is None else float(moved.before[i]),
                correction_step=None if moved is None else int(moved.step[i]),
                seen=bool(seen[i]),
                attributes=as_reported(self.space, values[i]),
            )
            for i in range(count)
        ]
        return GenerateReport(consent, candidates, references, dict(asked), samples, apart)

    def finder(self) -> FaceFinder:
        """Finds faces with this pipeline's networks."""
        return FaceFinder(Together(self.detector, self.full_range, self.back), self.mesh)

    def encoder(self) -> IdentityEncoder:
        """Embeds faces with this pipeline's network."""
        return IdentityEncoder(self.identity)


# ---- plain functions of the steps


def check_arguments(
    num_images_per_prompt: int,
    guidance_scale: float,
    num_inference_steps: int,
    correction_steps: int,
    candidates: int,
    face: int | None,
    consent: bool,
    output_type: str,
) -> None:
    """Refuse what `__call__` cannot do."""
    limits = {
        "num_images_per_prompt": (num_images_per_prompt, 1, MOST_SAMPLES),
        "num_inference_steps": (num_inference_steps, 1, MOST_STEPS),
        "correction_steps": (correction_steps, 0, MOST_STEPS),
        "candidates": (candidates, 1, MOST_CANDIDATES),
    }
    check_numbers(limits)
    if not (isinstance(guidance_scale, int | float) and 0 <= guidance_scale <= MOST_GUIDANCE):
        raise InputError(f"guidance_scale must be from 0 to {MOST_GUIDANCE:g}, got {guidance_scale!r}: 1 is usual")
    check_answers(face, consent, output_type)


def near_and_unlike(distance: Tensor, apart: Tensor, count: int) -> list[int]:
    """Choose the nearest, then one after another whatever is near and unlike those that were chosen.

    Args:
        distance: (C,) identity distances to the person.
        apart: (C,C) how different the pictures are from each other; 1 as two photographs of one person.
        count: how many, C at the most.

    Returns:
        Their numbers; each of least distance less `UNLIKE` times its mean difference to the ones before.
    """
    chosen = [int(distance.argmin())]
    while len(chosen) < count:
        cost = distance - UNLIKE * apart[chosen].mean(0)
        cost[chosen] = torch.inf
        chosen.append(int(cost.argmin()))
    return chosen


def to_shell(sample: Tensor) -> Tensor:
    """Samples (K,D) no further from the middle than `SHELL` of where generated faces lie.

    In D dimensions of spread 1 nearly all of a distribution lies near the square root of D. Guidance leaves that shell,
    and pictures from outside stop being faces.
    """
    return sample * (SHELL * sample.shape[1] ** 0.5 / sample.norm(dim=1, keepdim=True)).clamp(max=1)
