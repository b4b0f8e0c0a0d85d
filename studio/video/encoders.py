"""Pictures into the streams of MP4, WebM and GIF files."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from studio.video import files

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.filter import Graph

_TICKS = 90_000  # a second, at least: as fine as broadcast clocks are
_GIF_TICKS = 100
_GIF_STEP = 2  # browsers show a frame that lasts a single tick for ten
_BT709 = 1
_HALF = Fraction(1, 2)


class Encoder(Protocol):
    """Takes pictures of one size at rising times."""

    step: Fraction
    """Seconds that two frames must be apart."""

    def write(self, levels: np.ndarray, time: Fraction) -> bool:
        """Encode (H,W,3) uint8 RGB, shown from `time` on; False where it was left out: too near to the one before."""

    def finish(self) -> None:
        """Encode what is held back."""


def open_encoder(output: OutputContainer, suffix: str, size: tuple[int, int], fps: Fraction, quality: int) -> Encoder:
    """The encoder for a kind of file.

    Args:
        output: The open file; its stream is added.
        suffix: ".mp4", ".webm" or ".gif".
        size: (height, width) in px, even for the first two.
        fps: Nominal frames a second.
        quality: 1 to 100.
    """
    if suffix == ".gif":
        return _Gif(output, size, fps, colours=max(4, round(2.56 * quality)))
    lost = 100 - quality
    if suffix == ".webm":
        options = {"crf": str(round(14 + 0.45 * lost)), "b": "0", "row-mt": "1", "cpu-used": "4", "deadline": "good"}
        return _Film(output, "libvpx-vp9", size, fps, options, ticks=1000)
    options = {"crf": str(round(12 + 0.39 * lost)), "preset": "medium", "profile": "high"}
    return _Film(output, "libx264", size, fps, options, ticks=fps.numerator * math.ceil(_TICKS / fps.numerator))


class _Film:
    """H.264 or VP9: yuv420p, BT.709, limited range, and said so."""

    def __init__(
        self,
        output: OutputContainer,
        codec: str,
        size: tuple[int, int],
        fps: Fraction,
        options: dict[str, str],
        ticks: int,
    ) -> None:
        self.step, self._output = Fraction(1, ticks), output
        self._stream: Any = output.add_stream(codec, rate=fps, options=options)  # of pictures: av leaves that open
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = self.step
        context = self._stream.codec_context
        context.color_range = files.library().video.reformatter.ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709

    def write(self, levels: np.ndarray, time: Fraction) -> bool:
        from av.video.reformatter import ColorRange, Interpolation

        frame = files.library().VideoFrame.from_ndarray(levels, "rgb24")
        frame = frame.reformat(
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            dst_colorspace=_BT709,
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
        )
        frame.pts, frame.time_base = math.floor(time / self.step + _HALF), self.step
        self._output.mux(self._stream.encode(frame))
        return True

    def finish(self) -> None:
        self._output.mux(self._stream.encode(None))


class _Gif:
    """A palette for every frame, so that none is held back to learn the colours of the later ones."""

    def __init__(self, output: OutputContainer, size: tuple[int, int], fps: Fraction, colours: int) -> None:
        self.step, self._output = Fraction(1, 1_000_000), output
        tick = Fraction(1, _GIF_TICKS)
        self._stream = output.add_stream("gif", rate=fps)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "pal8"
        self._stream.time_base = self._stream.codec_context.time_base = tick
        self._graph, self._last = _palettes(size, tick, colours), -_GIF_STEP

    def write(self, levels: np.ndarray, time: Fraction) -> bool:
        at = math.floor(time * _GIF_TICKS + _HALF)
        if at - self._last < _GIF_STEP:
            return False
        frame = files.library().VideoFrame.from_ndarray(levels, "rgb24")
        frame.pts, frame.time_base, self._last = at, Fraction(1, _GIF_TICKS), at
        self._graph.vpush(frame)
        self._output.mux(self._stream.encode(self._graph.vpull()))
        return True

    def finish(self) -> None:
        self._output.mux(self._stream.encode(None))


def _palettes(size: tuple[int, int], tick: Fraction, colours: int) -> Graph:
    from av.filter import Graph

    graph = Graph()
    rgb: Any = "rgb24"  # taken as a name too
    source = graph.add_buffer(width=size[1], height=size[0], format=rgb, time_base=tick)
    split = graph.add("split")
    find = graph.add("palettegen", f"stats_mode=single:reserve_transparent=0:max_colors={colours}")
    use, sink = graph.add("paletteuse", "new=1"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(find, 1, 0)
    find.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
