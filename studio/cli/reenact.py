"""`studio reenact`: a photograph of a face moves as a face in a video does, or as one says. The result is synthetic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.common import DeviceOption, ModelOption, check_beside, check_free, say, show, write
from studio.cli.motion import (
    KEYS,
    BlinkOption,
    BrowOption,
    GazeXOption,
    GazeYOption,
    MouthOption,
    PitchOption,
    RollOption,
    SecondsOption,
    SeedOption,
    SmileOption,
    SwayOption,
    TalkOption,
    YawOption,
    make_up,
    numbers,
)
from studio.errors import InputError

if TYPE_CHECKING:
    from pipelines.reenact import ReenactPipeline
    from studio.motion.motion import Motion

app = typer.Typer()
MOTION = ".safetensors"


@app.command()
def reenact(
    photo: Annotated[Path, typer.Argument(help="A photograph of a face.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The video: .mp4, .webm or .gif.")],
    driving: Annotated[
        Path | None, typer.Argument(help="Whose movements: a video, or a file of `studio motion`; none makes them up.")
    ] = None,
    consent: Annotated[bool, typer.Option("--consent", help="The person of the photo agreed to this; needed.")] = False,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="The driver's turn of the head as it is; else its changes are added.")
    ] = False,
    region: Annotated[str, typer.Option(help="all; pose, the turn alone; mouth or eyes, the head stays.")] = "all",
    expression: Annotated[float, typer.Option(help="0 to 2: how much of the driver's expression.")] = 1.0,
    size: Annotated[int, typer.Option(help="256 or 512 px, side of the aligned face that is moved.")] = 256,
    stitch: Annotated[
        bool, typer.Option("--stitch/--no-stitch", help="In the whole photo (at most 1280 px), or the aligned face.")
    ] = True,
    face: Annotated[int | None, typer.Option(help="Which face of several in the photo; 0 is the largest.")] = None,
    driving_face: Annotated[
        int | None, typer.Option(help="Which of several in the video, as one reads; default: the largest.")
    ] = None,
    start: Annotated[float | None, typer.Option(help="Of the video or the motion: seconds.")] = None,
    end: Annotated[float | None, typer.Option(help="Of the video or the motion: seconds.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second; default: the video's own, made up 25.")] = None,
    seconds: SecondsOption = None,
    yaw: YawOption = None,
    pitch: PitchOption = None,
    roll: RollOption = None,
    smile: SmileOption = None,
    mouth: MouthOption = None,
    brow: BrowOption = None,
    gaze_x: GazeXOption = None,
    gaze_y: GazeYOption = None,
    talk: TalkOption = None,
    blink: BlinkOption = None,
    sway: SwayOption = None,
    seed: SeedOption = None,
    audio: Annotated[str, typer.Option(help="driving, none, or a file whose sound is laid under.")] = "driving",
    quality: Annotated[str, typer.Option(help="high, medium, low, or 1 to 100.")] = "high",
    report: Annotated[Path | None, typer.Option(help="Write a JSON report here, with a row for each frame.")] = None,
    depth: Annotated[Path | None, typer.Option(help="Draw the depth of the face here (PNG, JPEG).")] = None,
    credentials: Annotated[bool, typer.Option(help="Sign the result: Content Credentials.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    model: ModelOption = "reenact",
    device: DeviceOption = "auto",
) -> None:
    """Move the face of a photo as another face moves, or as one says; the person must have agreed to it.

    Prints a summary as JSON. The video is synthetic: every frame carries an invisible mark, and an .mp4 is signed.
    Exit code 2: wrong arguments, or no face.
    """
    from pipelines.reenact import EVERY, ReenactPipeline, check_arguments, check_consent, check_stretch, stretch
    from studio import images, provenance, reenactment
    from studio.depth import picture
    from studio.device import pick_device
    from studio.motion.motion import Motion

    settings = {
        "consent": consent,
        "relative": not absolute,
        "region": region,
        "expression_scale": expression,
        "stitch": stitch,
        "size": size,
        "face": face,
    }
    check_arguments(region, expression, size, face, 1, EVERY, "frames")
    check_consent(consent)
    keys = dict(zip(KEYS, (yaw, pitch, roll, smile, mouth, brow, gaze_x, gaze_y), strict=True))
    other = {"seconds": seconds, "talk": talk, "blink": blink, "sway": sway, "seed": seed}
    made_up: dict[str, Any] = {name: numbers(name, text) for name, text in keys.items() if text is not None}
    made_up |= {name: value for name, value in other.items() if value is not None}
    check_driving(driving, made_up, {"--driving-face": driving_face, "--start": start, "--end": end})
    if driving:
        check_stretch(driving, driving_face, start, end, fps)
    check_free([output], overwrite)
    read = [photo, *([driving] if driving else []), *([Path(audio)] if audio not in ("driving", "none") else [])]
    check_beside(read, pictures=[depth], report=report, overwrite=overwrite)
    check_output(output, read, [depth, report])
    if credentials:
        provenance.own_certificate()
    loaded = images.load(photo)
    motion, total = None, None
    if driving is None:
        motion = make_up(made_up | ({"fps": fps} if fps is not None else {}))
    elif driving.suffix.lower() == MOTION:
        motion = stretch(Motion.load(driving), start, end)
    else:
        total = reenactment.expected_frames(driving, start, end, fps)
    video = driving if motion is None else None
    sound = None if audio == "none" else video if audio == "driving" else Path(audio)
    given: dict[str, Any] = {"quality": int(quality) if quality.isdecimal() else quality}
    begins = (start or 0.0) if driving else 0.0  # the driver's clock is that of the sound
    heard: dict[str, Any] = {} if sound is None else {"audio_from": sound, "audio_start": begins}
    reenactment.try_writing(output, motion.fps if motion else 25.0, **given, **heard)
    pipeline = ReenactPipeline.from_pretrained(model, device=pick_device(device))
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty(), desc="drawing", unit="frame")
    if motion is None:
        pipeline.prepare(loaded, face, size)  # a photo without a face is told before the video is followed
        motion = followed(pipeline, driving, driving_face, start, end, fps, total)
    about = {"driving": "a video" if video else "a saved motion" if driving else "made up", **made_up}
    done, lacking = reenactment.reenact(
        pipeline,
        loaded,
        motion,
        output,
        settings,
        about,
        source=photo.read_bytes(),
        sound=sound,
        sound_start=float(motion.times[0]),
        credentials=credentials,
        overwrite=overwrite,
        **given,
    )
    if depth:
        images.save(picture(done.depth), depth)
    found: dict[str, Any] = {
        "output": str(output),
        "settings": settings | about,
        "lacking": lacking,
        **done.report.to_dict(),
    }
    write(found, report)
    for text in (*done.report.notes, lacking, reenactment.summary(found["summary"])):
        if text:
            say(f"{output.name}: {text}")
    show({"output": str(output), **found["summary"], "seconds": done.report.seconds})


def check_driving(driving: Path | None, made_up: dict[str, Any], cut: dict[str, Any]) -> None:
    """Refuse options that go with another kind of driver than the one that is given."""
    if driving is None and not made_up:
        raise InputError(
            "there must be movements, got neither a driving video nor any that are made up: name a video, or say "
            "--yaw 0,25,-25,0, --talk, or --seconds"
        )
    if driving is not None and made_up:
        option = next(iter(made_up)).replace("_", "-")
        raise InputError(f"--{option} is for movements that are made up, got {driving} too: leave one out")
    if driving is None and (told := [name for name, value in cut.items() if value is not None]):
        raise InputError(f"{told[0]} is for a driving video, got movements that are made up: leave it out")


def check_output(output: Path, read: list[Path], written: list[Path | None]) -> None:
    """Refuse a video that would take another file's place, or that has no format; make its folder."""
    from studio.video import WRITTEN

    if output.suffix.lower() not in WRITTEN:
        raise InputError(f"the result must be one of {', '.join(WRITTEN)}, got {output}: rename it")
    if output.is_dir():
        raise InputError(f"{output} must be a file, and is a folder: give another name")
    if output.resolve() in {path.resolve() for path in read}:
        raise InputError(f"{output} must not be an input: give another name")
    if output.resolve() in {path.resolve() for path in written if path}:
        raise InputError(f"{output} must be another file than the report and the depth: give another name")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output} can't be written, {error.strerror}: give another folder") from error


def followed(
    pipeline: ReenactPipeline,
    path: Path,
    face: int | None,
    start: float | None,
    end: float | None,
    fps: float | None,
    total: int | None,
) -> Motion:
    """The motion of a video, with a progress bar."""
    from tqdm import tqdm

    from studio import reenactment

    with tqdm(total=total, desc="following", unit="frame", disable=not sys.stderr.isatty()) as bar:
        return reenactment.follow(
            pipeline, path, face=face, start=start, end=end, fps=fps, on_frame=lambda index: bar.update()
        )
