"""What a video is, from its header and its first frames."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from studio import images
from studio.errors import ImageError
from studio.video import files

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_MATRICES = {0: "rgb", 1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_TRANSFERS = {16: "pq", 18: "hlg"}
_LARGEST_PICTURE = 1 << 27  # bytes; a broken video of gigabytes is not read whole to learn that it is no picture
_LOOK = 8  # frames that tell the rate where no header does


class _CutOffError(ImageError):
    """A file that is no longer whole, whatever else could still be read from it."""


@dataclass(frozen=True)
class AudioTrack:
    """One sound track.

    Attributes:
        codec: As ffmpeg names it, "aac" for example.
        rate: Samples a second.
        channels: Their number.
        language: Three letters, or None where the file does not say.
        default: Whether the file marks it as the one to play.
    """

    codec: str
    rate: int
    channels: int
    language: str | None
    default: bool


@dataclass(frozen=True)
class VideoInfo:
    """One video file, seen from outside.

    Attributes:
        width: In px as shown: turned upright, with square pixels.
        height: In px as shown.
        duration: Seconds; None where the file does not say (browsers write such recordings).
        fps: Average frames a second.
        frames: Their number; None where the file does not say.
        rotation: Degrees clockwise, 0, 90, 180 or 270, by which the stored picture is turned to be shown.
        mirrored: Whether the stored picture is mirrored too, left and right, after it was turned.
        audio: The sound tracks, in the file's order.
        interlaced: Whether the first frames are made of two fields.
        bits: Per channel: 8, 10, 12 or 16.
        color_range: "limited" or "full".
        matrix: "bt601", "bt709", "bt2020", "rgb", "fcc" or "smpte240m"; guessed from the size where the file does not
            say: BT.709 above 576 lines or 1,024 px, else BT.601.
        transfer: "sdr", "hlg" or "pq".
        codec: As ffmpeg names it, "h264" for example.
        origin: `pts × time_base` of the first frame in the file's own clock: second 0 of `read`.
        still: Whether it is a still picture.
    """

    width: int
    height: int
    duration: float | None
    fps: float
    frames: int | None
    rotation: int
    mirrored: bool
    audio: tuple[AudioTrack, ...]
    interlaced: bool
    bits: int
    color_range: str
    matrix: str
    transfer: str
    codec: str
    origin: Fraction
    still: bool = False


def probe(path: str | Path, *, allow_still: bool = False) -> VideoInfo:
    """What a video file is; its first frames are decoded for it, and nothing else.

    Args:
        path: A video file, or an animated GIF or APNG. The content counts, not the suffix.
        allow_still: Describe a still picture too: one frame of one second.

    Raises:
        ImageError: Missing, a folder, not a video, without pictures, without frames, broken, cut off, a still picture,
            or more than `images.MAX_PIXELS`.
        StudioError: The extra `video` is not installed.
    """
    path = files.existing(path)
    try:
        with files.opened(path) as container:
            info = _info(container, path)
    except _CutOffError:
        raise
    except ImageError:
        if (still := _still(path)) is None:
            raise
        info = still
    if info.still and not allow_still:
        raise ImageError(
            f"{path.name!r} must be a video, got a still picture; give a video (in Python, allow_still=True takes it)"
        )
    return (_still(path) or info) if info.still else info


def has_pictures(container: InputContainer) -> bool:
    """Whether a file has moving pictures: the cover in a sound file is none."""
    return bool(_films(container))


def _films(container: InputContainer) -> list[VideoStream]:
    from av.stream import Disposition

    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The moving pictures of a file.

    Raises:
        ImageError: There are none, or they are too large.
    """
    if not has_pictures(container):
        raise ImageError(f"{path.name!r} must have moving pictures, got no video stream in it; choose another file")
    stream = max(_films(container), key=files.is_default)
    if stream.codec_context is None:
        raise ImageError(f"{path.name!r} must be of a codec known here, got another one; export it as H.264")
    stream.thread_type = "AUTO"
    if stream.width * stream.height > images.MAX_PIXELS:
        raise ImageError(
            f"{path.name!r} must have at most {images.MAX_PIXELS} pixels, got {stream.width}x{stream.height}; scale it"
        )
    return stream


def timed(frames: Iterator[VideoFrame], path: Path) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Frames with their times in the file's own clock, rising; of two with the same time the first is taken.

    Raises:
        ImageError: A frame without a time, one that goes back, or one that could not be decoded whole.
    """
    last = None
    for frame in frames:
        if frame.pts is None or frame.time_base is None:
            raise ImageError(f"{path.name!r} must say when its frames are shown, got one without time; export it anew")
        time = frame.pts * frame.time_base
        if last is not None and time < last:
            raise ImageError(f"{path.name!r} must run forwards, got a jump back at {float(last):.2f} s; cut it there")
        if frame.is_corrupt:
            raise ImageError(
                f"{path.name!r} must be whole, got a broken frame at {float(time):.2f} s of its clock; export it anew"
            )
        if time != last:
            yield time, frame
        last = time


def end_of(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """When the last frame ends, in the file's own clock, as its header has it; None where it does not say."""
    if stream.duration and stream.time_base:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    with suppress(ValueError):  # Matroska: "00:00:02.040000000" beside the stream
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    if container.duration and not container.streams.audio:  # else it may be the sound's
        return Fraction((container.start_time or 0) + container.duration, 1_000_000)
    return None


def _info(container: InputContainer, path: Path) -> VideoInfo:
    _check_whole(container, path)
    stream = video_stream(container, path)
    may_be_still = files.may_be_still(container)
    look = 1 if _known(stream.average_rate) and not may_be_still else _LOOK
    looked = list(islice(timed(container.decode(stream), path), look))
    if not looked:
        raise ImageError(f"{path.name!r} must have frames, got none in its video stream; export it anew")
    origin, frame = looked[0]
    turn, mirrored = _orientation(frame)
    ends = end_of(container, stream)
    width, height = _square(stream)
    if turn % 180:
        width, height = height, width
    return VideoInfo(
        width=width,
        height=height,
        duration=None if ends is None else float(ends - origin),
        fps=_rate(stream, [time for time, _ in looked]),
        frames=stream.frames or None,
        rotation=turn,
        mirrored=mirrored,
        audio=tuple(_tracks(container)),
        interlaced=any(frame.interlaced_frame for _, frame in looked),
        bits=max(component.bits for component in frame.format.components),
        color_range=_range(frame),
        matrix=_matrix(frame),
        transfer=_TRANSFERS.get(int(frame.color_trc), "sdr"),
        codec=stream.codec_context.codec.canonical_name,
        origin=origin,
        still=may_be_still and len(looked) == 1,
    )


def _check_whole(container: InputContainer, path: Path) -> None:
    """Refuse a file that is shorter than its own index: it would break in the middle of the work."""
    size = path.stat().st_size
    needed = max((entry.pos + entry.size for stream in container.streams for entry in stream.index_entries), default=0)
    if not container.streams or needed > size or (container.format.name == "gif" and not _tail(path).endswith(b";")):
        raise _CutOffError(
            f"{path.name!r} must be whole, got one that was cut off after {size} bytes; copy or export it anew"
        )


def _tail(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 64))
        return stream.read().rstrip(b"\0")


def _square(stream: VideoStream) -> tuple[int, int]:
    """(width, height) in px of the stored picture once its pixels are made square."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 4) <= aspect <= 4:  # no camera has such pixels: a wrong tag
        aspect = Fraction(1)
    return max(1, round(stream.width * aspect)), stream.height


def _known(rate: Fraction | None) -> TypeGuard[Fraction]:
    return rate is not None and 0 < rate <= 240


def _rate(stream: VideoStream, times: list[Fraction]) -> float:
    if _known(stream.average_rate):
        return float(stream.average_rate)
    if len(times) > 1:
        return float((len(times) - 1) / (times[-1] - times[0]))
    return float(stream.guessed_rate) if _known(stream.guessed_rate) else 25.0


def _tracks(container: InputContainer) -> Iterator[AudioTrack]:
    for stream in files.tracks(container):
        context, language = stream.codec_context, stream.language
        named = None if language in (None, "", "und") else language
        codec = context.codec.canonical_name
        yield AudioTrack(codec, context.sample_rate, context.channels, named, files.is_default(stream))


def _range(frame: VideoFrame) -> str:
    name = frame.format.name
    if frame.format.is_rgb or name.startswith("yuvj") or int(frame.color_range) == 2:
        return "full"
    return "full" if name.startswith("gray") and int(frame.color_range) == 0 else "limited"


def _matrix(frame: VideoFrame) -> str:
    if frame.format.is_rgb:
        return "rgb"
    guess = "bt709" if frame.height > 576 or frame.width > 1024 else "bt601"
    if int(frame.colorspace) in (0, 2, 3):  # "rgb" of a picture that is none, not said, reserved
        return guess
    found = _MATRICES.get(int(frame.colorspace))
    if found is None:
        raise ImageError(
            f"a video's colours must be BT.601, BT.709, BT.2020 or RGB, got matrix {int(frame.colorspace)}; "
            "export it as BT.709"
        )
    return found


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """(degrees clockwise, whether mirrored after that) of the display matrix, to the nearest quarter."""
    try:
        told: Any = frame.side_data
        data = next((bytes(item) for item in told if item.type.name == "DISPLAYMATRIX"), None)
    except ValueError:  # side data that av has no name for: it still tells the turn
        return round(-frame.rotation / 90) % 4 * 90, False
    if data is None:
        return 0, False
    a, b, _, c, d = struct.unpack_from("=5i", data)  # a point (x, y) is shown at (ax + cy, bx + dy)
    mirrored = a * d - b * c < 0
    return round(math.degrees(math.atan2(b, -a if mirrored else a)) / 90) % 4 * 90, mirrored


def _still(path: Path) -> VideoInfo | None:
    """A still picture as a video of one frame; None where the file is no picture."""
    if path.stat().st_size > _LARGEST_PICTURE:
        return None
    try:
        photo = images.load(path)
    except ImageError:
        return None
    return VideoInfo(
        width=photo.width,
        height=photo.height,
        duration=1.0,
        fps=1.0,
        frames=1,
        rotation=0,
        mirrored=False,
        audio=(),
        interlaced=False,
        bits=photo.bits,
        color_range="full",
        matrix="rgb",
        transfer="sdr",
        codec="still",
        origin=Fraction(0),
        still=True,
    )
