"""A still photograph that moves: the person of the photo makes the movements of another head."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from studio import checks, images, video, weights
from studio.base import StudioPipeline
from studio.callbacks import StepEnd
from studio.detect import Together
from studio.device import quick
from studio.errors import InputError
from studio.faces import align, paste
from studio.faces.select import LEAST, one_face
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.images import Photo
from studio.motion import stage
from studio.motion.expression import eyes, opening
from studio.motion.head import HeadPoses, angles, head_poses, rotations
from studio.motion.motion import Motion
from studio.motion.retarget import REGIONS, retarget
from studio.motion.stage import Stage
from studio.motion.track import track
from studio.networks.depth import DepthNet
from studio.networks.detector import FaceDetector
from studio.networks.finder import FinderNet
from studio.networks.identity import IdentityNet
from studio.networks.iris import IrisNet
from studio.networks.mesh import FaceMesh
from studio.networks.reenactor import Reenactor
from studio.tone import tone_curve

SIZES = (256, 512)
FURTHEST = (45.0, 30.0)  # degrees of yaw and pitch; beyond them a still shows too little of the head
# Sides of the crop that a head may be shifted, and how much it may come nearer or go away, so that the crop holds it.
ASIDE, NEARER = 0.08, 1.15
LARGEST = 1280  # px, long side of the whole photograph as a video
EVERY = 5  # frames between two that are measured
PRESENT = 0.5
NOTE = "synthetic: a photograph that was made to move. The person never moved so"

ImageLike = str | Path | bytes | Image.Image | np.ndarray | Tensor | Photo
Driving = str | Path | Motion | Iterable[Any]
FrameCallback = Callable[["ReenactPipeline", int, int, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass
class FrameReport:
    """What is known of one frame.

    Attributes:
        time: seconds.
        presence: how surely the driver's face was seen, in [0,1]; below 0.5 the last pose was held.
        asked: yaw, pitch and roll of the head, degrees.
        limited: the driver turned, or moved, further than a still can follow.
        got: the same angles, measured in the frame; None where the frame was not measured.
        identity_distance: to the photo, by dlib's network; None where the frame was not measured.
        mouth, eyes: how far they are open (`studio.motion.expression`): asked for, and (where measured) got.
    """

    time: float
    presence: float
    asked: list[float]
    limited: bool
    got: list[float] | None
    identity_distance: float | None
    mouth: list[float | None]
    eyes: list[float | None]


@dataclass
class ReenactReport:
    """What was done.

    Attributes:
        consent: it was stated that the person agreed.
        face, faces_found: which face of the photo moves, 0 is the largest; of how many.
        reference: the driver's frame that stands for the photo's own pose.
        size: (height, width) of the frames in px.
        frames: one `FrameReport` for each that was drawn so far.
        notes: of the file that was written.
        note: what the video is.
    """

    consent: bool
    face: int
    faces_found: int
    reference: int
    size: tuple[int, int]
    frames: list[FrameReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    note: str = NOTE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with a summary."""
        return asdict(self) | {"summary": self.summary()}

    def summary(self) -> dict[str, Any]:
        """Frames in all, without a driver's face, and limited; means and largest of what was measured."""
        measured = [frame for frame in self.frames if frame.identity_distance is not None]
        distances = [frame.identity_distance for frame in measured]
        turns = [np.abs(np.subtract(frame.got, frame.asked)[:2]).max() for frame in measured]
        return {
            "frames": len(self.frames),
            "held": sum(frame.presence < PRESENT for frame in self.frames),
            "limited": sum(frame.limited for frame in self.frames),
            "measured": len(measured),
            "mean_identity_distance": round(float(np.mean(distances)), 3) if measured else None,
            "largest_identity_distance": round(float(np.max(distances)), 3) if measured else None,
            "mean_pose_error": round(float(np.mean(turns)), 2) if measured else None,
        }


@dataclass
class ReenactOutput(BaseOutput):
    """Result of `ReenactPipeline`.

    Attributes:
        frames: as `output_type` says; with "frames" an iterator that draws them as they are taken; with `output` an
            empty list.
        report: a `ReenactReport`; with "frames" it grows as frames are taken.
        motion: the driver's motion, for another call.
        depth: (1,h,w) float32, z of the aligned photo in shares of its side, away from the camera.
        path: the file that was written, or None.
    """

    frames: list[Image.Image] | list[np.ndarray] | list[Tensor] | Iterator[Tensor]
    report: ReenactReport
    motion: Motion
    depth: Tensor
    path: Path | None


@dataclass(frozen=True)
class Subject:
    """The face of a photo that is to move.

    Attributes:
        photo: (3,H,W) RGB in [0,1], shrunk to `LARGEST`.
        stage: its face, ready to move.
        affine: (1,2,3), the stage's crop to the photo.
        person: (E,) identity vector.
        face, faces_found: which one of how many.
    """

    photo: Tensor
    stage: Stage
    affine: np.ndarray
    person: Tensor
    face: int
    faces_found: int


class ReenactPipeline(StudioPipeline):
    """Lifts a face by its mesh and a depth network, moves it as a driver's head moves, and mends what that uncovers.

    After DaGAN (Hong et al., arXiv 2203.06605): depth says how pixels move and what hides what; a network with
    attention from depth to appearance draws what the photo does not show. What it does show is warped, not drawn.
    """

    known_names: ClassVar[tuple[str, ...]] = ("reenact",)
    model_cpu_offload_seq = "depth->iris"
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["reenactor", *StudioPipeline._exclude_from_cpu_offload]
    _callback_tensor_inputs: ClassVar[list[str]] = ["frame"]

    def __init__(
        self,
        reenactor: Reenactor,
        depth: DepthNet,
        detector: FinderNet,
        full_range: FaceDetector,
        back: FaceDetector,
        mesh: FaceMesh,
        iris: IrisNet,
        identity: IdentityNet,
    ) -> None:
        super().__init__()
        self.register_modules(
            reenactor=reenactor,
            depth=depth,
            detector=detector,
            full_range=full_range,
            back=back,
            mesh=mesh,
            iris=iris,
            identity=identity,
        )
        for network in (reenactor, depth, detector, full_range, back, mesh):
            network.to(memory_format=torch.channels_last)

    @classmethod
    def _components(cls, name: str) -> dict[str, Any]:
        parts = {"reenactor": "reenactor", "depth": "depth", "iris": "iris", "identity": "identity"}
        return weights.components(**parts)

    @torch.no_grad()
    def __call__(
        self,
        source: ImageLike,
        driving: Driving,
        *,
        consent: bool = False,
        relative: bool = True,
        region: str = "all",
        expression_scale: float = 1.0,
        stitch: bool = True,
        size: int = 256,
        face: int | None = None,
        driving_face: int | None = None,
        start: float | None = None,
        end: float | None = None,
        fps: float | None = None,
        batch_size: int = 4,
        measure_every: int = EVERY,
        output: str | Path | None = None,
        audio: str | Path | None = "driving",
        overwrite: bool = False,
        callback_on_step_end: FrameCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ReenactOutput | Any:
        """Move the face of one photo.

        Args:
            source: a path, bytes, PIL image, (H,W,3) array, (3,H,W) tensor in [0,1] or `Photo`.
            driving: whose movements: a video file, a file of `studio motion`, a `Motion`, or frames (anything
                `images.load` takes) at `fps`, 25 if that is None.
            consent: must be True: the person of the photo agreed, or is long dead.
            relative: add the driver's changes since the frame that is most like the photo; False takes the turn of the
                driver's head as it is.
            region: "all"; "pose", the turn of the head alone; "mouth" or "eyes" alone, the head stays.
            expression_scale: of the changes of expression, 0 to 2.
            stitch: put the moving head back into the whole photo (at most 1280 px); False gives the aligned face.
            size: 256 or 512 px, side of the aligned face that is moved.
            face: index of the face in the photo, 0 is the largest; None asks for a photo of one face.
            driving_face: which of several in the video, as one reads; None is the largest.
            start: second of the driver with which to begin.
            end: second before which to end; None takes it whole.
            fps: frames a second; None takes the video's own. A `Motion` has its own, and its own face.
            batch_size: frames that are drawn at once.
            measure_every: pose and identity of every such frame are measured in the result; 0 measures none.
            output: an .mp4, .webm or .gif to write; frames are then not kept.
            audio: "driving" lays the driving video's sound under `output`, None none, a path that file's, which runs
                beside the driver from second 0 on.
            overwrite: replace `output` if it is there.
            callback_on_step_end: called with (pipeline, frame, frame, {"frame": (3,H,W)}) after each frame; "frame" of
                the dict it returns, if any, replaces that one, and what it raises ends the call.
            callback_on_step_end_tensor_inputs: names of the tensors it is given; None gives all.
            output_type: "pil", "np" ((H,W,3) float32 in [0,1]), "pt" ((3,H,W) float32 in [0,1]), or "frames", an
                iterator of the last that holds no more than `batch_size` of them.
            return_dict: False returns a tuple of the output's fields.

        Returns:
            `ReenactOutput`.

        Raises:
            InputError: an argument outside its range, no consent, several faces and no choice, or too small a face.
            NoFaceError: no face in the photo, or in the video.
            ImageError: a photo or video that cannot be read, or a file that cannot be written.

        Example:
            >>> from studio import ReenactPipeline
            >>> from studio.motion.synthesis import synthesise
            >>> pipeline = ReenactPipeline.from_pretrained("reenact")
            >>> motion = synthesise(seconds=2, yaw=(0, 20, 0), talk="hello there")
            >>> pipeline("examples/portrait.jpg", motion, consent=True, output="talking.mp4").report.summary()
        """
        checks.runs(self)
        checks.true_or_false(relative=relative, stitch=stitch)
        check_arguments(region, expression_scale, size, face, batch_size, measure_every, output_type)
        check_consent(consent)
        told = StepEnd(self, callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        check_stretch(driving, driving_face, start, end, fps)
        check_output(output, None if audio == "driving" else audio, overwrite)
        began = time.monotonic()
        subject = self.prepare(source, face, size)  # 1. read, find, align, depth
        motion = self.motion(driving, driving_face, start, end, fps)  # 2. follow the driver
        moved, gaze, reference = retarget(  # 3. onto this face
            subject.stage.mesh, motion, relative=relative, region=region, expression_scale=expression_scale
        )
        moved, limited = within_reach(moved, subject.stage.mesh)
        shown = subject.photo.shape[1:] if stitch else (size, size)
        report = ReenactReport(consent, subject.face, subject.faces_found, reference, tuple(shown))
        frames = self.frames(
            subject, motion, moved, limited, gaze, report, stitch, batch_size, measure_every
        )  # 4. draw
        frames = self.told(frames, len(motion), told, report, began)
        path = None
        if output is not None:  # 5. write, or collect
            sound = audio if audio != "driving" else driving if is_video(driving) else None
            path = self.write(frames, motion, Path(output), shown, sound, overwrite, report)
            frames = iter(())
        kept = frames if output_type == "frames" else [images.as_type(frame, output_type) for frame in frames]
        result = ReenactOutput(kept, report, motion, subject.stage.depth[0], path)
        return result if return_dict else result.to_tuple()

    # ---- the steps, each usable alone

    @torch.no_grad()
    def prepare(self, source: ImageLike, face: int | None = None, size: int = 256) -> Subject:
        """The face of a photo that is to move; takes about a second, once for all motions.

        Raises:
            NoFaceError: the photo shows none.
            InputError: several and no choice, an index that there is not, or too few pixels.
        """
        photo = images.load(source)
        pixels = photo.pixels
        if max(pixels.shape[1:]) > LARGEST:
            scale = LARGEST / max(pixels.shape[1:])
            pixels = images.resize(pixels[None], *(round(side * scale) for side in pixels.shape[1:]))[0].clamp(0, 1)
        faces = self.finder()(pixels)
        chosen = one_face(faces, face, photo.name, LEAST["move"])
        one = faces[[chosen]]
        person = self.encoder().embed(pixels.to(self._execution_device, self.identity.dtype), one.mesh)[0].float().cpu()
        tone = tone_curve(pixels, align.warp(pixels, align.ffhq_transform(one.mesh, 256), 256).clamp(0, 1))
        with quick(self._execution_device, self.reenactor.dtype):
            made, affine = stage.make_stage(pixels, one.mesh, size, tone, self.depth, self.reenactor)
        return Subject(pixels, made, affine, person, chosen, len(faces))

    @torch.no_grad()
    def motion(
        self,
        driving: Driving,
        face: int | None = None,
        start: float | None = None,
        end: float | None = None,
        fps: float | None = None,
    ) -> Motion:
        """The motion of a driver: what is one already, read from a file, or followed through a video.

        Raises:
            InputError: nothing that can drive.
            NoFaceError: no frame shows a face.
        """
        check_stretch(driving, face, start, end, fps)
        if isinstance(driving, str | Path) and not is_video(driving):
            driving = Motion.load(driving)
        if isinstance(driving, Motion):
            return stretch(driving, start, end)
        if is_video(driving):
            read = video.read(driving, start=start, end=end, fps=fps, allow_still=True)
            timed: Iterable[tuple[float, Tensor]] = ((frame.time, frame.pixels) for frame in read)
        elif isinstance(driving, Iterable):
            numbered = ((i / (fps or 25.0), frame) for i, frame in enumerate(driving))
            timed = ((at, images.load(frame).pixels) for at, frame in numbered if within(at, start, end))
        else:
            raise InputError(
                f"driving must be a video, a motion or frames, got {type(driving).__name__}: pass a path, say"
            )
        return track(timed, self.finder(), face=face, iris=self.iris)

    def frames(
        self,
        subject: Subject,
        motion: Motion,
        moved: np.ndarray,
        limited: np.ndarray,
        gaze: np.ndarray,
        report: ReenactReport,
        stitch: bool = True,
        batch_size: int = 4,
        measure_every: int = EVERY,
    ) -> Iterator[Tensor]:
        """Draws frames (3,H,W) RGB in [0,1] one after another, and says of each what is known of it.

        Args:
            subject: of `prepare`.
            motion: the driver's, T frames.
            moved: (T,468,3) meshes in shares of the stage's side.
            limited: (T,) bool.
            gaze: (T,2), see `retarget`.
            report: gets a row for each frame.
            stitch: into the photo, or the aligned face alone.
            batch_size: frames drawn at once.
            measure_every: see `__call__`.
        """
        for first in range(0, len(motion), batch_size):
            part = list(range(first, min(first + batch_size, len(motion))))
            drawn = None  # the batch before goes first
            with torch.no_grad(), quick(self._execution_device, self.reenactor.dtype):
                drawn = stage.draw(subject.stage, subject.stage.still.flow(moved[part], gaze[part]), self.reenactor)
            for k, i in enumerate(part):
                measured = bool(measure_every) and i % measure_every == 0
                report.frames.append(self.measure(subject, motion, moved, limited, i, drawn[k], measured))
                yield self.stitched(subject, drawn[k]) if stitch else drawn[k].clone()

    def stitched(self, subject: Subject, drawn: Tensor) -> Tensor:
        """A moved face (3,S,S) in the photo (3,H,W), which keeps its bits where nothing moves."""
        return paste.blend(subject.photo, drawn[None], subject.stage.mask, subject.affine).clamp(0, 1)

    @torch.no_grad()
    def measure(
        self,
        subject: Subject,
        motion: Motion,
        moved: np.ndarray,
        limited: np.ndarray,
        index: int,
        drawn: Tensor,
        look: bool,
    ) -> FrameReport:
        """What is known of frame `index`, whose face is `drawn` (3,S,S)."""
        wanted = moved[index : index + 1]
        asked = angles(head_poses(wanted).rotation)[0]
        got, distance, seen = None, None, None
        if look:
            seen = self.finder().follow(drawn, wanted[0] * drawn.shape[-1])[0][None]
            got = [round(float(angle), 2) for angle in angles(head_poses(seen).rotation)[0]]
            person = self.encoder().embed(drawn.to(self._execution_device, self.identity.dtype), seen)[0].float().cpu()
            distance = round(float((person - subject.person).norm()), 4)
        openings = [
            [None if mesh is None else round(float(opened(mesh)[0]), 4) for mesh in (wanted, seen)]
            for opened in (opening, eyes)
        ]
        return FrameReport(
            time=round(float(motion.times[index]), 4),
            presence=round(float(motion.presence[index]), 3),
            asked=[round(float(angle), 2) for angle in asked],
            limited=bool(limited[index]),
            got=got,
            identity_distance=distance,
            mouth=openings[0],
            eyes=openings[1],
        )

    def told(
        self, frames: Iterator[Tensor], total: int, on_step: StepEnd, report: ReenactReport, began: float
    ) -> Iterator[Tensor]:
        """The frames, with a progress bar and the callback."""
        with self.progress_bar(total=total) as bar:
            for index, frame in enumerate(frames):
                bar.update()
                answer = on_step(index, index, frame=frame)
                frame = answer["frame"].clamp(0, 1) if answer else frame
                report.seconds = round(time.monotonic() - began, 2)
                yield frame

    def write(
        self,
        frames: Iterator[Tensor],
        motion: Motion,
        path: Path,
        size: Sequence[int],
        sound: str | Path | None,
        overwrite: bool,
        report: ReenactReport,
    ) -> Path:
        """Writes frames of a motion to a video file as they are drawn, above the sound of a file on the same clock."""
        given = {} if sound is None else {"audio_from": sound, "audio_start": float(motion.times[0])}
        with video.Writer(path, tuple(size), motion.fps, overwrite=overwrite, **given) as writer:
            for moment, frame in zip(motion.times, frames, strict=True):
                writer.write(frame, float(moment))
        report.notes += writer.notes
        return path

    # ---- what the steps use

    def finder(self) -> FaceFinder:
        """Finds faces with this pipeline's networks."""
        return FaceFinder(Together(self.detector, self.full_range, self.back), self.mesh)

    def encoder(self) -> IdentityEncoder:
        """Embeds faces with this pipeline's network."""
        return IdentityEncoder(self.identity)


# ---- plain functions of the steps


def is_video(driving: Any) -> bool:
    """Whether it is the name of a file other than a motion."""
    return isinstance(driving, str | Path) and Path(driving).suffix != ".safetensors"


def within(seconds: float, start: float | None, end: float | None) -> bool:
    """Whether a moment lies in a stretch that is open at its end."""
    return (start or 0.0) <= seconds and (end is None or seconds < end)


def stretch(motion: Motion, start: float | None, end: float | None) -> Motion:
    """The frames of a motion between two seconds of its clock.

    Raises:
        InputError: there are none.
    """
    kept = np.array([within(at, start, end) for at in motion.times])
    if not kept.any():
        raise InputError(
            f"the motion must have frames from start={start} to end={end}, it has them from {motion.times[0]:.2f} s to "
            f"{motion.times[-1]:.2f} s: choose another stretch"
        )
    return motion if kept.all() else motion[kept]


def within_reach(meshes: np.ndarray, still: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Meshes (T,468,3) no further turned, shifted and zoomed than a still can follow, and (T,) which were changed.

    Args:
        meshes: in shares of the crop's side.
        still: (468,3) in the same unit, from which shift and zoom are counted.
    """
    poses, own = head_poses(meshes), head_poses(still[None])
    turn = angles(poses.rotation)
    kept = turn.copy()
    for axis, most in enumerate(FURTHEST):
        kept[:, axis] = np.clip(turn[:, axis], -most, most)
    zoom = np.clip(poses.scale / own.scale, 1 / NEARER, NEARER)
    place = own.translation + np.clip(poses.translation - own.translation, -ASIDE, ASIDE)
    scale = (own.scale * zoom).astype(np.float32)
    moved = np.abs(place - poses.translation).max(1) > 1e-6
    limited = (kept != turn).any(1) | moved | (np.abs(scale / poses.scale - 1) > 1e-6)
    if not limited.any():
        return meshes, limited
    back = HeadPoses(scale, np.where(limited[:, None, None], rotations(kept), poses.rotation), place.astype(np.float32))
    return np.where(limited[:, None, None], back.place(poses.remove(meshes)), meshes), limited


def check_consent(consent: bool) -> None:
    """Refuse to move a person who was not asked."""
    if consent is not True:
        raise InputError(
            "moving a person's photo needs their consent, and it was not stated: ask, then pass consent=True "
            "(--consent); of somebody long dead, ask yourself what they would have said"
        )


def check_stretch(
    driving: Driving, face: int | None, start: float | None, end: float | None, fps: float | None
) -> None:
    """Refuse a stretch that is none, and what a motion does not leave open."""
    least = start or 0.0
    for name, value, fits, most in (
        ("start", start, lambda x: 0 <= x < float("inf"), "0 or more seconds"),
        ("end", end, lambda x: least < x < float("inf"), f"after start ({least} s)"),
        ("fps", fps, lambda x: 0 < x <= 1000, "above 0 and at most 1000"),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not fits(value)):
            raise InputError(f"{name} must be {most}, got {value!r}: leave it out to take the driver's own")
    if face is not None and not (type(face) is int and face >= 0):
        raise InputError(f"driving_face must be an index from 0 on, got {face!r}: number faces as one reads")
    made = isinstance(driving, Motion) or (isinstance(driving, str | Path) and not is_video(driving))
    for name, value in (("driving_face", face), ("fps", fps)):
        if made and value is not None:
            raise InputError(
                f"{name} must be left out with a motion, got {value!r}: a motion has one face and its times"
            )


def check_output(output: str | Path | None, sound: str | Path | None, overwrite: bool) -> None:
    """Refuse a target that cannot be, before anything is drawn for it."""
    if output is not None and not isinstance(output, str | Path):
        raise InputError(f"output must be the name of a video to write, got {type(output).__name__}: pass a path")
    if output is not None:
        video.Writer(output, (2, 2), 25, overwrite=overwrite, audio_from=sound)
    elif sound is not None or overwrite:
        raise InputError("audio and overwrite must come with output, got none: name the video to be written")


def check_arguments(
    region: str,
    expression_scale: float,
    size: int,
    face: int | None,
    batch_size: int,
    measure_every: int,
    output_type: str,
) -> None:
    """Refuse what `__call__` cannot do."""
    for name, value, known in (
        ("region", region, REGIONS),
        ("size", size, SIZES),
        ("output_type", output_type, ("pil", "np", "pt", "frames")),
    ):
        if isinstance(value, bool) or value not in known:
            raise InputError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}: choose one of them")
    if isinstance(expression_scale, bool) or not (
        isinstance(expression_scale, int | float) and 0 <= expression_scale <= 2
    ):
        raise InputError(f"expression_scale must be from 0 to 2, got {expression_scale!r}: 1 is the driver's own")
    if face is not None and not (type(face) is int and face >= 0):
        raise InputError(f"face must be an index from 0 on, got {face!r}: 0 is the largest face")
    for name, value, least in (("batch_size", batch_size, 1), ("measure_every", measure_every, 0)):
        if not (type(value) is int and value >= least):
            raise InputError(f"{name} must be a whole number of {least} or more, got {value!r}: pass one")
