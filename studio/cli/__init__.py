"""The `studio` command: arguments in, one call, words and exit code out.

One module for each group of commands; each imports what it needs when it is called, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import studio
from studio.cli import archive, bench, motion, photos, reenact, synthetic, train, weights
from studio.cli.common import say
from studio.device import wait_quietly
from studio.errors import StudioError
from studio.memory import keep_freed_memory

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(photos.app)
app.add_typer(archive.app)
app.add_typer(synthetic.app)
app.add_typer(reenact.app)
app.add_typer(motion.app)
app.add_typer(weights.app, name="weights")
app.add_typer(bench.app, name="bench")
app.add_typer(train.app, name="train")


def show_version(wanted: bool) -> None:
    """Print the version and stop, where that is asked for."""
    if wanted:
        typer.echo(f"face-studio {studio.__version__}")
        raise typer.Exit


@app.callback(no_args_is_help=True)
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Restore, upsample, generate and edit faces in photographs."""


def main() -> None:
    """Run the command; errors raised on purpose become one line and exit code 2, bad files exit code 1."""
    wait_quietly()
    keep_freed_memory()
    try:
        app()
    except StudioError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("stopped; what is finished is kept")
        sys.exit(130)
