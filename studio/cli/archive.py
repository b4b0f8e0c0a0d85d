"""Commands on whole archives: watch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from studio.cli.common import DeviceOption, LicenceOption, ModelOption, check_beside, say
from studio.cli.photos import settings_of, summary
from studio.errors import InputError

app = typer.Typer()


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="Where photos appear: the folder of a scanner, say.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; inputs are never touched.")],
    fidelity: Annotated[float, typer.Option(help="As in studio restore.")] = 0.5,
    scale: Annotated[str, typer.Option(help="As in studio restore.")] = "auto",
    background: Annotated[str, typer.Option(help="As in studio restore.")] = "lanczos",
    format: Annotated[str | None, typer.Option(help="As in studio restore; default: as the input.")] = None,
    name: Annotated[str, typer.Option(help="Of the results, as in studio restore.")] = "{stem}{suffix}",
    report: Annotated[Path | None, typer.Option(help="Keep a JSON report here.")] = None,
    settle: Annotated[float, typer.Option(help="Seconds that a file must not have changed.", min=0)] = 3.0,
    once: Annotated[bool, typer.Option("--once", help="Stop when everything that is there is done.")] = False,
    credentials: Annotated[
        bool, typer.Option("--credentials/--no-credentials", help="Sign the results: what was done, and by what.")
    ] = True,
    model: ModelOption = "restore",
    licence: LicenceOption = "",
    device: DeviceOption = "auto",
) -> None:
    """Restore what appears in a folder, as soon as it is there whole; stop with Ctrl+C.

    Files that are still being written are not touched. What the journal of OUTPUT knows is not done again.
    """
    from pipelines.restore import RestorePipeline
    from studio import background as backgrounds
    from studio import batch, weights
    from studio.benchmarks.provenance import provenance
    from studio.device import pick_device
    from studio.provenance import own_certificate

    if not folder.is_dir():
        raise InputError(f"what is watched must be a folder, got {folder}: make it first")
    settings = settings_of(fidelity=fidelity, scale=scale, background=background)
    suffix = f".{format.lstrip('.').lower()}" if format else None
    batch.plan_outputs([], output, suffix, name=name)
    check_beside([], report=report)
    if credentials:
        own_certificate()
    pipeline = RestorePipeline.from_pretrained(model, device=pick_device(device), licence=licence)
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty(), leave=False)
    if background in backgrounds.NETWORKS:
        with weights.only(licence):
            pipeline.upsampler(background)
    hashes = batch.weights_of(pipeline, background)
    about = {"model": model, "settings": settings, **provenance(), "weights": hashes}
    done: dict[str, batch.FileReport] = {}  # the last word on each input

    def do(files: list[Path]) -> None:
        found = batch.restore_files(
            pipeline,
            files,
            output,
            settings=settings,
            suffix=suffix,
            root=folder,
            name=name,
            resume=True,
            credentials=credentials,
            model=model,
            journal=True,
            weights=hashes,
            on_file=lambda one: say(summary(one)),
        )
        done.update({one.input: one for one in found})
        if report:
            batch.write_report(report, list(done.values()), about)

    say(f"watching {folder}; results in {output}; stop with Ctrl+C")
    batch.watch(folder, output, do, settle=settle, once=once)
