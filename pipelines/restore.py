"""Restore the faces of old, small or damaged photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from studio import background as backgrounds
from studio import checks, images, weights
from studio.base import StudioPipeline
from studio.callbacks import StepEnd, replaced
from studio.detect import Together
from studio.device import quick
from studio.errors import InputError
from studio.faces import align, paste
from studio.faces.faces import Faces
from studio.faces.mean_mesh import MEAN_MESH
from studio.faces.pose import pose_from_mesh
from studio.faces.select import select
from studio.faces.templates import five_points
from studio.find import MIN_PRESENCE, SURE_SCORE, FaceFinder, reading_order, unique, with_given
from studio.identity.encoder import IdentityEncoder
from studio.identity.references import check_embedding
from studio.identity.similarity import average, find_outliers
from studio.images import Photo
from studio.imaging.joining import Joined, as_sharp_as_it_is, join, sized
from studio.imaging.lattice import without_lattice
from studio.latents.measure import place_aligned
from studio.latents.prior import quick_copy
from studio.latents.resemble import gaussian_space, resemble
from studio.networks.cleaner import Cleaned, Cleaner
from studio.networks.codeformer import CodeFormer
from studio.networks.detector import FaceDetector
from studio.networks.face_restorer import channels_last
from studio.networks.finder import FinderNet
from studio.networks.generator import Generator
from studio.networks.gfpgan import GFPGAN
from studio.networks.head_parts import PARTS, HeadParts
from studio.networks.identity import IdentityNet
from studio.networks.image_head import ImageHead
from studio.networks.latent_space import LatentSpace
from studio.networks.map_flow import CALM, MapFlow
from studio.networks.mesh import FaceMesh
from studio.networks.restoreformer import RestoreFormer
from studio.networks.restorer import Restored, Restorer, as_certain, draw_prior
from studio.tone import Tone, luma, match_tone, tone_curve, with_tint, with_tone

CROP = 512
SMALLEST_EYE_DISTANCE = 4.0  # photo pixels; below it the mesh, and so the crop, is a guess
CAUTIOUS_YAW, CAUTIOUS_EYE_DISTANCE = 50.0, 8.0  # degrees to a side and photo pixels; beyond, the prior guesses
CAUTIOUS_FIDELITY = 0.75
GUARD_STEPS = (0.75, 0.5, 0.25)
AUTO = "auto"
AUTO_SCALES = (1, 2, 4)
NEARLY = 0.9  # of those 512 px are enough for "auto": a face of about 256 must not double for measuring 254 or 257
AUTO_PIXELS = 16_000_000  # "auto" makes no larger picture than this by enlarging
SETTLED, CLEAR = 0.9, 0.5  # presence of the mesh and quality below which a face is looked at again
# Places that look a little like a face, which are restored to be looked at where nobody is seen, and how sure the mesh
# must be there: on three damaged faces that were missed it was, to four digits, and on two of 249 pictures without one.
PLACES, SHOWN = 3, 0.98
ASTRAY = 0.12  # share of the crop's side by which a mesh may be off the mean face and still be believed
CUT = 0.1  # share of a face's box outside the photo from which on the report says so
REGIONS = ("auto", "face", "head", "photo")
SURE_AROUND = 0.5  # "auto" cleans the whole photo where less of its fine detail around the faces is certain
UNCHANGED_INVENTED, UNCHANGED_DIFFERENCE = 0.06, 0.008  # a face of which less is drawn, and changed on average, is left
MOST_STEPS = 50  # of the flow
OWN_PARTS: dict[str, None] = dict.fromkeys(("generator", "head", "flow", "parts"))  # published restorers do without

MEAN_POINTS = five_points(MEAN_MESH[None])[0]  # in sides of an aligned crop

ImageLike = str | Path | bytes | Image.Image | np.ndarray | Tensor | Photo
OnStep = Callable[[int, Tensor, Tensor], Tensor | None]  # step, distance, latents to where the next one starts
StepCallback = Callable[["RestorePipeline", int, int, dict[str, Tensor]], dict[str, Tensor] | None]
Published = GFPGAN | CodeFormer | RestoreFormer  # each a `studio.networks.face_restorer.FaceRestorer`
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
        region: "face", "head" or "photo": what of the photo was restored along with it; empty where nothing was.
        invented: 0 to 1, the share of its fine detail that the prior drew, because the photo does not tell.
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
    region: str = ""
    invented: float = 0.0

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
        invented: (H,W) float32 in [0,1] for each of them, which share of the detail there was drawn by the prior,
            because the photo does not tell; 0 where the photo speaks for itself.
        readings: with `keep_readings`, the `Reading` of the faces of each input that were chosen and large enough, in
            the order of `faces`; hand one to `RestorePipeline.join` for another fidelity. Else None.
    """

    images: list[Image.Image] | list[np.ndarray] | list[Tensor]
    faces: list[Faces]
    reports: list[list[FaceReport]]
    photos: list[Photo]
    scales: list[float]
    invented: list[Tensor]
    readings: list[Reading] | None = None


@dataclass
class Reading:
    """What the networks read in N aligned crops; `RestorePipeline.join` makes faces of it, and runs none of them again.

    Attributes:
        crops: (N,3,S,S) as they were read: of a monochrome photo the luma alone.
        cleaned: what they say for sure.
        prior: (N,3,S,S) RGB, about [0,1], the faces that were drawn for them.
        skin, hair: (N,1,h,w) probabilities.
        tone: of a monochrome photo, for `join`; None of one in colours.
    """

    crops: Tensor
    cleaned: Cleaned
    prior: Tensor
    skin: Tensor
    hair: Tensor
    tone: Tone | None = None

    def __len__(self) -> int:
        """Of how many faces."""
        return len(self.crops)

    def __getitem__(self, index: slice) -> Reading:
        """Some of the faces."""
        cleaned = Cleaned(self.cleaned.estimate[index], self.cleaned.certainty[index])
        return Reading(self.crops[index], cleaned, self.prior[index], self.skin[index], self.hair[index], self.tone)


class RestorePipeline(StudioPipeline):
    """Finds the faces of a photograph, restores them one by one, and puts them back.

    The restorer reads from the aligned face what the prior needs to draw it (BDInvert, arXiv 2107.03182; GFP-GAN,
    2101.04061): the mean of all faces that it may have been. The flow takes one of them (PMRF, 2410.00418), the
    generator draws it, and the cleaner says what the pixels themselves still tell; see `studio.imaging.joining` for how
    the two are joined.

    A restorer that others published (docs/models.md) takes the place of ours by its name, or with its file. It draws
    the face as a whole, so that it needs neither our generator nor its parts, and runs when the face is joined, because
    fidelity is its own; photos, guard, tone, report and the way back are the same.
    """

    known_names: ClassVar[tuple[str, ...]] = (
        *("restore", "gfpgan-1.4", "gfpgan-1.3", "gfpgan-1.2"),
        *("codeformer", "restoreformer"),
    )
    model_cpu_offload_seq = "cleaner->parts"
    _exclude_from_cpu_offload: ClassVar[list[str]] = [
        *("generator", "head", "restorer", "flow"),
        *StudioPipeline._exclude_from_cpu_offload,
    ]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "identity_distance"]
    _optional_components: ClassVar[list[str]] = list(OWN_PARTS)

    def __init__(
        self,
        generator: Generator | None,
        head: ImageHead | None,
        restorer: Restorer | Published,
        flow: MapFlow | None,
        cleaner: Cleaner,
        parts: HeadParts | None,
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
            restorer=restorer,
            flow=flow,
            cleaner=cleaner,
            parts=parts,
            detector=detector,
            full_range=full_range,
            back=back,
            mesh=mesh,
            identity=identity,
        )
        drawing = [network for network in (generator, head, restorer, flow, cleaner) if network is not None]
        for network in (*drawing, detector, full_range, back, mesh):
            channels_last(network)
        for network in (*drawing, identity):
            network.requires_grad_(False)  # where a reference guides, gradients go to latents, and pass through these
        if isinstance(restorer, Restorer):
            if generator is None or head is None or flow is None or parts is None:
                raise InputError(f"our restorer must have {', '.join(OWN_PARTS)} beside it, got None: pass them")
            restorer.prepare(generator)
        self._upsamplers: dict[str, backgrounds.Upsampler] = {}  # by name; loaded when first asked for
        self._space: LatentSpace | None = None  # of the generator's latents; made when a reference first guides

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        if name == "restore":
            return weights.components(
                generator="generator", head="head_512", restorer=name, flow="map_flow", cleaner="cleaner", parts="parts"
            )
        return {**OWN_PARTS, **weights.components(restorer=name, cleaner="cleaner")}

    @classmethod
    def _around(cls, network: torch.nn.Module) -> dict[str, Any]:
        if not isinstance(network, Published):
            raise InputError(
                f"{cls.__name__} must be given a face restorer, got a {type(network).__name__}: see docs/models.md"
            )
        return {**OWN_PARTS, "restorer": network, **weights.components(cleaner="cleaner")}

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike | Sequence[ImageLike],
        faces: str | int | Sequence[int] = "all",
        fidelity: float | Sequence[float] = 0.5,
        strength: float | Sequence[float] = 1.0,
        scale: float | Literal["auto"] = 1,
        background: str | backgrounds.Drawer = "lanczos",
        region: str = "auto",
        identity_guard: float | None = 0.6,
        caution: bool = True,
        colorize: bool = False,
        reference: ImageLike | Sequence[ImageLike] | None = None,
        reference_steps: int = 12,
        boxes: Boxes | Sequence[Boxes] | None = None,
        aligned: bool = False,
        num_inference_steps: int = 4,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        keep_readings: bool = False,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        return_dict: bool = True,
    ) -> RestoreOutput | Any:
        """Restore one photograph or a list of them.

        Args:
            image: a path, bytes, PIL image, (H,W,3) array, (3,H,W) tensor in [0,1] or `Photo`; or a list of these.
            faces: "all", "largest", "given" (those in `boxes`), an index or a list of indices (largest
                first; faces of about one size as one reads).
            fidelity: 0 to 1. 0 shows the prior's idea of the face, 0.5 keeps what the photograph says for sure and
                draws what it does not, 1 draws only what it says next to nothing about. One number, or one for each
                photo.
            strength: 0 to 1, share of the restored face in the result: one number, or one for each chosen face.
            scale: 1, 1.5, 2, 3 or 4: the output is exactly this many times the input's size. "auto" takes, for each
                photo, the smallest of 1, 2 and 4 that shows its largest restored face at about the 512 px at which it
                was restored (of a small face little is seen otherwise; 460 will do), and none that makes more than 16
                million pixels.
            background: the photo around the faces. "none": nothing is done to it, and its size is kept. "lanczos":
                enlarged by interpolation. "realesrgan" or "span": drawn larger, and cleaned (at scale 1 too), by a
                network that is fetched on first use; docs/background.md has what it costs, when it helps and when it
                harms. Or a function that makes a (1,3,H,W) float32 RGB in [0,1] any number of times as large; what it
                returns is brought to the exact size.
            region: what is restored. "face": the face and the hair beside it. "head": the whole head. "photo": the
                head, and noise, blocks and blur of the rest are taken away as far as nothing has to be invented.
                "auto": "photo" where the surroundings of the faces are damaged too and no network draws the background,
                else "head"; reports say which.
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
            num_inference_steps: of the flow from the mean of all faces that it may have been to one of them; 0 shows
                their mean.
            generator: draws the noise that says which one, for one face after the other, or a list with one for each
                photo; None draws the same for every face. Another seed gives another face where the damage leaves a
                choice.
            keep_readings: give back what the networks read, as `readings`: about 10 MB a face. `join` makes faces of
                it for another fidelity, and runs none of our networks again.
            output_type: "pil", "np" ((H,W,3) float32 in [0,1]) or "pt" ((3,H,W) float32 in [0,1]).
            callback_on_step_end: called with (pipeline, step, step, {"latents": (1,512) Gaussian coordinates of the
                face's structure, "identity_distance": (1,)}) after each of the `reference_steps`; the next step starts
                from the "latents" it returns. The few steps of the flow are not told.
            callback_on_step_end_tensor_inputs: names of the tensors it is given; None gives all.
            return_dict: False returns a tuple of the output's fields.

        Returns:
            `RestoreOutput`. A photo without a face comes back as it was (scaled), with no reports; `boxes` and
            `aligned` are for those whose face is not found.

        Raises:
            InputError: an argument outside its range.
            ImageError: an image that cannot be used.

        Example:
            >>> from studio import RestorePipeline, images
            >>> pipeline = RestorePipeline.from_pretrained("restore")
            >>> output = pipeline("examples/old-print.jpg", fidelity=0.5, scale=2)
            >>> path = images.save(output.photos[0], "restored.png")
            >>> [face.restored for face in output.reports[0]]
            [True...]
        """
        checks.runs(self)
        batch = images.batch(image)
        asked = fidelity_of_each(fidelity, len(batch))
        checks.number_or_list("fidelity", asked)
        checks.number_or_list("strength", strength)
        checks.numbers(identity_guard=0 if identity_guard is None else identity_guard)
        checks.true_or_false(caution=caution, colorize=colorize, keep_readings=keep_readings)
        for share in asked:
            check_arguments(share, strength, scale, identity_guard, output_type, reference_steps)
        check_drawing(region, num_inference_steps)
        drawn_by = checks.generators(generator, len(batch), "photo")
        told = StepEnd(self, callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        backgrounds.check(background, scale)
        if region == "head" and not self.leads:
            raise InputError(
                f"a {type(self.restorer).__name__} does not tell a head from what is behind it, got region 'head': pass"
                " 'face', 'photo' or 'auto'"
            )
        if reference is not None and reference_steps and not self.leads:
            raise InputError(
                f"a {type(self.restorer).__name__} can't be led by a reference, only measured with one, got"
                f" reference_steps {reference_steps}: pass 0, or take the model 'restore'"
            )
        pointed = boxes_of_each(boxes, batch, aligned, listed=images.is_batch(image))
        wanted = None if reference is None else self.embed_reference(reference)
        drawer = self.upsampler(background) if background in backgrounds.NETWORKS else background
        found, reports, photos, scales, maps, readings = [], [], [], [], [], []
        each = zip(self.progress_bar(batch) if len(batch) > 1 else batch, pointed, asked, drawn_by, strict=True)
        for item, own, fidelity, generator in each:
            photo = images.load(item)  # 1. load
            all_faces = self.find(photo, own, aligned)  # 2. find
            chosen = select(all_faces, faces)  # 3. choose
            strengths = spread(strength, len(all_faces), chosen)
            skipped = {i: reason for i in range(len(all_faces)) if (reason := why_skip(all_faces, i, chosen))}
            todo = [i for i in range(len(all_faces)) if i not in skipped]
            seen, all_faces = all_faces, self.settle(photo, all_faces, todo)  # 4. align, the doubtful ones in two steps
            settled = (all_faces.mesh != seen.mesh).any((1, 2))
            picked = all_faces[todo]
            crops, to_photo = self.crop(photo, picked)
            fidelities = [fidelity_for(all_faces, i, fidelity, caution) for i in range(len(all_faces))]
            tone, before = tone_curve(photo.pixels, crops), self.embed(crops, to_photo, picked)
            reading = self.read(crops, tone, num_inference_steps, generator)  # 5. read
            joined = self.join(reading, torch.tensor(fidelities)[todo], tone, colorize)  # 6. join
            guided = np.zeros(len(todo), bool)
            if wanted is not None and reference_steps and todo:
                k = int((before - wanted).norm(dim=1).argmin())
                one, on_step = slice(k, k + 1), self.follower(reference_steps, told)
                settings = (fidelities[todo[k]], tone, colorize, reference_steps, num_inference_steps, generator)
                led = self.guide(crops[one], to_photo[one], picked[one], wanted, *settings, on_step)
                pair = (self.embed(x, to_photo[one], picked[one]) for x in (joined.picture[one], led.picture))
                plain, nearer = ((vector - wanted).norm() for vector in pair)
                if nearer < plain:
                    joined.picture[one], joined.invented[one], joined.kept[one] = led.picture, led.invented, led.kept
                    guided[k] = True
            masks = self.masks(reading, to_photo, picked, region)
            left = nothing_to_do(crops, joined, masks) & ~guided
            restored, used, distances = self.guard(  # 7. blend, and keep the person
                crops, joined.picture, to_photo, picked, np.where(left, 0, strengths[todo]), identity_guard, guided
            )
            on = used > 0
            where = region
            if region == AUTO:
                where = surroundings(reading.cleaned.certainty[on], masks[on], background) if on.any() else "head"
            if where == "head" and not self.leads:
                where = "face"
            size = fitting_scale(photo, to_photo[on], background) if scale == AUTO else scale
            base, reach = photo, masks[on]
            if where == "photo":
                base = self.clean(photo, tone)  # 8. clean the rest
                if self.leads:
                    reach = paste.with_surroundings(reach, all_faces.mesh, np.array(todo)[on], to_photo[on])
            shown = Joined(restored[on], joined.invented[on] * share_of(used[on]), joined.kept[on])
            result, invented = self.paste(base, shown, crops[on], to_photo[on], reach, size, drawer)  # 9. put back
            after = self.embed(restored, to_photo, picked)
            apart = measure(wanted, before), measure(wanted, after)
            drawn = inside(joined.invented, masks)
            details = Details(
                *(todo, used, strengths, fidelities, fidelity, distances, *apart),
                *(guided, settled, left, drawn, where),
            )
            found.append(all_faces)
            reports.append([report(photo, all_faces, i, skipped, details) for i in range(len(all_faces))])
            photos.append(result)
            scales.append(size)
            maps.append(invented)
            readings += [reading] if keep_readings else []
        self.maybe_free_model_hooks()
        pictures = [images.as_type(photo.pixels, output_type) for photo in photos]
        output = RestoreOutput(pictures, found, reports, photos, scales, maps, readings if keep_readings else None)
        return output if return_dict else output.to_tuple()

    @property
    def leads(self) -> bool:
        """Whether a reference can lead the restorer: ours; one that others published is only measured with it."""
        return isinstance(self.restorer, Restorer)

    # ---- the steps, each usable alone

    def upsampler(self, name: str) -> backgrounds.Upsampler:
        """The network of a `background` by its name, fetched and loaded when first asked for."""
        found = self._upsamplers.get(name)
        if found is None or found.network.device != self._execution_device:
            found = backgrounds.Upsampler.from_pretrained(
                name, device=self._execution_device, on_tile=self.follow_tiles()
            )
            self._upsamplers[name] = found
        return found

    def follow_tiles(self) -> backgrounds.OnTile:
        """What an upsampler calls after each tile: moves a progress bar, a new one for each photo."""
        bars: list[Any] = []

        def on_tile(done: int, total: int) -> None:
            if total == 1:
                return
            if done == 1:
                bars[:] = [self.progress_bar(total=total)]
            bars[0].update()
            if done == total:
                bars[0].close()

        return on_tile

    def find(self, photo: Photo, boxes: Boxes | None = None, aligned: bool = False) -> Faces:
        """All faces of a photo, in its pixels, in the order of `faces`; see `__call__` for `boxes` and `aligned`."""
        finder, pixels = self.finder(), photo.pixels.to(self._execution_device)
        if aligned:
            return finder.aligned(pixels)
        found = finder(pixels)
        if self.leads and len(found):
            found = self.proven(photo, found)
        elif self.leads and boxes is None:
            found = self.look_closer(photo, found.doubtful)
        return found if boxes is None else with_given(found, finder.given(pixels, boxes))

    def proven(self, photo: Photo, faces: Faces) -> Faces:
        """The faces without those that only a detector sees, which is not very sure, and that show none when restored.

        Damage makes faces that no mesh sees, and makes things that look like faces to a detector alone. Those whose
        restoration shows a face are aligned by it, as `settle` does; the others become `doubtful`.

        Args:
            photo: that they are in.
            faces: all of them.
        """
        alone = (faces.mesh_scores < MIN_PRESENCE) & (faces.scores < SURE_SCORE) & ~faces.given
        if not alone.any():
            return faces
        unseen = np.flatnonzero(alone)
        placed, shown = self.with_restored_mesh(photo, faces, unseen)
        dropped = unseen[shown < MIN_PRESENCE]
        left = np.concatenate([faces.boxes[dropped], faces.doubtful])
        return replace(placed[np.setdiff1d(np.arange(len(faces)), dropped)], doubtful=left)

    def look_closer(self, photo: Photo, places: np.ndarray) -> Faces:
        """Faces of a photo in which nobody is seen, at places that look a little like one.

        Of some faces so little is left that the networks doubt, and the mesh sees none. Each place is restored once:
        where a face is, its restoration shows one; of anything else the same network makes nothing that the mesh knows.

        Args:
            photo: that they are in.
            places: (N,4) boxes in its pixels, likeliest first; the first `PLACES` are looked at.

        Returns:
            The faces, and as `doubtful` the places where none is.
        """
        if not len(places):
            return Faces.empty()
        places, others = places[:PLACES], places[PLACES:]
        given = self.finder().given(photo.pixels.to(self._execution_device), places)
        mesh, presence = self.place_restored(photo, given)
        kept = unique(torch.from_numpy(given.boxes), torch.from_numpy(presence))
        kept = [i for i in kept if presence[i] >= SHOWN]
        found = with_mesh(given, mesh, presence)[kept]
        count = len(kept)
        found = replace(found, given=np.zeros(count, bool), quality=np.full(count, CLEAR, np.float32))
        left = np.concatenate([places[presence < SHOWN], others])
        return replace(found[reading_order(found.boxes)], doubtful=left)

    def finder(self) -> FaceFinder:
        """Finds faces with this pipeline's networks."""
        return FaceFinder(Together(self.detector, self.full_range, self.back), self.mesh)

    def settle(self, photo: Photo, faces: Faces, todo: Sequence[int]) -> Faces:
        """The faces, with the mesh of those where damage misleads it placed anew.

        On a face that little is left of, the mesh lies badly or sees nothing, and the crop that is cut by it is off.
        Such a face is restored once, to be looked at: its restoration shows features where the network thinks they are,
        and there the mesh lies well. Faces whose crop the caller gave keep that crop.

        Args:
            photo: that they are in.
            faces: all of them.
            todo: those that will be restored, and are looked at.
        """
        doubtful = [i for i in todo if faces.mesh_scores[i] < SETTLED or faces.quality[i] < CLEAR]
        if not doubtful or not self.leads:
            return faces
        return self.with_restored_mesh(photo, faces, np.array(doubtful))[0]

    def with_restored_mesh(self, photo: Photo, faces: Faces, which: np.ndarray) -> tuple[Faces, np.ndarray]:
        """All faces, some of them aligned by a first restoration where that shows a face.

        Args:
            photo: that they are in.
            faces: all of them.
            which: (K,) indices of those that are restored.

        Returns:
            The faces, and how sure the mesh is of the K restorations, see `place_restored`.
        """
        placed, shown = self.place_restored(photo, faces[which])
        real = shown >= MIN_PRESENCE
        mesh, presence = faces.mesh.copy(), faces.mesh_scores.copy()
        mesh[which[real]] = placed[real]
        presence[which[real]] = np.maximum(presence[which], shown)[real]
        return with_mesh(faces, mesh, presence), shown

    def place_restored(self, photo: Photo, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
        """The mesh on faces that are restored once to be looked at.

        Returns:
            Meshes (N,468,3) in pixels of the photo, and how sure the mesh is (N,) in [0,1]; 0 where it lies astray.
        """
        crops, to_photo = self.crop(photo, faces)
        tone = tone_curve(photo.pixels, crops)
        restored = self.join(self.read(crops, tone, num_inference_steps=0), 0.0, tone).picture
        found = place_aligned(self.finder(), restored)
        flat = align.transform_points(found.mesh[..., :2], to_photo)
        deep = found.mesh[..., 2:] * align.scale_of(to_photo)[:, None, None]
        moved = np.linalg.norm(five_points(found.mesh) - MEAN_POINTS * CROP, axis=2).mean(1) / CROP
        presence = np.where(moved < ASTRAY, found.presence, 0).astype(np.float32)
        return np.concatenate([flat, deep], 2).astype(np.float32), presence

    def crop(self, photo: Photo, faces: Faces) -> tuple[Tensor, np.ndarray]:
        """Crops (N,3,512,512) in [0,1], aligned for the restorer, and their crop-to-photo transforms (N,2,3)."""
        if faces.frames is None and getattr(self.restorer, "template", "ffhq") == "facexlib":
            to_photo = align.facexlib_transform(faces.mesh, CROP)
        else:
            to_photo = faces.crops(CROP)
        return align.warp(photo.pixels, to_photo, CROP).clamp(0, 1), to_photo

    @torch.no_grad()
    def read(
        self,
        crops: Tensor,
        tone: Tone | None = None,
        num_inference_steps: int = 4,
        generator: torch.Generator | None = None,
        change: Callable[[Restored, Cleaned], Restored] = lambda parts, cleaned: parts,
    ) -> Reading:
        """All that the networks say of aligned crops.

        Args:
            crops: (N,3,512,512) float32 in [0,1].
            tone: of a monochrome photo, whose luma alone is read.
            num_inference_steps: see `__call__`, like `generator`, which is drawn from face by face.
            generator: see above.
            change: what was read of each face to what is drawn of it.
        """
        if not len(crops):
            nothing = crops[:, :1]
            return Reading(crops, Cleaned(crops, nothing), crops, nothing, nothing, tone)
        if tone is not None:
            crops = luma(crops).expand(-1, 3, -1, -1)
        found = [self.read_face(crop, num_inference_steps, generator, change) for crop in crops.split(1)]
        estimate, certainty, prior, skin, hair = (torch.cat(parts) for parts in zip(*found, strict=True))
        if tone is not None:
            estimate, prior = (luma(x).expand(-1, 3, -1, -1) for x in (estimate, prior))
        return Reading(crops, Cleaned(estimate, certainty), prior, skin, hair, tone)

    def read_face(
        self,
        crop: Tensor,
        steps: int,
        generator: torch.Generator | None,
        change: Callable[[Restored, Cleaned], Restored],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """`read` of one crop (1,3,512,512): estimate, certainty, prior, skin and hair.

        One at a time, so that no face hangs on who is beside it, to the last digit.
        """
        given = crop.to(self._execution_device, self.cleaner.dtype).contiguous(memory_format=torch.channels_last)
        with quick(self._execution_device, self.cleaner.dtype):
            cleaned = self.cleaner(given)
        if not self.leads:
            unknown = crop.new_zeros(1, 1, 1, 1)
            return cleaned.estimate.cpu(), cleaned.certainty.cpu(), crop, unknown, unknown
        small = images.resize(crop, self.restorer.config.size, self.restorer.config.size)
        small = small.to(self._execution_device, self.restorer.dtype).contiguous(memory_format=torch.channels_last)
        parts = self.restorer(small)
        if steps:
            size = (1, self.flow.config.components, *parts.features.shape[2:])
            noise = CALM * checks.normal(size, generator or torch.Generator().manual_seed(0))
            with quick(self._execution_device, self.flow.dtype):
                parts = replace(parts, features=self.flow.sample(small, parts.features, noise, steps))
        parts = change(as_certain(parts, cleaned.certainty), cleaned)
        cells = self.parts(parts.features.to(self.parts.dtype)).float().cpu()
        prior = draw_prior(self.generator, self.head, parts, self.restorer.dictionary).float().cpu() / 2 + 0.5
        if prior.shape[2] != CROP:
            prior = images.resize(prior, CROP, CROP)
        skin, hair = (cells[:, [PARTS.index(name)]] for name in ("skin", "hair"))
        return cleaned.estimate.cpu(), cleaned.certainty.cpu(), without_lattice(prior), skin, hair

    def join(
        self,
        reading: Reading,
        fidelity: float | Tensor = 0.5,
        tone: Tone | None = None,
        colorize: bool = False,
    ) -> Joined:
        """Faces (N,3,512,512) in [0,1] out of what was read.

        No network of ours runs again, so that `fidelity` may be tried out; a published one draws here.

        Args:
            reading: see `read`.
            fidelity: see `__call__`; a number, or (N,) one per face.
            tone: `tone_curve` of a monochrome photo; the result then has exactly this tone.
            colorize: a monochrome photo gets the prior's colours instead.
        """
        if not len(reading.crops):
            return Joined(reading.crops, reading.crops[:, :1], reading.crops[:, :1])
        estimate = reading.cleaned.estimate
        if not self.leads:
            return self.drawn(reading, torch.as_tensor(fidelity).expand(len(estimate)), tone, colorize)
        certainty = as_sharp_as_it_is(reading.cleaned.certainty)
        made = join(estimate, certainty, match_tone(reading.prior, estimate), fidelity)
        picture = toned(made.picture, reading.prior, reading.crops, tone, colorize)
        return Joined(picture, made.invented, made.kept)

    @torch.no_grad()
    def drawn(self, reading: Reading, fidelity: Tensor, tone: Tone | None, colorize: bool) -> Joined:
        """`join` by a published restorer: all of the face is drawn."""
        where = self._execution_device, self.restorer.dtype
        given = reading.crops.to(*where), fidelity.to(*where)
        pairs = zip(*(x.split(1) for x in given), strict=True)
        faces = torch.cat([self.restorer.restore(crop, share).cpu() for crop, share in pairs]).float()
        picture = toned(match_tone(faces, reading.crops), faces, reading.crops, tone, colorize)
        whole = torch.ones_like(picture[:, :1])
        return Joined(picture, whole, torch.zeros_like(whole))

    def restore_crops(
        self, crops: Tensor, fidelity: float | Tensor = 0.5, tone: Tone | None = None, colorize: bool = False
    ) -> Tensor:
        """`read` and `join`: aligned crops (N,3,512,512) in [0,1] to restored ones."""
        return self.join(self.read(crops, tone), fidelity, tone, colorize).picture

    def masks(self, reading: Reading, to_photo: np.ndarray, faces: Faces, region: str) -> Tensor:
        """Where restored crops take the place of the photo, (N,1,512,512) in [0,1]; see `__call__` for `region`."""
        if region == "face" or not self.leads:
            return paste.soft_mask(faces.mesh, to_photo, CROP, reading.hair)
        return paste.soft_mask(faces.mesh, to_photo, CROP, (reading.hair + reading.skin).clamp(0, 1), paste.HEAD_REACH)

    def clean(self, photo: Photo, tone: Tone | None = None) -> Photo:
        """A photo without the noise, blocks and blur that can be taken away without inventing anything."""
        pixels = photo.pixels if tone is None else luma(photo.pixels[None])[0].expand(3, -1, -1)
        cleaned = backgrounds.clean(pixels, self.cleaner, self.follow_tiles())
        return photo.with_pixels(with_tone(cleaned[None], tone)[0].clamp(0, 1))

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
        num_inference_steps: int = 4,
        rng: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Joined:
        """One crop (1,3,512,512) restored, and drawn nearer to a person (128,): see `studio.latents.resemble`."""
        side, chip = self.restorer.config.size, self.identity.config.size
        to_chip = align.dlib_transform(align.into_crop(face.mesh, to_photo, CROP) * side, chip)
        encoder = IdentityEncoder(self.identity)
        with torch.inference_mode(False):  # copies made in the caller's inference mode cannot have gradients
            generator, head = quick_copy(self.generator), quick_copy(self.head)
            if self._space is None:
                self._space = gaussian_space(self.generator)
            space = self._space.to(self.generator.device)

        def nearer(parts: Restored, cleaned: Cleaned) -> Restored:
            estimate, certainty = (x.detach().clone() for x in (cleaned.estimate, cleaned.certainty))
            estimate = images.resize(estimate, side, side)

            def draw(moved: Restored) -> Tensor:
                prior = draw_prior(generator, head, moved, self.restorer.dictionary).float() / 2 + 0.5
                return images.resize(without_lattice(prior), side, side)

            def embed(prior: Tensor) -> Tensor:
                prior = match_tone(prior, estimate)
                shown = join(estimate, certainty[:, 1:], prior, fidelity).picture  # the finest octave is not there
                shown = shown if tone is None else luma(shown).expand(-1, 3, -1, -1)
                return encoder.embed_chips(align.warp(shown, to_chip, chip).clamp(0, 1))

            spread = self.restorer.latent_std.float()
            return resemble(parts, person, draw, embed, generator, space, spread, steps, on_step).parts

        reading = self.read(crop, tone, num_inference_steps, rng, nearer)
        return self.join(reading, fidelity, tone, colorize)

    def follower(self, steps: int, told: StepEnd) -> OnStep:
        """What `guide` calls after each step: moves a progress bar, and calls the user's function."""
        bar = self.progress_bar(total=steps)

        def on_step(step: int, distance: Tensor, latents: Tensor) -> Tensor | None:
            answer: dict[str, Tensor] = {}
            if step:
                bar.update()
                answer = told(step - 1, step - 1, latents=latents, identity_distance=distance)
            if step == steps:
                bar.close()
            return replaced(answer)

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
        chips = align.warp(crops, to_chip, 150).clamp(0, 1).to(self._execution_device, self.identity.dtype)
        return IdentityEncoder(self.identity).embed_chips(chips).float().cpu()

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
            if isinstance(one, Tensor | np.ndarray) and one.ndim < 3:
                vectors.append(check_embedding(one, self.identity.config.embedding_dim))
                names.append("an identity vector")
                continue
            photo = images.load(one)
            faces = self.find(photo)
            if not len(faces):
                raise InputError(f"the reference photo must show a face, {photo.name} shows none: cut it closer")
            crops, to_photo = self.crop(photo, faces.largest)
            vectors.append(self.embed(crops, to_photo, faces.largest)[0])
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
        made: Joined,
        originals: Tensor,
        to_photo: np.ndarray,
        masks: Tensor,
        scale: float = 1,
        background: str | backgrounds.Drawer = "lanczos",
    ) -> tuple[Photo, Tensor]:
        """Put crops back into the photo, enlarged `scale` times; outside the masks as `studio.background.draw` does it.

        Faces of more than 512 px keep the photo's own finest detail wherever the crop kept the estimate's.

        Returns:
            The photo, and (H,W) in [0,1], which share of the detail is the prior's.
        """
        pixels = backgrounds.draw(photo.pixels, scale, background)
        invented = pixels.new_zeros(1, *pixels.shape[1:])
        if len(originals):
            height, width = pixels.shape[1:]
            larger = np.array([[width / photo.width], [height / photo.height]], np.float32)
            place = to_photo * larger
            kept = made.kept * torch.from_numpy(align.scale_of(to_photo) > 1).view(-1, 1, 1, 1)
            pixels = paste.blend(pixels, made.picture, masks, place, originals, kept)
            invented = paste.blend(invented, made.invented, masks, place)
        return photo.with_pixels(pixels.clamp(0, 1)), invented[0].clamp(0, 1)


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
    settled: np.ndarray  # of all faces
    left: np.ndarray  # there was nothing to restore
    drawn: list[float]  # share of the detail that is the prior's
    region: str


def check_drawing(region: str, num_inference_steps: int) -> None:
    """Refuse what `__call__` cannot draw."""
    if region not in REGIONS:
        raise InputError(f"region must be one of {', '.join(REGIONS)}, got {region!r}: choose one of them")
    steps = num_inference_steps
    if not isinstance(steps, int) or isinstance(steps, bool) or not 0 <= steps <= MOST_STEPS:
        raise InputError(f"num_inference_steps must be from 0 to {MOST_STEPS}, got {steps}: 4 are usual")


def inside(values: Tensor, masks: Tensor) -> list[float]:
    """Means of maps (N,1,S,S) over their masks (N,1,S,S)."""
    return ((values * masks).sum((1, 2, 3)) / masks.sum((1, 2, 3)).clamp_min(1e-6)).tolist()


def nothing_to_do(crops: Tensor, joined: Joined, masks: Tensor) -> np.ndarray:
    """Which faces (N,) are sharp and clean: next to nothing of them was drawn, and next to nothing changed."""
    drawn = np.array(inside(joined.invented, masks))
    changed = np.array(inside((joined.picture - crops).abs().mean(1, keepdim=True), masks))
    return (drawn < UNCHANGED_INVENTED) & (changed < UNCHANGED_DIFFERENCE)


def surroundings(certainty: Tensor, masks: Tensor, background: str | backgrounds.Drawer) -> str:
    """The region that "auto" stands for: "photo" where what lies around the faces is damaged, too.

    "head" where the `background` is drawn by a network, which cleans it.
    """
    if background not in ("none", "lanczos"):
        return "head"
    around = 1 - masks
    sure = sized(certainty[:, :2].mean(1, keepdim=True), masks.shape[2])
    return "photo" if float((sure * around).sum() / around.sum().clamp_min(1e-6)) < SURE_AROUND else "head"


def share_of(strengths: np.ndarray) -> Tensor:
    """Strengths (N,) as (N,1,1,1)."""
    return torch.from_numpy(np.asarray(strengths, np.float32)).view(-1, 1, 1, 1)


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
    checks.output_type(output_type)


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
    return next((scale for scale in fits if largest * scale >= NEARLY), fits[-1])


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


def toned(picture: Tensor, drawn: Tensor, crops: Tensor, tone: Tone | None, colorize: bool) -> Tensor:
    """Faces (N,3,S,S) in the photo's tint or its one tone, in [0,1].

    Args:
        picture: the faces, as bright as the photo.
        drawn: the network's own, whose colours those of a monochrome photo get that is to be colorized.
        crops: as they were read.
        tone: of a monochrome photo.
        colorize: see above.
    """
    if tone is None:
        return with_tint(picture, crops).clamp(0, 1)
    return (drawn + luma(picture) - luma(drawn) if colorize else with_tone(picture, tone)).clamp(0, 1)


def mix(crops: Tensor, restored: Tensor, strengths: np.ndarray) -> Tensor:
    """Strength 0 gives the crop, 1 the restored crop."""
    return crops + share_of(strengths) * (restored - crops)


def measure(wanted: Tensor | None, found: Tensor) -> list[float | None]:
    """Distances of descriptors to the reference's, or Nones."""
    if wanted is None:
        return [None] * len(found)
    return (found - wanted).norm(dim=1).tolist()


def fidelity_of_each(fidelity: float | Sequence[float], count: int) -> list[float]:
    """The fidelity of every photo, see `RestorePipeline.__call__`."""
    if not isinstance(fidelity, list | tuple | np.ndarray | Tensor):
        return [fidelity] * count
    values = list(fidelity) if isinstance(fidelity, list | tuple) else np.asarray(fidelity).tolist()
    if not isinstance(values, list) or len(values) != count:
        raise InputError(f"fidelity must be one number or one for each of {count} photos, got {fidelity}: pass {count}")
    return values


def boxes_of_each(
    boxes: Boxes | Sequence[Boxes] | None, image: Sequence[ImageLike], aligned: bool, listed: bool = True
) -> list[Boxes | None]:
    """The boxes of every photo, see `RestorePipeline.__call__`."""
    if not isinstance(aligned, bool):
        raise InputError(f"aligned must be True or False, got {aligned!r}: pass one of them")
    if aligned and boxes is not None:
        raise InputError("aligned and boxes can't be had both: an aligned picture is one face, leave the boxes out")
    if not listed:
        return [boxes]
    if boxes is None:
        return [None] * len(image)
    if len(boxes) != len(image):
        raise InputError(
            f"boxes must be one list for each of {len(image)} photos, got {len(boxes)}: give empty ones too"
        )
    return list(boxes)


def why_noted(photo: Photo, faces: Faces, i: int, settled: bool) -> str:
    """What is unusual about how face i was found, or an empty string."""
    notes = []
    x0, y0, x1, y1 = faces.boxes[i].tolist()
    shown = max(min(x1, photo.width) - max(x0, 0), 0) * max(min(y1, photo.height) - max(y0, 0), 0)
    if shown < (1 - CUT) * (x1 - x0) * (y1 - y0):
        notes.append("cut by the edge of the photo")
    if settled:
        notes.append("little to be seen: aligned by a first restoration")
    elif faces.mesh_scores[i] < MIN_PRESENCE:
        how = "what the finder sees" if not faces.given[i] else "its box" if faces.frames is None else "the picture"
        notes.append(f"the mesh sees no face: aligned by {how}")
    return ", ".join(notes)


def with_mesh(faces: Faces, mesh: np.ndarray, presence: np.ndarray) -> Faces:
    """The faces with other meshes (N,468,3), whose boxes and pose follow, and other presence scores (N,)."""
    boxes = np.concatenate([mesh[..., :2].min(1), mesh[..., :2].max(1)], 1)
    return replace(faces, boxes=boxes, mesh=mesh, mesh_scores=presence, pose=pose_from_mesh(mesh))


def report(photo: Photo, faces: Faces, i: int, skipped: dict[int, str], details: Details) -> FaceReport:
    """The report of face i of a photo."""
    k = details.todo.index(i) if i in details.todo else None
    used = float(details.used[k]) if k is not None else 0.0
    asked = float(details.strengths[i])
    reason = skipped.get(i, "")
    if k is not None and details.left[k]:
        reason = "nothing to restore"
    elif k is not None and used < asked:
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
        note=why_noted(photo, faces, i, bool(details.settled[i])),
        region=details.region if used > 0 else "",
        invented=round(details.drawn[k] * used, 3) if k is not None else 0.0,
    )
