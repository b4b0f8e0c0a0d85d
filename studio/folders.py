"""Which photos files, folders and patterns stand for, and which files of a folder are left aside, and why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from studio.errors import InputError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".heif", ".gif"),
    *(".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
"""File suffixes that are taken from folders. `images.load` itself tells the format from the content."""

RAW = {".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".pef", ".srw"}
_ADVICE = {
    ".pdf": "a PDF: export its pages as TIFF or PNG",
    ".jxl": "JPEG XL: export it as PNG or TIFF",
    ".psd": "a Photoshop document: export it as TIFF or PNG",
    ".svg": "a drawing, no photo",
    "": "no suffix: rename it, or give it by name",
    **dict.fromkeys(RAW, "camera raw data: export it as 16-bit TIFF or PNG"),
}


@dataclass
class Gathered:
    """What paths stand for.

    Attributes:
        files: the photos, each once, in the order given.
        root: the folder from which names of results are mirrored: the one that was given, or the common one of several;
            None without files.
        unread: files of the folders that are no photos, dead links and folders that cannot be opened, each with the
            reason. Hidden ones are left out.
    """

    files: list[Path] = field(default_factory=list)
    root: Path | None = None
    unread: list[tuple[Path, str]] = field(default_factory=list)


def gather(paths: Sequence[str | Path]) -> Gathered:
    """Expand files, folders and patterns.

    Args:
        paths: A file is taken whatever its suffix. A folder gives every file below it with a suffix in `SUFFIXES`,
            sorted, hidden ones left out. A pattern (`*`, `?`, `[...]`, `**`) gives what it matches, likewise.

    Raises:
        InputError: A path that is not there, a pattern that matches nothing, or "-".
    """
    files: dict[Path, None] = {}
    unread: dict[Path, str] = {}
    bases: list[Path] = []
    for path in paths:
        base = _expand(str(path), files, unread)
        bases.append(base.resolve())
    root = Path(os.path.commonpath(bases)) if bases and files else None
    return Gathered(list(files), root, [(path, reason) for path, reason in unread.items() if path not in files])


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """The photos that `paths` stand for, see `gather`.

    Raises:
        InputError: As for `gather`.
    """
    return gather(paths).files


def _expand(text: str, files: dict[Path, None], unread: dict[Path, str]) -> Path:
    """Add what one path stands for; returns the folder that names are mirrored from."""
    if text == "-":
        raise InputError(
            "a path must be a file, folder or pattern, got '-': standard input is not read, save the photo to a file "
            "first (a file of that name is ./-)"
        )
    with suppress(OSError, ValueError):
        if text and Path(text).is_dir():
            _sort(_below(Path(text)), files, unread)
            return Path(text)
        if text and Path(text).exists():
            files[Path(text)] = None
            return Path(text).parent
        matches = [Path(match) for match in sorted(glob(text, recursive=True))]  # noqa: PTH207 - absolute ones too
        for match in matches:
            _sort(_below(match) if match.is_dir() else [(match, "")], files, unread)
        if any(path in files for match in matches for path in [match, *_inside(match, files)]):
            return _fixed(text)
    raise InputError(f"a path must be an existing file, folder or pattern, got {text[:200]!r}; check its spelling")


def _inside(folder: Path, files: dict[Path, None]) -> Iterator[Path]:
    return (path for path in files if folder in path.parents)


def _fixed(pattern: str) -> Path:
    """The folder of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
    return Path(*parts[:first])


def _sort(found: list[tuple[Path, str]], files: dict[Path, None], unread: dict[Path, str]) -> None:
    for path, reason in found:
        reason = reason or why_not(path)
        if reason:
            unread.setdefault(path, reason)
        else:
            files[path] = None


def _below(folder: Path) -> list[tuple[Path, str]]:
    """Every file below a folder that is not hidden, sorted; and folders that cannot be opened, with the reason."""
    found: list[tuple[Path, str]] = []

    def closed(error: OSError) -> None:
        found.append((Path(error.filename), f"a folder that cannot be opened ({error.strerror})"))

    for place, folders, names in os.walk(folder, onerror=closed):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        folders[:] = [name for name in folders if not name.startswith(".") and name not in links]
        found += [(Path(place) / name, "a link to a folder, which is not followed") for name in links]
        found += [(Path(place) / name, "") for name in names if not name.startswith(".")]
    return sorted(found)


def why_not(path: Path) -> str:
    """Why a file of a folder is not taken for a photo; empty where it is."""
    if not path.exists():
        return "a link that leads nowhere"
    if not path.is_file():
        return "neither a file nor a folder"
    suffix = path.suffix.lower()
    return "" if suffix in SUFFIXES else _ADVICE.get(suffix, f"{suffix} is no kind of photo that is read here")
