"""Reading and writing moving pictures: times, turns, colours, sound, and what must be refused."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tracemalloc
import weakref
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio import video
from studio.errors import ImageError, InputError, StudioError
from studio.video import colour

av = pytest.importorskip("av", reason="the extra `video` is not installed")

HEIGHT, WIDTH, RATE = 32, 48, 48_000
CODECS = {
    ".mp4": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".ts": "libx264",
    ".webm": "libvpx-vp9",
    ".avi": "mjpeg",
    ".gif": "gif",
}
FORMATS = {".gif": "rgb8", ".avi": "yuvj420p"}
WHITE_AT = 1.0  # s: where the flash and the click of `talk` are


def picture(index=0, height=HEIGHT, width=WIDTH):
    """(H,W,3) uint8, smooth, without symmetry, another one for each index."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    bands = [x / width, y / height, (x + 2 * y) / (width + 2 * height)]
    return np.rint((np.stack(bands, -1) * 0.8 + 0.02 * (index % 10)) * 255).astype(np.uint8)


def flat(value, height=HEIGHT, width=WIDTH):
    return np.full((height, width, 3), value, np.uint8)


def clip(path, frames=10, rate=10, *, ticks=None, codec=None, form=None, options=None, mux=None, turn=None, fmt=None):
    """Write frames (arrays, ready frames, or how many pictures) at ticks of 1/rate; returns the path."""
    frames = [picture(index) for index in range(frames)] if isinstance(frames, int) else frames
    form = form or FORMATS.get(path.suffix, "yuv420p")
    with av.open(str(path), "w", format=fmt, options=mux or {}) as container:
        stream = container.add_stream(codec or CODECS[path.suffix], rate=rate, options=options or {})
        first = frames[0]
        stream.width, stream.height = (first.width, first.height) if hasattr(first, "width") else first.shape[1::-1]
        stream.pix_fmt = form
        if turn:
            stream.set_display_rotation(*turn)
        for tick, frame in zip(ticks or range(len(frames)), frames, strict=True):
            if not hasattr(frame, "width"):
                frame = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format=form)
            stream.codec_context.colorspace, stream.codec_context.color_range = frame.colorspace, frame.color_range
            stream.codec_context.color_trc = frame.color_trc
            frame.pts, frame.time_base = tick, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def lossless(path, frames, **options):
    """Frames of a colour format as they are: no codec changes their numbers."""
    return clip(path, frames, codec="ffv1", form=frames[0].format.name, **options)


def planes(form, values, dtype, height=HEIGHT, width=WIDTH, matrix=2, full=False):
    """A frame with one value in each plane."""
    frame = av.VideoFrame(width, height, form)
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, value, dtype).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


def sound(seconds, channels=1):
    """(channels, samples) float32: a soft tone, and a click at WHITE_AT."""
    wave = np.sin(np.arange(round(seconds * RATE)) / 20)[None].repeat(channels, 0) * 0.01
    wave[:, round(WHITE_AT * RATE) : round(WHITE_AT * RATE) + 60] = 0.9
    return wave.astype(np.float32)


def talk(path, seconds=2, rate=25, codecs=None, tracks=1, channels=1, pictures=True):
    """A video with sound: black, one white frame at WHITE_AT, and a click there."""
    codecs = codecs or {".webm": ("libvpx-vp9", "libopus"), ".ts": ("mpeg2video", "mp2")}.get(
        path.suffix, ("libx264", "aac")
    )
    layout = "mono" if channels == 1 else "stereo"
    with av.open(str(path), "w") as container:
        if pictures:
            stream = container.add_stream(codecs[0], rate=rate)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        heard = [container.add_stream(codecs[1], rate=RATE, layout=layout) for _ in range(tracks)]
        wave, each = sound(seconds, channels), RATE // rate
        for index in range(seconds * rate):
            if pictures:
                shown = flat(255 if index == round(WHITE_AT * rate) else 0)
                frame = av.VideoFrame.from_ndarray(shown, "rgb24")
                frame.pts, frame.time_base = index, Fraction(1, rate)
                container.mux(stream.encode(frame))
            for track in heard:
                part = np.ascontiguousarray(wave[:, index * each : (index + 1) * each])
                frame = av.AudioFrame.from_ndarray(part, "fltp", layout)
                frame.sample_rate, frame.pts, frame.time_base = RATE, index * each, Fraction(1, RATE)
                container.mux(track.encode(frame))
        for stream in container.streams:
            container.mux(stream.encode(None))
    return path


def click(path):
    """The second of the file's clock at which the click is heard; None without one."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            wave = av.AudioResampler("fltp").resample(frame)[0].to_ndarray()[0]
            if wave.max() > 0.3:
                return float(frame.pts * frame.time_base) + int(np.argmax(wave > 0.3)) / frame.sample_rate
    return None


def heard_for(path):
    """Seconds of sound in a file, from its first to its last sample."""
    with av.open(str(path)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def packets(path, kind):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]


def times(path, **options):
    return [frame.time for frame in video.read(path, **options)]


def pixels(path, index=0, **options):
    return [frame.pixels for frame in video.read(path, **options)][index]


def write(path, frames=10, fps=10, size=(HEIGHT, WIDTH), **options):
    """Write pictures with the Writer; returns it."""
    with video.Writer(path, size, fps, **options) as writer:
        for index in range(frames):
            writer.write(torch.from_numpy(picture(index, *size)).permute(2, 0, 1) / 255, index / fps)
    return writer


def one_line(error):
    return "\n" not in str(error.value) and "must" in str(error.value)


# Reading


@pytest.mark.parametrize("suffix", CODECS)
def test_reads(suffix, tmp_path):
    path = clip(tmp_path / f"x{suffix}")
    info = video.probe(path)
    assert (info.width, info.height, info.fps) == (WIDTH, HEIGHT, 10)
    assert info.duration == pytest.approx(1)
    assert info.frames in (10, None)
    assert (info.audio, info.rotation, info.interlaced, info.still) == ((), 0, False, False)
    frames = list(video.read(path))
    assert [frame.time for frame in frames] == [index / 10 for index in range(10)]
    for index, frame in enumerate(frames):
        assert (frame.pixels.shape, frame.pixels.dtype) == ((3, HEIGHT, WIDTH), torch.float32)
        want = torch.from_numpy(picture(index)).permute(2, 0, 1) / 255
        assert (frame.pixels - want).abs().mean() < (0.09 if suffix == ".gif" else 0.03)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".ts", ".gif"])
def test_varying_rate(suffix, tmp_path):
    ticks = [0, 7, 8, 30, 31, 55, 90]
    path = clip(tmp_path / f"x{suffix}", len(ticks), rate=100, ticks=ticks)
    assert times(path) == [tick / 100 for tick in ticks]


def test_times_are_exact_fractions(tmp_path):
    path = clip(tmp_path / "x.mp4", 40, rate=30, ticks=range(40))
    assert times(path) == [float(Fraction(tick, 30)) for tick in range(40)]


def test_second_zero_is_the_first_frame(tmp_path):
    path = clip(tmp_path / "x.mkv", 4, ticks=[15, 16, 18, 19])
    assert video.probe(path).origin == Fraction(3, 2)
    assert times(path) == [0, 0.1, 0.3, 0.4]


def test_of_two_frames_at_one_time_the_first_counts(tmp_path):
    frames = [flat(shade) for shade in (0, 100, 200, 250)]
    path = clip(tmp_path / "x.mkv", frames, codec="ffv1", ticks=[0, 1, 1, 2])
    found = list(video.read(path))
    assert [frame.time for frame in found] == [0, 0.1, 0.2]
    assert round(float(found[1].pixels.mean()) * 255) == 100


@pytest.mark.parametrize(
    ("turn", "clockwise", "undo"),
    [
        ((90,), 270, lambda x: np.rot90(x)),
        ((-90,), 90, lambda x: np.rot90(x, -1)),
        ((180,), 180, lambda x: np.rot90(x, 2)),
        ((0, True), 0, lambda x: x[:, ::-1]),
        ((90, True), 270, lambda x: np.rot90(x)[:, ::-1]),
    ],
)
def test_turned(turn, clockwise, undo, tmp_path):
    path = clip(tmp_path / "x.mp4", 3, turn=turn, options={"qp": "1"})
    want = np.ascontiguousarray(undo(picture(2)))
    info = video.probe(path)
    assert (info.height, info.width, info.rotation, info.mirrored) == (*want.shape[:2], clockwise, len(turn) > 1)
    found = pixels(path, 2)
    assert found.shape == (3, *want.shape[:2])
    assert (found - torch.from_numpy(want).permute(2, 0, 1) / 255).abs().mean() < 0.02


def test_pixels_are_made_square(tmp_path):
    path = clip(tmp_path / "x.mkv", options={"aspect": "2:1"})
    assert (video.probe(path).width, video.probe(path).height) == (96, HEIGHT)
    assert pixels(path).shape == (3, HEIGHT, 96)


WEIGHTS = {"bt709": (1, 0.2126, 0.0722), "bt601": (5, 0.299, 0.114), "bt2020": (9, 0.2627, 0.0593)}


def rgb(values, bits, full, red, blue):
    """What Y, Cb, Cr mean, by the formulas of the three recommendations: (3,) in [0,1]."""
    top, unit = 2**bits - 1, 2 ** (bits - 8)
    y, cb, cr = values[0] - (0 if full else 16 * unit), values[1] - 128 * unit, values[2] - 128 * unit
    y, cb, cr = (
        y / (top if full else 219 * unit),
        cb / (top if full else 224 * unit),
        cr / (top if full else 224 * unit),
    )
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return torch.tensor([r, (y - red * r - blue * b) / (1 - red - blue), b])


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("form", "bits"), [("yuv420p", 8), ("yuv444p", 8), ("yuv420p10le", 10), ("yuv422p12le", 12)])
def test_colours(matrix, full, form, bits, tmp_path):
    number, red, blue = WEIGHTS[matrix]
    values = [level * 2 ** (bits - 8) for level in (120, 100, 150)]
    dtype = np.uint8 if bits == 8 else np.uint16
    path = lossless(tmp_path / "x.mkv", [planes(form, values, dtype, matrix=number, full=full)] * 2)
    info = video.probe(path)
    assert (info.matrix, info.color_range, info.bits) == (matrix, "full" if full else "limited", bits)
    found = pixels(path)
    want = rgb(values, bits, full, red, blue)
    assert (found - want.view(3, 1, 1)).abs().max() < 1 / 255


@pytest.mark.parametrize(("height", "matrix"), [(480, "bt601"), (720, "bt709")])
def test_matrix_that_no_header_names(height, matrix, tmp_path):
    frame = planes("yuv420p", (120, 100, 150), np.uint8, height=height)
    path = lossless(tmp_path / "x.mkv", [frame])
    assert video.probe(path).matrix == matrix
    want = rgb((120, 100, 150), 8, False, *WEIGHTS[matrix][1:])
    assert (pixels(path) - want.view(3, 1, 1)).abs().max() < 1 / 255


def test_ten_bits_are_not_cut_to_eight(tmp_path):
    frame = planes("yuv444p10le", (64, 512, 512), np.uint16)
    ramp = np.arange(400, 400 + WIDTH, dtype=np.uint16)[None].repeat(HEIGHT, 0)
    rows = np.zeros((HEIGHT, frame.planes[0].line_size // 2), np.uint16)
    rows[:, :WIDTH] = ramp
    frame.planes[0].update(rows.tobytes())
    row = pixels(lossless(tmp_path / "x.mkv", [frame]))[1, HEIGHT // 2]
    assert len(row.unique()) == WIDTH
    assert (row - torch.arange(400 - 64, 400 - 64 + WIDTH) / 876).abs().max() < 0.5 / 255


def test_odd_sizes(tmp_path):
    path = clip(tmp_path / "x.mkv", [picture(0, 31, 47)] * 2, codec="ffv1", form="yuv444p")
    assert pixels(path).shape == (3, 31, 47)
    path = clip(tmp_path / "y.mkv", [picture(0, 31, 47)] * 2, codec="ffv1", form="yuv420p")
    assert (pixels(path) - torch.from_numpy(picture(0, 31, 47)).permute(2, 0, 1) / 255).abs().mean() < 0.02


def test_hdr_is_shown_as_on_an_ordinary_screen(tmp_path):
    # BT.2408: a diffuse white of 203 cd/m² is 75 % of HLG on a screen of 1,000 cd/m², and 58 % of PQ.
    hlg, pq = colour._hlg(torch.full((3, 1, 1), 0.75)), colour._pq(torch.full((3, 1, 1), 0.5807))
    assert hlg.flatten().tolist() == pytest.approx([203] * 3, rel=0.01)
    assert pq.flatten().tolist() == pytest.approx([203] * 3, rel=0.01)
    for transfer in ("hlg", "pq"):
        ramp = colour.to_sdr(torch.linspace(0, 1, 100).expand(3, 1, 100).clone(), transfer)
        assert ramp[0, 0, 0] < 1e-3
        assert 0.9 < ramp[0, 0, 75 if transfer == "hlg" else 58] < ramp[0, 0, -1] <= 1
        assert (ramp.diff(dim=2) >= 0).all()
    frame = planes("yuv420p10le", (721, 512, 512), np.uint16, matrix=9)  # 75 % of grey
    frame.color_trc = 18
    path = lossless(tmp_path / "x.mkv", [frame])
    assert video.probe(path).transfer == "hlg"
    assert pixels(path).mean() == pytest.approx(0.945, abs=0.005)


def combed(rows):
    """How much neighbouring rows differ beyond the rows after the next ones."""
    return float((rows[:, 1:-1] - (rows[:, :-2] + rows[:, 2:]) / 2).abs().mean())


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [(".mp4", "libx264", {"x264-params": "interlaced=1:tff=1", "qp": "5"}), (".mpg", "mpeg2video", None)],
)
def test_interlaced(suffix, codec, options, tmp_path):
    fields = []
    for index in range(20):
        field = flat(20, 64, 96)
        field[:, index * 4 : index * 4 + 16] = 230
        fields.append(field)
    woven = [
        np.where((np.arange(64) % 2 == 0)[:, None, None], a, b) for a, b in zip(fields[::2], fields[1::2], strict=True)
    ]
    options = options or {"flags": "+ildct+ilme", "b": "4M"}
    path = clip(tmp_path / f"x{suffix}", woven, rate=25, codec=codec, options=options)
    assert video.probe(path).interlaced
    frames = list(video.read(path))
    assert [frame.time for frame in frames] == pytest.approx([index / 25 for index in range(10)], abs=1e-4)
    raw = torch.from_numpy(woven[5]).permute(2, 0, 1) / 255
    assert combed(frames[5].pixels) < 0.2 * combed(raw)


def test_sound_tracks(tmp_path):
    tracks = video.probe(talk(tmp_path / "x.mp4", 1, tracks=2, channels=2)).audio
    assert [(track.codec, track.rate, track.channels) for track in tracks] == [("aac", RATE, 2)] * 2
    assert [track.default for track in tracks] == [True, False]
    assert video.probe(talk(tmp_path / "x.webm", 1)).audio[0].codec == "opus"


@pytest.mark.parametrize("kind", ["mp4", "mkv", "mp4 of open groups", "mp4 that names no key frames", "ts", "mpg"])
def test_start_and_end(kind, tmp_path):
    options = {"x264-params": "open-gop=1:keyint=7:bframes=2"} if "open" in kind else {"g": "7", "bf": "2"}
    path = clip(tmp_path / f"x.{kind[:3].strip()}", 100, rate=25, codec="mpeg2video" * (kind == "mpg"), options=options)
    if "names" in kind:
        path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    whole = list(video.read(path))
    for start, end in ((0.1, None), (2, 3), (0.95, 1.25), (3.6, None), (0, 0.1)):
        want = [frame for frame in whole if frame.time >= start and (end is None or frame.time < end)]
        found = list(video.read(path, start=start, end=end))
        assert [frame.time for frame in found] == [frame.time for frame in want]
        assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(found, want, strict=True))


@pytest.mark.parametrize("suffix", CODECS)
def test_start_in_every_kind_of_file(suffix, tmp_path):
    path = clip(tmp_path / f"x{suffix}", 30)
    assert times(path, start=1.2, end=1.5) == [1.2, 1.3, 1.4]
    assert torch.equal(pixels(path, start=1.25, fps=10), pixels(path, 12))


@pytest.mark.parametrize("fps", [3, 7, 10, 24, 29.97, 60])
@pytest.mark.parametrize(("start", "end"), [(None, None), (0.25, 0.8), (None, 0.5), (0.3, 5)])
def test_resampled(fps, start, end, tmp_path):
    ticks = [0, 7, 8, 30, 31, 55, 90]
    path = clip(tmp_path / "x.mkv", [flat(30 * index) for index in range(7)], rate=100, ticks=ticks)
    last = float(min(Fraction(end) if end else 9, Fraction(video.probe(path).duration).limit_denominator(1000)))
    want = []
    while (moment := (start or 0) + len(want) / fps) < last - 1e-5:
        want.append((moment, max(index for index, tick in enumerate(ticks) if tick / 100 <= moment + 1e-6)))
    found = list(video.read(path, start=start, end=end, fps=fps))
    assert [frame.time for frame in found] == pytest.approx([moment for moment, _ in want], abs=1e-6)
    assert [round(float(frame.pixels.mean()) * 255 / 30) for frame in found] == [index for _, index in want]
    assert len({frame.pixels.data_ptr() for frame in found}) == len(found), "each frame is the caller's own"


def test_still_pictures(tmp_path):
    for name in ("x.png", "x.jpg", "x.webp", "x.gif", "x.avif", "x.tif"):
        path = tmp_path / name
        Image.fromarray(picture()).save(path)
        for call in (video.probe, video.read):
            with pytest.raises(ImageError, match="still picture") as error:
                call(path)
            assert one_line(error)
        info = video.probe(path, allow_still=True)
        assert (info.still, info.frames, info.width, info.height) == (True, 1, WIDTH, HEIGHT)
        (frame,) = video.read(path, allow_still=True)
        assert (frame.time, frame.pixels.shape) == (0, (3, HEIGHT, WIDTH))


def test_a_turned_still_stands_upright(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(picture()).save(tmp_path / "x.jpg", exif=tags)
    assert video.probe(tmp_path / "x.jpg", allow_still=True).height == WIDTH
    assert pixels(tmp_path / "x.jpg", allow_still=True).shape == (3, WIDTH, HEIGHT)


def test_animated_png(tmp_path):
    frames = [Image.fromarray(picture(index)) for index in (0, 5)]
    frames[0].save(tmp_path / "x.png", save_all=True, append_images=frames[1:], duration=[100, 300])
    assert times(tmp_path / "x.png") == [0, 0.1]


def cut(path, part=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


def damaged(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(range(200)) * 2
    path.write_bytes(data)
    return path


def cover(path):
    """A sound file with a picture on its cover."""
    with av.open(str(path), "w") as container:
        heard = container.add_stream("mp3", rate=RATE, layout="mono")
        shown = container.add_stream("mjpeg", rate=1)
        shown.width, shown.height, shown.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        shown.disposition = av.stream.Disposition.attached_pic
        container.mux(shown.encode(av.VideoFrame.from_ndarray(picture(), "rgb24").reformat(format="yuvj420p")))
        frame = av.AudioFrame.from_ndarray(sound(2), "fltp", "mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(heard.encode(frame))
        container.mux(heard.encode(None))
    return path


def without_frames(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height = WIDTH, HEIGHT
        container.mux(stream.encode(None))
        talk_in = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound(2), "fltp", "mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(talk_in.encode(frame))
        container.mux(talk_in.encode(None))
    return path


def playlist(path):
    clip(path.parent / "secret.ts")
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nsecret.ts\n#EXT-X-ENDLIST\n")
    return path


def of_text(path):
    path.write_text("no video at all\n" * 30)
    return path


def empty(path):
    path.touch()
    return path


REFUSED = {
    "nothing": ("x.mp4", lambda path: path, "existing"),
    "a folder": ("x.mp4", lambda path: path.mkdir() or path, "a folder"),
    "empty": ("x.mp4", empty, "empty"),
    "text": ("x.mp4", of_text, "of another kind"),
    "sound alone": ("x.m4a", lambda path: talk(path, pictures=False), "no video stream"),
    "sound with a cover": ("x.mp3", cover, "no video stream"),
    "a stream without frames": ("x.mkv", without_frames, "got none"),
    "cut off, no index": ("x.mp4", lambda path: cut(clip(path, 60), 0.3), "cut off"),
    "cut off, index first": ("x.mp4", lambda path: cut(clip(path, 30, mux={"movflags": "+faststart"})), "cut off"),
    "cut off, GIF": ("x.gif", lambda path: cut(clip(path, 30)), "cut off"),
    "a playlist": ("x.m3u8", playlist, "of another kind"),
    "a playlist named video": ("x.mp4", playlist, "of another kind"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_at_once(case, tmp_path):
    name, make, words = REFUSED[case]
    path = make(tmp_path / name)
    for call in (video.probe, video.read):
        with pytest.raises(ImageError, match=words) as error:
            call(path)
        assert one_line(error)


def test_a_codec_that_is_not_known(tmp_path):
    path = clip(tmp_path / "x.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(ImageError, match="codec known here") as error:
        video.probe(path)
    assert one_line(error)


def test_odd_letters_in_the_tags(tmp_path):
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QQQQ"
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), "rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xe9\xff\xe9\xff"))
    assert times(path) == [0]


def resized(path):
    """Two sizes in one stream: transport streams are put together by appending."""
    first = clip(path.with_name("a.ts"), 10)
    second = clip(path.with_name("b.ts"), [picture(0, 64, 64)] * 10, ticks=range(10, 20))
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def backwards(path):
    part = clip(path.with_name("a.ts"), 10)
    path.write_bytes(part.read_bytes() * 2)
    return path


@pytest.mark.parametrize(
    ("name", "make", "words", "least"),
    [
        ("x.mkv", lambda path: cut(clip(path, 60, options={"g": "5"})), "breaks off", 5),
        ("x.avi", lambda path: cut(clip(path, 60)), "breaks off", 5),
        ("x.webm", lambda path: cut(clip(path, 60)), "breaks off", 5),
        ("x.mp4", lambda path: damaged(clip(path, 60, options={"bf": "0"})), "breaks off|broken frame", 1),
        ("x.ts", resized, "one size", 5),
        ("x.ts", backwards, "forwards", 5),
    ],
)
def test_refused_where_it_breaks(name, make, words, least, tmp_path):
    path, found = make(tmp_path / name), []
    with pytest.raises(ImageError, match=words) as error:
        found.extend(frame.time for frame in video.read(path))
    assert one_line(error)
    assert len(found) >= least
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    "options",
    [
        {"start": 0.5, "end": 0.5},
        {"start": 0.5, "end": 0.2},
        {"end": 0},
        {"start": -1},
        {"start": float("nan")},
        {"end": float("inf")},
        {"fps": 0},
        {"fps": -5},
        {"fps": float("nan")},
    ],
)
def test_refused_arguments(options, tmp_path):
    path = clip(tmp_path / "x.mp4")
    with pytest.raises(InputError) as error:
        video.read(path, **options)
    assert one_line(error)


@pytest.mark.parametrize("options", [{"start": 5}, {"start": 1}, {"start": 0.41, "end": 0.49}, {"start": 5, "fps": 10}])
def test_no_frame_between(options, tmp_path):
    path = clip(tmp_path / "x.mp4")
    with pytest.raises(InputError, match="must have a frame from") as error:
        list(video.read(path, **options))
    assert one_line(error)


def test_without_the_package(tmp_path, monkeypatch):
    path = clip(tmp_path / "x.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (
        lambda: video.probe(path),
        lambda: video.read(path),
        lambda: video.Writer(tmp_path / "y.mp4", (HEIGHT, WIDTH), 10),
    ):
        with pytest.raises(StudioError, match=r"pip install face-studio\[video\]") as error:
            call()
        assert "\n" not in str(error.value)


def test_import_leaves_the_package_alone(repository):
    code = "import sys, studio.video; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0


def test_names_that_look_like_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b %03d.mp4", "data:x.mp4", "-x.mp4"):
        write(Path(name), 3)
        assert len(times(name)) == 3


# Memory


def peak_of_reading(path, seen):
    gc.collect()
    tracemalloc.start()
    live, most = weakref.WeakSet(), 0
    for frame in video.read(path):
        live.add(frame)
        most = max(most, len(live))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    seen.append(most)
    return peak


def test_memory_of_reading_does_not_grow(tmp_path):
    size, seen = (64, 96), []
    short = clip(tmp_path / "s.mp4", [picture(0, *size)] * 50, rate=25)
    long = clip(tmp_path / "l.mp4", [picture(0, *size)] * 500, rate=25)
    list(video.read(short))  # what is allocated once
    small, large = peak_of_reading(short, seen), peak_of_reading(long, seen)
    assert max(seen) <= 2
    assert large < small + 2 * 3 * 64 * 96 * 4


def test_memory_of_writing_does_not_grow(tmp_path):
    peaks = []
    for seconds in (2, 2, 20):
        gc.collect()
        tracemalloc.start()
        write(tmp_path / f"{len(peaks)}.mp4", 10 * seconds)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 2 * 3 * HEIGHT * WIDTH * 4


# Writing


@pytest.mark.parametrize("suffix", video.WRITTEN)
def test_round_trip(suffix, tmp_path):
    path = tmp_path / "new" / f"x{suffix.upper()}"
    assert write(path).notes == []
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    frames = list(video.read(path))
    assert [frame.time for frame in frames] == [index / 10 for index in range(10)]
    assert video.probe(path).duration == pytest.approx(1)
    for index, frame in enumerate(frames):
        want = torch.from_numpy(picture(index)).permute(2, 0, 1) / 255
        assert (frame.pixels - want).abs().mean() < 0.02


def test_browsers_can_play_it(tmp_path):
    write(tmp_path / "x.mp4", 30, audio_from=talk(tmp_path / "sound.mkv", codecs=("libx264", "flac")))
    data = (tmp_path / "x.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first, so that it plays while it loads"
    with av.open(str(tmp_path / "x.mp4")) as container:
        shown, heard = container.streams.video[0].codec_context, container.streams.audio[0].codec_context
        assert (shown.name, shown.pix_fmt, shown.profile, heard.name) == ("h264", "yuv420p", "High", "aac")
        tags = (shown.color_range, shown.colorspace, shown.color_primaries, shown.color_trc)
        assert [int(tag) for tag in tags] == [1, 1, 1, 1]
    write(tmp_path / "x.webm", audio_from=tmp_path / "sound.mkv")
    with av.open(str(tmp_path / "x.webm")) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == "vp9"
        assert container.streams.audio[0].codec_context.codec.canonical_name == "opus"
        assert int(container.streams.video[0].codec_context.colorspace) == 1


@pytest.mark.parametrize("fps", [10, 25, 24, 30, 60, Fraction(24000, 1001), 30000 / 1001, 12.5])
def test_written_times_are_exact(fps, tmp_path):
    exact = Fraction(fps).limit_denominator(1001)
    with video.Writer(tmp_path / "x.mp4", (HEIGHT, WIDTH), fps) as writer:
        for index in range(20):
            writer.write(torch.zeros(3, HEIGHT, WIDTH), float(index / exact))
    assert times(tmp_path / "x.mp4") == [float(index / exact) for index in range(20)]
    assert video.probe(tmp_path / "x.mp4").fps == pytest.approx(float(exact))
    assert video.probe(tmp_path / "x.mp4").duration == pytest.approx(float(20 / exact), abs=1e-6)


@pytest.mark.parametrize(("suffix", "near"), [(".mp4", 1e-5), (".webm", 6e-4), (".gif", 6e-3)])
def test_varying_times_are_kept(suffix, near, tmp_path):
    moments = [3.2, 3.27, 3.3, 3.8, 4.1234, 6.5]  # the clock starts with the first frame
    with video.Writer(tmp_path / f"x{suffix}", (HEIGHT, WIDTH), 25) as writer:
        for moment in moments:
            writer.write(torch.full((3, HEIGHT, WIDTH), moment / 8), moment)
    assert times(tmp_path / f"x{suffix}") == pytest.approx([moment - 3.2 for moment in moments], abs=near)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_odd_sizes_are_made_even(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    writer = write(path, size=(31, 47))
    assert writer.size == (32, 48)
    assert writer.notes == ["47x31 px made 48x32: the format needs even sides"]
    found = pixels(path)
    assert found.shape == (3, 32, 48)
    want = torch.from_numpy(picture(0, 31, 47)).permute(2, 0, 1) / 255
    assert (found[:, :31, :47] - want).abs().mean() < 0.02
    assert (found[:, 31:, :47] - want[:, 30:]).abs().mean() < 0.04, "the edge is repeated, not black"


def test_gif_keeps_odd_sizes_and_its_pace(tmp_path):
    writer = write(tmp_path / "x.gif", 60, fps=60, size=(31, 47))
    assert pixels(tmp_path / "x.gif").shape == (3, 31, 47)
    found = times(tmp_path / "x.gif")
    assert min(b - a for a, b in pairwise(found)) > 0.019
    assert writer.notes == [f"{60 - len(found)} frames left out: a GIF shows at most 50 a second"]


def test_quality_changes_the_file(tmp_path):
    torch.manual_seed(0)
    noise = torch.rand(8, 3, 64, 64)
    for suffix in video.WRITTEN:
        sizes = []
        for quality in ("low", 75, "high", 100):
            path = tmp_path / f"{quality}{suffix}"
            with video.Writer(path, (64, 64), 10, quality=quality) as writer:
                for index, pixel in enumerate(noise):
                    writer.write(pixel, index / 10)
            sizes.append(path.stat().st_size)
        assert sizes == sorted(set(sizes))


def test_refuses_to_overwrite(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(ImageError, match="overwrite") as error:
        video.Writer(path, (HEIGHT, WIDTH), 10)
    assert one_line(error)
    assert path.read_bytes() == b"precious"
    write(path, overwrite=True)
    assert len(times(path)) == 10
    assert [file.name for file in tmp_path.iterdir()] == ["x.mp4"]


def test_a_file_that_came_meanwhile_is_kept(tmp_path):
    path = tmp_path / "x.mp4"
    with pytest.raises(ImageError, match="overwrite"), video.Writer(path, (HEIGHT, WIDTH), 10) as writer:
        writer.write(torch.zeros(3, HEIGHT, WIDTH), 0)
        path.write_bytes(b"another's")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x.mp4", b"another's")]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("suffix", video.WRITTEN)
def test_a_failed_run_leaves_nothing(error, suffix, tmp_path):
    path = tmp_path / "out" / f"x{suffix}"
    path.parent.mkdir()
    path.write_bytes(b"older")
    source = talk(tmp_path / "sound.mp4")
    writer = video.Writer(path, (HEIGHT, WIDTH), 10, audio_from=source, overwrite=True)
    with pytest.raises(error), writer:
        for index in range(5):
            writer.write(torch.zeros(3, HEIGHT, WIDTH), index / 10)
        assert len(list(path.parent.iterdir())) == 2
        raise error
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [(path.name, b"older")]


def test_a_killed_run_leaves_no_half_file(tmp_path, repository):
    path = tmp_path / "x.mp4"
    code = f"""
import os, signal, torch
from studio import video
with video.Writer({str(path)!r}, (64, 64), 10) as writer:
    for index in range(100):
        writer.write(torch.rand(3, 64, 64), index / 10)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".part", "hidden, and never under the name that was asked for"


def test_it_is_on_the_disk_before_it_is_in_its_place(tmp_path, monkeypatch):
    order, replace, fsync = [], Path.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: order.append("fsync") or fsync(number))
    monkeypatch.setattr(Path, "replace", lambda path, target: order.append("replace") or replace(path, target))
    write(tmp_path / "x.mp4", 2)
    assert order[:2] == ["fsync", "replace"]


@pytest.mark.parametrize(
    ("name", "size", "fps", "options"),
    [
        ("x.avi", (32, 48), 10, {}),
        ("x", (32, 48), 10, {}),
        ("x.mp4", (0, 48), 10, {}),
        ("x.mp4", (32, 48, 3), 10, {}),
        ("x.mp4", (32.5, 48), 10, {}),
        ("x.mp4", (32, 1_000_000), 10, {}),
        ("x.mp4", (32, 48), 0, {}),
        ("x.mp4", (32, 48), float("nan"), {}),
        ("x.mp4", (32, 48), 10, {"quality": "best"}),
        ("x.mp4", (32, 48), 10, {"quality": 0}),
        ("x.mp4", (32, 48), 10, {"quality": 101}),
        ("x.mp4", (32, 48), 10, {"quality": True}),
        ("x.mp4", (32, 48), 10, {"audio_start": 1}),
        ("x.mp4", (32, 48), 10, {"audio_end": 1}),
        ("x.mp4", (32, 48), 10, {"audio_from": "nowhere.mp4"}),
    ],
)
def test_writer_refuses(name, size, fps, options, tmp_path):
    with pytest.raises(InputError) as error:
        video.Writer(tmp_path / name, size, fps, **options)
    assert one_line(error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("pixels", "time"),
    [
        (torch.zeros(3, 48, 32), 0.2),
        (torch.zeros(1, 32, 48), 0.2),
        (torch.zeros(3, 32, 48, dtype=torch.uint8), 0.2),
        (torch.full((3, 32, 48), torch.nan), 0.2),
        (torch.zeros(3, 32, 48), 0.1),
        (torch.zeros(3, 32, 48), 0.05),
        (torch.zeros(3, 32, 48), float("nan")),
    ],
)
def test_writer_refuses_frames(pixels, time, tmp_path):
    with (
        pytest.raises(InputError) as error,
        video.Writer(tmp_path / "x.mp4", (32, 48), 10) as writer,
    ):
        writer.write(torch.zeros(3, 32, 48), 0)
        writer.write(torch.zeros(1, 3, 32, 48), 0.1)
        writer.write(pixels, time)
    assert one_line(error)
    assert not list(tmp_path.iterdir())


def test_writer_wants_frames_and_a_with(tmp_path):
    with pytest.raises(InputError, match="at least one frame"), video.Writer(tmp_path / "x.mp4", (32, 48), 10):
        pass
    with pytest.raises(InputError, match="with"):
        video.Writer(tmp_path / "x.mp4", (32, 48), 10).write(torch.zeros(3, 32, 48), 0)
    assert not list(tmp_path.iterdir())
    write(tmp_path / "y.mp4", 1)
    (tmp_path / "z.mp4").mkdir()
    with pytest.raises(ImageError, match="folder"):
        video.Writer(tmp_path / "z.mp4", (32, 48), 10, overwrite=True)
    with pytest.raises(ImageError, match="written"), video.Writer(tmp_path / "y.mp4" / "x.mp4", (32, 48), 10):
        pass


# Sound


def under(target, source, seconds=2.0, start=0.0, **options):
    """Frames of a talk from `start` on, written with its sound: (the writer, when it flashes)."""
    with video.Writer(target, (HEIGHT, WIDTH), 25, audio_from=source, overwrite=True, **options) as writer:
        for frame in video.read(source, start=start, end=start + seconds):
            writer.write(frame.pixels, frame.time)
    return writer, [frame.time for frame in video.read(target) if frame.pixels.mean() > 0.5]


@pytest.mark.parametrize("target", [".mp4", ".webm"])
@pytest.mark.parametrize(
    ("source", "codecs"),
    [
        (".mp4", ("libx264", "aac")),
        (".mkv", ("libx264", "aac")),
        (".mov", ("libx264", "pcm_s16le")),
        (".webm", ("libvpx-vp9", "libopus")),
        (".ts", ("libx264", "aac")),
        (".ts", ("mpeg2video", "mp2")),
    ],
)
def test_the_click_stays_under_the_flash(source, codecs, target, tmp_path):
    spoken, out = talk(tmp_path / f"talk{source}", codecs=codecs, channels=2), tmp_path / f"out{target}"
    writer, flashes = under(out, spoken)
    copied = (codecs[1], target) in {("aac", ".mp4"), ("libopus", ".webm")}
    assert writer.notes[0].startswith("sound copied" if copied else "sound encoded anew")
    assert flashes == [WHITE_AT]
    assert click(out) == pytest.approx(WHITE_AT, abs=0.002)
    assert video.probe(out).duration == pytest.approx(2)
    start = 0.52
    writer, flashes = under(out, spoken, start=start, audio_start=start)
    assert writer.notes[0].startswith("sound encoded anew")
    assert flashes == [pytest.approx(WHITE_AT - start)]
    assert click(out) == pytest.approx(WHITE_AT - start, abs=0.002)


def test_copied_sound_is_the_same_sound(tmp_path):
    spoken = talk(tmp_path / "talk.mp4", codecs=("libx264", "aac"))
    under(tmp_path / "out.mp4", spoken)
    assert packets(tmp_path / "out.mp4", "audio") == packets(spoken, "audio")


def test_sound_ends_with_the_frames(tmp_path):
    spoken = talk(tmp_path / "talk.mp4", seconds=3)
    writer, _ = under(tmp_path / "copied.mp4", spoken, seconds=1.2)
    assert writer.notes == ["sound copied (aac)"]
    assert heard_for(tmp_path / "copied.mp4") == pytest.approx(1.2, abs=0.05)  # a packet has 21 ms
    under(tmp_path / "encoded.webm", spoken, seconds=1.2)
    assert heard_for(tmp_path / "encoded.webm") == pytest.approx(1.2, abs=0.03)
    under(tmp_path / "short.mp4", spoken, start=0.5, audio_start=0.5, audio_end=1.5)
    assert heard_for(tmp_path / "short.mp4") == pytest.approx(1.0, abs=0.03)
    assert len(times(tmp_path / "short.mp4")) == 50
    under(tmp_path / "early.mp4", spoken, audio_end=0.7)
    assert heard_for(tmp_path / "early.mp4") == pytest.approx(0.7, abs=0.03)


def test_sound_that_begins_late_or_ends_early(tmp_path):
    spoken = talk(tmp_path / "talk.m4a", seconds=2, pictures=False)
    for suffix in (".mp4", ".webm"):
        with video.Writer(tmp_path / f"x{suffix}", (HEIGHT, WIDTH), 10, audio_from=spoken) as writer:
            for index in range(40):
                writer.write(torch.zeros(3, HEIGHT, WIDTH), index / 10)
        assert video.probe(tmp_path / f"x{suffix}").duration == pytest.approx(4)
        assert heard_for(tmp_path / f"x{suffix}") == pytest.approx(2, abs=0.05)
        assert click(tmp_path / f"x{suffix}") == pytest.approx(WHITE_AT, abs=0.002)


def test_what_became_of_the_sound_is_said(tmp_path):
    mute, both = clip(tmp_path / "mute.mp4"), talk(tmp_path / "both.mp4", tracks=2)
    assert write(tmp_path / "a.mp4", audio_from=mute).notes == ["no sound: 'mute.mp4' has none"]
    assert write(tmp_path / "b.mp4", audio_from=both).notes == ["sound copied (aac), track 1 of 2"]
    assert write(tmp_path / "c.gif", audio_from=both).notes == ["no sound: a GIF has none"]
    assert not video.probe(tmp_path / "a.mp4").audio
    assert len(video.probe(tmp_path / "b.mp4").audio) == 1


def test_sound_that_cannot_be_laid_under(tmp_path):
    spoken = talk(tmp_path / "talk.mp4")
    cases = [
        ({"audio_from": tmp_path / "nowhere.mp4"}, "existing"),
        ({"audio_from": of_text(tmp_path / "text.mp4")}, "of another kind"),
        ({"audio_from": spoken, "audio_start": 5}, "before the sound's end"),
        ({"audio_from": spoken, "audio_start": 1, "audio_end": 1}, "end after"),
        ({"audio_from": spoken, "audio_start": -1}, "start at 0"),
    ]
    for options, words in cases:
        with pytest.raises(InputError, match=words) as error:
            write(tmp_path / "out" / "x.mp4", **options)
        assert one_line(error)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
