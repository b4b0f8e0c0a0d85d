"""What several commands share: arguments that mean the same everywhere, and the two ways to print."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.errors import InputError

if TYPE_CHECKING:
    from studio.folders import Gathered

PathsArgument = Annotated[list[str], typer.Argument(help="Files, folders (searched through) and globs.")]
PhotosOption = Annotated[Path, typer.Option(help="Folder of photographs to measure on.")]
PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # that sheets and drawings are written as
ModelOption = Annotated[
    str, typer.Option(help="Known name (`studio weights list --models`), file, folder, or owner/name on the Hub.")
]
LicenceOption = Annotated[
    str, typer.Option(help="commercial: refuse weights that are not known to allow commercial use. Default: any.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps (Apple's graphics processor).")]
OutOption = Annotated[Path | None, typer.Option(help="Also write the JSON here.")]


def say(text: str) -> None:
    """One line for a person, on standard error, so that standard output stays for data."""
    typer.echo(text, err=True)


def show(data: Any, out: Path | None = None) -> None:
    """JSON to standard output, and to a file if asked."""
    typer.echo(json.dumps(data, indent=1))
    write(data, out)


def write(data: Any, path: Path | None) -> None:
    """JSON to a file, if one is named; its folder is made."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1) + "\n")


def named(paths: list[str], output: Path | None = None, reports: Iterable[Path | None] = ()) -> Gathered:
    """The image files that PATHS name; what of the folders is not read is said, in one line.

    Args:
        paths: files, folders and patterns.
        output: folder of the results, whose own results are left out.
        reports: files that an earlier run may have written; nothing is said of them.

    Raises:
        InputError: there are none.
    """
    from studio import folders

    found = folders.gather(paths)
    own: list[Path] = []
    written = {path.resolve() for path in reports if path}
    found.unread = [(path, reason) for path, reason in found.unread if path.resolve() not in written]
    if output is not None:
        if str(output) == "-":
            raise InputError("the output must be a folder, got '-': results are not written to standard output")
        from studio.batch import without_results

        own = without_results(found, output)
    if own:
        say(f"left out, as {counted(len(own), 'result')} of earlier runs: {own[0]}{' …' if len(own) > 1 else ''}")
    if not found.files:
        why = f" (not read: {kinds(found.unread)})" if found.unread else ""
        raise InputError(f"PATHS must name at least one image, and they name none{why}: check the folder")
    if found.unread:
        say(f"not read: {kinds(found.unread)}")
    return found


def kinds(unread: list[tuple[Path, str]]) -> str:
    """Files that are not read, counted by suffix."""
    suffixes = Counter(path.suffix.lower() or "without a suffix" for path, _ in unread)
    return ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())


def counted(count: int, what: str) -> str:
    """Say 1 face, 2 faces: the word with an s where there are more."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def check_free(files: list[Path], overwrite: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        InputError: with the first file that exists, unless `overwrite`.
    """
    if not overwrite and (there := [file for file in files if file.exists()]):
        raise InputError(f"{there[0]} must not exist yet: pass --overwrite to replace it")


def check_beside(
    inputs: Iterable[Path], *, pictures: Iterable[Path | None] = (), report: Path | None = None, overwrite: bool = False
) -> None:
    """Refuse sheets, drawings and reports that would take a photograph's place or can't be written; make their folders.

    Args:
        inputs: what is read; never written over.
        pictures: files to be written; what is there is replaced only with `overwrite`.
        report: a JSON file, which may be there from an earlier run.
        overwrite: see `pictures`.

    Raises:
        InputError: with the first one that must not be written.
    """
    from studio import images

    drawn, taken = [path for path in pictures if path], {path.resolve() for path in inputs}
    for path in [*drawn, *([report] if report else [])]:
        if path.resolve() in taken:
            raise InputError(f"{path} must not be an input: give another name")
        if path.is_dir():
            raise InputError(f"{path} must be a file, and is a folder: give another name")
        if path in drawn and path.suffix.lower() not in PICTURES:
            raise InputError(f"{path} must be a {', '.join(PICTURES)} file: rename it")
        if path in drawn and path.exists() and not overwrite:
            raise InputError(f"{path} must not exist yet: give another name")
        if path == report and path.suffix.lower() in images.SUFFIXES:
            raise InputError(f"the report must be a JSON file, got {path}: give another name")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path} can't be written, {error.strerror}: give another folder") from error


def size_of_result(scale: str) -> float | str:
    """`--scale` as the pipeline takes it: a number, or the word; the pipeline refuses others."""
    try:
        return int(scale) if scale.isdecimal() else float(scale)
    except ValueError:
        return scale
