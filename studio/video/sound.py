"""The sound under a written video: copied as it is where that can be, else decoded, cut and encoded anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import InputError
from studio.video import files
from studio.video.info import has_pictures, probe

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer, OutputContainer
    from av.filter import Graph

_COPIED = {".mp4": ("aac", "mp3"), ".webm": ("opus", "vorbis")}  # what browsers play in these files
_ENCODERS = {".mp4": ("aac", "fltp", (48000, 44100, 32000)), ".webm": ("libopus", "flt", (48000,))}
_BIT_RATE = 80_000  # a channel
_LEAD_IN = Fraction(1, 10)  # s before second 0 at which a copied track may begin: players skip an encoder's lead-in


class Sound:
    """The sound track of a file, laid under a video while this is written. Close it in the end.

    Args:
        path: A video or a sound file. Of several tracks the one marked as default is taken, else the first.
        start: Second of it, on the clock of `video.read`, that is heard with the video's first frame.
        end: Second of it at which the sound ends; None: with the video.

    Attributes:
        note: One line on what was done with it, for reports.

    Raises:
        ImageError: No such file, or a broken one.
        InputError: `end` not after `start`, or `start` after the end of the sound.
    """

    def __init__(self, path: str | Path, start: float = 0, end: float | None = None) -> None:
        if not 0 <= start < float("inf") or (end is not None and not start < end < float("inf")):
            raise InputError(f"the sound must start at 0 or later and end after that, got {start} to {end}; swap them")
        self.note = ""
        self._path, self._start = files.existing(path), Fraction(start)
        self._end = None if end is None else Fraction(end)
        self._files = ExitStack()
        self._track: _Copied | _Encoded | None = None

    def add_to(self, output: OutputContainer, suffix: str) -> None:
        """Add its track to a file that is being written, before the first frame: ".mp4" or ".webm"."""
        source = self._files.enter_context(files.opened(self._path))
        tracks = files.tracks(source)
        if not tracks:
            self.note = f"no sound: {self._path.name!r} has none"
            return
        stream = max(tracks, key=files.is_default)
        zero = probe(self._path).origin if has_pictures(source) else (stream.start_time or 0) * stream.time_base
        self._check(stream, zero)
        codec, first = stream.codec_context.codec.canonical_name, _first(self._path, stream.index)
        whole = self._start == 0 and self._end is None and first is not None and first - zero >= -_LEAD_IN
        if whole and codec in _COPIED[suffix]:
            target = output.add_stream_from_template(stream)
            self._track = _Copied(self._packets(source, stream), target, output, zero)
            self.note = f"sound copied ({codec})"
        else:
            length = None if self._end is None else self._end - self._start
            self._track = _Encoded(self._path, source, stream, output, suffix, zero + self._start, length)
            self.note = f"sound encoded anew ({codec} to {_ENCODERS[suffix][0].removeprefix('lib')})"
        if len(tracks) > 1:
            self.note += f", track {tracks.index(stream) + 1} of {len(tracks)}"

    def write_until(self, time: Fraction) -> None:
        """Write what is heard before this second of the video."""
        if self._track is not None:
            self._track.write_until(time)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._track is not None:
            self._track.finish()

    def close(self) -> None:
        """Close the file that it comes from."""
        self._files.close()

    def _packets(self, source: InputContainer, stream: AudioStream) -> Iterator[Packet]:
        with files.translated(self._path):
            yield from (packet for packet in source.demux(stream) if packet.dts is not None)

    def _check(self, stream: AudioStream, zero: Fraction) -> None:
        if stream.duration and ((stream.start_time or 0) + stream.duration) * stream.time_base - zero <= self._start:
            length = float(stream.duration * stream.time_base)
            raise InputError(
                f"audio_start must be before the sound's end, got {float(self._start):.2f} s of {length:.2f} s"
            )


class _Copied:
    """Packets as they are, up to the one that begins after the last frame."""

    def __init__(self, packets: Iterator[Packet], target: AudioStream, output: OutputContainer, zero: Fraction) -> None:
        self._packets, self._target, self._output, self._zero = packets, target, output, zero
        self._next = next(packets, None)

    def write_until(self, time: Fraction) -> None:
        while self._next is not None and _time(self._next) - self._zero < time:
            packet, self._next = self._next, next(self._packets, None)
            shift = round(self._zero / packet.time_base)
            packet.dts = (packet.dts or 0) - shift  # none is without one, see `_packets`
            packet.pts = packet.dts if packet.pts is None else packet.pts - shift
            packet.stream = self._target
            self._output.mux(packet)

    def finish(self) -> None:
        """Nothing is held back."""


class _Encoded:
    """Samples from a second of the file's own clock on, silence where it has none, cut at the sample."""

    def __init__(
        self,
        path: Path,
        source: InputContainer,
        stream: AudioStream,
        output: OutputContainer,
        suffix: str,
        start: Fraction,
        length: Fraction | None,
    ) -> None:
        codec, form, rates = _ENCODERS[suffix]
        rate, channels = stream.codec_context.sample_rate, min(stream.codec_context.channels, 2)
        self._rate = rate if rate in rates else 48_000
        layout = "mono" if channels == 1 else "stereo"
        self._output, self._length = output, length
        self._target: Any = output.add_stream(codec, rate=self._rate, layout=layout)  # of sound: av leaves that open
        self._target.bit_rate = _BIT_RATE * channels
        self._frames = _heard(path, source.decode(stream), start, self._rate, form, layout)
        self._fifo, self._written = files.library().AudioFifo(), 0

    def write_until(self, time: Fraction) -> None:
        until = time if self._length is None else min(time, self._length)
        wanted = int(until * self._rate) - self._written
        while self._fifo.samples < wanted and (frame := next(self._frames, None)) is not None:
            frame.pts = None
            self._fifo.write(frame)
        count = min(wanted, self._fifo.samples)
        if count > 0:
            frame = self._fifo.read(count)
            frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
            self._written += count
            self._output.mux(self._target.encode(frame))

    def finish(self) -> None:
        self._output.mux(self._target.encode(None))


def _heard(
    path: Path, frames: Iterator[AudioFrame], start: Fraction, rate: int, form: str, layout: str
) -> Iterator[AudioFrame]:
    """Decoded sound from `start` on, without holes, in the form that the encoder takes."""
    with files.translated(path):
        graph = None
        for frame in frames:
            graph = graph or _cutter(frame, float(start), rate, form, layout)
            graph.push(frame)
            yield from _pulled(graph)
        if graph is not None:
            graph.push(None)
            yield from _pulled(graph)


def _pulled(graph: Graph) -> Iterator[Any]:
    with suppress(BlockingIOError, EOFError):  # av's errors are also Python's
        while True:
            yield graph.pull()


def _cutter(first: AudioFrame, start: float, rate: int, form: str, layout: str) -> Graph:
    from av.filter import Graph

    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=first.sample_rate, format=first.format, layout=first.layout, time_base=first.time_base
    )
    graph.link_nodes(
        source,
        graph.add("atrim", f"start={start:.6f}"),
        graph.add("asetpts", f"PTS-{start:.6f}/TB"),
        graph.add("aresample", f"{rate}:async=1:first_pts=0"),
        graph.add("aformat", f"sample_fmts={form}:channel_layouts={layout}"),
        graph.add("abuffersink"),
    ).configure()
    return graph


def _first(path: Path, index: int) -> Fraction | None:
    """The time of a track's first packet, in the file's own clock; going back in an open file can lose that packet."""
    with files.opened(path) as source:
        packet = next((packet for packet in source.demux(source.streams[index]) if packet.dts is not None), None)
        return None if packet is None else _time(packet)


def _time(packet: Packet) -> Fraction:
    return (packet.dts if packet.pts is None else packet.pts) * packet.time_base
