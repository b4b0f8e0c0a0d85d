"""`studio weights`: the weight files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from studio.cli.common import say

app = typer.Typer(no_args_is_help=True, help="The weight files: list, fetch, check.")


@app.command("list")
def weights_list(
    models: Annotated[bool, typer.Option(help="The models that can be chosen, instead of the files.")] = False,
    licence: Annotated[str, typer.Option(help="commercial: only what is known to allow commercial use.")] = "any",
    markdown: Annotated[bool, typer.Option(help="With --models: the table of docs/models.md.")] = False,
) -> None:
    """Name, licence, commercial use and place of every weight file, or of every model that can be chosen."""
    from studio import models as choices
    from studio import weights

    with weights.only(licence):
        if markdown:
            typer.echo(choices.table(), nl=False)
            return
        if models:
            rows = [
                (one.name, f"for: {one.task}", f"commercial: {one.commercial}", f"{one.megabytes} MB", str(one.source))
                for one in choices.chosen()
            ]
            notes = [f"{one.licence}; best at: {one.best}" for one in choices.chosen()]
        else:
            entries = {
                name: entry
                for name, entry in weights.entries().items()
                if entry.commercial == "yes" or not weights.commercial_only()
            }
            rows = [
                (name, f"commercial: {entry.commercial}", str(weights.locate(name)[0]), entry.licence)
                for name, entry in entries.items()
            ]
            notes = [""] * len(rows)
        for line, note in zip(columns(rows), notes, strict=True):
            typer.echo(line + (f"\n    {note}" if note else ""))


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@app.command("pull")
def weights_pull(
    names: Annotated[list[str] | None, typer.Argument(help="Default: all but the optional ones.")] = None,
) -> None:
    """Fetch and convert what is not here yet."""
    from studio import weights

    for name, folder in weights.pull(names or (), lambda name, stage: say(f"{name}: {stage}")).items():
        typer.echo(f"{name}: {folder}")


@app.command("verify")
def weights_verify(names: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None) -> None:
    """Hash every file and run every network once; exit code 1 when one is not as its manifest entry says."""
    from studio import weights

    checks = weights.verify(names or ())
    for check in checks:
        typer.echo(f"{check.name:22}  {'ok' if check.ok else 'BAD'}  {check.message}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command("path")
def weights_path(name: Annotated[str, typer.Argument(help="See `studio weights list`.")]) -> None:
    """Folder of one weight file, fetched if needed."""
    from studio import weights

    typer.echo(weights.path(name))
