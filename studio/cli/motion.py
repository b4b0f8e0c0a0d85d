"""`studio motion`: what a head does, followed through a video or made up, into a file that moves photographs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.common import DeviceOption, check_beside, check_free, say, show
from studio.errors import InputError

if TYPE_CHECKING:
    from studio.motion.motion import Motion

app = typer.Typer()
KEYS = "yaw", "pitch", "roll", "smile", "mouth", "brow", "gaze_x", "gaze_y"
# What can be made up, the same for every command that moves something.
SecondsOption = Annotated[float | None, typer.Option(help="Made up: how long; default 4.")]
YawOption = Annotated[str | None, typer.Option(help="Made up: degrees, as 0,25,-25,0; above 0 to the left.")]
PitchOption = Annotated[str | None, typer.Option(help="Likewise; above 0 up.")]
RollOption = Annotated[str | None, typer.Option(help="Likewise; above 0 clockwise.")]
SmileOption = Annotated[str | None, typer.Option(help="Likewise; 1 is broad.")]
MouthOption = Annotated[str | None, typer.Option(help="Likewise; 1 is well open.")]
BrowOption = Annotated[str | None, typer.Option(help="Likewise; 1 is raised.")]
GazeXOption = Annotated[str | None, typer.Option(help="Likewise, half widths of an eye; above 0 to the right.")]
GazeYOption = Annotated[str | None, typer.Option(help="Likewise; above 0 down.")]
TalkOption = Annotated[str | None, typer.Option(help='Made up: what the mouth says, as "hello there".')]
BlinkOption = Annotated[bool | None, typer.Option("--blink/--no-blink", help="Made up: blink; default: yes.")]
SwayOption = Annotated[
    bool | None, typer.Option("--sway/--no-sway", help="Made up: move a little all the time; default: yes.")
]
SeedOption = Annotated[int | None, typer.Option(help="Made up: of blinks and sway; default 0.")]


@app.command()
def motion(
    output: Annotated[Path, typer.Option("--output", "-o", help="The motion, a .safetensors file.")],
    video: Annotated[Path | None, typer.Argument(help="A video to follow a face through; none makes one up.")] = None,
    start: Annotated[float | None, typer.Option(help="Of the video: seconds.")] = None,
    end: Annotated[float | None, typer.Option(help="Of the video: seconds.")] = None,
    driving_face: Annotated[
        int | None, typer.Option(help="Of the video: which of several faces, as one reads; default: the largest.")
    ] = None,
    smooth: Annotated[bool, typer.Option(help="Of the video: take the trembling away.")] = True,
    seconds: SecondsOption = None,
    fps: Annotated[float | None, typer.Option(help="Made up: frames a second; default 25.")] = None,
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
    plot: Annotated[Path | None, typer.Option(help="Draw the curves here (PNG, JPEG).")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Follow a face through a video, or make a motion up, to move photographs by it.

    Prints what the motion does as JSON. Exit code 2: wrong arguments, or no face in the video.
    """
    keys = dict(zip(KEYS, (yaw, pitch, roll, smile, mouth, brow, gaze_x, gaze_y), strict=True))
    made_up: dict[str, Any] = {name: numbers(name, text) for name, text in keys.items() if text is not None}
    other = {"seconds": seconds, "fps": fps, "talk": talk, "blink": blink, "sway": sway, "seed": seed}
    made_up |= {name: value for name, value in other.items() if value is not None}
    followed = {"--start": start, "--end": end, "--driving-face": driving_face}
    if video and made_up:
        raise InputError(f"--{next(iter(made_up)).replace('_', '-')} is for motions without a video, got {video} too")
    if not video and (told := [name for name, value in followed.items() if value is not None]):
        raise InputError(f"{told[0]} needs a video, got none: name one, or leave it out")
    if output.suffix.lower() != ".safetensors":
        raise InputError(f"the motion must be a .safetensors file, got {output}: rename it")
    check_free([output], overwrite)
    check_beside([video] if video else [], pictures=[plot], overwrite=overwrite)
    found = follow(video, start, end, driving_face, smooth, device) if video else make_up(made_up)
    output.parent.mkdir(parents=True, exist_ok=True)
    found.save(output)
    if plot:
        from studio.motion.plot import draw

        draw(found).save(plot)
    show(summary(found))


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Key frames as they are written, "0,25,-25,0".

    Raises:
        InputError: something else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--{name.replace('_', '-')} must be numbers as 0,25,-25, got {text!r}") from None


def make_up(settings: dict[str, Any]) -> Motion:
    """A motion without a video."""
    from studio.motion.synthesis import synthesise

    return synthesise(**settings)


def follow(path: Path, start: float | None, end: float | None, face: int | None, smooth: bool, device: str) -> Motion:
    """The motion of a face in a video, with a progress bar."""
    from tqdm import tqdm

    from studio import video
    from studio.device import pick_device
    from studio.find import FaceFinder
    from studio.motion.track import track

    info = video.probe(path)
    frames = video.read(path, start=start, end=end)
    until = min(end or float("inf"), info.duration or float("inf"))
    total = None if until == float("inf") else max(round((until - (start or 0)) * info.fps), 1)
    finder = FaceFinder.from_pretrained().to(pick_device(device))
    with tqdm(total=total, unit="frame", disable=not sys.stderr.isatty()) as bar:

        def pairs() -> Iterator[tuple[float, Any]]:
            for frame in frames:
                yield frame.time, frame.pixels

        return track(pairs(), finder, face=face, smooth=smooth, on_frame=lambda index, presence: bar.update())


def summary(found: Motion) -> dict[str, Any]:
    """What a motion does, in numbers, and a word where no face was seen."""
    from studio.motion.plot import curves

    lost = int((found.presence < 0.5).sum())
    if lost:
        say(f"{lost} of {len(found)} frames show no face that could be followed: the last pose is held there")
    ranges = {
        name: [round(float(values.min()), 3), round(float(values.max()), 3)]
        for lines in curves(found).values()
        for name, values in lines.items()
    }
    return {
        "frames": len(found),
        "seconds": [round(float(found.times[0]), 3), round(float(found.times[-1]), 3)],
        "frame": found.frame.tolist(),
        "without_face": lost,
        "cuts": [round(float(time), 3) for time in found.times[found.cuts]],
        "ranges": ranges,
    }
