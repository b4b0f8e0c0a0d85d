"""Frames into a video file: all of it or nothing, with the times that the frames have."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from torch import Tensor

from studio import images
from studio.errors import ImageError, InputError
from studio.video import files
from studio.video.encoders import open_encoder
from studio.video.sound import Sound

if TYPE_CHECKING:
    from av.container import OutputContainer

WRITTEN = {".mp4": "mp4", ".webm": "webm", ".gif": "gif"}
"""Suffixes that `Writer` writes, and their formats' names in ffmpeg."""

QUALITIES = {"high": 90, "medium": 75, "low": 50}
"""The words for `quality`, and the numbers that they stand for."""

_LONGEST_SIDE = 16_384


class Writer:
    """A video file that is being written. Use it in a `with`: the file is there when the block has ended well.

    Until then everything is in a hidden file beside the target, which goes when the block raises. Sound is written
    along with the frames, and ends with them.

    Args:
        path: Ends in ".mp4" (H.264 and AAC, ready to be played by browsers while it loads), ".webm" (VP9 and Opus) or
            ".gif" (no sound, at most 50 frames a second). A missing folder is made.
        size: (height, width) of the frames in px. MP4 and WebM have an even one: an odd side is repeated by one px.
        fps: Frames a second, nominally: each frame is shown from its own time to the next one's, the last for 1 / fps.
        audio_from: A video or sound file whose sound is laid under. Copied where the format takes it as it is and
            nothing is cut off before its end, else encoded anew. None, or a file without sound: silent.
        audio_start: Second of that file that is heard with the first frame; `Frame.time` of the first frame read.
        audio_end: Second of that file at which the sound ends; None: with the last frame.
        quality: "high", "medium", "low", or 1 to 100 (90, 75, 50). For a GIF it is the number of colours.
        overwrite: Replace a file of that name.

    Attributes:
        path: Where the file goes.
        size: (height, width) of the file's picture.
        notes: What was done besides, one line each: a size made even, what became of the sound, frames left out.

    Raises:
        InputError: Another suffix, or an argument outside its range.
        ImageError: A file of that name is there, it cannot be written there, or `audio_from` is missing or broken.
        StudioError: The extra `video` is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: float,
        *,
        audio_from: str | Path | None = None,
        audio_start: float = 0,
        audio_end: float | None = None,
        quality: str | int = "high",
        overwrite: bool = False,
    ) -> None:
        self.path, self.notes = Path(path), []
        self._suffix = self.path.suffix.lower()
        self._overwrite, self._quality = overwrite, _quality(quality)
        _check(self._suffix, size, fps)
        self._refuse_existing()
        files.library()
        self._frame_size = (int(size[0]), int(size[1]))
        even = self._suffix != ".gif"
        height, width = self._frame_size
        self.size = (height + height % 2, width + width % 2) if even else self._frame_size
        if self.size != self._frame_size:
            self.notes.append("{}x{} px made {}x{}: the format needs even sides".format(*size[::-1], *self.size[::-1]))
        self._fps = Fraction(fps).limit_denominator(1001)
        self._sound = None if audio_from is None else Sound(audio_from, audio_start, audio_end)
        if self._sound is None and (audio_start or audio_end is not None):
            raise InputError("audio_start and audio_end must come with audio_from, got none; name the file")
        self._part = self.path.parent / f".{uuid.uuid4().hex}.part"
        self._output: OutputContainer | None = None
        self._first: Fraction | None = None
        self._given: Fraction | None = None  # the time of the last frame that came
        self._last: Fraction | None = None  # and of the last one that went into the file
        self._left_out = 0

    def __enter__(self) -> Self:
        """Begin the hidden file."""
        try:
            with self._guarded():
                self._begin()
        except BaseException:
            self._drop()
            raise
        return self

    def write(self, pixels: Tensor, time: float) -> None:
        """Add a frame, shown from `time` on. The file's clock starts with the first frame, whatever its time.

        Args:
            pixels: (3,H,W) or (1,3,H,W) of the writer's size, any float type and device, RGB; values beyond [0,1] are
                cut off.
            time: Seconds, later than the frame before.

        Raises:
            InputError: Another size, a time that is not later, or no `with` around it.
            ImageError: Another shape or type, not finite, or the disk is full.
        """
        if self._output is None:
            raise InputError("frames must be written inside a `with` block, got one outside; write `with Writer(…)`")
        levels = self._levels(pixels)
        at = self._time(time)
        with self._guarded():
            if self._sound is not None:
                self._sound.write_until(at)
            if self._encoder.write(levels, at):
                self._last = at
            else:
                self._left_out += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file and put it in its place; if the block raised, remove it."""
        try:
            if error is None:
                with self._guarded():
                    self._finish()
        finally:
            self._drop()

    def _begin(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kind = WRITTEN[self._suffix]
        options = {"movflags": "+faststart"} if kind == "mp4" else {}
        self._output = files.library().open(f"file:{self._part}", "w", format=kind, options=options)
        self._encoder = open_encoder(self._output, self._suffix, self.size, self._fps, self._quality)
        if self._sound is None:
            return
        if self._suffix == ".gif":
            self.notes.append("no sound: a GIF has none")
            self._sound = None
        else:
            self._sound.add_to(self._output, self._suffix)
            self.notes.append(self._sound.note)

    def _finish(self) -> None:
        if self._last is None or self._output is None:
            raise InputError("a video must have at least one frame, got none; write some, or leave the file alone")
        self._encoder.finish()
        if self._sound is not None:
            self._sound.write_until(self._last + 1 / self._fps)
            self._sound.finish()
        self._output.close()
        self._output = None
        with self._part.open("rb") as stream:
            os.fsync(stream.fileno())
        self._refuse_existing()
        self._part.replace(self.path)
        if self._left_out:
            self.notes.append(f"{self._left_out} frames left out: a GIF shows at most 50 a second")

    def _drop(self) -> None:
        """Close everything; what is not in its place by now goes."""
        if self._sound is not None:
            self._sound.close()
        if self._output is not None:
            with suppress(Exception):  # another error is on its way
                self._output.close()
            self._output = None
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _levels(self, pixels: Tensor) -> np.ndarray:
        """(H,W,3) uint8 of the file's size."""
        levels = np.asarray(images.to_pil(pixels))
        if levels.shape[:2] != self._frame_size:
            raise InputError(
                f"frames must all have the writer's size (height, width) = {self._frame_size}, got {levels.shape[:2]}; "
                "resize them"
            )
        missing = [(0, whole - side) for whole, side in zip(self.size, self._frame_size, strict=True)]
        return np.ascontiguousarray(np.pad(levels, [*missing, (0, 0)], mode="edge"))

    def _time(self, time: float) -> Fraction:
        """Seconds since the first frame."""
        if not math.isfinite(time):
            raise InputError(f"a frame's time must be a finite number of seconds, got {time}; see Frame.time")
        if self._first is None:
            self._first = Fraction(time)
        at = Fraction(time) - self._first
        if self._given is not None and at - self._given < self._encoder.step:
            raise InputError(
                f"frames must be at least {float(self._encoder.step):.6f} s apart, got one at "
                f"{float(self._first + self._given):.6f} s and then one at {time:.6f} s; write them in order"
            )
        self._given = at
        return at

    def _refuse_existing(self) -> None:
        if self.path.is_dir():
            raise ImageError(f"the target must be a file, got the folder {str(self.path)!r}; add a file name")
        if not self._overwrite and self.path.exists():
            raise ImageError(
                f"the target must be new, got {str(self.path)!r}, which is there; say overwrite, or rename"
            )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """What the disk or ffmpeg refuse, as one line."""
        try:
            yield
        except (files.library().error.FFmpegError, OSError) as error:
            raise ImageError(
                f"the target must be a file that can be written, got {str(self.path)!r} ({files.reason(error)}); "
                "choose another place"
            ) from error


def _check(suffix: str, size: tuple[int, int], fps: float) -> None:
    if suffix not in WRITTEN:
        raise InputError(f"a video's name must end in one of {', '.join(WRITTEN)}, got {suffix!r}; rename the target")
    if len(size) != 2 or not all(isinstance(side, int) and 2 <= side <= _LONGEST_SIDE for side in size):
        raise InputError(f"size must be (height, width) of 2 to {_LONGEST_SIDE} px, got {size}; see the first frame")
    if not 0 < fps <= 1000:
        raise InputError(f"fps must be above 0 and at most 1000, got {fps}; 25 is common")


def _quality(quality: str | int) -> int:
    number = QUALITIES.get(quality, quality) if isinstance(quality, str) else quality
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 100:
        raise InputError(f"quality must be {', '.join(QUALITIES)} or 1 to 100, got {quality!r}; high is a good one")
    return number
