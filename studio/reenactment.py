"""From a photo and a driver to a video file, for the command and the app: all is tried first, then followed and drawn.

`ReenactPipeline` draws; here are the steps around it that a person waits for and may want to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from studio import synthetic_video, video
from studio.errors import InputError
from studio.images import Photo
from studio.motion.motion import Motion
from studio.motion.track import track
from studio.provenance import Operation

if TYPE_CHECKING:
    from pipelines.reenact import ReenactOutput, ReenactPipeline

DESCRIPTION = "a photograph that was made to move, with the stated consent"


def expected_frames(path: str | Path, start: float | None, end: float | None, fps: float | None) -> int | None:
    """About how many frames of a driving video there are to follow; None where the file does not say.

    Args:
        path: the video.
        start: second at which to begin.
        end: second at which to end.
        fps: frames a second, None as they are.

    Raises:
        InputError: a number outside its range.
        ImageError: no video that can be read.
    """
    info = video.probe(path, allow_still=True)
    video.read(path, start=start, end=end, fps=fps, allow_still=True)  # checks the numbers, and reads nothing yet
    if info.still:
        return 1
    if info.duration is None and end is None:
        return None
    until = min(info.duration or float("inf"), end or float("inf"))
    if start is not None and start >= until:
        raise InputError(f"start must lie before the driving video's end at {until:.2f} s, got {start}: begin earlier")
    return max(round((until - (start or 0)) * (fps or info.fps)), 1)


def follow(
    pipeline: ReenactPipeline,
    path: str | Path,
    *,
    face: int | None = None,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    most: int | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> Motion:
    """The motion of a head in a video, as `ReenactPipeline.motion`, which says how far it is.

    Args:
        pipeline: whose networks follow.
        path: the video.
        face: which of several, as one reads; None is the largest.
        start: second at which to begin.
        end: second at which to end.
        fps: frames a second, None as they are.
        most: frames that may be followed; None any number.
        on_frame: told the index of each frame when it is done; what it raises ends the call.

    Raises:
        InputError: as `track`, or more frames than may be.
        NoFaceError: no frame shows a face.
        ImageError: the video is broken.
    """

    def frames() -> Iterator[tuple[float, Tensor]]:
        for index, frame in enumerate(video.read(path, start=start, end=end, fps=fps, allow_still=True)):
            check_length(index + 1, most)
            yield frame.time, frame.pixels

    def told(index: int, presence: float) -> None:
        if on_frame is not None:
            on_frame(index)

    with torch.no_grad():
        return track(frames(), pipeline.finder(), face=face, iris=pipeline.iris, on_frame=told)


def check_length(frames: int | None, most: int | None) -> None:
    """Refuse more frames than may be."""
    if frames is not None and most is not None and frames > most:
        raise InputError(f"at most {most} frames can be drawn here, got {frames} or more: choose a shorter stretch")


def try_writing(output: Path, fps: float, **settings: Any) -> None:
    """Write a first frame like those to come into a folder that goes again, so that what is wrong shows at once.

    Args:
        output: the file to come; its suffix says the format.
        fps: frames a second.
        settings: of `video.Writer`.

    Raises:
        InputError: a setting outside its range.
        ImageError: sound that cannot be read.
        StudioError: the extra `video` is not installed.
    """
    with TemporaryDirectory() as folder:
        trial = Path(folder) / f"trial{output.suffix}"
        with video.Writer(trial, (64, 64), fps, **settings) as writer:
            writer.write(torch.zeros(3, 64, 64), 0)


def reenact(
    pipeline: ReenactPipeline,
    photo: Photo,
    motion: Motion,
    output: Path,
    settings: dict[str, Any],
    told: dict[str, Any],
    *,
    source: bytes | None = None,
    sound: str | Path | None = None,
    sound_start: float = 0.0,
    quality: str | int = "high",
    credentials: bool = True,
    overwrite: bool = False,
    on_frame: Callable[..., Any] | None = None,
) -> tuple[ReenactOutput, str]:
    """Move a photo by a motion, and write the video, marked and signed.

    Args:
        pipeline: draws the frames.
        photo: whose face is moved.
        motion: by which.
        output: the file.
        settings: arguments of the pipeline's call, `consent` among them.
        told: what else the credentials say of how it was made.
        source: the photo's file.
        sound: a file whose sound is laid under.
        sound_start: second of that file that is heard with the first frame.
        quality: of `video.Writer`.
        credentials: whether they are wanted.
        overwrite: replace a file of that name.
        on_frame: `callback_on_step_end` of the pipeline; what it raises ends the call, and no file is left.

    Returns:
        What the pipeline gave, its frames used up, and why the file has no mark or no credentials, or an empty text.

    Raises:
        StudioError: as the pipeline, and `synthetic_video.save`.
    """
    drawn = pipeline(photo, motion, **settings, callback_on_step_end=on_frame, output_type="frames")
    frames: Any = drawn.frames  # tensors, as "frames" asks for
    given: dict[str, Any] = {} if sound is None else {"audio_from": sound, "audio_start": sound_start}
    notes, lacking = synthetic_video.save(
        zip(map(float, motion.times), frames, strict=True),
        output,
        tuple(drawn.report.size),
        motion.fps,
        Operation("reenact", DESCRIPTION, {**settings, **told}),
        source=source,
        credentials=credentials,
        overwrite=overwrite,
        quality=quality,
        **given,
    )
    drawn.report.notes += notes
    return drawn, lacking


def summary(found: dict[str, Any]) -> str:
    """`ReenactReport.summary` in one line."""
    said = f"{found['frames']} frames"
    if found["mean_identity_distance"] is not None:
        said += (
            f", identity distance {found['mean_identity_distance']:.2f} on average, "
            f"{found['largest_identity_distance']:.2f} at most (0.6 is the limit)"
        )
    if found["limited"]:
        said += f"; {found['limited']} times the driver turned further than a still can follow"
    if found["held"]:
        said += f"; {found['held']} times no face was seen, and the last pose was held"
    return said
