"""The `studio` command: arguments in, one call, words and exit code out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.errors import InputError, StudioError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
weights_app = typer.Typer(no_args_is_help=True, help="The weight files: list, fetch, check.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure quality and speed; prints JSON.")
train_app = typer.Typer(no_args_is_help=True, help="Train the networks of this project.")
app.add_typer(weights_app, name="weights")
app.add_typer(bench_app, name="bench")
app.add_typer(train_app, name="train")

PathsArgument = Annotated[list[str], typer.Argument(help="Files, folders (searched through) and globs.")]
PhotosOption = Annotated[Path, typer.Option(help="Folder of photographs to measure on.")]
OutOption = Annotated[Path | None, typer.Option(help="Also write the JSON here.")]


def main() -> None:
    """Run the command; errors raised on purpose become one line and exit code 2, bad files exit code 1."""
    try:
        app()
    except StudioError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("stopped; what is finished is kept")
        sys.exit(130)


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


@app.command()
def restore(
    paths: PathsArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; inputs are never touched.")],
    faces: Annotated[str, typer.Option(help='"all", "largest", or indices like 0,2 (0 is the largest).')] = "all",
    fidelity: Annotated[float, typer.Option(help="0: the prior, 0.5: photo and prior, 1: nothing filled in.")] = 0.5,
    strength: Annotated[float, typer.Option(help="0 to 1: share of the restored face in the result.")] = 1.0,
    scale: Annotated[int, typer.Option(help="1, 2 or 4: size of the result.")] = 1,
    guard: Annotated[float, typer.Option(help="Largest identity distance to the input; 0 switches it off.")] = 0.6,
    colorize: Annotated[bool, typer.Option(help="Give monochrome photos the prior's colours.")] = False,
    format: Annotated[
        str | None, typer.Option(help="png, jpg, webp, tiff, bmp or avif; default: as the input.")
    ] = None,
    quality: Annotated[int, typer.Option(help="Of JPEG, WebP and AVIF.", min=1, max=100)] = 95,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report here.")] = None,
    sheets: Annotated[bool, typer.Option(help="Write before/after sheets to OUTPUT/sheets.")] = False,
    resume: Annotated[bool, typer.Option(help="Skip files whose result is there.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    keep_gps: Annotated[bool, typer.Option(help="Keep the place in the EXIF data.")] = False,
    credentials: Annotated[
        bool, typer.Option("--credentials/--no-credentials", help="Sign the results: what was done, and by what.")
    ] = True,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "restore",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Restore the faces in photographs.

    Exit code 0: every file was restored, holds no face, or was left as it was for a stated reason. 1: some file
    failed. 2: wrong arguments.
    """
    from tqdm import tqdm

    from pipelines.restore import RestorePipeline, check_arguments
    from studio import batch, images
    from studio.benchmarks.provenance import provenance
    from studio.device import pick_device
    from studio.faces.select import parse
    from studio.provenance import own_certificate

    inputs = images.find_images(paths)
    if not inputs:
        raise InputError("PATHS must name at least one image, and they name none: check the folder")
    suffix = f".{format.lstrip('.').lower()}" if format else None
    settings = {
        "faces": parse(faces),
        "fidelity": fidelity,
        "strength": strength,
        "scale": scale,
        "identity_guard": guard or None,
        "colorize": colorize,
    }
    # Refuse before the weights are loaded, and once instead of for every file.
    check_arguments(fidelity, strength, scale, settings["identity_guard"], "pil")
    batch.plan_outputs(inputs, output, suffix)
    if credentials:
        own_certificate()
    earlier = batch.read_report(report) if report and resume else {}
    pipeline = RestorePipeline.from_pretrained(model, device=pick_device(device))
    about = {"settings": settings, **provenance()}
    done: list[batch.FileReport] = []
    with tqdm(total=len(inputs), unit="photo", disable=not sys.stderr.isatty()) as bar:

        def on_file(found: batch.FileReport) -> None:
            if found.status == batch.DONE and found.input in earlier:
                found.faces = earlier[found.input]["faces"]
            done.append(found)
            bar.update()
            bar.write(summary(found), file=sys.stderr)
            if report:
                batch.write_report(report, done, about)

        batch.restore_files(
            pipeline,
            inputs,
            output,
            settings=settings,
            suffix=suffix,
            resume=resume,
            overwrite=overwrite,
            sheets=sheets,
            quality=quality,
            keep_gps=keep_gps,
            credentials=credentials,
            on_file=on_file,
        )
    counts = {status: sum(found.status == status for found in done) for status in dict.fromkeys(f.status for f in done)}
    say(", ".join(f"{count} {status}" for status, count in counts.items()) + f"; results in {output}")
    for reason, count in Counter(found.credentials for found in done if found.status == batch.RESTORED).items():
        if credentials and reason != "written":
            say(f"{count} without Content Credentials: {reason}")
    if counts.get(batch.FAILED):
        raise typer.Exit(1)


def summary(found: Any) -> str:
    """One line of the table: name, status, faces, identity distances, seconds."""
    restored = [face for face in found.faces if face["restored"]]
    distances = " ".join(f"{face['identity_distance']:.2f}" for face in restored)
    faces = f"{len(restored)}/{len(found.faces)} faces  identity {distances}" if restored else found.reason
    return f"{Path(found.input).name:<34.34} {found.status:<12} {found.seconds:5.1f} s  {faces}"


@app.command()
def faces(
    photo: Annotated[Path, typer.Argument(help="An image file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print boxes, scores and poses as JSON.")] = False,
    draw: Annotated[Path | None, typer.Option(help="Write the photo with the faces drawn on it here.")] = None,
) -> None:
    """Find the faces of a photograph."""
    from studio import images
    from studio.faces.draw import draw as draw_faces
    from studio.find import FaceFinder

    if draw and draw.resolve() == photo.resolve():
        raise InputError(f"--draw must not be the input itself, got {draw}: give another name")
    loaded = images.load(photo)
    found = FaceFinder.from_pretrained()(loaded.pixels)
    if draw:
        draw.parent.mkdir(parents=True, exist_ok=True)
        draw_faces(loaded.pixels, found).save(draw)
    if as_json:
        show({"photo": str(photo), "faces": found.to_dicts()})
        return
    typer.echo(f"{len(found)} faces in {photo}")
    for i, face in enumerate(found):
        yaw, pitch, roll = face.pose[0]
        x0, y0, x1, y1 = face.boxes[0]
        typer.echo(
            f"{i:3}  x {x0:.0f}-{x1:.0f}  y {y0:.0f}-{y1:.0f}  score {face.scores[0]:.2f}  "
            f"yaw {yaw:+.0f}  pitch {pitch:+.0f}  roll {roll:+.0f}"
        )


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A photograph; its largest face counts.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write both faces side by side (PNG, JPEG …) here.")] = None,
) -> None:
    """Tell whether two photographs show the same person, as far as that can be told, and how often that is wrong."""
    from studio.identity.compare import Comparer
    from studio.sheets import sheet as contact_sheet

    found = Comparer.from_pretrained()(first, second)
    if sheet:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([list(found.crops)], [f"distance {found.distance:.2f}"]).save(sheet)
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

    from studio import images
    from studio.identity.album import THRESHOLD, AlbumMaker, check_arguments

    if as_json and as_csv:
        raise InputError("either --json or --csv must be asked for, got both: leave one out")
    inputs = images.find_images(paths)
    if not inputs:
        raise InputError("PATHS must name at least one image, and they name none: check the folder")
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
    from studio.sheets import sheet

    rows = {f"person {number}": members[:12] for number, members in enumerate(found.people, 1)}
    rows["set aside"] = found.set_aside[:12]
    rows = {label: members for label, members in rows.items() if members}
    if not rows:
        raise InputError("a sheet needs at least one face, and none was found: leave --sheet out")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet([[found.faces[i].crop / 255 for i in members] for members in rows.values()], list(rows), height=128).save(
        path
    )


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


@app.command()
def upsample(
    paths: PathsArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; inputs are never touched.")],
    scale: Annotated[int | None, typer.Option(help="Exact size of the result in inputs; default: 1024 px.")] = None,
    samples: Annotated[int, typer.Option(help="Faces to look for; each is another guess.")] = 4,
    steps: Annotated[int, typer.Option(help="Of the search.")] = 80,
    consistent: Annotated[
        bool, typer.Option(help="Lay what the prior could not draw over the face, blurred, so that it fits exactly.")
    ] = True,
    find: Annotated[bool, typer.Option(help="The input is a photo; find the one face in it.")] = False,
    reference: Annotated[Path | None, typer.Option(help="A photo of the person who should be seen.")] = None,
    seed: Annotated[int | None, typer.Option(help="Starts elsewhere; default: the nearest faces.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report here.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here: small face, samples.")] = None,
    credentials: Annotated[bool, typer.Option(help="Sign results: Content Credentials.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "upsample",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Search for large faces that shrink to a small one (8 to 128 px, aligned as in FFHQ). They are guesses.

    Exit code 0: all were searched. 1: some file failed. 2: wrong arguments.
    """
    from pipelines.upsample import UpsamplePipeline, check_arguments
    from studio import batch, images, provenance, sheets
    from studio.device import pick_device
    from studio.latents.search import EPSILON

    inputs = images.find_images(paths)
    if not inputs:
        raise InputError("PATHS must name at least one image, and they name none: check the folder")
    check_arguments(scale, samples, steps, EPSILON, consistent, "pt")
    targets = batch.plan_outputs(inputs, output, ".png")
    pipeline = UpsamplePipeline.from_pretrained(model, device=pick_device(device))
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())
    settings = {
        "scale": scale,
        "num_images_per_prompt": samples,
        "num_inference_steps": steps,
        "consistent": consistent,
        "aligned": not find,
        "reference": reference,
    }
    made = provenance.Operation(
        "upsample",
        "a guess: one of the faces that shrink to the source",
        {**settings, "seed": seed, "reference": bool(reference)},
    )
    found: list[dict[str, Any]] = []
    rows, labels = [], []
    for source, target in zip(inputs, targets, strict=True):
        files = [target.with_name(f"{target.stem}-{k + 1}.png") for k in range(samples)]
        try:
            if not overwrite and (there := [file for file in files if file.exists()]):
                raise InputError(f"{there[0]} must not exist yet: pass --overwrite to replace it")
            rng = None if seed is None else _seeded(seed)
            done = pipeline(source, **settings, generator=rng, output_type="pt")
        except StudioError as error:
            found.append({"input": str(source), "failed": str(error)})
            say(f"{source.name}: {error}")
            continue
        for file, picture in zip(files, done.images[0], strict=True):
            lacking = provenance.save_synthetic(
                picture, file, made, source=source.read_bytes(), credentials=credentials
            )
        if lacking:
            say(f"{source.name}: {lacking}")
        found.append({"input": str(source), "outputs": [str(file) for file in files], **done.reports[0].to_dict()})
        say(f"{source.name}: {words(done.reports[0])}")
        rows.append([done.small[0], *done.images[0]])
        labels.append(f"{source.name}: {words(done.reports[0])}")
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(found, indent=1) + "\n")
    if sheet and rows:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sheets.sheet(rows, labels).save(sheet)
    if any("failed" in entry for entry in found):
        raise typer.Exit(1)


def words(report: Any) -> str:
    """An `UpsampleReport` in one line."""
    errors = " ".join(f"{sample.latent_error:.4f}" for sample in report.samples)
    found, converged = (sum(getattr(one, name) for one in report.samples) for name in ("found", "converged"))
    apart = report.mean_identity_distance
    line = (
        f"{found}/{len(report.samples)} found in the prior to within {report.threshold:g} (errors {errors}), "
        f"{converged} as written"
    )
    return line if apart is None else f"{line}; identity distance between them {apart:.2f}: they are guesses"


def _seeded(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


@app.command()
def frontalize(
    paths: PathsArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; inputs are never touched.")],
    yaw: Annotated[float, typer.Option(help="-45 to 45 degrees; 0 looks into the camera, above 0 to the left.")] = 0.0,
    pitch: Annotated[float | None, typer.Option(help="-35 to 20 degrees; default: as it is.")] = None,
    expression: Annotated[str, typer.Option(help="keep, or neutral: no smile.")] = "keep",
    background: Annotated[str, typer.Option(help="keep it where the head turns little, or generated.")] = "keep",
    face: Annotated[int | None, typer.Option(help="0 is the largest; default: the photo must show one face.")] = None,
    steps: Annotated[int, typer.Option(help="Of the search for the likeness.")] = 40,
    refine: Annotated[int, typer.Option(help="Steps back towards the person after turning.")] = 20,
    size: Annotated[int | None, typer.Option(help="Side of the results in pixels; default 1024.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report here.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here: photo, result.")] = None,
    credentials: Annotated[bool, typer.Option(help="Sign results: Content Credentials.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "frontalize",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Turn the face of a photo into the camera, or to another angle. The results are synthetic likenesses.

    Exit code 0: all were turned. 1: some file failed. 2: wrong arguments.
    """
    from pipelines.frontalize import FrontalizePipeline, check_arguments
    from studio import batch, images, provenance, sheets
    from studio.device import pick_device

    inputs = images.find_images(paths)
    if not inputs:
        raise InputError("PATHS must name at least one image, and they name none: check the folder")
    check_arguments(yaw, pitch, expression, background, face, steps, refine, "pt")
    targets = batch.plan_outputs(inputs, output, ".png")
    pipeline = FrontalizePipeline.from_pretrained(model, device=pick_device(device))
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())
    settings = {
        "yaw": yaw,
        "pitch": pitch,
        "expression": expression,
        "background": background,
        "face": face,
        "num_inference_steps": steps,
        "refinement_steps": refine,
        "size": size,
    }
    made = provenance.Operation("frontalize", "a likeness out of the prior, turned", settings)
    found: list[dict[str, Any]] = []
    rows, labels = [], []
    for source, target in zip(inputs, targets, strict=True):
        try:
            if target.exists() and not overwrite:
                raise InputError(f"{target} must not exist yet: pass --overwrite to replace it")
            done = pipeline(source, **settings, output_type="pt")
        except StudioError as error:
            found.append({"input": str(source), "failed": str(error)})
            say(f"{source.name}: {error}")
            continue
        lacking = provenance.save_synthetic(
            done.images[0], target, made, source=source.read_bytes(), credentials=credentials
        )
        line = turned(done.reports[0])
        for text in filter(None, (lacking, line)):
            say(f"{source.name}: {text}")
        found.append({"input": str(source), "output": str(target), **done.reports[0].to_dict()})
        rows.append([done.crops[0], done.images[0]])
        labels.append(line)
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(found, indent=1) + "\n")
    if sheet and rows:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sheets.sheet(rows, labels).save(sheet)
    if any("failed" in entry for entry in found):
        raise typer.Exit(1)


def turned(report: Any) -> str:
    """A `FrontalizeReport` in one line."""
    line = (
        f"yaw {report.pose_before[0]:+.0f} to {report.pose_after[0]:+.0f}, pitch {report.pose_before[1]:+.0f} to "
        f"{report.pose_after[1]:+.0f}; identity distance {report.identity_distance:.2f}"
    )
    return line if report.same_person else f"{line}: NOT the person any more (0.6 is the limit)"


@app.command()
def edit(
    output: Annotated[Path, typer.Option("--output", "-o", help="The edited face, an image file of 1024 px.")],
    photo: Annotated[Path | None, typer.Argument(help="A photo of one face; or give --seed.")] = None,
    seed: Annotated[int | None, typer.Option(help="A generated person instead of a photo.")] = None,
    yaw: Annotated[float | None, typer.Option(help="Degrees; 0 looks into the camera, above 0 to the left.")] = None,
    pitch: Annotated[float | None, typer.Option(help="Degrees; above 0 looks up.")] = None,
    smile: Annotated[float | None, typer.Option(help="Change, in spreads of generated faces.")] = None,
    mouth: Annotated[float | None, typer.Option(help="Likewise: how far it is open.")] = None,
    eyes: Annotated[float | None, typer.Option(help="Likewise: how far they are open.")] = None,
    brow: Annotated[float | None, typer.Option(help="Likewise: how high the brows are.")] = None,
    light: Annotated[float | None, typer.Option(help="Likewise: above 0, more from the right of the picture.")] = None,
    steps: Annotated[int, typer.Option(help="Of the search for a photo's likeness.", min=1)] = 100,
    before: Annotated[Path | None, typer.Option(help="Also write the likeness before the edit here.")] = None,
    credentials: Annotated[bool, typer.Option(help="Sign results: Content Credentials.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Turn a head or change an expression; prints a JSON report with identity before and after.

    A photo is first searched for in the prior; what is edited is that likeness, aligned, not the photo itself.
    """
    from studio import images, provenance
    from studio.device import pick_device
    from studio.latents.editor import Editor, check_changes, check_likeness

    asked = {"yaw": yaw, "pitch": pitch, "smile": smile, "mouth": mouth, "eyes": eyes, "brow": brow, "light": light}
    changes = {name: value for name, value in asked.items() if value is not None}
    if (photo is None) == (seed is None):
        raise InputError("either PHOTO or --seed must say whose face, got both or neither: give one of them")
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise InputError(f"--output must be a .png, .jpg or .webp file, got {output}: rename it")
    loaded = None if photo is None else images.load(photo)
    editor = Editor.from_pretrained(pick_device(device))
    check_changes(editor.space, changes)
    person = None
    if loaded is None:
        w = editor.sample(seed)
    else:
        crop, person = editor.aligned(loaded)
        w = editor.invert(crop, person, steps, lambda step, _, __: say(f"step {step + 1} of {steps}"))
        _, identity, _ = editor.look(w)
        check_likeness(float((identity - person.cpu()).norm()))
    moved, report = editor.edit(w, changes, person)
    made = provenance.Operation(
        "edit", "a likeness out of the prior, moved along its directions", {**changes, "seed": seed}
    )
    source = photo.read_bytes() if photo else None
    for file, latents in ((output, moved), (before, w)):
        if file and (
            lacking := provenance.save_synthetic(
                editor.draw(latents), file, made, source=source, credentials=credentials
            )
        ):
            say(f"{file.name}: {lacking}")
    show(report.to_dict())


@app.command()
def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos of one person; none generates people who do not exist.")
    ] = None,
    consent: Annotated[bool, typer.Option("--consent", help="The person agreed to this; needed with photos.")] = False,
    face: Annotated[int | None, typer.Option(help="Which face of photos with several; 0 is the largest.")] = None,
    samples: Annotated[int, typer.Option(help="Pictures, 1 to 16.")] = 4,
    guidance: Annotated[float, typer.Option(help="0 to 10: how much the identity counts.")] = 2.0,
    steps: Annotated[int, typer.Option(help="Of the solver.")] = 12,
    correction: Annotated[int, typer.Option(help="Gradient steps towards the person; 0 does without.")] = 20,
    solver: Annotated[str, typer.Option(help="euler or heun.")] = "euler",
    yaw: Annotated[float | None, typer.Option(help="Degrees; 0 looks into the camera, above 0 to the left.")] = None,
    pitch: Annotated[float | None, typer.Option(help="Degrees; above 0 looks up.")] = None,
    smile: Annotated[float | None, typer.Option(help="In spreads from the average generated face.")] = None,
    mouth: Annotated[float | None, typer.Option(help="Likewise: how far it is open.")] = None,
    eyes: Annotated[float | None, typer.Option(help="Likewise: how far they are open.")] = None,
    brow: Annotated[float | None, typer.Option(help="Likewise: how high the brows are.")] = None,
    light: Annotated[float | None, typer.Option(help="Likewise: above 0, more from the right of the picture.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the same samples again; default: others every time.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the JSON report here.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here: references, samples.")] = None,
    credentials: Annotated[bool, typer.Option(help="Sign results: Content Credentials.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "generate",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Generate photographs of a person who agreed to it, or of people who do not exist.

    Every result carries an invisible mark and, where they can be written, Content Credentials that record the consent.
    """
    from pipelines.generate import SOLVERS, GeneratePipeline, check_arguments, check_consent
    from studio import images, provenance, sheets
    from studio.device import pick_device

    check_arguments(samples, guidance, steps, correction, face, consent, "pt")
    check_consent(photos or None, consent)
    if solver not in SOLVERS:
        raise InputError(f"--solver must be one of {', '.join(SOLVERS)}, got {solver!r}: choose one of them")
    files = [output / f"generated-{k + 1}.png" for k in range(samples)]
    if not overwrite and (there := [file for file in files if file.exists()]):
        raise InputError(f"{there[0]} must not exist yet: pass --overwrite to replace it, or another folder")
    loaded = [images.load(photo) for photo in photos or ()]
    pipeline = GeneratePipeline.from_pretrained(model, device=pick_device(device))
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())
    pipeline.scheduler = SOLVERS[solver].from_config(pipeline.scheduler.config)
    given = {"yaw": yaw, "pitch": pitch, "smile": smile, "mouth": mouth, "eyes": eyes, "brow": brow, "light": light}
    settings = {
        "num_images_per_prompt": samples,
        "guidance_scale": guidance,
        "num_inference_steps": steps,
        "correction_steps": correction,
        **{name: value for name, value in given.items() if value is not None},
    }
    rng = None if seed is None else _seeded(seed)
    done = pipeline(loaded or None, consent, face, **settings, generator=rng, output_type="pt")
    made = provenance.Operation(
        "generate",
        "a synthetic picture" + (" of a person, made with the stated consent" if loaded else " of nobody"),
        {**settings, "solver": solver, "seed": seed, "person": bool(loaded), "consent": consent},
    )
    lacking = ""
    for file, picture in zip(files, done.images, strict=True):
        lacking = provenance.save_synthetic(picture, file, made, credentials=credentials)
    if lacking:
        say(lacking)
    for reference in done.report.references:
        if reference.outlier:
            say(f"{reference.name}: probably somebody else ({reference.distance:.2f} away), left out")
    for file, sample in zip(files, done.report.samples, strict=True):
        say(f"{file.name}: {sample_words(sample)}")
    if sheet:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sheets.sheet([[*(photo.pixels for photo in loaded), *done.images]]).save(sheet)
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        found = {"outputs": [str(file) for file in files], "settings": settings, **done.report.to_dict()}
        report.write_text(json.dumps(found, indent=1) + "\n")


def sample_words(sample: Any) -> str:
    """A `SampleReport` of a generated picture in one line."""
    pose = f"yaw {sample.attributes['yaw']:+.0f}°, pitch {sample.attributes['pitch']:+.0f}°"
    who = "" if sample.identity_distance is None else f"identity distance {sample.identity_distance:.2f}"
    before = "" if sample.prior_distance is None else f" ({sample.prior_distance:.2f} before the correction)"
    unseen = "" if sample.seen else "; no face is seen in it"
    return f"{who}{before}, {pose}{unseen}" if who else pose + unseen


# ---- weights


@weights_app.command("list")
def weights_list() -> None:
    """Name, licence, commercial use and place of every weight file."""
    from studio import weights

    for name, entry in weights.entries().items():
        place, _ = weights.locate(name)
        typer.echo(f"{name:22} {entry.licence:28} commercial: {entry.commercial:6} {place}")


@weights_app.command("pull")
def weights_pull(names: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None) -> None:
    """Fetch and convert what is not here yet."""
    from studio import weights

    for name, folder in weights.pull(names or (), lambda name, stage: say(f"{name}: {stage}")).items():
        typer.echo(f"{name}: {folder}")


@weights_app.command("verify")
def weights_verify(names: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None) -> None:
    """Hash every file and run every network once; exit code 1 when one is not as its passport says."""
    from studio import weights

    checks = weights.verify(names or ())
    for check in checks:
        typer.echo(f"{check.name:22} {'ok' if check.ok else 'BAD'}  {check.message}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@weights_app.command("path")
def weights_path(name: Annotated[str, typer.Argument(help="See `studio weights list`.")]) -> None:
    """Folder of one weight file, fetched if needed."""
    from studio import weights

    typer.echo(weights.path(name))


# ---- measuring


@bench_app.command("restore")
def bench_restore(
    photos: PhotosOption,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Degradation recipes; default gfpgan, codeformer_large.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the damage.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many photos; 0 takes all.")] = 0,
    fidelity: Annotated[list[float] | None, typer.Option(help="One or more; default 0.5.")] = None,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "restore",
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) here.")] = None,
    unseen: Annotated[bool, typer.Option(help="Of PHOTOS/aligned_clean, only faces that no training sees.")] = False,
    out: OutOption = None,
) -> None:
    """Damage clean portraits by a recipe, restore them, and compare both with the original."""
    from studio.benchmarks import restore

    recipes = recipe or list(restore.RECIPES)
    show(restore.run(photos, recipes, seed, limit, fidelity or [0.5], model, sheet, unseen, say), out)


@bench_app.command("old")
def bench_old(
    photos: PhotosOption,
    fidelity: Annotated[float, typer.Option(help="See `studio restore`.")] = 0.5,
    limit: Annotated[int, typer.Option(help="At most so many photos; 0 takes all.")] = 0,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "restore",
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of the faces here.")] = None,
    out: OutOption = None,
) -> None:
    """Restore real old photographs, where no original exists: identity kept, faces found again, sharpness."""
    from studio.benchmarks import restore

    show(restore.run_old(photos, fidelity, limit, model, sheet, say), out)


@bench_app.command("speed")
def bench_speed(
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 2,
    repeats: Annotated[int, typer.Option(help="Runs; the median counts.")] = 5,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "restore",
    out: OutOption = None,
) -> None:
    """Seconds per face and per step, batch 1 and 8, and peak memory."""
    from studio.benchmarks import speed

    show(speed.run(threads, repeats, model), out)


@bench_app.command("identity")
def bench_identity(photos: PhotosOption, out: OutOption = None) -> None:
    """Verification on the pairs of `PHOTOS/pairs.csv`."""
    from studio.benchmarks import identity

    show(identity.run(photos), out)


@bench_app.command("album")
def bench_album(photos: PhotosOption, out: OutOption = None) -> None:
    """Grouping by person: the photographs of `PHOTOS/pairs.csv` as one album, compared with who is who."""
    from studio.benchmarks import album

    show(album.run(photos), out)


@bench_app.command("upsample")
def bench_upsample(
    photos: PhotosOption,
    size: Annotated[int, typer.Option(help="Side of the small faces in pixels.")] = 32,
    samples: Annotated[int, typer.Option(help="Per face.")] = 4,
    steps: Annotated[int, typer.Option(help="Of the search.")] = 80,
    limit: Annotated[int, typer.Option(help="At most so many photos, spread over the folder; 0 takes all.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "upsample",
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) here.")] = None,
    out: OutOption = None,
) -> None:
    """Shrink portraits, search for faces that shrink to them, and compare with the originals."""
    from studio.benchmarks import upsample

    show(upsample.run(photos, size, samples, steps, limit, threads, model, sheet, say), out)


@bench_app.command("generate")
def bench_generate(
    photos: PhotosOption,
    people: Annotated[int, typer.Option(help="From PHOTOS/pairs.csv, judged by another photo of them.")] = 50,
    portraits: Annotated[int, typer.Option(help="From PHOTOS/portraits, a single photo each.")] = 0,
    samples: Annotated[int, typer.Option(help="Per person.")] = 8,
    corrected: Annotated[int, typer.Option(help="People whose samples are also corrected.")] = 50,
    ablations: Annotated[int, typer.Option(help="People for the ablations; 0 leaves them out.")] = 16,
    audited: Annotated[int, typer.Option(help="Generated people for the audit; 0 leaves it out.")] = 48,
    timed: Annotated[bool, typer.Option(help="Measure seconds, on a machine that does nothing else.")] = True,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "generate",
    out: OutOption = None,
) -> None:
    """Generate people of real photographs: likeness, diversity, pose, seconds, ablations."""
    from studio.benchmarks import generate

    counts = (people, portraits, samples, corrected, ablations, audited)
    show(generate.run(photos, *counts, timed, seed, threads, model, say), out)


@bench_app.command("frontalize")
def bench_frontalize(
    photos: Annotated[Path | None, typer.Option(help="Folder with pairs.csv: real photographs too.")] = None,
    people: Annotated[int, typer.Option(help="Generated persons, each turned by every angle; 0: none.")] = 6,
    pairs: Annotated[bool, typer.Option(help="Measure verification on PHOTOS/pairs.csv.")] = True,
    limit: Annotated[int, typer.Option(help="At most so many turned photographs of pairs; 0 takes all.")] = 0,
    min_yaw: Annotated[float, typer.Option(help="Photographs of pairs turned at least so far count.")] = 15.0,
    profiles: Annotated[int, typer.Option(help="Half-profiles of PHOTOS/aligned_old; 0: none.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the generated persons.")] = 0,
    steps: Annotated[int, typer.Option(help="Of the search for the likeness.")] = 40,
    refine: Annotated[int, typer.Option(help="Steps back towards the person after turning.")] = 20,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    model: Annotated[str, typer.Option(help="Known name, or folder of a saved pipeline.")] = "frontalize",
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of the generated persons here.")] = None,
    profile_sheet: Annotated[Path | None, typer.Option(help="Write a sheet of the half-profiles here.")] = None,
    out: OutOption = None,
) -> None:
    """Turn generated faces back whose front is known; and what turning does to verification on real pairs."""
    from studio.benchmarks import frontalize

    about = (photos, people, pairs, limit, min_yaw, profiles, seed, steps, refine, threads, model, sheet, profile_sheet)
    show(frontalize.run(*about, say), out)


@bench_app.command("app")
def bench_visitors(
    visitors: Annotated[int, typer.Option(help="At the same time.", min=1)] = 20,
    side: Annotated[int, typer.Option(help="Longer side of the photo they send, px; 0: as the example is.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    out: OutOption = None,
) -> None:
    """Serve the app, let many restore a photo at once: finished, refused, seconds, peak memory."""
    import torch

    from studio.benchmarks.provenance import provenance
    from studio.ui import rush

    if threads:
        torch.set_num_threads(threads)
    found = rush.run(visitors, side)
    show(
        {
            "benchmark": "app",
            **found,
            "provenance": provenance(("restore", "head_512", "generator", "identity", "mesh")),
        },
        out,
    )


# ---- training


@train_app.command("list")
def train_list() -> None:
    """The presets, as data."""
    from dataclasses import asdict

    from studio.training.presets import PRESETS

    show({name: asdict(preset) for name, preset in PRESETS.items()})


@train_app.command("faces")
def train_faces(
    count: Annotated[int, typer.Option(help="At least so many generated faces.")] = 20_000,
    cache: Annotated[Path, typer.Option(help="Folder of the generated faces.")] = Path(".cache/faces"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Generate faces to train on; can be stopped and continued."""
    from studio.training.run import make_faces

    make_faces(count, cache, device, say)


@train_app.command("run")
def train_run(
    preset: Annotated[str, typer.Argument(help="See `studio train list`.")],
    folder: Annotated[Path, typer.Option(help="Checkpoints, log and sample sheets.")],
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the preset's end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
    cache: Annotated[Path, typer.Option(help="Generated faces, see `studio train faces`.")] = Path(".cache/faces"),
    photos: Annotated[Path | None, typer.Option(help="Real faces: a folder with aligned_clean and portraits.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dry_run: Annotated[bool, typer.Option(help="Print the preset and stop.")] = False,
) -> None:
    """Train a preset."""
    from dataclasses import asdict

    from studio.training.run import find_preset, train

    if dry_run:
        show(asdict(find_preset(preset)))
        return
    train(preset, folder, cache, photos, minutes, resume, device, say)


@train_app.command("heads")
def train_heads(
    folder: Annotated[Path, typer.Option(help="Checkpoint, heads and sample sheet.")],
    images: Annotated[int, typer.Option(help="Generated faces over the whole training.")] = 6000,
    cache: Annotated[
        Path | None, typer.Option(help="Cached faces: trains the 256 px head alone, faster. Default: draws new ones.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Distil the generator's 256 and 512 px image heads from its own pictures."""
    from studio.training.run import train_heads

    train_heads(folder, images, cache, minutes, resume, device, say)


@train_app.command("encoder")
def train_encoder(
    folder: Annotated[Path, typer.Option(help="Checkpoint and network.")],
    images: Annotated[int, typer.Option(help="Faces over the whole training.")] = 80_000,
    cache: Annotated[Path, typer.Option(help="Generated faces, see `studio train faces`.")] = Path(".cache/faces"),
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the latent encoder, which gives searches of the prior their start."""
    from studio.training.run import train_encoder

    train_encoder(folder, images, cache, minutes, resume, device, say)


@train_app.command("directions")
def train_directions(
    folder: Annotated[Path, typer.Option(help="Where the latent space goes, such as weights/directions.")],
    cache: Annotated[Path, typer.Option(help="Generated faces, see `studio train faces`.")] = Path(".cache/faces"),
    count: Annotated[int, typer.Option(help="Faces to measure at most.")] = 8192,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
) -> None:
    """Measure generated faces and fit the directions that turn, light and move them."""
    from studio.training.directions import fit

    show(fit(cache, folder, count, seed, say))


@train_app.command("identities")
def train_identities(
    folder: Annotated[Path, typer.Option(help="Cache of the pairs.")] = Path(".cache/identities"),
    count: Annotated[int, typer.Option(help="At least so many new faces.")] = 51_200,
    faces: Annotated[Path | None, typer.Option(help="Also use these cached faces, see `studio train faces`.")] = None,
) -> None:
    """Draw generated faces and keep latent and identity descriptor of each; can be stopped and continued."""
    from studio.training.identities import make_identities

    make_identities(folder, count, faces, say)


@train_app.command("generate")
def train_generate(
    folder: Annotated[Path, typer.Option(help="Checkpoint, log and the averaged network.")],
    cache: Annotated[Path, typer.Option(help="Pairs, see `studio train identities`.")] = Path(".cache/identities"),
    steps: Annotated[int, typer.Option(help="Of the whole training.")] = 1500,
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
) -> None:
    """Train the prior over latents given an identity, for `studio generate`."""
    from studio.training.run import train_flow

    train_flow(folder, cache, steps, minutes, resume, say)


@train_app.command("export")
def train_export(
    folder: Annotated[Path, typer.Argument(help="Folder of a training.")],
    target: Annotated[Path, typer.Argument(help="Folder to write, such as weights/restore.")],
) -> None:
    """Write a training's (averaged) weights in half precision."""
    from studio.training.run import export

    export(folder, target)


if __name__ == "__main__":
    main()
