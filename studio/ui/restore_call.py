"""One photo restored for the Restore tab: the files that the page shows, and what is said about them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from studio import images
from studio.background import NETWORKS
from studio.batch import NO_FACE, NONE_FOUND, RESTORED, UNCHANGED, FileReport, cut, seeded, with_credentials
from studio.errors import InputError
from studio.faces.draw import draw_invented
from studio.faces.select import parse, parse_boxes
from studio.images import Photo
from studio.ui.common import DISTANCE, fit, read, show
from studio.ui.restore_options import LOOKS

if TYPE_CHECKING:
    from pipelines.restore import FaceReport, Reading, RestorePipeline

CROP_SIDE = 256  # px, in the strip of faces
STRIP = 40  # faces in the strip, largest first
FORMATS = {"png": ".png", "tiff": ".tif", "jpg": ".jpg"}
REFERENCE_STEPS = 12
NOBODY = (
    "No face was found in this photo, so nothing was restored. If there is one, mark it under “A face is missing?”, or "
    "say there that the photo is nothing but a face."
)


@dataclass
class Result:
    """What the tab shows.

    Attributes:
        report: as the command line writes it.
        message: the report in one line.
        file: the restored photo, whole and in full quality; None where no face was restored.
        shown: the photo before and after, PNG files of one size; None where no face was restored.
        strip: PNG file of a face before and after, and its caption.
        invented: PNG file of the result in grey, in colour where the prior drew it; None where no face was restored.
        ways: PNG file of the largest restored face in each of the three ways, and its name; none of published models.
    """

    report: FileReport
    message: str
    file: Path | None = None
    shown: tuple[Path, Path] | None = None
    strip: list[tuple[Path, str]] = field(default_factory=list)
    invented: Path | None = None
    ways: list[tuple[Path, str]] = field(default_factory=list)


def restore_photo(
    pipeline: RestorePipeline,
    source: str | Path | None,
    folder: Path,
    *,
    faces: str = "all",
    fidelity: float = 0.5,
    strength: float = 1.0,
    scale: float | str = "auto",
    identity_guard: float = 0.6,
    colorize: bool = False,
    file_format: str = "png",
    credentials: bool = True,
    reference: str | Path | None = None,
    background: str = "lanczos",
    boxes: str = "",
    aligned: bool = False,
    region: str = "auto",
    seed: int = 0,
    model: str = "restore",
    on_step: Callable[..., Any] | None = None,
) -> Result:
    """Restore one file and write what the page shows.

    Args:
        pipeline: what restores.
        source: the photo.
        folder: of everything written.
        faces: "all", "largest" or numbers such as "0,2".
        fidelity: as in the pipeline's call, like the next two.
        strength: one number for all faces.
        scale: 1, 1.5, 2, 3, 4 or "auto", see `RestorePipeline.__call__`.
        identity_guard: as in the pipeline's call, but 0 switches it off.
        colorize: as in the pipeline's call.
        file_format: a key of `FORMATS`.
        credentials: sign the result, where that can be done; the report says where it was not.
        reference: another photo of the person, or None; as in the pipeline's call.
        background: as in the pipeline's call.
        boxes: of faces that are not found, "x0,y0,x1,y1" parted by semicolons.
        aligned: as in the pipeline's call.
        region: as in the pipeline's call.
        seed: of the pipeline's generator.
        model: what restores, for the credentials.
        on_step: the pipeline's `callback_on_step_end`.

    Raises:
        InputError: no photo, or an argument outside its range.
        ImageError: a file that is no usable photo, or one whose result would be too large.
        CredentialsError: the result cannot be signed with the certificate that is set.
    """
    start = time.perf_counter()
    if file_format not in FORMATS:
        raise InputError(f"file_format must be one of {', '.join(FORMATS)}, got {file_format!r}: choose one of them")
    photo = read(source, scale)
    settings = {
        "faces": parse(faces),
        "fidelity": fidelity,
        "strength": strength,
        "scale": scale,
        "background": background,
        "region": region,
        "seed": int(seed),
        "identity_guard": identity_guard or None,
        "colorize": colorize,
    }
    if given := parse_boxes(boxes):
        settings["boxes"] = given
    if aligned:
        settings["aligned"] = True
    if reference is not None:
        steps = REFERENCE_STEPS if model == "restore" else 0  # published ones are only measured with it
        settings |= {"reference": read(reference), "reference_steps": steps}
    # Of published models `join` would run a network again. No picture in 8 bits, which nobody looks at.
    wanted = pipeline.leads and reference is None
    output = pipeline(photo, **seeded(settings), keep_readings=wanted, callback_on_step_end=on_step, output_type="pt")
    report = FileReport(photo.name, faces=[face.to_dict() for face in output.reports[0]])
    report.doubtful = output.faces[0].doubtful.round(1).tolist()
    result = Result(report, verdict(report, output.reports[0]))
    if count := len(report.doubtful):
        more = f"{count} more places may be faces" if count > 1 else "One more place may be a face"
        result.message += f" {more}: mark what is missing under “A face is missing?”."
    after = output.photos[0]
    if report.status == RESTORED or background in NETWORKS:
        suffix = FORMATS[file_format]
        data = images.encode(after, suffix)
        report.credentials = "not wanted"
        if credentials:
            told = {"model": model, **settings}
            data, report.credentials = with_credentials(data, suffix, Path(source).read_bytes(), told, report.faces)
        if report.credentials not in ("written", "not wanted"):
            result.message += f" No Content Credentials: {report.credentials}."
        result.file = images.write(data, folder / f"{Path(photo.name).stem}_restored{suffix}")
        report.output, report.scale = result.file.name, output.scales[0]
        if scale == "auto" and report.scale > 1:
            result.message += f" The result is {report.scale:g} times as large as the photo, to show its faces."
        result.shown = (
            show(photo, *fit(after), folder / "before.png"),
            show(after, *fit(after), folder / "after.png"),
        )
        overlay = draw_invented(after.pixels, output.invented[0])
        result.invented = show(Photo(overlay, icc=after.icc), *fit(after), folder / "invented.png")
        if background in NETWORKS:
            result.message += f" The photo around the faces was drawn by the network {background}."
        if output.readings:
            result.ways = three_ways(pipeline, output.readings[0], colorize, folder)
        result.strip = [pair(photo, after, face, output.scales[0], folder) for face in output.reports[0][:STRIP]]
    report.seconds = round(time.perf_counter() - start, 3)
    return result


def verdict(report: FileReport, faces: Sequence[FaceReport]) -> str:
    """Fill in the report's status and reason, and say them in one line."""
    restored = [face for face in faces if face.restored]
    left = Counter(face.reason.split(":")[0] for face in faces if not face.restored)
    reasons = ", ".join(f"{count} {reason}" for reason, count in left.items())
    if not faces:
        report.status, report.reason = NO_FACE, NONE_FOUND
        return NOBODY
    found = f"{len(faces)} face{'s' if len(faces) > 1 else ''} found"
    if not restored:
        report.status, report.reason = UNCHANGED, reasons
        return f"{found}, none restored: {reasons}."
    report.status = RESTORED
    skipped = f" Left as they were: {reasons}." if reasons else ""
    held = sum("identity guard" in face.reason for face in restored)
    guarded = f" Blended back by the identity guard: {held}." if held else ""
    careful = sum(bool(face.reason) and "identity guard" not in face.reason for face in restored)
    guarded += f" Restored with care, as the report says: {careful}." if careful else ""
    distances = sorted(face.identity_distance for face in restored)
    span = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (distances[0], distances[-1])))
    said = f"{found}, {len(restored)} restored.{skipped}{guarded} Identity distance {span} ({DISTANCE})."
    nearest = min(
        (face for face in restored if face.reference_after is not None),
        key=lambda face: face.reference_before,
        default=None,
    )
    if nearest is None:
        return said
    way = f"from {nearest.reference_before:.2f} to {nearest.reference_after:.2f} from the person of the other photo"
    return f"{said} Face {nearest.index + 1} went {way}" + ("." if nearest.guided else ", and no nearer by it.")


def pair(before: Photo, after: Photo, face: FaceReport, scale: int, folder: Path) -> tuple[Path, str]:
    """Write one face before and after, side by side; the caption says what was done."""
    crops = [cut(before.pixels, face.box, 1.0), cut(after.pixels, face.box, scale)]
    width = max(1, round(CROP_SIDE * crops[0].shape[2] / crops[0].shape[1]))
    both = torch.cat([images.resize(crop, CROP_SIDE, width) for crop in crops], 2)
    path = images.save(Photo(both, icc=before.icc), folder / f"face_{face.index}.png")
    done = f"identity distance {face.identity_distance:.2f}" if face.restored else "left as it was"
    return path, f"Face {face.index + 1}: {done}{f' ({face.reason})' if face.reason else ''}"


def three_ways(pipeline: RestorePipeline, reading: Reading, colorize: bool, folder: Path) -> list[tuple[Path, str]]:
    """Write the largest face in each of the three ways, from what was read once: no network runs again."""
    found = []
    for name, fidelity in LOOKS.items() if len(reading) else ():
        face = pipeline.join(reading[:1], fidelity, reading.tone, colorize).picture[0]
        small = images.resize(face, CROP_SIDE, CROP_SIDE)
        found.append((images.save(small, folder / f"{name.lower()}.png"), name))
    return found
