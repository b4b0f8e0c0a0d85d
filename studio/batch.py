"""Restoring many files: names of the outputs, going on after a bad file, resuming, and the report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from studio import background, images, provenance
from studio.errors import InputError, StudioError
from studio.faces.draw import draw_invented
from studio.sheets import sheet

if TYPE_CHECKING:
    from pipelines.restore import RestorePipeline

NONE_FOUND = "no face was found: give its box (--box x0,y0,x1,y1), or say --aligned if the photo is a cut-out face"
RESTORED, NO_FACE, UNCHANGED, FAILED, DONE = "restored", "no face", "unchanged", "failed", "already done"
PASSED_ON = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif"}


@dataclass
class FileReport:
    """One line of the report: what came of one file.

    Attributes:
        input, output: paths; the output is None when no file was written. One is written where a face was restored, or
            where a network drew the photo around the faces.
        status: "restored", "no face", "unchanged" (faces, but none restored), "failed" or "already done".
        reason: why there is no output, one line.
        scale: how many times as large as the input the output is; None without an output.
        seconds: wall time.
        credentials: "written", or why the output has no Content Credentials; empty without an output.
        faces: `FaceReport.to_dict` of each face.
        doubtful: boxes x0, y0, x1, y1 of places that look a little like a face and were left alone.
    """

    input: str
    output: str | None = None
    status: str = ""
    reason: str = ""
    scale: float | None = None
    seconds: float = 0.0
    credentials: str = ""
    faces: list[dict[str, Any]] = field(default_factory=list)
    doubtful: list[list[float]] = field(default_factory=list)


def plan_outputs(inputs: Sequence[Path], folder: Path, suffix: str | None = None) -> list[Path]:
    """One output path for each input, inside `folder`, no two alike.

    Inputs below one common folder keep their sub-folders. A format that cannot be written becomes PNG.

    Args:
        inputs: files.
        folder: where the outputs go.
        suffix: ".png", ".jpg" … for all; None keeps each input's own.

    Raises:
        InputError: an unknown suffix, or an output that is an input.
    """
    if suffix is not None and suffix not in PASSED_ON:
        raise InputError(f"format must be one of {', '.join(sorted(PASSED_ON))}, got {suffix}: choose one of them")
    absolute = [path.parent.resolve() / path.name for path in inputs]  # ".." would lead out of the folder
    root = Path(os.path.commonpath([path.parent for path in absolute])) if absolute else Path()
    taken: set[Path] = set()
    outputs = []
    for path in absolute:
        own = path.suffix.lower() if path.suffix.lower() in PASSED_ON else ".png"
        target = folder / path.parent.relative_to(root) / (path.stem + (suffix or own))
        number = 2
        while target in taken:
            target = target.with_name(f"{path.stem}-{number}{target.suffix}")
            number += 1
        taken.add(target)
        outputs.append(target)
    originals = {path.resolve() for path in absolute}
    for target in outputs:
        if target.resolve() in originals:
            raise InputError(f"outputs must not replace inputs, {target} is both: give another output folder")
    return outputs


def restore_files(
    pipeline: RestorePipeline,
    inputs: Sequence[Path],
    folder: Path,
    *,
    settings: dict[str, Any],
    suffix: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    sheets: bool = False,
    invented: bool = False,
    quality: int = 95,
    keep_gps: bool = False,
    credentials: bool = True,
    model: str = "restore",
    on_file: Callable[[FileReport], None] = lambda _: None,
) -> list[FileReport]:
    """Restore files one after another; a bad one is reported and the rest goes on.

    Args:
        pipeline: what restores.
        inputs: files.
        folder: of the outputs, made when missing.
        settings: keyword arguments of the pipeline's call; a `seed` stands for a generator, a new one for each file.
        suffix: see `plan_outputs`.
        resume: leave out files whose output is there.
        overwrite: replace outputs that are there. With neither, such a file fails with a message.
        sheets: also write before/after sheets to `folder/sheets`.
        invented: also write pictures that show what was drawn by the prior to `folder/invented`.
        quality: of JPEG, WebP and AVIF.
        keep_gps: keep the place in the EXIF data.
        credentials: sign the outputs, where that can be done; the reports say where it was not.
        model: what restores, for the credentials: its name.
        on_file: called after each file.

    Returns:
        A report for each input, in order.
    """
    reports = []
    targets = plan_outputs(inputs, folder, suffix)
    pages = plan_outputs(inputs, folder / "sheets", ".jpg") if sheets else targets
    maps = plan_outputs(inputs, folder / "invented", ".png") if invented else [None] * len(inputs)
    for source, target, page, drawn in zip(inputs, targets, pages, maps, strict=True):
        start = time.perf_counter()
        found = FileReport(str(source))
        try:
            if target.exists() and resume:
                found.output, found.status = str(target), DONE
            elif target.exists() and not overwrite:
                raise InputError(f"{target} must not exist yet: pass --resume to skip it or --overwrite to replace it")
            else:
                restore_file(
                    pipeline,
                    source,
                    target,
                    found,
                    settings,
                    quality=quality,
                    keep_gps=keep_gps,
                    credentials=credentials,
                    invented=drawn,
                    model=model,
                )
                if sheets and found.status == RESTORED:
                    write_sheet(source, target, found, page)
        except StudioError as error:
            found.status, found.reason = FAILED, str(error)
        found.seconds = round(time.perf_counter() - start, 3)
        reports.append(found)
        on_file(found)
    return reports


def restore_file(
    pipeline: RestorePipeline,
    source: Path,
    target: Path,
    found: FileReport,
    settings: dict[str, Any],
    *,
    quality: int,
    keep_gps: bool,
    credentials: bool,
    invented: Path | None = None,
    model: str,
) -> None:
    """Restore one file and fill in its report, see `FileReport` for when one is written."""
    output = pipeline(source, **seeded(settings))
    found.faces = [face.to_dict() for face in output.reports[0]]
    found.doubtful = output.faces[0].doubtful.round(1).tolist()
    if not found.faces:
        found.status, found.reason = NO_FACE, NONE_FOUND
    elif not any(face["restored"] for face in found.faces):
        found.status = UNCHANGED
        found.reason = "; ".join(f"face {face['index']}: {face['reason']}" for face in found.faces)
    else:
        found.status = RESTORED
    if found.status == RESTORED or settings.get("background") in background.NETWORKS:
        data = images.encode(output.photos[0], target.suffix, quality=quality, keep_gps=keep_gps)
        if credentials:
            told = {"model": Path(model).name, **settings}
            data, found.credentials = with_credentials(data, target.suffix, source.read_bytes(), told, found.faces)
        else:
            found.credentials = "not wanted"
        images.write(data, target)
        found.output, found.scale = str(target), output.scales[0]
        if invented is not None:
            shown = draw_invented(output.photos[0].pixels, output.invented[0])
            images.write(images.encode(images.load(shown), invented.suffix), invented)


def seeded(settings: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a call, with a generator in the place of a `seed`."""
    if "seed" not in settings:
        return settings
    given = dict(settings)
    return given | {"generator": torch.Generator().manual_seed(given.pop("seed"))}


def with_credentials(
    data: bytes, suffix: str, source: bytes, settings: dict[str, Any], faces: list[dict[str, Any]]
) -> tuple[bytes, str]:
    """A restored file and the credentials that say so, or the file as it is and the reason why not.

    Args:
        data: the restored file.
        suffix: of its format.
        source: the file that was restored.
        settings: of the pipeline's call.
        faces: `FaceReport.to_dict` of each face.

    Raises:
        CredentialsError: a certificate that cannot be used, or a file that cannot be signed.
    """
    if reason := provenance.reason_not(suffix):
        return data, reason
    count, guided = (sum(face[what] for face in faces) for what in ("restored", "guided"))
    said = f"{count} of {len(faces)} faces restored with a generative model"
    said += f", {guided} of them after another photo of the person" if guided else ""
    drawn = settings.get("background")
    said += f", the rest of the photo drawn by the network {drawn}" if drawn in background.NETWORKS else ""
    # Whose face it was is nobody's business.
    told = {name: value is not None if name == "reference" else value for name, value in settings.items()}
    operation = provenance.Operation("restore", said, told)
    return provenance.sign(data, suffix, [operation], source=source), "written"


def write_sheet(source: Path, target: Path, found: FileReport, page: Path) -> None:
    """Before and after of the photo, and of its three largest restored faces, as one JPEG."""
    before, after = images.load(source).pixels, images.load(target).pixels
    scale = after.shape[1] / before.shape[1]
    rows, labels = [[before, after]], [source.name]
    for face in [face for face in found.faces if face["restored"]][:3]:
        pair = [cut(before, face["box"], 1.0), cut(after, face["box"], scale)]
        rows.append(pair)
        labels.append(f"face {face['index']}: identity distance {face['identity_distance']:.2f} {face['reason']}")
    page.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows, labels, height=320).save(page, quality=92)


def cut(pixels: Any, box: list[float], scale: float) -> Any:
    """The square around a box, a third wider, inside the photo."""
    x0, y0, x1, y1 = (value * scale for value in box)
    cx, cy, half = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0) * 0.67
    _, height, width = pixels.shape
    left, right = max(0, round(cx - half)), min(width, round(cx + half))
    top, bottom = max(0, round(cy - half)), min(height, round(cy + half))
    return pixels[:, top:bottom, left:right]


def write_report(path: Path, reports: Sequence[FileReport], about: dict[str, Any]) -> None:
    """The report as JSON: `about` (settings, versions, weights) and the files; replaced as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({**about, "files": [asdict(found) for found in reports]}, indent=1))
    part.replace(path)


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Files of an earlier report by input path, so that a resumed run keeps their numbers; empty when unreadable."""
    try:
        return {entry["input"]: entry for entry in json.loads(path.read_text())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
