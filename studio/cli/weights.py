"""`studio weights`: the weight files."""

from __future__ import annotations

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
        for one in choices.chosen() if models else ():
            typer.echo(
                f"{one.name:22} for: {one.task:10} commercial: {one.commercial:6} {one.megabytes:4} MB  {one.source}"
            )
            typer.echo(f"{'':22} {one.licence}; best at: {one.best}")
        for name, entry in {} if models else weights.entries().items():
            if entry.commercial == "yes" or not weights.commercial_only():
                place, _ = weights.locate(name)
                typer.echo(f"{name:22} {entry.licence:28} commercial: {entry.commercial:6} {place}")


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
    """Hash every file and run every network once; exit code 1 when one is not as its passport says."""
    from studio import weights

    checks = weights.verify(names or ())
    for check in checks:
        typer.echo(f"{check.name:22} {'ok' if check.ok else 'BAD'}  {check.message}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command("path")
def weights_path(name: Annotated[str, typer.Argument(help="See `studio weights list`.")]) -> None:
    """Folder of one weight file, fetched if needed."""
    from studio import weights

    typer.echo(weights.path(name))
