"""Opening files with PyAV: the library where it is installed, local files of known kinds, errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from studio.errors import ImageError, StudioError

if TYPE_CHECKING:
    from av import AudioStream
    from av.container import InputContainer
    from av.stream import Stream

# What ffmpeg may take a file for. Playlists and scripts are left out: they name other files, and have them opened.
_KINDS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,dv,h264,hevc,gif,apng,"
    "wav,mp3,flac,aac,aiff,w64,caf,amr"
)
_PICTURES = ("gif", "apng")
_PICTURE_BRANDS = ("heic", "heix", "mif1", "msf1", "avif", "avis")


def library() -> ModuleType:
    """The package av.

    Raises:
        StudioError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise StudioError(
            "moving pictures must be read with the package av, got none here; pip install face-studio[video]"
        ) from error
    return av


def existing(path: str | Path) -> Path:
    """The path of a file that is there and not empty.

    Raises:
        ImageError: Nothing, a folder, a special file or an empty file.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a special file" if path.exists() else "nothing"
        raise ImageError(
            f"the path must be an existing video file, got {str(path)[:200]!r}, where there is {what}; "
            "check its spelling"
        )
    if not path.stat().st_size:
        raise ImageError(f"{path.name!r} must be a video, got an empty file; copy it anew")
    return path


def failures() -> tuple[type[Exception], ...]:
    """What PyAV raises where a file does not let itself be read on."""
    return library().error.FFmpegError, OSError, IndexError  # the last: a stream that only begins in the middle


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """A file as an open container.

    Raises:
        ImageError: As for `translated`.
    """
    av = library()
    options = {"format_whitelist": _KINDS, "protocol_whitelist": "file"}
    with translated(path), av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
        yield container


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Whatever ffmpeg says about a file that is being read comes out as one line.

    Raises:
        ImageError: Not readable, no file that ffmpeg knows, broken, or cut off.
    """
    caught = failures()
    try:
        yield
    except caught as error:
        raise ImageError(
            f"{path.name!r} must be a whole video or sound file, got one that is broken, cut off or of another kind "
            f"({reason(error)}); copy or export it anew"
        ) from error


def tracks(container: InputContainer) -> list[AudioStream]:
    """The sound tracks that can be decoded here."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def is_default(stream: Stream) -> bool:
    """Whether the file marks this stream as the one to play."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.default)


def may_be_still(container: InputContainer) -> bool:
    """Whether this kind of file also holds still pictures."""
    brand = container.metadata.get("major_brand", "")
    return container.format.name in _PICTURES or brand in _PICTURE_BRANDS


def reason(error: Exception) -> str:
    """What an error says, short and on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:100]
