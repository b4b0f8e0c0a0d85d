"""Commands on photographs: restore, faces, compare, album, verify."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.common import (
    DeviceOption,
    LicenceOption,
    ModelOption,
    PathsArgument,
    check_beside,
    counted,
    named,
    say,
    show,
    size_of_result,
)
from studio.errors import InputError

app = typer.Typer()
REPORT_SECONDS = 20  # a report is written this often while files are done, and when they are


@app.command()
def restore(
    paths: PathsArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; inputs are never touched.")],
    faces: Annotated[
        str, typer.Option(help='"all", "largest", "given" (see --box), or indices like 0,2 (see studio faces).')
    ] = "all",
    box: Annotated[
        list[str] | None,
        typer.Option(help="A face that is not found: x0,y0,x1,y1 in pixels, forehead to chin; repeat it. One photo."),
    ] = None,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The photos are faces, cut as FFHQ or published restorers cut them.")
    ] = False,
    fidelity: Annotated[
        float, typer.Option(help="0: the prior, 0.5: what the photo says, and drawn what it does not, 1: drawn least.")
    ] = 0.5,
    strength: Annotated[float, typer.Option(help="0 to 1: share of the restored face in the result.")] = 1.0,
    scale: Annotated[
        str, typer.Option(help="1, 1.5, 2, 3 or 4: size of the result; auto: as large as the largest face needs it.")
    ] = "auto",
    background: Annotated[
        str, typer.Option(help="Around the faces: none, lanczos, span or realesrgan (networks, fetched on first use).")
    ] = "lanczos",
    region: Annotated[
        str, typer.Option(help="face, head, photo (the rest is cleaned, too), or auto: photo where the rest needs it.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Another one draws another face, where the damage leaves a choice.")] = 0,
    steps: Annotated[int, typer.Option(help="From the mean of all faces that it may have been to one of them.")] = 4,
    guard: Annotated[float, typer.Option(help="Largest identity distance to the input; 0 switches it off.")] = 0.6,
    caution: Annotated[
        bool, typer.Option("--caution/--no-caution", help="Profiles and tiny faces: fidelity 0.75 at least.")
    ] = True,
    colorize: Annotated[bool, typer.Option(help="Give monochrome photos the prior's colours.")] = False,
    reference: Annotated[
        list[Path] | None, typer.Option(help="Another photo of the person, to draw what is lost like them; repeat it.")
    ] = None,
    reference_steps: Annotated[int, typer.Option(help="Steps towards that person; 0 only measures.", min=0)] = 12,
    format: Annotated[
        str | None, typer.Option(help="png, jpg, webp, tiff, bmp or avif; default: as the input.")
    ] = None,
    quality: Annotated[int, typer.Option(help="Of JPEG, WebP and AVIF.", min=1, max=100)] = 95,
    name: Annotated[str, typer.Option(help='Of the results, such as "{stem}-restored{suffix}".')] = "{stem}{suffix}",
    report: Annotated[Path | None, typer.Option(help="Write a JSON report here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with all photos before and after here.")] = None,
    sheets: Annotated[bool, typer.Option(help="Write before/after sheets to OUTPUT/sheets.")] = False,
    show_invented: Annotated[
        bool, typer.Option("--show-invented", help="Write pictures of what the model drew to OUTPUT/invented.")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Go on: do what is new, changed, or was not done with these settings.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    salvage: Annotated[bool, typer.Option(help="Restore what is there of JPEGs that lack their end.")] = False,
    keep_gps: Annotated[bool, typer.Option(help="Keep the place in the EXIF data.")] = False,
    credentials: Annotated[
        bool, typer.Option("--credentials/--no-credentials", help="Sign the results: what was done, and by what.")
    ] = True,
    model: ModelOption = "restore",
    licence: LicenceOption = "",
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(help="Photos at a time; they share the processor.", min=1, max=64)] = 1,
) -> None:
    """Restore the faces in photographs.

    Exit code 0: every file was restored, holds no face, or was left as it was for a stated reason. 1: some file
    failed. 2: wrong arguments.
    """
    from tqdm import tqdm

    from pipelines.restore import RestorePipeline
    from studio import background as backgrounds
    from studio import batch, weights
    from studio.benchmarks.provenance import provenance
    from studio.device import pick_device, share_threads
    from studio.faces.select import parse_box
    from studio.provenance import own_certificate

    gathered = named(paths, output, (report, html))
    inputs = gathered.files
    suffix = f".{format.lstrip('.').lower()}" if format else None
    settings = settings_of(
        faces=faces,
        fidelity=fidelity,
        strength=strength,
        scale=scale,
        background=background,
        region=region,
        seed=seed,
        steps=steps,
        guard=guard,
        caution=caution,
        colorize=colorize,
        reference_steps=reference_steps,
    )
    if box and len(inputs) > 1:
        raise InputError(f"a box lies in one photo, and PATHS name {len(inputs)}: give that one alone")
    if box and aligned:
        raise InputError("--box and --aligned can't be had both: an aligned picture is one face")
    if box or aligned:
        settings |= {"boxes": [parse_box(text) for text in box]} if box else {"aligned": True}
    batch.plan_outputs(inputs, output, suffix, root=gathered.root, name=name)
    check_beside(inputs, report=report)
    check_beside(inputs, report=html)
    if credentials:
        own_certificate()
    share_threads(workers)
    pipeline = RestorePipeline.from_pretrained(model, device=pick_device(device), licence=licence)
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty(), leave=False)
    if background in backgrounds.NETWORKS:
        with weights.only(licence):
            pipeline.upsampler(background)
    about = {"model": model, "settings": settings, **provenance(), "weights": batch.weights_of(pipeline, background)}
    about["unread"] = [{"path": str(path), "reason": reason} for path, reason in gathered.unread]
    if reference:
        if len(inputs) > 1:
            say(f"the reference guides one face in each of {len(inputs)} photos: give those of this person only")
        if not pipeline.leads and reference_steps:
            say(f"{model} can't be led by a reference: it only measures")
            reference_steps = 0
        about["settings"] = settings | {"reference": [path.name for path in reference]}
        settings = settings | {"reference": pipeline.embed_reference(reference), "reference_steps": reference_steps}
    done: list[batch.FileReport] = []
    written = time.monotonic()
    with tqdm(total=len(inputs), unit="photo", disable=not sys.stderr.isatty()) as bar:

        def on_file(found: batch.FileReport) -> None:
            nonlocal written
            done.append(found)
            bar.update()
            bar.write(summary(found), file=sys.stderr)
            if report and time.monotonic() - written > REPORT_SECONDS:
                batch.write_report(report, done, about)
                written = time.monotonic()

        try:
            batch.restore_files(
                pipeline,
                inputs,
                output,
                settings=settings,
                suffix=suffix,
                root=gathered.root,
                name=name,
                resume=resume,
                overwrite=overwrite,
                sheets=sheets,
                invented=show_invented,
                quality=quality,
                keep_gps=keep_gps,
                credentials=credentials,
                salvage=salvage,
                model=model,
                journal=True,
                weights=about["weights"],
                workers=workers,
                on_file=on_file,
            )
        finally:
            if report:
                batch.write_report(report, done, about)
    if html:
        batch.write_page(html, done)
    say(f"{totals(done)}; results in {output}")
    for reason, count in Counter(found.credentials for found in done if found.status == batch.RESTORED).items():
        if credentials and reason != "written":
            say(f"{count} without Content Credentials: {reason}")
    if any(found.status == batch.FAILED for found in done):
        raise typer.Exit(1)


def settings_of(
    *,
    faces: str = "all",
    fidelity: float = 0.5,
    strength: float = 1.0,
    scale: str = "auto",
    background: str = "lanczos",
    region: str = "auto",
    seed: int = 0,
    steps: int = 4,
    guard: float = 0.6,
    caution: bool = True,
    colorize: bool = False,
    reference_steps: int = 12,
) -> dict[str, Any]:
    """The options of the command as keyword arguments of the pipeline, checked before any weights are loaded.

    Raises:
        InputError: one of them is out of its range.
    """
    from pipelines.restore import check_arguments, check_drawing
    from studio import background as backgrounds
    from studio.faces.select import parse

    settings = {
        "faces": parse(faces),
        "fidelity": fidelity,
        "strength": strength,
        "scale": size_of_result(scale),
        "background": background,
        "region": region,
        "seed": seed,
        "num_inference_steps": steps,
        "identity_guard": guard or None,
        "caution": caution,
        "colorize": colorize,
    }
    check_arguments(fidelity, strength, settings["scale"], settings["identity_guard"], "pil", reference_steps)
    check_drawing(region, steps)
    backgrounds.check(background, settings["scale"])
    return settings


def totals(done: list[Any]) -> str:
    """How many files came out how; and how many of them earlier runs did, or stand for a duplicate."""
    counts = Counter(found.status for found in done)
    line = ", ".join(f"{count} {status}" for status, count in counts.items())
    for what, count in (
        ("already done", sum(found.earlier for found in done)),
        ("the same as another", sum(bool(found.duplicate_of) for found in done)),
    ):
        line += f", {count} {what}" if count else ""
    return line


def summary(found: Any) -> str:
    """One line of the table: name, status, seconds, faces, identity distances, enlargement, notes."""
    restored = [face for face in found.faces if face["restored"]]
    distances = " ".join(f"{face['identity_distance']:.2f}" for face in restored)
    shown = f"{len(restored)}/{len(found.faces)} faces  identity {distances}"
    faces = shown if restored and found.status != "failed" else found.reason
    enlarged = f"  {found.scale:g} times as large" if (found.scale or 1) > 1 else ""
    guided = [face for face in restored if face.get("guided")]
    person = "".join(f"  person {face['reference_before']:.2f} -> {face['reference_after']:.2f}" for face in guided)
    maybe = f"  {len(found.doubtful)} more may be faces: see --report" if found.doubtful else ""
    same = f"  the same file as {found.duplicate_of}" if found.duplicate_of else ""
    notes = "".join(f"  {note}" for note in found.notes)
    status = "already done" if found.earlier else found.status
    return (
        f"{Path(found.input).name:<34.34} {status:<12} {found.seconds:5.1f} s  {faces}{person}{enlarged}{maybe}"
        f"{same}{notes}"
    )


@app.command()
def faces(
    photo: Annotated[Path, typer.Argument(help="An image file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print boxes, scores and poses as JSON.")] = False,
    draw: Annotated[Path | None, typer.Option(help="Write the photo with the faces drawn on it here.")] = None,
    depth: Annotated[
        Path | None, typer.Option(help="Write each aligned face beside its depth here (PNG, JPEG); near is light.")
    ] = None,
) -> None:
    """Find the faces of a photograph."""
    from studio import images, weights
    from studio.faces.draw import draw as draw_faces
    from studio.find import FaceFinder

    check_beside([photo], pictures=[draw, depth])
    if depth and depth == draw:
        raise InputError(f"--draw and --depth must be two files, got {depth} for both: give another name")
    loaded = images.load(photo)
    deep = weights.path("depth") if depth else None
    found = FaceFinder.from_pretrained()(loaded.pixels)
    if draw:
        draw_faces(loaded.pixels, found).save(draw)
    if depth and len(found):
        _depth_sheet(loaded.pixels, found, deep, depth)
    elif depth:
        say(f"{depth} is not written: no face was found")
    if as_json:
        show({"photo": str(photo), "faces": found.to_dicts()})
        return
    typer.echo(f"{counted(len(found), 'face')} in {photo}")
    if not len(found):
        typer.echo("if there is one, cut the photo closer to it, or give its box: studio restore --box x0,y0,x1,y1")
    for x0, y0, x1, y1 in found.doubtful.tolist():
        typer.echo(f"    may be one: --box {x0:.0f},{y0:.0f},{x1:.0f},{y1:.0f}")
    for i, face in enumerate(found):
        yaw, pitch, roll = face.pose[0]
        x0, y0, x1, y1 = face.boxes[0]
        typer.echo(
            f"{i:3}  x {x0:.0f}-{x1:.0f}  y {y0:.0f}-{y1:.0f}  score {face.scores[0]:.2f}  "
            f"yaw {yaw:+.0f}  pitch {pitch:+.0f}  roll {roll:+.0f}"
        )


def _depth_sheet(pixels: Any, found: Any, weights: Any, path: Path) -> None:
    """A row for each face: aligned, and how deep everything lies in it."""
    from studio import sheets
    from studio.depth import depths, picture
    from studio.networks.depth import DepthNet

    crops, deep = depths(pixels, found, DepthNet.from_pretrained(weights))
    rows = [[crop, picture(one)] for crop, one in zip(crops, deep, strict=True)]
    sheets.write(path, rows, [f"{i}" for i in range(len(rows))])


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A photograph; its largest face counts.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write both faces side by side (PNG, JPEG …) here.")] = None,
) -> None:
    """Tell whether two photographs show the same person, as far as that can be told, and how often that is wrong."""
    from studio import sheets
    from studio.identity.compare import Comparer

    check_beside([first, second], pictures=[sheet])
    found = Comparer.from_pretrained()(first, second)
    if sheet:
        sheets.write(sheet, [list(found.crops)], [f"distance {found.distance:.2f}"])
    if as_json:
        show({"first": str(first), "second": str(second), **found.to_dict()})
    else:
        typer.echo(found.sentence)


@app.command()
def album(
    paths: PathsArgument,
    threshold: Annotated[
        float | None, typer.Option(help="Largest mean distance of groups that are joined; default: as measured best.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the album as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line per face as CSV.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Write the faces, a row for each person, here (PNG, JPEG).")
    ] = None,
) -> None:
    """Group the faces of many photographs by person, as far as that can be told, and how often that is wrong.

    Exit code 0: all photos were read. 1: some file failed. 2: wrong arguments.
    """
    from tqdm import tqdm

    from studio.identity.album import THRESHOLD, AlbumMaker, check_arguments

    if as_json and as_csv:
        raise InputError("either --json or --csv must be asked for, got both: leave one out")
    inputs = named(paths).files
    check_beside(inputs, pictures=[sheet])
    threshold = THRESHOLD if threshold is None else threshold
    check_arguments(len(inputs), threshold)
    maker = AlbumMaker.from_pretrained()
    with tqdm(total=len(inputs), unit="photo", disable=not sys.stderr.isatty()) as bar:
        found = maker(
            inputs,
            threshold,
            names=[str(path) for path in inputs],
            on_photo=lambda done, _: bar.update(done - bar.n),
        )
    for i, reason in found.failed.items():
        say(f"{found.names[i]}: {reason}")
    if sheet:
        _album_sheet(found, sheet)
    if as_json:
        show(found.to_dict())
    elif as_csv:
        typer.echo(found.to_csv(), nl=False)
    else:
        for row in sorted(found.rows(), key=lambda row: row["person"] or len(found.people) + 1):
            who = f"person {row['person']}" if row["person"] else "set aside"
            apart = "" if row["distance"] is None else f"  {row['distance']:.2f} from the others"
            typer.echo(f"{who:12} {row['photo']}  face {row['face']}{apart}{row['reason'] and '  ' + row['reason']}")
        typer.echo(found.sentence)
    if found.failed:
        raise typer.Exit(1)


def _album_sheet(found: Any, path: Path) -> None:
    """A row for each person with up to twelve faces."""
    from studio import sheets

    rows = {f"person {number}": members[:12] for number, members in enumerate(found.people, 1)}
    rows["set aside"] = found.set_aside[:12]
    rows = {label: members for label, members in rows.items() if members}
    if not rows:
        raise InputError("a sheet needs at least one face, and none was found: leave --sheet out")
    faces = [[found.faces[i].crop / 255 for i in members] for members in rows.values()]
    sheets.write(path, faces, list(rows), height=128)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A picture or video.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Tell what was done to a file by the studio, and whether it is intact.

    Exit code 0: its credentials are intact, or it carries the mark of a synthetic picture. 1: changed after signing,
    or nothing found. 2: no such file.
    """
    from dataclasses import asdict

    from studio import provenance

    verdict = provenance.verify(file)
    if as_json:
        show({"file": str(file), **asdict(verdict)})
    else:
        for line in provenance.lines(verdict):
            typer.echo(line)
    if not verdict.ok:
        raise typer.Exit(1)
