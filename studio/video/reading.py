"""Frames out of a video file, one at a time, with the times that the file gives them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from studio import images
from studio.errors import ImageError, InputError
from studio.video import colour, files
from studio.video.info import VideoInfo, end_of, probe, timed, video_stream

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.filter import Graph
    from av.video.stream import VideoStream

_SAME = Fraction(1, 1_000_000)  # s: times given as floats meet exact ones
_INDEXED = ("mov", "matroska")  # where a leap lands on a known frame; the others are read through, for exact times
_LOST = 0.5  # s that a file may end earlier than it says

Timed = tuple[Fraction, "VideoFrame"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment of a video.

    Attributes:
        time: Seconds since the video's first frame: `pts × time_base`, or the moment asked for with `fps`.
        pixels: (3,H,W) float32 RGB in [0,1], upright, on the CPU. It is the caller's own.
    """

    time: float
    pixels: Tensor


def read(
    path: str | Path,
    *,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    allow_still: bool = False,
) -> Iterator[Frame]:
    """The frames of a video as a stream: one is held at a time, however long the video is.

    Colours come as the file means them: BT.601, BT.709 or BT.2020, limited or full range, 8 to 16 bits; HLG and PQ as
    an ordinary screen shows them. Interlaced frames are deinterlaced (yadif), one out of each two fields.

    Args:
        path: A video file, or an animated GIF or APNG.
        start: Seconds after the first frame; earlier frames are left out.
        end: Seconds after the first frame; this moment and later ones are left out.
        fps: Resample to this many frames a second, from `start` on: each moment gets the frame shown then (the nearest
            earlier one), once more where none is new. None: the frames as they are, their rate varying if it does.
        allow_still: Take a still picture too, and give it as the frame of second 0.

    Returns:
        An iterator of `Frame`, times rising. Files are checked before it is returned, except for what shows later:

    Raises:
        ImageError: As for `probe`; on the way: broken or cut off there, or the picture changes its size.
        InputError: `end` not after `start`, a negative `start`, an `fps` outside 0 to 1000, or no frame between them.
        StudioError: The extra `video` is not installed.
    """
    _check(start, end, fps)
    info = probe(path, allow_still=allow_still)
    if info.still:
        return iter([Frame(0.0, images.load(path).pixels)])
    return _read(Path(path), info, Fraction(start or 0), None if end is None else Fraction(end), fps)


def _check(start: float | None, end: float | None, fps: float | None) -> None:
    if start is not None and not 0 <= start < float("inf"):
        raise InputError(f"start must be 0 or more seconds, got {start}; leave it out to begin at the first frame")
    if end is not None and not (start or 0) < end < float("inf"):
        raise InputError(f"end must be after start ({start or 0} s), got {end}; leave it out to read all")
    if fps is not None and not 0 < fps <= 1000:
        raise InputError(f"fps must be above 0 and at most 1000, got {fps}; leave it out to keep the video's own")


def _read(path: Path, info: VideoInfo, start: Fraction, end: Fraction | None, fps: float | None) -> Iterator[Frame]:
    found = False
    with closing(_decoded(path, info, start)) as frames:
        for time, frame in (
            _within(frames, start, end) if fps is None else _resampled(frames, info, start, end, Fraction(fps))
        ):
            found = True
            yield Frame(float(time), colour.to_pixels(frame, info))
    if not found:
        until = "the end" if end is None else f"{float(end):.2f} s"
        of = "" if info.duration is None else f"; it is {info.duration:.2f} s long"
        raise InputError(f"{path.name!r} must have a frame from {float(start):.2f} s to {until}, got none there{of}")


def _within(frames: Iterator[Timed], start: Fraction, end: Fraction | None) -> Iterator[Timed]:
    for time, frame in frames:
        if end is not None and time >= end - _SAME:
            return
        if time >= start - _SAME:
            yield time, frame


def _resampled(
    frames: Iterator[Timed], info: VideoInfo, start: Fraction, end: Fraction | None, fps: Fraction
) -> Iterator[Timed]:
    """The frame shown at `start`, `start` + 1 / `fps`, … : the nearest earlier one."""
    moment, step = start, 1 / fps
    shown, until = None, start
    for time, frame in frames:
        while shown is not None and moment < time - _SAME and (end is None or moment < end - _SAME):
            yield moment, shown
            moment += step
        if end is not None and moment >= end - _SAME:
            return
        shown, until = frame, time + _length(frame, info)
    while shown is not None and moment < (until if end is None else min(until, end)) - _SAME:
        yield moment, shown
        moment += step


def _decoded(path: Path, info: VideoInfo, start: Fraction) -> Generator[Timed, None, None]:
    """Frames by their seconds since the first one, from one at or before `start` to the end of the file."""
    with files.opened(path) as container:
        stream = video_stream(container, path)
        frames = _whole(container, stream, path, info)
        leap = start > 0 and container.format.name.startswith(_INDEXED)
        first = _sought(frames, container, stream, info.origin, start) if leap else next(frames, None)
        if first is not None:
            yield first
            yield from frames
            return
    if leap:  # the index was wrong
        yield from _decoded(path, info, Fraction(0))


def _sought(
    frames: Iterator[Timed], container: InputContainer, stream: VideoStream, origin: Fraction, start: Fraction
) -> Timed | None:
    """The first frame after a leap to `start`; None where the leap fails or goes too far."""
    try:
        container.seek(int((origin + start) / stream.time_base), stream=stream)
        first = next(frames, None)
    except (*files.failures(), ImageError):
        return None
    return first if first is not None and first[0] <= start + _SAME else None


def _whole(container: InputContainer, stream: VideoStream, path: Path, info: VideoInfo) -> Iterator[Timed]:
    """All frames from where the container stands.

    Raises:
        ImageError: The picture changes its size, or the file stops before the end that its header has.
    """
    until, caught = info.origin, files.failures()
    try:
        for time, frame in timed(_deinterlaced(container.decode(stream), stream), path):
            _check_size(frame, stream, path, time - info.origin)
            until = time + _length(frame, info)
            yield time - info.origin, frame
    except caught as error:
        raise _broken(path, until - info.origin, files.reason(error)) from error
    promised = end_of(container, stream)
    if promised is not None and until < promised - _LOST:
        raise _broken(path, until - info.origin, f"it should be {info.duration:.2f} s long")


def _check_size(frame: VideoFrame, stream: VideoStream, path: Path, time: Fraction) -> None:
    if (frame.width, frame.height) != (stream.width, stream.height):
        raise ImageError(
            f"{path.name!r} must keep one size, got {frame.width}x{frame.height} after {stream.width}x{stream.height} "
            f"at {float(time):.2f} s; cut it there"
        )


def _broken(path: Path, time: Fraction, why: str) -> ImageError:
    return ImageError(
        f"{path.name!r} must be whole, got one that breaks off at {float(time):.2f} s ({why}); copy it anew, or read "
        "the part before (end)"
    )


def _length(frame: VideoFrame, info: VideoInfo) -> Fraction:
    """Seconds for which a frame is shown."""
    return frame.duration * frame.time_base if frame.duration else 1 / Fraction(info.fps)


def _deinterlaced(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames as they are, until one is made of two fields; from there on through yadif, which leaves the whole ones."""
    graph = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        graph = graph or _yadif(stream)
        graph.vpush(frame)
        yield from _pulled(graph)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph)


def _yadif(stream: VideoStream) -> Graph:
    from av.filter import Graph

    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream),
        graph.add("yadif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    with suppress(BlockingIOError, EOFError):  # av's errors are also Python's
        while True:
            yield graph.vpull()
