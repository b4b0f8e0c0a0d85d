"""Commands that draw new faces: upsample, frontalize, edit, generate. Their results are synthetic, and say so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.common import (
    DeviceOption,
    LicenceOption,
    ModelOption,
    PathsArgument,
    check_beside,
    check_free,
    named,
    say,
    show,
    write,
)
from studio.errors import InputError, StudioError

app = typer.Typer()


@app.command()
def upsample(
    paths: PathsArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; inputs are never touched.")],
    scale: Annotated[int | None, typer.Option(help="Exact size of the result in inputs; default: 1024 px.")] = None,
    samples: Annotated[int, typer.Option(help="Faces to look for; each is another guess.")] = 4,
    steps: Annotated[int, typer.Option(help="Of the search at most.")] = 50,
    move_map: Annotated[
        bool,
        typer.Option(help="Draw what latents cannot say by moving a map of the generator; off: latents alone."),
    ] = True,
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
    model: ModelOption = "upsample",
    device: DeviceOption = "auto",
) -> None:
    """Search for large faces that shrink to a small one (8 to 128 px, aligned as in FFHQ). They are guesses.

    Exit code 0: all were searched. 1: some file failed. 2: wrong arguments.
    """
    from pipelines.upsample import UpsamplePipeline, check_arguments
    from studio import batch, provenance, sheets
    from studio.device import pick_device
    from studio.latents.search import EPSILON

    gathered = named(paths, output)
    inputs = gathered.files
    check_arguments(scale, samples, steps, EPSILON, "pt")
    targets = batch.plan_outputs(inputs, output, ".png", root=gathered.root)
    check_beside([*inputs, *([reference] if reference else [])], pictures=[sheet], report=report, overwrite=overwrite)
    pipeline = UpsamplePipeline.from_pretrained(model, device=pick_device(device))
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())
    settings = {
        "scale": scale,
        "num_images_per_prompt": samples,
        "num_inference_steps": steps,
        "move_map": move_map,
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
            check_free(files, overwrite)
            rng = None if seed is None else _seeded(seed)
            done = pipeline(source, **settings, generator=rng, output_type="pt")
            for file, picture in zip(files, done.images[0], strict=True):
                lacking = provenance.save_synthetic(
                    picture, file, made, source=source.read_bytes(), credentials=credentials
                )
        except StudioError as error:
            found.append({"input": str(source), "failed": str(error)})
            say(f"{source.name}: {error}")
            continue
        if lacking:
            say(f"{source.name}: {lacking}")
        found.append({"input": str(source), "outputs": [str(file) for file in files], **done.reports[0].to_dict()})
        say(f"{source.name}: {words(done.reports[0])}")
        rows.append([done.small[0], *done.images[0]])
        labels.append(f"{source.name}: {words(done.reports[0])}")
    write(found, report)
    if sheet and rows:
        sheets.write(sheet, rows, labels)
    if any("failed" in entry for entry in found):
        raise typer.Exit(1)


def words(report: Any) -> str:
    """An `UpsampleReport` in one line."""
    errors = " ".join(f"{sample.drawn_error:.4f}" for sample in report.samples)
    found, converged = (sum(getattr(one, name) for one in report.samples) for name in ("found", "converged"))
    apart = report.mean_identity_distance
    line = (
        f"{found}/{len(report.samples)} found in the prior to within {report.threshold:g} (errors {errors}), "
        f"{converged} as written"
    )
    return line if apart is None else f"{line}; identity distance between them {apart:.2f}: they are guesses"


@app.command()
def frontalize(
    paths: PathsArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; inputs are never touched.")],
    yaw: Annotated[float, typer.Option(help="-45 to 45 degrees; 0 looks into the camera, above 0 to the left.")] = 0.0,
    pitch: Annotated[float | None, typer.Option(help="-35 to 20 degrees; default: as it is.")] = None,
    expression: Annotated[str, typer.Option(help="keep, or neutral: no smile.")] = "keep",
    background: Annotated[str, typer.Option(help="keep it where the head turns little, or generated.")] = "keep",
    face: Annotated[int | None, typer.Option(help="0 is the largest; default: the photo must show one face.")] = None,
    method: Annotated[
        str, typer.Option(help="What the search for a likeness starts from: network, or search: a regression alone.")
    ] = "network",
    steps: Annotated[
        int | None, typer.Option(help="Of that search; default 20, from a regression 40. 0: as the network predicts.")
    ] = None,
    refine: Annotated[int, typer.Option(help="Steps back towards the person after turning.")] = 30,
    size: Annotated[int | None, typer.Option(help="Side of the results in pixels; default 1024.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report here.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here: photo, result.")] = None,
    credentials: Annotated[bool, typer.Option(help="Sign results: Content Credentials.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    model: ModelOption = "frontalize",
    device: DeviceOption = "auto",
) -> None:
    """Turn the face of a photo into the camera, or to another angle. The results are synthetic likenesses.

    Exit code 0: all were turned. 1: some file failed. 2: wrong arguments.
    """
    from pipelines.frontalize import FrontalizePipeline, check_arguments
    from studio import batch, provenance, sheets
    from studio.device import pick_device

    gathered = named(paths, output)
    inputs = gathered.files
    check_arguments(yaw, pitch, expression, background, face, method, steps, refine, "pt")
    targets = batch.plan_outputs(inputs, output, ".png", root=gathered.root)
    check_beside(inputs, pictures=[sheet], report=report, overwrite=overwrite)
    pipeline = FrontalizePipeline.from_pretrained(model, device=pick_device(device))
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())
    settings = {
        "yaw": yaw,
        "pitch": pitch,
        "expression": expression,
        "background": background,
        "face": face,
        "method": method,
        "num_inference_steps": steps,
        "refinement_steps": refine,
        "size": size,
    }
    made = provenance.Operation("frontalize", "a likeness out of the prior, turned", settings)
    found: list[dict[str, Any]] = []
    rows, labels = [], []
    for source, target in zip(inputs, targets, strict=True):
        try:
            check_free([target], overwrite)
            done = pipeline(source, **settings, output_type="pt")
            lacking = provenance.save_synthetic(
                done.images[0], target, made, source=source.read_bytes(), credentials=credentials
            )
        except StudioError as error:
            found.append({"input": str(source), "failed": str(error)})
            say(f"{source.name}: {error}")
            continue
        line = turned(done.reports[0])
        for text in filter(None, (lacking, line)):
            say(f"{source.name}: {text}")
        found.append({"input": str(source), "output": str(target), **done.reports[0].to_dict()})
        rows.append([done.crops[0], done.images[0]])
        labels.append(line)
    write(found, report)
    if sheet and rows:
        sheets.write(sheet, rows, labels)
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
    output: Annotated[Path, typer.Option("--output", "-o", help="The edited picture, an image file.")],
    photo: Annotated[Path | None, typer.Argument(help="A photo; or give --seed.")] = None,
    seed: Annotated[int | None, typer.Option(help="A generated person instead of a photo.")] = None,
    face: Annotated[int | None, typer.Option(help="Which face of several; 0 is the largest.")] = None,
    yaw: Annotated[float | None, typer.Option(help="Degrees; 0 looks into the camera, above 0 to the left.")] = None,
    pitch: Annotated[float | None, typer.Option(help="Degrees; above 0 looks up.")] = None,
    smile: Annotated[float | None, typer.Option(help="Change, in standard deviations of generated faces.")] = None,
    mouth: Annotated[float | None, typer.Option(help="Likewise: how far it is open.")] = None,
    eyes: Annotated[float | None, typer.Option(help="Likewise: how far they are open.")] = None,
    brow: Annotated[float | None, typer.Option(help="Likewise: how high the brows are.")] = None,
    light: Annotated[float | None, typer.Option(help="Likewise: above 0, more from the right of the picture.")] = None,
    glasses: Annotated[float | None, typer.Option(help="Likewise: below 0 without, above 0 with them.")] = None,
    age: Annotated[float | None, typer.Option(help="Years, 30 to 80, as they are read off the face; 6 off.")] = None,
    likeness: Annotated[
        bool | None,
        typer.Option(
            "--likeness/--in-photo",
            help="Edit a likeness, aligned, or the photo itself; default: a likeness where the head is turned.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of the search for the likeness; default: 40 in a photo, 100 alone.", min=1)
    ] = None,
    before: Annotated[Path | None, typer.Option(help="Also write the likeness before the edit here.")] = None,
    credentials: Annotated[bool, typer.Option(help="Sign results: Content Credentials.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    model: ModelOption = "edit",
    device: DeviceOption = "auto",
) -> None:
    """Change a smile, glasses or an age in a photo, or turn a head; prints a JSON report with identity distances.

    A turned head is a likeness out of the prior, aligned; all other changes are made in the photo itself.
    """
    from pipelines.edit import MADE, STEPS, EditPipeline, method_of
    from studio import images, provenance
    from studio.device import pick_device
    from studio.latents.attributes import check_in_photo

    changes = given(
        yaw=yaw, pitch=pitch, smile=smile, mouth=mouth, eyes=eyes, brow=brow, light=light, glasses=glasses, age=age
    )
    if (photo is None) == (seed is None):
        raise InputError("either PHOTO or --seed must say whose face, got both or neither: give one of them")
    if likeness is False and photo is None:
        raise InputError("--in-photo needs a photo, got --seed: give a photo, or leave it out")
    if photo is None and face is not None:
        raise InputError("--face needs a photo, got --seed: give a photo, or leave it out")
    asked = {None: "auto", True: "likeness", False: "photo"}[likeness]
    method = method_of(photo, asked, changes)
    if method == "photo" and before:
        raise InputError(f"--before needs a likeness, got a photo that is edited itself: pass --likeness for {before}")
    if method == "photo":
        check_in_photo(changes)
    check_free([file for file in (output, before) if file], overwrite)
    check_beside([photo] if photo else [], pictures=[output, before], overwrite=True)
    loaded, rng = (images.load(photo), None) if photo else (None, _seeded(seed))
    pipeline = EditPipeline.from_pretrained(model, device=pick_device(device))
    pipeline.set_progress_bar_config(disable=True)
    done = pipeline(
        loaded,
        method,
        face,
        **changes,
        num_inference_steps=steps if photo else None,
        generator=rng,
        callback_on_step_end=lambda _, step, *rest: say(f"step {step + 1} of {steps or STEPS[method]}"),
    )
    pictures = {output: done.photos[0]} | ({before: pipeline.draw(done.prepared[0].w)[0]} if before else {})
    source, stated = (photo.read_bytes(), changes) if photo else (None, {**changes, "seed": seed})
    made = provenance.Operation("edit", MADE[method], stated)
    for file, picture in pictures.items():
        if lacking := provenance.save_synthetic(picture, file, made, source=source, credentials=credentials):
            say(f"{file.name}: {lacking}")
    show(done.reports[0].to_dict())


@app.command()
def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos of one person; none generates people who do not exist.")
    ] = None,
    consent: Annotated[bool, typer.Option("--consent", help="The person agreed to this; needed with photos.")] = False,
    face: Annotated[int | None, typer.Option(help="Which face of photos with several; 0 is the largest.")] = None,
    samples: Annotated[int, typer.Option(help="Pictures, 1 to 16.")] = 4,
    guidance: Annotated[
        float | None, typer.Option(help="How much the identity counts; default 1, of arc2face 3 and with lcm 1.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of the solver; default 12, of arc2face 25 and with lcm 4.")] = None,
    correction: Annotated[
        int | None, typer.Option(help="Gradient steps towards the person, default 40; 0 does without. Not arc2face.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Drawn for each picture, default 8; the nearest is kept. Not arc2face.")
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="euler (default) or heun; of arc2face dpm (default), euler, ddim or lcm.")
    ] = None,
    lora: Annotated[str | None, typer.Option(help="An adapter for arc2face: file, folder or owner/name.")] = None,
    yaw: Annotated[float | None, typer.Option(help="Degrees; 0 looks into the camera, above 0 to the left.")] = None,
    pitch: Annotated[float | None, typer.Option(help="Degrees; above 0 looks up.")] = None,
    smile: Annotated[float | None, typer.Option(help="In standard deviations from the average generated face.")] = None,
    mouth: Annotated[float | None, typer.Option(help="Likewise: how far it is open.")] = None,
    eyes: Annotated[float | None, typer.Option(help="Likewise: how far they are open.")] = None,
    brow: Annotated[float | None, typer.Option(help="Likewise: how high the brows are.")] = None,
    light: Annotated[float | None, typer.Option(help="Likewise: above 0, more from the right of the picture.")] = None,
    glasses: Annotated[float | None, typer.Option(help="Likewise: below 0 without, above 0 with them.")] = None,
    age: Annotated[float | None, typer.Option(help="Years, 30 to 80, as they are read off the face; 6 off.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the same samples again; default: others every time.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the JSON report here.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here: references, samples.")] = None,
    credentials: Annotated[bool, typer.Option(help="Sign results: Content Credentials.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    model: ModelOption = "generate",
    licence: LicenceOption = "",
    device: DeviceOption = "auto",
) -> None:
    """Generate photographs of a person who agreed to it, or of people who do not exist.

    Every result carries an invisible mark and, where they can be written, Content Credentials that record the consent.
    """
    from studio import images, provenance, sheets
    from studio.cli.engines import check_lora, engine_of
    from studio.device import pick_device
    from studio.identity.references import check_consent

    engine = engine_of(model)
    solver, settings = engine.settings(
        solver,
        samples,
        guidance_scale=guidance,
        num_inference_steps=steps,
        correction_steps=correction,
        candidates=candidates,
        **given(
            yaw=yaw, pitch=pitch, smile=smile, mouth=mouth, eyes=eyes, brow=brow, light=light, glasses=glasses, age=age
        ),
    )
    check_lora(engine, lora)
    engine.refuse(settings, face, consent)
    check_consent(photos or None, consent)
    if not photos and engine.name == "arc2face":
        raise InputError("arc2face draws a person, and no photo says whom: give one, or leave --model out for nobody")
    files = [output / f"generated-{k + 1}.png" for k in range(samples)]
    check_free(files, overwrite)
    check_beside(photos or (), pictures=[sheet], report=report, overwrite=overwrite)
    loaded = [images.load(photo) for photo in photos or ()]
    pipeline = engine.pipeline.from_pretrained(model, device=pick_device(device), licence=licence)
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())
    pipeline.scheduler = engine.solvers[solver].from_config(pipeline.scheduler.config)
    if lora:
        pipeline.load_lora_weights(lora)
    rng = None if seed is None else _seeded(seed)
    done = pipeline(loaded or None, consent, face, **settings, generator=rng, output_type="pt")
    stated = {"solver": solver, "seed": seed, "person": bool(loaded), "consent": consent, "engine": engine.name}
    made = provenance.Operation(
        "generate",
        "a synthetic picture" + (" of a person, made with the stated consent" if loaded else " of nobody"),
        {**settings, **stated, **({"lora": True} if lora else {})},
    )
    lacking = ""
    for file, picture in zip(files, done.images, strict=True):
        lacking = provenance.save_synthetic(picture, file, made, credentials=credentials)
    if lacking:
        say(lacking)
    for reference in done.report.references:
        if reference.outlier:
            say(f"{reference.name}: probably somebody else ({reference.distance:.2f} away), left out")
        elif reference.monochrome:
            say(f"{reference.name}: one tone only; restored with --colorize first, it is the better reference")
    for file, sample in zip(files, done.report.samples, strict=True):
        say(f"{file.name}: {sample_words(sample)}")
    if sheet:
        sheets.write(sheet, [[*(photo.pixels for photo in loaded), *done.images]])
    write({"outputs": [str(file) for file in files], "settings": settings, **done.report.to_dict()}, report)


def sample_words(sample: Any) -> str:
    """What is reported of a generated picture, in one line."""
    turned = sample.attributes
    pose = f"yaw {turned['yaw']:+.0f}°, pitch {turned['pitch']:+.0f}°" if turned else ""
    who = "" if sample.identity_distance is None else f"identity distance {sample.identity_distance:.2f}"
    before = getattr(sample, "prior_distance", None)
    if before is not None:
        who += f" ({before:.2f} before the correction)"
    alike = getattr(sample, "similarity", None)
    near = "" if alike is None else f"ArcFace similarity {alike:.2f}"
    said = ", ".join(filter(None, (who, near, pose)))
    return said if sample.seen else f"{said}; no face is seen in it" if said else "no face is seen in it"


def given(**options: float | None) -> dict[str, float]:
    """Those of the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _seeded(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)
