"""Restore the faces of old, small or damaged photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from studio import background as backgrounds
from studio import images, weights
from studio.base import StudioPipeline
from studio.errors import InputError
from studio.evidence import fuse, keep_shading, kept_detail, with_native_detail, with_prior_colour, with_sure_detail
from studio.faces import align, paste
from studio.faces.faces import Faces
from studio.faces.select import select
from studio.find import MIN_PRESENCE, FaceFinder, with_given
from studio.identity.encoder import IdentityEncoder
from studio.identity.similarity import average, find_outliers
from studio.images import Photo
from studio.latents.resemble import gaussian_space, resemble
from studio.latents.search import quick_copy
from studio.networks.detector import FaceDetector
from studio.networks.generator import Generator
from studio.networks.head_parts import PARTS, HeadParts
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.latent_space import LatentSpace
from studio.networks.mesh import FaceMesh
from studio.networks.restorer import Restored, Restorer, draw_prior
from studio.tone import Tone, apply_tone, luma, match_tone, tone_curve, with_tint

CROP = 512
SMALLEST_EYE_DISTANCE = 4.0  # photo pixels; below it the mesh, and so the crop, is a guess
CAUTIOUS_YAW, CAUTIOUS_EYE_DISTANCE = 50.0, 8.0  # degrees to a side and photo pixels; beyond, the prior guesses
CAUTIOUS_FIDELITY = 0.75
GUARD_STEPS = (0.75, 0.5, 0.25)
CHUNK = 2  # faces held at once: about 170 MB each, most of it the scales and shifts of the 256 px map
AUTO = "auto"
AUTO_SCALES = (1, 2, 4)
AUTO_PIXELS = 16_000_000  # "auto" makes no larger picture than this by enlarging
CUT = 0.1  # share of a face's box outside the photo from which on the report says so
PHOTO_SHARE = 0.5  # of the photo itself in the evidence, at fidelity 1; none up to fidelity 0.5

ImageLike = str | Path | bytes | Image.Image | np.ndarray | Tensor | Photo
Boxes = Sequence[Sequence[float]] | np.ndarray  # (N,4), x0, y0, x1, y1 in pixels of the photo


@dataclass
class FaceReport:
    """What was done to one face.

    Attributes:
        index: of the face in `Faces`, largest first.
        box: x0, y0, x1, y1 in pixels of the input photo.
        pose: yaw, pitch, roll in degrees.
        score: of the detector, 0 to 1.
        restored: whether the output photo holds a restored face here.
        reason: why not, or what was changed ("identity guard: strength 0.5", "profile: fidelity 0.75"), or empty.
        strength: share of the restored face in the output, after the guard.
        fidelity: that it was restored with; higher than asked for where `caution` raised it.
        identity_distance: of the face as it stands in the output to the input's, dlib distance (below 0.6 counts as
            the same person); 0 where nothing was done. The encoder also took part in training.
        reference_before, reference_after: distances of the input's and the output's face to the person of the reference
            photos; None without one.
        guided: whether the face was drawn nearer to that person. The encoder that measures also led, so that
            `reference_after` flatters.
        crop_pixels: side of the aligned crop in the input photo; below 512 the face was enlarged.
        given: whether the caller pointed at it.
        note: what is unusual about how it was found, or empty: cut by the photo's edge, or not seen by the mesh, so
            that it is aligned by what else is known.
    """

    index: int
    box: list[float]
    pose: list[float]
    score: float
    restored: bool
    reason: str
    strength: float
    fidelity: float
    identity_distance: float
    reference_before: float | None
    reference_after: float | None
    guided: bool
    crop_pixels: float
    given: bool = False
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass
class RestoreOutput(BaseOutput):
    """Result of `RestorePipeline`.

    Attributes:
        images: one per input, as `output_type` says.
        faces: the faces found in each input, in pixels of the input.
        reports: one list of `FaceReport` per input, a report for every face found.
        photos: the same pictures as `Photo`, with alpha, colour profile, EXIF and bit depth of the input; pass one
            to `studio.images.save`.
        scales: how many times as large as its input each of them is.
    """

    images: list[Image.Image] | list[np.ndarray] | list[Tensor]
    faces: list[Faces]
    reports: list[list[FaceReport]]
    photos: list[Photo]
    scales: list[float]


class RestorePipeline(StudioPipeline):
    """Finds the faces of a photograph, restores them one by one, and puts them back.

    The restorer reads from the aligned face what the prior needs to draw it (BDInvert, arXiv 2107.03182; GFP-GAN,
    2101.04061) and what the pixels themselves still say; see `studio.evidence` for how the two are joined.
    """

    known_names: ClassVar[tuple[str, ...]] = ("restore",)

    def __init__(
        self,
        generator: Generator,
        head: ImageHead,
        restorer: Restorer,
        parts: HeadParts,
        full_range: FaceDetector,
        back: FaceDetector,
        mesh: FaceMesh,
        identity: IdentityNet,
    ) -> None:
        super().__init__()
        self.register_modules(
            generator=generator,
            head=head,
            restorer=restorer,
            parts=parts,
            full_range=full_range,
            back=back,
            mesh=mesh,
            identity=identity,
        )
        for network in (generator, head, restorer):
            network.to(memory_format=torch.channels_last)
        for network in (generator, head, restorer, identity):
            network.requires_grad_(False)  # where a reference guides, gradients go to latents, and pass through these
        restorer.prepare(generator)
        self._upsamplers: dict[str, backgrounds.Upsampler] = {}  # by name; loaded when first asked for
        self._space: LatentSpace | None = None  # of the generator's latents; made when a reference first guides

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        return weights.components(generator="generator", head="head_512", restorer=name, parts="parts")

    @torch.inference_mode()
    def __call__(
        self,
        image: ImageLike | Sequence[ImageLike],
        faces: str | int | Sequence[int] = "all",
        fidelity: float = 0.5,
        strength: float | Sequence[float] = 1.0,
        scale: float | Literal["auto"] = 1,
        background: str | backgrounds.Drawer = "lanczos",
        identity_guard: float | None = 0.6,
        caution: bool = True,
        colorize: bool = False,
        reference: ImageLike | Sequence[ImageLike] | None = None,
        reference_steps: int = 12,
        boxes: Boxes | Sequence[Boxes] | None = None,
        aligned: bool = False,
        output_type: str = "pil",
        callback_on_step_end: Callable[[RestorePipeline, int, int, dict[str, Any]], Any] | None = None,
        return_dict: bool = True,
    ) -> RestoreOutput | tuple:
        """Restore one photograph or a list of them.

        Args:
            image: a path, bytes, PIL image, (H,W,3) array, (3,H,W) tensor in [0,1] or `Photo`; or a list of these.
            faces: "all", "largest", "given" (those in `boxes`), an index or a list of indices (0 is the largest face).
            fidelity: 0 to 1. 0 shows the prior's idea of the face, 0.5 keeps what the photograph says and fills in
                what it does not, 1 fills in nothing and is half the photo itself, half its cleaned estimate.
            strength: 0 to 1, share of the restored face in the result: one number, or one for each chosen face.
            scale: 1, 1.5, 2, 3 or 4: the output is exactly this many times the input's size. "auto" takes, for each
                photo, the smallest of 1, 2 and 4 that shows its largest restored face at the 512 px at which it was
                restored (of a small face little is seen otherwise), and none that makes more than 16 million pixels.
            background: the photo around the faces. "none": nothing is done to it, and its size is kept. "lanczos":
                enlarged by interpolation. "realesrgan" or "span": drawn larger, and cleaned (at scale 1 too), by a
                network that is fetched on first use; docs/background.md has what it costs, when it helps and when it
                harms. Or a function that makes a (1,3,H,W) float32 RGB in [0,1] any number of times as large; what it
                returns is brought to the exact size.
            identity_guard: largest dlib distance between a face before and after. A face above it is blended back
                until it is below, and left alone if that does not help; the report says so. None switches it off.
            caution: faces turned by more than 50° or with less than 8 px between the eyes, of which the prior knows
                little, are restored with a fidelity of at least 0.75; the report says so. False treats all alike.
            colorize: a grey, sepia or duotone photo gets the prior's colours. By default it keeps its own tone.
            reference: another photo of the person, or a list of them, whose largest faces count: what the damage took
                is then drawn like this person, in the one chosen face of each photo that is nearest to them. With a
                photo of somebody else it draws that somebody. The guard is not asked where the face came nearer. An
                identity vector, as `embed_reference` gives it, will do.
            reference_steps: gradient steps towards that person, about half a second each; 0 only measures.
            boxes: faces that need not be found, beside those that are: (x0, y0, x1, y1) of each, from forehead to chin,
                in pixels of the photo. With a list of photos, a list with the boxes of each. What the networks see
                there is used, and where they see nothing, the box.
            aligned: the photo is one face, cut as FFHQ or published restorers (512 px) cut it; nothing is looked for.
            output_type: "pil", "np" ((H,W,3) float32 in [0,1]) or "pt" ((3,H,W) float32 in [0,1]).
            callback_on_step_end: called with (pipeline, step, step, {"identity_distance"}) after each of these steps.
            return_dict: False returns a tuple of the output's fields.

        Returns:
            `RestoreOutput`. A photo without a face comes back as it was (scaled), with no reports; `boxes` and
            `aligned` are for those whose face is not found.

        Raises:
            InputError: an argument outside its range.
            ImageError: an image that cannot be used.
        """
        check_arguments(fidelity, strength, scale, identity_guard, output_type, reference_steps)
        backgrounds.check(background, scale)
        if not isinstance(caution, bool):
            raise InputError(f"caution must be True or False, got {caution!r}: pass one of them")
        batch = list(image) if isinstance(image, list | tuple) else [image]
        pointed = boxes_of_each(boxes, image, aligned)
        wanted = None if reference is None else self.embed_reference(reference)
        drawer = self.upsampler(background) if background in backgrounds.NETWORKS else background
        found, reports, photos, scales = [], [], [], []
        for item, own in zip(self.progress_bar(batch) if len(batch) > 1 else batch, pointed, strict=True):
            photo = images.load(item)  # 1. read
            all_faces = self.find(photo, own, aligned)  # 2. find
            chosen = select(all_faces, faces)  # 3. choose
            strengths = spread(strength, len(all_faces), chosen)
            skipped = {i: reason for i in range(len(all_faces)) if (reason := why_skip(all_faces, i, chosen))}
            todo = [i for i in range(len(all_faces)) if i not in skipped]
            crops, to_photo = self.crop(photo, all_faces[todo])  # 4. align
            fidelities = [fidelity_for(all_faces, i, fidelity, caution) for i in range(len(all_faces))]
            tone, before = tone_curve(photo.pixels, crops), self.embed(crops, to_photo, all_faces[todo])
            restored, hair = self.restore(crops, torch.tensor(fidelities)[todo], tone, colorize)  # 5. restore
            guided = np.zeros(len(todo), bool)
            if wanted is not None and reference_steps and todo:
                k = int((before - wanted).norm(dim=1).argmin())
                on_step = self.follower(reference_steps, callback_on_step_end)
                one = slice(k, k + 1)
                given = (crops[one], to_photo[one], all_faces[todo][one], wanted, fidelities[todo[k]], tone, colorize)
                drawn = self.guide(*given, reference_steps, on_step)
                plain, led = (self.embed(x, to_photo[one], all_faces[todo][one]) for x in (restored[one], drawn[0]))
                if (led - wanted).norm() < (plain - wanted).norm():
                    restored[one], hair[one], guided[k] = *drawn, True
            restored, used, distances = self.guard(  # 6. blend, and keep the person
                crops, restored, to_photo, all_faces[todo], strengths[todo], identity_guard, guided
            )
            on = used > 0
            size = fitting_scale(photo, to_photo[on], background) if scale == AUTO else scale
            result = self.paste(  # 7. put back
                photo, restored[on], to_photo[on], all_faces[todo][on], size, crops[on], hair[on], drawer
            )
            after = self.embed(restored, to_photo, all_faces[todo])
            apart = measure(wanted, before), measure(wanted, after)
            details = Details(todo, used, strengths, fidelities, fidelity, distances, *apart, guided)
            found.append(all_faces)
            reports.append([report(photo, all_faces, i, skipped, details) for i in range(len(all_faces))])
            photos.append(result)
            scales.append(size)
        pictures = [images.as_type(photo.pixels, output_type) for photo in photos]
        output = RestoreOutput(pictures, found, reports, photos, scales)
        return output if return_dict else output.to_tuple()

    # ---- the steps, each usable alone

    def upsampler(self, name: str) -> backgrounds.Upsampler:
        """The network of a `background` by its name, fetched and loaded when first asked for."""
        found = self._upsamplers.get(name)
        if found is None or found.network.device != self.device:
            found = backgrounds.Upsampler.from_pretrained(name, device=self.device, on_tile=self.follow_tiles())
            self._upsamplers[name] = found
        return found

    def follow_tiles(self) -> backgrounds.OnTile:
        """What an upsampler calls after each tile: moves a progress bar, a new one for each photo."""
        bars: list[Any] = []

        def on_tile(done: int, total: int) -> None:
            if done == 1:
                bars[:] = [self.progress_bar(total=total)]
            bars[0].update()
            if done == total:
                bars[0].close()

        return on_tile

    def find(self, photo: Photo, boxes: Boxes | None = None, aligned: bool = False) -> Faces:
        """All faces of a photo, largest first, in its pixels; see `__call__` for `boxes` and `aligned`."""
        finder, pixels = (
            FaceFinder(self.full_range, self.back, self.mesh),
            photo.pixels.to(self.device, self.mesh.dtype),
        )
        if aligned:
            return finder.aligned(pixels)
        found = finder(pixels)
        return found if boxes is None else with_given(found, finder.given(pixels, boxes))

    def crop(self, photo: Photo, faces: Faces) -> tuple[Tensor, np.ndarray]:
        """FFHQ-aligned crops (N,3,512,512) in [0,1], and their crop-to-photo transforms (N,2,3)."""
        to_photo = faces.crops(CROP)
        return align.warp(photo.pixels, to_photo, CROP).clamp(0, 1), to_photo

    @torch.no_grad()
    def restore(
        self,
        crops: Tensor,
        fidelity: float | Tensor = 0.5,
        tone: Tone | None = None,
        colorize: bool = False,
        change: Callable[[Restored], Restored] = lambda parts: parts,
    ) -> tuple[Tensor, Tensor]:
        """Aligned crops to restored crops, and where they show hair.

        Args:
            crops: (N,3,512,512) float32 in [0,1].
            fidelity: see `__call__`; a number, or (N,) one per face.
            tone: `tone_curve` of a monochrome photo; the result then has exactly this tone.
            colorize: a monochrome photo gets the prior's colours instead.
            change: what the network read of up to `CHUNK` faces to what is drawn of them.

        Returns:
            restored crops (N,3,512,512) float32 in [0,1], probabilities of hair (N,1,32,32).
        """
        if not len(crops):
            return crops, crops.new_zeros(0, 1, 1, 1)
        fidelities = torch.as_tensor(fidelity, dtype=torch.float32).expand(len(crops))
        chunks = zip(crops.split(CHUNK), fidelities.split(CHUNK), strict=True)
        done = [self.restore_chunk(chunk, some, tone, colorize, change) for chunk, some in chunks]
        restored, hair = (torch.cat(parts) for parts in zip(*done, strict=True))
        return restored, hair

    def restore_crops(
        self, crops: Tensor, fidelity: float | Tensor = 0.5, tone: Tone | None = None, colorize: bool = False
    ) -> Tensor:
        """`restore`, the crops alone."""
        return self.restore(crops, fidelity, tone, colorize)[0]

    def restore_chunk(
        self,
        crops: Tensor,
        fidelity: Tensor,
        tone: Tone | None,
        colorize: bool,
        change: Callable[[Restored], Restored],
    ) -> tuple[Tensor, Tensor]:
        """`restore` of as many faces as fit into memory at once, each with its fidelity (N,)."""
        if tone is not None:
            crops = luma(crops).expand(-1, 3, -1, -1)
        small = images.resize(crops, self.restorer.config.size, self.restorer.config.size)
        parts = change(self.restorer(small.to(self.device, self.restorer.dtype)))
        hair = self.parts(parts.features.to(self.parts.dtype))[:, [PARTS.index("hair")]].float().cpu()
        prior = draw_prior(self.generator, self.head, parts, self.restorer.dictionary).float().cpu() / 2 + 0.5
        if prior.shape[2] != CROP:
            prior = images.resize(prior, CROP, CROP)
        cleaned, fill = parts.evidence.cpu(), (2 - 2 * fidelity).clamp(max=1).view(-1, 1, 1, 1)
        evidence = with_sure_detail(with_native_detail(cleaned, small, crops, prior), crops, prior)
        evidence = with_prior_colour(evidence, small, cleaned, prior, fill)
        # The cleaned face has lost a little of the person with the noise; part of the photo itself brings it back.
        photo_share = PHOTO_SHARE * (2 * fidelity - 1).clamp(min=0).view(-1, 1, 1, 1)
        evidence = evidence + photo_share * (crops - evidence)
        restored = match_tone(fuse(evidence, prior, fidelity), crops)
        restored = keep_shading(with_tint(restored, crops) if tone is None else restored, crops).clamp(0, 1)
        if tone is not None and colorize:
            restored = (prior + luma(restored) - luma(prior)).clamp(0, 1)
        elif tone is not None:
            restored = apply_tone(luma(restored), tone).clamp(0, 1)
        return restored, hair

    def guide(
        self,
        crop: Tensor,
        to_photo: np.ndarray,
        face: Faces,
        person: Tensor,
        fidelity: float,
        tone: Tone | None,
        colorize: bool,
        steps: int,
        on_step: Callable[[int, float], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`restore` of one crop (1,3,512,512), drawn nearer to a person (128,): see `studio.latents.resemble`."""
        side, chip = self.restorer.config.size, self.identity.config.size
        to_chip = align.dlib_transform(align.into_crop(face.mesh, to_photo, CROP) * side, chip)
        encoder = IdentityEncoder(self.identity)
        with torch.inference_mode(False):  # copies made in the caller's inference mode cannot have gradients
            generator, head = quick_copy(self.generator), quick_copy(self.head)
            if self._space is None:
                self._space = gaussian_space(self.generator)
            space = self._space.to(self.generator.device)

        def nearer(parts: Restored) -> Restored:
            def draw(moved: Restored) -> Tensor:
                prior = draw_prior(generator, head, moved, self.restorer.dictionary).float() / 2 + 0.5
                return images.resize(prior, side, side)

            def embed(prior: Tensor) -> Tensor:
                shown = fuse(parts.evidence, prior, fidelity)
                shown = shown if tone is None else luma(shown).expand(-1, 3, -1, -1)
                return encoder.embed_chips(align.warp(shown, to_chip, chip).clamp(0, 1))

            spread = self.restorer.latent_std.float()
            return resemble(parts, person, draw, embed, generator, space, spread, steps, on_step).parts

        return self.restore(crop, fidelity, tone, colorize, nearer)

    def follower(self, steps: int, callback: Callable[..., Any] | None) -> Callable[[int, float], None]:
        """What `guide` calls after each step: moves a progress bar, and calls the user's function."""
        bar = self.progress_bar(total=steps)

        def on_step(step: int, distance: float) -> None:
            if step:
                bar.update()
                if callback is not None:
                    callback(self, step - 1, step - 1, {"identity_distance": distance})
            if step == steps:
                bar.close()

        return on_step

    def guard(
        self,
        crops: Tensor,
        restored: Tensor,
        to_photo: np.ndarray,
        faces: Faces,
        strengths: np.ndarray,
        threshold: float | None,
        guided: np.ndarray | None = None,
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Blend restored crops with their inputs, less of them where the person would get lost.

        Of the `guided` faces (N,) the person is known better from elsewhere, and they are only measured.

        Returns:
            blended crops (N,3,512,512), strengths used (N,) (0 where no strength passed), identity distances (N,).
        """
        used = np.array(strengths, dtype=np.float32)
        blended = mix(crops, restored, used)
        distances = self.distances(crops, blended, to_photo, faces)
        for factor in (*GUARD_STEPS, 0.0):
            over = np.zeros(len(used), bool) if threshold is None else distances > threshold
            over &= True if guided is None else ~guided
            if not over.any():
                break
            used[over] = strengths[over] * factor
            blended = mix(crops, restored, used)
            distances = np.where(used > 0, self.distances(crops, blended, to_photo, faces), 0.0)
        return blended, used, distances.astype(np.float32)

    @torch.no_grad()
    def embed(self, crops: Tensor, to_photo: np.ndarray, faces: Faces) -> Tensor:
        """Identity descriptors (N,128) of aligned crops of these faces."""
        if not len(crops):
            return torch.zeros(0, 128)
        to_chip = align.dlib_transform(align.into_crop(faces.mesh, to_photo, CROP) * CROP)
        chips = align.warp(crops, to_chip, 150).clamp(0, 1)
        return IdentityEncoder(self.identity).embed_chips(chips.to(self.device, self.identity.dtype)).float().cpu()

    def distances(self, crops: Tensor, others: Tensor, to_photo: np.ndarray, faces: Faces) -> np.ndarray:
        """Identity distances (N,) between two versions of the same aligned crops."""
        pair = (self.embed(x, to_photo, faces) for x in (crops, others))
        first, second = pair
        return (first - second).norm(dim=1).detach().numpy()

    def embed_reference(self, reference: ImageLike | Sequence[ImageLike]) -> Tensor:
        """Descriptor (128,) of the largest face of the reference photo, or the average of several; see `__call__`.

        Raises:
            InputError: no photo, one without a face, or photos of different people.
        """
        given = list(reference) if isinstance(reference, list | tuple) else [reference]
        if not given:
            raise InputError("reference must be a photo or a list of them, got an empty list: leave it out")
        vectors, names = [], []
        for one in given:
            if isinstance(one, Tensor) and one.ndim == 1:
                vectors.append(one.float().cpu())
                names.append("an identity vector")
                continue
            photo = images.load(one)
            faces = self.find(photo)
            if not len(faces):
                raise InputError(f"the reference photo must show a face, {photo.name} shows none: cut it closer")
            crops, to_photo = self.crop(photo, faces[[0]])
            vectors.append(self.embed(crops, to_photo, faces[[0]])[0])
            names.append(photo.name)
        together = torch.stack(vectors)
        outliers = find_outliers(together, names)
        if outliers.any():
            far = ", ".join(name for name, out in zip(names, outliers.tolist(), strict=True) if out)
            raise InputError(f"the reference photos must show one person, {far} shows another: leave it out")
        return average(together)

    def paste(
        self,
        photo: Photo,
        crops: Tensor,
        to_photo: np.ndarray,
        faces: Faces,
        scale: float = 1,
        originals: Tensor | None = None,
        hair: Tensor | None = None,
        background: str | backgrounds.Drawer = "lanczos",
    ) -> Photo:
        """Put crops back into the photo, enlarged `scale` times; outside the faces as `studio.background.draw` does it.

        With the `originals` (the crops as they were cut), faces of more than 512 px keep the photo's own finest detail
        wherever the restoration left the detail of the crop as it was. With `hair`, see `restore`, the crop also takes
        the place of hair that is far from the face.
        """
        pixels = backgrounds.draw(photo.pixels, scale, background)
        if len(crops):
            masks = paste.soft_mask(faces.mesh, to_photo, CROP, hair)
            kept = None
            if originals is not None:
                large = torch.from_numpy(align.scale_of(to_photo) > 1).view(-1, 1, 1, 1)
                kept = kept_detail(originals, crops) * large
            height, width = pixels.shape[1:]
            larger = np.array([[width / photo.width], [height / photo.height]], np.float32)
            pixels = paste.blend(pixels, crops, masks, to_photo * larger, originals, kept)
        return photo.with_pixels(pixels.clamp(0, 1))


# ---- plain functions of the steps


@dataclass
class Details:
    """Per restored face, in the order of `todo`."""

    todo: list[int]
    used: np.ndarray
    strengths: np.ndarray  # of all faces
    fidelities: list[float]  # of all faces
    fidelity: float  # that was asked for
    distances: np.ndarray
    before: list[float | None]
    after: list[float | None]
    guided: np.ndarray


def check_arguments(
    fidelity: float,
    strength: float | Sequence[float],
    scale: float | str,
    identity_guard: float | None,
    output_type: str,
    reference_steps: int = 0,
) -> None:
    """Refuse what `__call__` cannot do."""
    if not 0 <= fidelity <= 1:
        raise InputError(f"fidelity must be from 0 to 1, got {fidelity}: 0.5 is the usual choice")
    values = [strength] if isinstance(strength, int | float) else list(strength)
    if not values or not all(0 <= value <= 1 for value in values):
        raise InputError(f"strength must be from 0 to 1, got {strength}: 1 is the usual choice")
    if scale != AUTO and (isinstance(scale, str) or scale not in backgrounds.SCALES):
        raise InputError(f"scale must be 1, 1.5, 2, 3 or 4, or 'auto', got {scale}: choose one of them")
    if identity_guard is not None and not identity_guard > 0:
        raise InputError(f"identity_guard must be a positive distance or None, got {identity_guard}: 0.6 is usual")
    if not isinstance(reference_steps, int) or reference_steps < 0:
        raise InputError(f"reference_steps must be 0 or more, got {reference_steps}: 12 are usual")
    if output_type not in ("pil", "np", "pt"):
        raise InputError(f"output_type must be 'pil', 'np' or 'pt', got {output_type!r}: choose one of them")


def fitting_scale(photo: Photo, to_photo: np.ndarray, background: str | backgrounds.Drawer = "lanczos") -> int:
    """The scale that "auto" stands for, see `RestorePipeline.__call__`.

    Args:
        photo: as it came.
        to_photo: (N,2,3), crop-to-photo transforms of its restored faces; with none, the photo keeps its size.
        background: likewise with "none".
    """
    if not len(to_photo) or background == "none":
        return 1
    largest = float(align.scale_of(to_photo).max())  # pixels of the photo per pixel of the crop
    fits = [scale for scale in AUTO_SCALES if photo.width * photo.height * scale**2 <= AUTO_PIXELS] or [1]
    return next((scale for scale in fits if largest * scale >= 1), fits[-1])


def spread(strength: float | Sequence[float], count: int, chosen: list[int]) -> np.ndarray:
    """One strength per face of the photo, (count,) float32; 0 for those not chosen."""
    values = [float(strength)] * len(chosen) if isinstance(strength, int | float) else list(strength)
    if len(values) != len(chosen):
        raise InputError(f"strength must be one number or {len(chosen)}, got {len(values)}: one per chosen face")
    strengths = np.zeros(count, np.float32)
    strengths[chosen] = values
    return strengths


def why_skip(faces: Faces, i: int, chosen: list[int]) -> str:
    """Why face i is left alone, or an empty string."""
    if i not in chosen:
        return "not selected"
    distance = float(faces.eye_distances[i])
    if distance < SMALLEST_EYE_DISTANCE:
        return f"too small: {distance:.1f} px between the eyes, {SMALLEST_EYE_DISTANCE:.0f} are needed"
    return ""


def why_cautious(faces: Faces, i: int) -> str:
    """Why the prior knows little of face i, or an empty string."""
    if abs(float(faces.pose[i, 0])) > CAUTIOUS_YAW:
        return "profile"
    return "tiny" if float(faces.eye_distances[i]) < CAUTIOUS_EYE_DISTANCE else ""


def fidelity_for(faces: Faces, i: int, fidelity: float, caution: bool) -> float:
    """The fidelity for face i: more than asked for where the prior knows little, see `caution`."""
    return max(fidelity, CAUTIOUS_FIDELITY) if caution and why_cautious(faces, i) else fidelity


def mix(crops: Tensor, restored: Tensor, strengths: np.ndarray) -> Tensor:
    """Strength 0 gives the crop, 1 the restored crop."""
    share = torch.from_numpy(np.asarray(strengths, np.float32)).view(-1, 1, 1, 1)
    return crops + share * (restored - crops)


def measure(wanted: Tensor | None, found: Tensor) -> list[float | None]:
    """Distances of descriptors to the reference's, or Nones."""
    if wanted is None:
        return [None] * len(found)
    return (found - wanted).norm(dim=1).tolist()


def boxes_of_each(
    boxes: Boxes | Sequence[Boxes] | None, image: ImageLike | Sequence[ImageLike], aligned: bool
) -> list[Boxes | None]:
    """The boxes of every photo, see `RestorePipeline.__call__`."""
    if not isinstance(aligned, bool):
        raise InputError(f"aligned must be True or False, got {aligned!r}: pass one of them")
    if aligned and boxes is not None:
        raise InputError("aligned and boxes can't be had both: an aligned picture is one face, leave the boxes out")
    if not isinstance(image, list | tuple):
        return [boxes]
    if boxes is None:
        return [None] * len(image)
    if len(boxes) != len(image):
        raise InputError(
            f"boxes must be one list for each of {len(image)} photos, got {len(boxes)}: give empty ones too"
        )
    return list(boxes)


def why_noted(photo: Photo, faces: Faces, i: int) -> str:
    """What is unusual about how face i was found, or an empty string."""
    notes = []
    x0, y0, x1, y1 = faces.boxes[i].tolist()
    shown = max(min(x1, photo.width) - max(x0, 0), 0) * max(min(y1, photo.height) - max(y0, 0), 0)
    if shown < (1 - CUT) * (x1 - x0) * (y1 - y0):
        notes.append("cut by the edge of the photo")
    if faces.mesh_scores[i] < MIN_PRESENCE and faces.given[i]:
        notes.append("the mesh sees no face: aligned by " + ("its box" if faces.frames is None else "the picture"))
    return ", ".join(notes)


def report(photo: Photo, faces: Faces, i: int, skipped: dict[int, str], details: Details) -> FaceReport:
    """The report of face i of a photo."""
    k = details.todo.index(i) if i in details.todo else None
    used = float(details.used[k]) if k is not None else 0.0
    asked = float(details.strengths[i])
    reason = skipped.get(i, "")
    if k is not None and used < asked:
        reason = f"identity guard: strength {used:.2f}" if used else "identity guard: left as it was"
    elif k is not None and asked == 0:
        reason = "strength 0"
    elif k is not None and details.fidelities[i] > details.fidelity:
        reason = f"{why_cautious(faces, i)}: fidelity {details.fidelities[i]:g}"
    return FaceReport(
        index=i,
        box=[round(float(v), 1) for v in faces.boxes[i]],
        pose=[round(float(v), 1) for v in faces.pose[i]],
        score=round(float(faces.scores[i]), 3),
        restored=used > 0,
        reason=reason,
        strength=used,
        fidelity=details.fidelities[i],
        identity_distance=round(float(details.distances[k]), 3) if k is not None else 0.0,
        reference_before=None if k is None else details.before[k],
        reference_after=None if k is None else details.after[k],
        guided=k is not None and used > 0 and bool(details.guided[k]),
        crop_pixels=round(float(align.scale_of(faces[[i]].crops(1))[0]), 1),
        given=bool(faces.given[i]),
        note=why_noted(photo, faces, i),
    )
