"""What several commands share: arguments that mean the same everywhere, and the two ways to print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.errors import InputError

PathsArgument = Annotated[list[str], typer.Argument(help="Files, folders (searched through) and globs.")]
PhotosOption = Annotated[Path, typer.Option(help="Folder of photographs to measure on.")]
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


def named(paths: list[str]) -> list[Path]:
    """The image files that PATHS name.

    Raises:
        InputError: there are none.
    """
    from studio import images

    inputs = images.find_images(paths)
    if not inputs:
        raise InputError("PATHS must name at least one image, and they name none: check the folder")
    return inputs


def check_free(files: list[Path], overwrite: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        InputError: with the first file that exists, unless `overwrite`.
    """
    if not overwrite and (there := [file for file in files if file.exists()]):
        raise InputError(f"{there[0]} must not exist yet: pass --overwrite to replace it")


def size_of_result(scale: str) -> int | str:
    """`--scale` as the pipeline takes it: a number, or the word; the pipeline refuses others."""
    return int(scale) if scale.isdecimal() else scale
