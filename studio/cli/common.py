"""What several commands share: arguments that mean the same everywhere, and the two ways to print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

PathsArgument = Annotated[list[str], typer.Argument(help="Files, folders (searched through) and globs.")]
PhotosOption = Annotated[Path, typer.Option(help="Folder of photographs to measure on.")]
OutOption = Annotated[Path | None, typer.Option(help="Also write the JSON here.")]


def say(text: str) -> None:
    """One line for a person, on standard error, so that standard output stays for data."""
    typer.echo(text, err=True)


def show(data: Any, out: Path | None = None) -> None:
    """JSON to standard output, and to a file if asked."""
    text = json.dumps(data, indent=1)
    typer.echo(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
