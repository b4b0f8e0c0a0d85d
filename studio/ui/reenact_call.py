"""One photo moved for the Reenact tab: what is asked for, looked at before anything runs, and the video."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio import images, reenactment
from studio.errors import ImageError, InputError
from studio.motion.motion import Motion
from studio.ui.common import MAX_PIXELS

if TYPE_CHECKING:
    from pipelines.reenact import ReenactPipeline, ReenactReport

MOVES = [("Movements that are made up", "made up"), ("A driving video", "video")]
LONGEST = 20  # seconds of what is made up
MOST = 750  # frames: half a minute

OnFrame = Callable[[str, int, int | None], None]


def check(settings: dict[str, Any], by: str, driving: str | None) -> None:
    """Refuse what cannot be done, before a network is loaded; a driving file that is no video is deleted.

    Raises:
        InputError: no consent, an argument outside its range, no driving video, or one that is too long.
        ImageError: a driving video that cannot be read.
    """
    from pipelines.reenact import EVERY, check_arguments, check_consent

    check_consent(settings["consent"])
    check_arguments(*(settings[name] for name in ("region", "expression_scale", "size", "face")), 1, EVERY, "frames")
    if by not in (known := [name for _, name in MOVES]):
        raise InputError(f"by must be one of {', '.join(map(repr, known))}, got {by!r}: choose one of them")
    if by == "video" and driving is None:
        raise InputError("a driving video is needed, got none: choose a file, or let movements be made up")
    if by == "video":
        try:
            reenactment.check_length(reenactment.expected_frames(driving, None, None, None), MOST)
        except ImageError:
            forget(driving)
            raise


def make_up(yaw: str, smile: str, talk: str, seconds: float) -> Motion:
    """A motion as the page's fields say.

    Raises:
        InputError: a field that is not as it must be.
    """
    from studio.motion.synthesis import synthesise

    if not seconds <= LONGEST:
        raise InputError(f"seconds must be at most {LONGEST} here, got {seconds}: make it shorter")
    keys = {"yaw": numbers("yaw", yaw), "smile": numbers("smile", smile)}
    return synthesise(seconds=float(seconds), talk=talk.strip(), **keys)


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Key frames as they are written, "0,20,-20,0"; an empty field is 0.

    Raises:
        InputError: something else.
    """
    try:
        return tuple(float(part) for part in (text.strip() or "0").split(","))
    except ValueError:
        raise InputError(f"{name} must be numbers as 0,20,-20, got {text[:60]!r}: part them by commas") from None


def forget(path: str | Path) -> None:
    """Delete an upload; no other file is touched."""
    if Path(path).resolve().is_relative_to(Path(gr.utils.get_upload_folder()).resolve()):
        Path(path).unlink(missing_ok=True)
        with suppress(OSError):  # its folder, unless something else is in it
            Path(path).parent.rmdir()


def move(
    pipeline: ReenactPipeline,
    source: str | Path | None,
    folder: Path,
    settings: dict[str, Any],
    motion: Motion | None,
    driving: str | Path | None,
    driving_face: int | None,
    sound: bool,
    on_frame: OnFrame | None,
) -> tuple[Path, ReenactReport, str]:
    """Move one photo and write the video.

    Args:
        pipeline: moves it.
        source: the photo's file.
        folder: where the video goes.
        settings: of the pipeline's call.
        motion: made up; None follows `driving`.
        driving: a video.
        driving_face: which of several in it.
        sound: lay the video's under the result.
        on_frame: told what is done, the frames done and their number; ends the call by raising.

    Returns:
        The file, the report, and why the video has no mark or no credentials ("" where it has both).

    Raises:
        InputError: no photo, or one that cannot be moved.
        ImageError: a file that is no usable photo or video.
    """
    if source is None:
        raise InputError("a photo is needed, got none: choose a file first")
    photo = images.load(source, max_pixels=MAX_PIXELS)
    say = on_frame or (lambda doing, done, total: None)
    followed = motion is None
    if motion is None:
        pipeline.prepare(photo, settings["face"], settings["size"])  # a photo without a face is told at once
        expected = reenactment.expected_frames(driving, None, None, None)
        motion = reenactment.follow(
            pipeline,
            driving,
            face=driving_face,
            most=MOST,
            on_frame=lambda index: say("Following the driver", index + 1, expected),
        )
    total = len(motion)

    def on_step(_: Any, step: int, __: Any, given: dict[str, Any]) -> dict[str, Any]:
        say("Drawing", step + 1, total)
        return given

    output = folder / "reenacted.mp4"
    heard = {"sound": driving, "sound_start": float(motion.times[0])} if followed and sound else {}
    drawn, lacking = reenactment.reenact(
        pipeline,
        photo,
        motion,
        output,
        settings,
        {"driving": "a video" if followed else "made up"},
        source=Path(source).read_bytes(),
        on_frame=on_step,
        **heard,
    )
    return output, drawn.report, lacking


def verdict(report: ReenactReport) -> str:
    """The report in one line."""
    said = reenactment.summary(report.to_dict()["summary"])
    return f"A synthetic video: {said}. Drawn in {report.seconds:.0f} seconds."
