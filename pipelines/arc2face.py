"""New photographs of a person by Stable Diffusion, steered by an ArcFace identity vector (Arc2Face)."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, SchedulerMixin, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from studio import checks, hub, images, weights
from studio.base import StudioPipeline
from studio.callbacks import StepEnd
from studio.detect import Together
from studio.errors import InputError
from studio.faces import align
from studio.faces.select import LEAST, one_face
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.identity.references import (
    NOTE,
    ReferenceReport,
    as_vector,
    check_answers,
    check_consent,
    check_numbers,
)
from studio.identity.similarity import average, distances, find_outliers
from studio.images import Photo
from studio.networks.arcface import ArcFaceNet
from studio.networks.detector import FaceDetector
from studio.networks.finder import FinderNet
from studio.networks.identity import IdentityNet
from studio.networks.mesh import FaceMesh
from studio.tone import tone_curve

PROMPT, PLACEHOLDER = "photo of a id person", "id"  # what it was trained with, and what stands for the person
TOKENIZING = threading.Lock()  # a fast tokenizer keeps the padding of its last call, whichever thread's that was
MOST_SAMPLES, MOST_STEPS, MOST_GUIDANCE = 16, 100, 20.0
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # its tokenizer, and the scheduler's numbers below
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}

ImageLike = str | Path | bytes | Image.Image | np.ndarray | Tensor | Photo
StepCallback = Callable[["Arc2FacePipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass
class Arc2FaceSample:
    """One generated picture.

    Attributes:
        identity_distance: to the photos, by dlib's network, which took no part; below 0.6 they are hard to tell apart.
            None where only embeddings were given, or no face is seen.
        similarity: cosine of its ArcFace vector to the person's, -1 to 1. The same network steered, so that it
            flatters. None where no face is seen.
        seen: a face was found in the picture.
        attributes: yaw and pitch in degrees; empty where no face is seen.
    """

    identity_distance: float | None
    similarity: float | None
    seen: bool
    attributes: dict[str, float]


@dataclass
class Arc2FaceReport:
    """What is known about the samples.

    Attributes:
        consent: it was stated that the person agreed.
        references: one per photo or embedding given, in order.
        samples: one per picture.
        mean_identity_distance: between all pairs of samples with a face, by dlib's network; None for less than two.
        note: what the pictures are.
    """

    consent: bool
    references: list[ReferenceReport]
    samples: list[Arc2FaceSample]
    mean_identity_distance: float | None
    note: str = NOTE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass
class Arc2FaceOutput(BaseOutput):
    """Result of `Arc2FacePipeline`.

    Attributes:
        images: the samples, as `output_type` says.
        report: one `Arc2FaceReport`.
        identity: (512,) float32 unit vector that was asked for, for another call.
    """

    images: list[Image.Image] | list[np.ndarray] | list[Tensor]
    report: Arc2FaceReport
    identity: Tensor


@dataclass
class Person:
    """Who is asked for.

    Attributes:
        vector: (512,) float32 unit vector of ArcFace, on the CPU.
        known: (128,) float32 vector of dlib's network, to judge by; None without a photo.
        references: what became of each photo or vector.
    """

    vector: Tensor
    known: Tensor | None
    references: list[ReferenceReport]


class Arc2FacePipeline(StudioPipeline, StableDiffusionLoraLoaderMixin):
    """Photographs of a person on Stable Diffusion 1.5 (Arc2Face, arXiv 2403.11641).

    The prompt is always "photo of a id person"; the embedding of its token "id" is replaced by the person's unit
    ArcFace vector, filled up with zeros. Any diffusers scheduler will do, as in diffusers: `pipe.scheduler =
    LCMScheduler.from_config(pipe.scheduler.config)` with an LCM-LoRA (`pipe.load_lora_weights`) needs 2 to 4 steps and
    guidance 1. `enable_model_cpu_offload`, `enable_attention_slicing` and adapters are diffusers' own.
    """

    known_names: ClassVar[tuple[str, ...]] = ("arc2face",)
    model_cpu_offload_seq = "arcface->text_encoder->unet->vae"
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        vae: AutoencoderKL,
        scheduler: SchedulerMixin,
        arcface: ArcFaceNet,
        detector: FinderNet,
        full_range: FaceDetector,
        back: FaceDetector,
        mesh: FaceMesh,
        identity: IdentityNet,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            vae=vae,
            scheduler=scheduler,
            arcface=arcface,
            detector=detector,
            full_range=full_range,
            back=back,
            mesh=mesh,
            identity=identity,
        )

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        networks = weights.components(
            unet="arc2face-unet", text_encoder="arc2face-encoder", vae="stable-diffusion-vae", arcface="arcface"
        )
        words = [hub.file(STABLE_DIFFUSION, f"tokenizer/{name}") for name in ("vocab.json", "merges.txt")]
        tokenizer = CLIPTokenizer.from_pretrained(words[0].parent, model_max_length=77)
        return {**networks, "tokenizer": tokenizer, "scheduler": DPMSolverMultistepScheduler(**NOISE)}

    @torch.no_grad()
    def __call__(
        self,
        identity: ImageLike | Sequence[ImageLike],
        consent: bool = False,
        face: int | None = None,
        num_images_per_prompt: int = 4,
        guidance_scale: float = 3.0,
        num_inference_steps: int = 25,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Arc2FaceOutput | Any:
        """Generate photographs of one person.

        Args:
            identity: a photo of the person (path, bytes, PIL image, (H,W,3) array, (3,H,W) tensor in [0,1] or `Photo`),
                an ArcFace vector (512,) of any length, or a list of these, which are averaged on the sphere. Photos
                that probably show somebody else are left out, and named in the report.
            consent: must be True: the person agreed to be generated, or is long dead.
            face: which face of a photo with several, 0 is the largest; None wants photos of one face.
            num_images_per_prompt: 1 to 16.
            guidance_scale: 1 to 20; how much the person counts against the empty prompt. 1 is without guidance, and
                half the time.
            num_inference_steps: of the scheduler, 1 to 100.
            generator: for the same samples again, or a list with one for each picture; None draws others every time.
            latents: (K,4,64,64) standard normal noise to start from, in place of what `generator` would draw.
            callback_on_step_end: called with (pipeline, step, timestep, {"latents": (K,4,64,64)}) after each step;
                "latents" of the dict it returns, if any, replace those.
            callback_on_step_end_tensor_inputs: names of the tensors it is given; None gives all.
            output_type: "pil", "np" ((H,W,3) float32 in [0,1]) or "pt" ((3,H,W) float32 in [0,1]).
            return_dict: False returns a tuple of the output's fields.

        Returns:
            `Arc2FaceOutput`; pictures of 512 px.

        Raises:
            InputError: an argument outside its range, no consent, several faces and no choice, photos of several
                people, a face that is too small to say who it is, or a vector that is none.
            NoFaceError: no face in a photo.
            ImageError: an image that cannot be used.

        Example:
            >>> import torch
            >>> from studio import Arc2FacePipeline
            >>> pipeline = Arc2FacePipeline.from_pretrained("arc2face", torch_dtype=torch.bfloat16)
            >>> seeds = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
            >>> output = pipeline("examples/portrait.jpg", consent=True, num_images_per_prompt=2, generator=seeds)
            >>> output.images[0].save("new.png")
            >>> len(output.report.samples)
            2
        """
        checks.runs(self)
        check_arguments(num_images_per_prompt, guidance_scale, num_inference_steps, face, consent, output_type)
        check_consent(identity, consent)
        checks.predicts_noise(self.scheduler)
        shape = num_images_per_prompt, self.unet.config.in_channels, *[self.unet.config.sample_size] * 2
        generator = generator if generator is not None else fresh_generator()
        drawn_by = checks.generators(generator, num_images_per_prompt, "picture")
        noise = checks.latents(latents, shape)
        on_step = StepEnd(self, callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        person = self.person(identity, face)  # 1. who
        prompts = [self.encode(person.vector)]  # 2. say so
        if guidance_scale > 1:
            prompts.append(self.encode(None))
        if noise is None:
            noise = self.noise(num_images_per_prompt, drawn_by)
        sampled = self.sample(  # 3. draw latents
            noise, prompts, guidance_scale, num_inference_steps, generator, on_step
        )
        pictures = self.decode(sampled)  # 4. draw
        report = self.report(pictures, person, consent)  # 5. compare
        self.maybe_free_model_hooks()
        output = Arc2FaceOutput([images.as_type(one, output_type) for one in pictures], report, person.vector)
        return output if return_dict else output.to_tuple()

    # ---- the steps, each usable alone

    def person(self, identity: ImageLike | Sequence[ImageLike], face: int | None = None) -> Person:
        """Who is asked for, from photos and ArcFace vectors; see `__call__`."""
        given = list(identity) if isinstance(identity, list | tuple) else [identity]
        if not given:
            raise InputError("identity must be a photo, an embedding, or a list of them, got an empty list: give one")
        vectors: list[Tensor] = []
        references: list[ReferenceReport] = []
        known: dict[int, Tensor] = {}  # number of a photo -> its vector by dlib's network
        for number, one in enumerate(given):
            if isinstance(one, np.ndarray | Tensor) and one.ndim < 3:
                vectors.append(check_embedding(one, self.arcface.config.embedding_dim))
                references.append(ReferenceReport(f"embedding {number + 1}", None, None, False, False))
                continue
            photo = images.load(one)
            faces = self.finder()(photo.pixels)
            chosen = faces[[one_face(faces, face, photo.name, LEAST["recognise"])]]
            vectors.append(self.embed(photo.pixels, chosen.mesh))
            known[number] = self.encoder().embed(photo.pixels, chosen.mesh)[0].float().cpu()
            grey = tone_curve(photo.pixels) is not None
            references.append(ReferenceReport(photo.name, float(chosen.eye_distances[0]), None, False, grey))
        middle = judge(known, references) if known else None
        counted = [vector for vector, one in zip(vectors, references, strict=True) if not one.outlier]
        return Person(F.normalize(torch.stack(counted).mean(0), dim=0), middle, references)

    def embed(self, pixels: Tensor, mesh: np.ndarray) -> Tensor:
        """The unit ArcFace vector (512,) float32 of a face (1,468,3) in a picture (3,H,W) in [0,1], on the CPU."""
        size = self.arcface.config.size
        crop = align.warp(pixels, align.arcface_transform(mesh, size), size).clamp(0, 1)
        return self.arcface.unit(crop.to(self._execution_device, self.arcface.dtype))[0].cpu()

    def encode(self, person: Tensor | None) -> Tensor:
        """The prompt's embedding (1,77,D), a person (512,) in place of its token "id"; None: of the empty prompt."""
        text, length = "" if person is None else PROMPT, self.tokenizer.model_max_length
        with TOKENIZING:
            given = self.tokenizer(text, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            words = self.tokenizer(PLACEHOLDER, add_special_tokens=False).input_ids
        ids = given.input_ids.to(self._execution_device)
        if person is None:
            return self.text_encoder(ids)[0]
        with replaced(self.text_encoder.get_input_embeddings(), placeholder(ids, words), person):
            return self.text_encoder(ids)[0]

    def noise(self, count: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Standard normal noise (count,4,64,64), of a generator for all or of one for each."""
        side = self.unet.config.sample_size
        return checks.noise((count, self.unet.config.in_channels, side, side), generators)

    def sample(
        self,
        noise: Tensor,
        prompts: Sequence[Tensor],
        guidance_scale: float = 3.0,
        num_inference_steps: int = 25,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        on_step: StepEnd | None = None,
    ) -> Tensor:
        """Noise (K,4,64,64) to latents, by the prompt's embedding (1,77,D) and, for guidance, that of the empty one."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)  # it holds the state of one call
        scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        x = noise.to(self._execution_device, self.unet.dtype) * scheduler.init_noise_sigma
        words = torch.cat([prompt.to(x).expand(len(x), -1, -1) for prompt in prompts])
        drawn = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        with self.progress_bar(total=len(scheduler.timesteps)) as bar:
            for step, timestep in enumerate(scheduler.timesteps):
                given = scheduler.scale_model_input(torch.cat([x] * len(prompts)), timestep)
                predicted = self.unet(given, timestep, encoder_hidden_states=words, return_dict=False)[0]
                if len(prompts) > 1:
                    wanted, plain = predicted.chunk(2)
                    predicted = plain + guidance_scale * (wanted - plain)  # arXiv 2207.12598
                x = scheduler.step(predicted, timestep, x, **drawn, return_dict=False)[0]
                bar.update()
                if on_step is not None:
                    x = on_step(step, timestep, latents=x).get("latents", x)
        return x

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (K,4,64,64) to pictures (K,3,512,512) float32 RGB in [0,1], on the CPU; drawn one after another."""
        latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        pictures = torch.cat([self.vae.decode(one[None], return_dict=False)[0].float().cpu() for one in latents])
        return (pictures / 2 + 0.5).clamp(0, 1)

    def report(self, pictures: Tensor, person: Person, consent: bool) -> Arc2FaceReport:
        """Compare the largest face of each picture (K,3,S,S) with the person, and with each other."""
        samples, vectors = [], []
        for picture in pictures:
            face = self.finder()(picture)[:1]
            if not len(face):
                samples.append(Arc2FaceSample(None, None, False, {}))
                continue
            vectors.append(self.encoder().embed(picture, face.mesh)[0].float().cpu())
            distance = None if person.known is None else float((vectors[-1] - person.known).norm())
            similarity = float(self.embed(picture, face.mesh) @ person.vector)
            yaw, pitch = (float(angle) for angle in face.pose[0][:2])
            samples.append(Arc2FaceSample(distance, similarity, True, {"yaw": yaw, "pitch": pitch}))
        count, apart = len(vectors), None
        if count > 1:
            apart = float(distances(torch.stack(vectors), torch.stack(vectors)).sum() / (count * (count - 1)))
        return Arc2FaceReport(consent, person.references, samples, apart)

    def finder(self) -> FaceFinder:
        """Finds faces with this pipeline's networks."""
        return FaceFinder(Together(self.detector, self.full_range, self.back), self.mesh)

    def encoder(self) -> IdentityEncoder:
        """Embeds faces with dlib's network."""
        return IdentityEncoder(self.identity)

    def save_pretrained(self, folder: str | Path, *, max_shard_size: int | str | None = None) -> None:
        """Writes a folder that `from_pretrained` takes, without adapters (`save_lora_weights` writes those).

        Raises:
            InputError: see `StudioPipeline`; or adapters are loaded, which would be saved as half a network.
        """
        if any(getattr(part, "peft_config", None) for part in (self.unet, self.text_encoder)):
            raise InputError(
                "a pipeline must be saved without adapters, and some are loaded: unload_lora_weights() first, after"
                " fuse_lora() if they shall stay in"
            )
        super().save_pretrained(folder, max_shard_size=max_shard_size)


# ---- plain functions of the steps


def judge(known: dict[int, Tensor], references: list[ReferenceReport]) -> Tensor:
    """Write into the references of photos how far each is from the others.

    Args:
        known: number of a reference -> vector (128,) of dlib's network.
        references: changed in place.

    Returns:
        (128,), the average of those that count.

    Raises:
        InputError: half of them are of somebody else.
    """
    vectors = torch.stack(list(known.values()))
    outliers = find_outliers(vectors, [references[number].name for number in known])
    middle = average(vectors[~outliers])
    for number, apart, outlier in zip(known, (vectors - middle).norm(dim=1), outliers, strict=True):
        references[number].distance, references[number].outlier = float(apart), bool(outlier)
    return middle


def placeholder(ids: Tensor, words: Sequence[int]) -> Tensor:
    """Where a prompt (1,77) holds its placeholder, (1,77) bool.

    Raises:
        InputError: it is not one token, or not there once.
    """
    where = ids == words[0] if len(words) == 1 else torch.zeros_like(ids, dtype=torch.bool)
    if int(where.sum()) != 1:
        raise InputError(
            f"the tokenizer must read {PLACEHOLDER!r} in {PROMPT!r} as one token, got {len(words)} tokens,"
            f" {int(where.sum())} times: use that of Stable Diffusion 1.5"
        )
    return where


@contextmanager
def replaced(table: torch.nn.Module, where: Tensor, person: Tensor) -> Iterator[None]:
    """Inside, what `table` looks up for the places `where` (1,77) is the person (512,), filled up with zeros.

    Only in this thread: another one may encode another person with the same table.
    """
    thread = threading.get_ident()

    def hook(_: torch.nn.Module, __: Any, looked_up: Tensor) -> Tensor | None:
        if threading.get_ident() != thread:
            return None
        vector = F.pad(person.to(looked_up), (0, looked_up.shape[-1] - len(person)))
        return torch.where(where[..., None], vector, looked_up)

    handle = table.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def fresh_generator() -> torch.Generator:
    """One that draws others every time."""
    generator = torch.Generator()
    generator.seed()
    return generator


def check_arguments(
    num_images_per_prompt: int,
    guidance_scale: float,
    num_inference_steps: int,
    face: int | None,
    consent: bool,
    output_type: str,
) -> None:
    """Refuse what `__call__` cannot do."""
    limits = {
        "num_images_per_prompt": (num_images_per_prompt, 1, MOST_SAMPLES),
        "num_inference_steps": (num_inference_steps, 1, MOST_STEPS),
    }
    check_numbers(limits)
    if not (isinstance(guidance_scale, int | float) and 1 <= guidance_scale <= MOST_GUIDANCE):
        raise InputError(f"guidance_scale must be from 1 to {MOST_GUIDANCE:g}, got {guidance_scale!r}: 3 is usual")
    check_answers(face, consent, output_type)


def check_embedding(vector: Any, length: int) -> Tensor:
    """An ArcFace vector (512,) at unit length, float32, on the CPU.

    Raises:
        InputError: another shape, or numbers that are not finite or all zero.
    """
    vector = as_vector(vector, length)
    if float(vector.norm()) == 0:
        raise InputError("an embedding must be finite and not zero, and this one is zero: embed the photo again")
    return F.normalize(vector, dim=0)
