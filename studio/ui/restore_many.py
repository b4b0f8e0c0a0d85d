"""Many photos in the Restore tab: files in, one zip with the restored ones and a report out."""

from __future__ import annotations

import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio import batch
from studio.errors import InputError
from studio.ui.common import (
    BACKGROUNDS,
    PRIVATE,
    PROGRESS,
    SIZES,
    Lane,
    Models,
    answer,
    ask,
    connect,
    fidelity_slider,
    forget_unreadable,
    fresh,
    line,
    model_picker,
    not_loaded,
    read,
    rows,
    upload,
)
from studio.ui.lane import on_gpu, watched, zero_gpu
from studio.ui.onward import onward

if TYPE_CHECKING:
    from pipelines.restore import RestorePipeline

MOST = 50  # photos at a time
FORMATS = {"same": None, "png": ".png", "tiff": ".tif", "jpg": ".jpg"}
COLUMNS = ["Photo", "What happened", "Faces", "Identity distance", "Reason"]
WAITING = f"Choose up to {MOST} photos, then press Restore all."


def section(models: Models) -> None:
    """Lay the section out and connect it.

    Args:
        models: gives the pipeline of a model, loading it if need be.
    """
    with gr.Row(elem_classes="work"):
        with ask():
            photos = upload("Photos", many=True, height=220)
            settings = [
                fidelity_slider(),
                gr.Radio(SIZES, value="auto", label="Size of the results"),
                gr.Radio(
                    [("As the photo", "same"), ("PNG", "png"), ("TIFF", "tiff"), ("JPEG", "jpg")],
                    value="same",
                    label="Files",
                ),
                gr.Checkbox(True, label="Content Credentials", info="Sign the files: what was restored, and by what"),
                gr.Radio(BACKGROUNDS, value="lanczos", label="Around the faces"),
                model_picker(),
            ]
            with gr.Row():
                start = gr.Button("Restore all", variant="primary", min_width=120)
                stop = gr.Button("Cancel", min_width=120)
        with answer(WAITING) as message:
            file = onward("Restore", "Download all as a zip", usable=False).file
            table = gr.HTML()
            with gr.Accordion("Report (JSON)", open=False):
                report = gr.JSON(label="Report")
    fresh([photos], message, WAITING)
    runner = Runner(models)
    connect(
        start,
        stop,
        runner.lane,
        runner.restore_many,
        [photos, *settings],
        [file, report, message, table],
        message=message,
        api_name="restore_many",
        api_description="Restore many photos. Returns a zip of the restored files with their report (or null), the "
        "JSON report, and what the page shows: a message and an HTML table",
    )
    report.change(
        lambda found: gr.DownloadButton(interactive=any(one["output"] for one in found or [])),
        report,
        file,
        queue=False,
        **PRIVATE,
    )


class Runner:
    """Runs the pipeline over the files of the visitors.

    Args:
        models: gives the pipeline of a model, loading it if need be; or a function that gives ours alone.
    """

    def __init__(self, models: Models | Callable[[], RestorePipeline]) -> None:
        self.models = models if isinstance(models, Models) else Models(models, not_loaded)
        self.lane = Lane()
        self._call = on_gpu(self.call, seconds=120)

    def restore_many(
        self,
        photos: list[str] | None,
        fidelity: float = 0.5,
        scale: float | str = "auto",
        file_format: str = "same",
        credentials: bool = True,
        background: str = "lanczos",
        model: str = "restore",
        request: gr.Request | None = None,
        progress: gr.Progress = PROGRESS,
    ) -> Iterator[list[Any]]:
        """Restore the faces of many uploaded photographs; a bad file is reported and the rest goes on.

        Args:
            photos: up to 50 files.
            fidelity: 0 to 1. 0 shows the model's idea of the faces, 1 only what the photos show.
            scale: 1, 1.5, 2, 3 or 4 times the photos' size; "auto" makes each as large as its largest face needs it.
            file_format: "same", "png", "tiff" or "jpg".
            credentials: sign the files with Content Credentials.
            background: around the faces: "none", "lanczos", or drawn by a network, "span" or "realesrgan".
            model: "restore", which is ours, or a published one: "gfpgan-1.4", "codeformer" …; see docs/models.md.
            request: filled in by gradio.
            progress: filled in by gradio.

        Raises:
            gr.Error: with the line of a `StudioError`.
        """

        def work(folder: Path, stop: threading.Event) -> tuple[list[Any], str]:
            progress(0, desc="Loading the model")
            pipeline = self.models(model)
            with nullcontext() if zero_gpu() else watched(pipeline, stop, progress, background):
                settings = fidelity, scale, file_format, credentials, background, model
                archive, reports = self._call(photos, folder, *settings)
            for source, report in zip(photos or [], reports, strict=True):
                if report.status == batch.FAILED:
                    forget_unreadable(source)
            return values(archive, reports), ""

        empty = lambda message: [None, None, line(message), ""]  # noqa: E731 - a name for one line
        yield from self.lane.steps(work, empty, photos or [], request)

    def call(self, photos: list[str] | None, folder: Path, *settings: Any) -> tuple[Path | None, list[Any]]:
        """`restore_photos` with the pipeline of the model, which is the last of the settings."""
        return restore_photos(self.models(settings[-1]), photos or [], folder, *settings)


def values(archive: Path | None, reports: Sequence[batch.FileReport]) -> list[Any]:
    """The widgets' values."""
    counts = {
        status: sum(one.status == status for one in reports) for status in dict.fromkeys(r.status for r in reports)
    }
    message = ", ".join(f"{count} {status}" for status, count in counts.items()) + "."
    unsigned = {one.credentials for one in reports if one.credentials not in ("", "written", "not wanted")}
    if unsigned:
        message += f" Without Content Credentials: {'; '.join(sorted(unsigned))}."
    table = rows("Photos", COLUMNS, [row(one) for one in reports])
    return [archive, [asdict(one) for one in reports], line(message, done=True), table]


def row(report: batch.FileReport) -> list[Any]:
    """One photo as `COLUMNS`."""
    restored = [face["identity_distance"] for face in report.faces if face["restored"]]
    span = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(restored), max(restored)))) if restored else "–"
    return [report.input, report.status, f"{len(restored)} of {len(report.faces)}", span, report.reason]


def restore_photos(
    pipeline: RestorePipeline,
    sources: Sequence[str | Path],
    folder: Path,
    fidelity: float = 0.5,
    scale: float | str = "auto",
    file_format: str = "same",
    credentials: bool = True,
    background: str = "lanczos",
    model: str = "restore",
) -> tuple[Path | None, list[batch.FileReport]]:
    """Restore files and zip the results.

    Args:
        pipeline: what restores.
        sources: the photos; two may have the same name.
        folder: of everything written.
        fidelity: as in the pipeline's call.
        scale: 1, 1.5, 2, 3, 4 or "auto", see `RestorePipeline.__call__`.
        file_format: a key of `FORMATS`; "same" keeps each photo's own, where that can be written.
        credentials: sign the results, where that can be done; the reports say where it was not.
        background: as in the pipeline's call.
        model: what restores, for report and credentials.

    Returns:
        The zip with the restored files and `report.json`, None where nothing was restored; and a report of each file,
        with names in place of paths.

    Raises:
        InputError: no photo, too many, or an argument outside its range.
    """
    if not sources:
        raise InputError("at least one photo is needed, got none: choose files first")
    if len(sources) > MOST:
        raise InputError(f"at most {MOST} photos can be restored at a time, got {len(sources)}: choose fewer")
    if file_format not in FORMATS:
        raise InputError(f"file_format must be one of {', '.join(FORMATS)}, got {file_format!r}: choose one of them")
    settings = {"fidelity": fidelity, "scale": scale, "background": background}
    inputs = gathered(sources, folder / "photos")

    def restore(path: Path, **settings: Any) -> Any:
        return pipeline(read(path, scale), **settings, output_type="pt")

    reports = batch.restore_files(
        restore,
        inputs,
        folder / "restored",
        settings=settings,
        suffix=FORMATS[file_format],
        credentials=credentials,
        model=model,
    )
    for report in reports:
        report.input = Path(report.input).name
        report.output = report.output and Path(report.output).name
    shutil.rmtree(folder / "photos")
    if not any(report.output for report in reports):
        return None, reports
    batch.write_report(folder / "restored" / "report.json", reports, {"model": model, "settings": settings})
    archive = folder / "restored.zip"
    with zipfile.ZipFile(archive, "w") as stream:  # stored: the files are compressed already
        for path in sorted((folder / "restored").iterdir()):
            stream.write(path, path.name)
    return archive, reports


def gathered(sources: Sequence[str | Path], folder: Path) -> list[Path]:
    """Copies of files side by side in one folder; a name that is there already gets a number."""
    folder.mkdir(parents=True)
    copies: list[Path] = []
    for source in map(Path, sources):
        target, number = folder / source.name, 2
        while target in copies:
            target, number = folder / f"{source.stem}-{number}{source.suffix}", number + 1
        copies.append(shutil.copyfile(source, target))
    return copies
