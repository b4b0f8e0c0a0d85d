"""Restoring many files: the task that is done for each of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from studio import background, images, provenance
from studio.batch.names import NAME
from studio.batch.reports import NO_FACE, RESTORED, UNCHANGED, FileReport
from studio.batch.run import RESULT, Places, Task, run
from studio.faces.draw import draw_invented
from studio.sheets import sheet

if TYPE_CHECKING:
    from pipelines.restore import RestorePipeline

NONE_FOUND = "no face was found: give its box (--box x0,y0,x1,y1), or say --aligned if the photo is a cut-out face"
SHEETS, INVENTED = "sheets", "invented"
LOSSY = {".jpg", ".jpeg", ".webp", ".avif"}


def restore_files(
    pipeline: RestorePipeline,
    inputs: Sequence[Path],
    folder: Path,
    *,
    settings: dict[str, Any],
    suffix: str | None = None,
    root: Path | None = None,
    name: str = NAME,
    resume: bool = False,
    overwrite: bool = False,
    sheets: bool = False,
    invented: bool = False,
    quality: int = 95,
    keep_gps: bool = False,
    credentials: bool = True,
    salvage: bool = False,
    model: str = "restore",
    journal: bool = False,
    weights: dict[str, str] | None = None,
    workers: int = 1,
    on_file: Callable[[FileReport], None] = lambda _: None,
) -> list[FileReport]:
    """Restore files; a bad one is reported and the rest goes on.

    Args:
        pipeline: what restores.
        inputs: files.
        folder: of the outputs, made when missing.
        settings: keyword arguments of the pipeline's call; a `seed` stands for a generator, a new one for each file.
        suffix: of the outputs; None keeps each input's own, where that can be written.
        root: the folder whose tree the outputs mirror, see `names.plan_outputs`.
        name: pattern of the outputs' names, with {stem} and {suffix}.
        resume: leave out files that the journal says are done with these settings; needs `journal`.
        overwrite: replace outputs that are there. With neither, such a file fails with a message.
        sheets: also write before/after sheets to `folder/sheets`.
        invented: also write pictures that show what was drawn by the prior to `folder/invented`.
        quality: of JPEG, WebP and AVIF.
        keep_gps: keep the place in the EXIF data.
        credentials: sign the outputs, where that can be done; the reports say where it was not.
        salvage: restore what is there of a JPEG that lacks its end; the reports say what is missing.
        model: what restores, for the credentials: its name.
        journal: keep a journal in the folder, see `studio.batch.journal`; inputs of one content are then done once.
        weights: what `weights_of` gives for the pipeline; None finds out, where there is a journal.
        workers: files that are restored at a time, see `run`.
        on_file: called after each file.

    Returns:
        A report for each input, in order.

    Raises:
        InputError: see `run`.
    """

    def make(source: Path, places: Places, found: FileReport) -> dict[str, bytes]:
        options = {"quality": quality, "keep_gps": keep_gps, "credentials": credentials, "salvage": salvage}
        return restore_file(pipeline, source, places, found, settings, **options, model=model)

    def mattering(target: Path) -> dict[str, Any]:
        stated = {**settings, "suffix": target.suffix, "keep_gps": keep_gps, "salvage": salvage}
        if target.suffix in LOSSY:
            stated["quality"] = quality
        return stated | {"credentials": credentials} if target.suffix in provenance.TYPES else stated

    kinds = {SHEETS: ".jpg"} if sheets else {}
    task = Task(
        make,
        mattering,
        weights if weights is not None else weights_of(pipeline, settings.get("background", "")) if journal else {},
        kinds | ({INVENTED: ".png"} if invented else {}),
        {SHEETS: lambda source, places, found: drawn_sheet(source, images.load(places[RESULT]), found, salvage)},
    )
    return run(
        task,
        inputs,
        folder,
        suffix=suffix,
        root=root,
        name=name,
        resume=resume,
        overwrite=overwrite,
        journal=journal,
        workers=workers,
        on_file=on_file,
    )


def restore_file(
    pipeline: RestorePipeline,
    source: Path,
    places: Places,
    found: FileReport,
    settings: dict[str, Any],
    *,
    quality: int,
    keep_gps: bool,
    credentials: bool,
    salvage: bool,
    model: str,
) -> dict[str, bytes]:
    """Restore one file and fill in its report, see `FileReport` for when there is an output.

    Returns:
        The bytes of the files that belong to `places`, by kind.
    """
    output = pipeline(images.load(source, salvage=True) if salvage else source, **seeded(settings))
    result, target = output.photos[0], places[RESULT]
    found.faces = [face.to_dict() for face in output.reports[0]]
    found.doubtful = output.faces[0].doubtful.round(1).tolist()
    found.notes = [result.lacking] if result.lacking else []
    if result.pages > 1:
        found.notes.append(f"the first of {result.pages} pages or frames: the others are left out")
    if not found.faces:
        found.status, found.reason = NO_FACE, NONE_FOUND
    elif not any(face["restored"] for face in found.faces):
        found.status = UNCHANGED
        found.reason = "; ".join(f"face {face['index']}: {face['reason']}" for face in found.faces)
    else:
        found.status = RESTORED
    if found.status != RESTORED and settings.get("background") not in background.NETWORKS:
        return {}
    data = images.encode(result, target.suffix, quality=quality, keep_gps=keep_gps)
    if credentials:
        told = {"model": Path(model).name, **settings}
        data, found.credentials = with_credentials(data, target.suffix, source.read_bytes(), told, found.faces)
    else:
        found.credentials = "not wanted"
    found.output, found.scale = str(target), output.scales[0]
    files = {RESULT: data}
    if INVENTED in places:
        shown = draw_invented(result.pixels, output.invented[0])
        files[INVENTED] = images.encode(images.load(shown), places[INVENTED].suffix)
    if SHEETS in places:
        files |= drawn_sheet(source, images.load(data), found, salvage)
    return files


def weights_of(pipeline: Any, around: str = "") -> dict[str, str]:
    """Component -> SHA-256 of its tensors, for reports and journals: names, types, shapes and values.

    Args:
        pipeline: any of them.
        around: a `background` of the restorer; where it is a network, that one counts, too.
    """
    networks = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    if around in background.NETWORKS:
        networks[around] = pipeline.upsampler(around).network
    return {name: _hashed(network) for name, network in networks.items()}


def _hashed(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


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


def drawn_sheet(source: Path, result: images.Photo, found: FileReport, salvage: bool = False) -> dict[str, bytes]:
    """Before and after of a restored photo, and of its three largest restored faces, as one JPEG; else nothing."""
    if found.status != RESTORED:
        return {}
    before, after = images.load(source, salvage=salvage).pixels, result.pixels
    scale = after.shape[1] / before.shape[1]
    rows, labels = [[before, after]], [source.name]
    for face in [face for face in found.faces if face["restored"]][:3]:
        pair = [cut(before, face["box"], 1.0), cut(after, face["box"], scale)]
        rows.append(pair)
        labels.append(f"face {face['index']}: identity distance {face['identity_distance']:.2f} {face['reason']}")
    stream = io.BytesIO()
    sheet(rows, labels, height=320).save(stream, "JPEG", quality=92)
    return {SHEETS: stream.getvalue()}


def cut(pixels: Any, box: list[float], scale: float) -> Any:
    """The square around a box, a third wider, inside the photo."""
    x0, y0, x1, y1 = (value * scale for value in box)
    cx, cy, half = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0) * 0.67
    _, height, width = pixels.shape
    left, right = max(0, round(cx - half)), min(width, round(cx + half))
    top, bottom = max(0, round(cy - half)), min(height, round(cy + half))
    return pixels[:, top:bottom, left:right]
