"""`studio bench`: measure quality and speed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studio.cli.common import ModelOption, OutOption, PhotosOption, say, show, size_of_result

RecipesOption = Annotated[
    list[str] | None, typer.Option("--recipe", help="Degradation recipes; default gfpgan, codeformer_large.")
]
app = typer.Typer(no_args_is_help=True, help="Measure quality and speed; prints JSON.")


@app.command("restore")
def bench_restore(
    photos: PhotosOption,
    recipe: RecipesOption = None,
    seed: Annotated[int, typer.Option(help="Of the damage.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many photos; 0 takes all.")] = 0,
    fidelity: Annotated[list[float] | None, typer.Option(help="One or more; default 0.5.")] = None,
    model: ModelOption = "restore",
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) here.")] = None,
    unseen: Annotated[bool, typer.Option(help="Of PHOTOS/aligned_clean, only faces that no training sees.")] = False,
    without: Annotated[
        list[str] | None, typer.Option(help="Switch a part of the restorer off: dictionary, spatial, fine or styles.")
    ] = None,
    restorer: Annotated[
        Path | None, typer.Option(help="Folder of a restorer to measure, such as RUN/restorer of a training.")
    ] = None,
    find: Annotated[
        bool, typer.Option("--find", help="Start from the damaged picture alone: the face is found in it.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Of the flow; 0 leaves it out.")] = 4,
    cases: Annotated[
        Path | None, typer.Option(help="Folder with cases.csv (damaged, original) that is measured, too.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --find: compare so many.")] = 1,
    out: OutOption = None,
) -> None:
    """Damage clean portraits by a recipe, restore them, and compare both with the original."""
    from studio.benchmarks import restore

    recipes = recipe or list(restore.RECIPES)
    fidelities = fidelity or [0.5]
    settings = (fidelities, model, sheet, unseen, without or [], restorer, find, steps, cases, seeds)
    show(restore.run(photos, recipes, seed, limit, *settings, say), out)


@app.command("find")
def bench_find(
    photos: Annotated[Path, typer.Option(help="Folder with portraits, aligned_clean and old.")],
    cases: Annotated[Path | None, typer.Option(help="Folder with upscaled: faces that websites enlarged.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Images without faces; the eighth that no training sees is used.")
    ] = None,
    detector: Annotated[str, typer.Option(help="finder, or blaze: the published pair alone.")] = "finder",
    recipe: RecipesOption = None,
    seed: Annotated[int, typer.Option(help="Of the damage, and of what is pasted where.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many faces of each set; 0 takes all.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads while times are taken; 0 leaves the default.")] = 2,
    net: Annotated[Path | None, typer.Option(help="Folder of a network to measure, such as RUN/finder.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of the worst heavily damaged faces here.")] = None,
    out: OutOption = None,
) -> None:
    """Find faces in pictures whose faces are known: damaged, small, turned, old; and in pictures without any."""
    from studio.benchmarks import find

    recipes = recipe or list(find.RECIPES)
    show(find.run(photos, cases, pictures, detector, recipes, seed, limit, threads, net, sheet, say), out)


@app.command("reference")
def bench_reference(
    photos: PhotosOption,
    recipe: RecipesOption = None,
    seed: Annotated[int, typer.Option(help="Of the damage.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many pairs, spread over them; 0 takes all.")] = 0,
    fidelity: Annotated[float, typer.Option(help="Of the restorations.")] = 0.5,
    steps: Annotated[int, typer.Option(help="Towards the person of the reference.")] = 12,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    model: ModelOption = "restore",
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) here.")] = None,
    out: OutOption = None,
) -> None:
    """Damage one of two photos of a person, restore it with and without the other as reference."""
    from studio.benchmarks import reference, restore

    about = (photos, recipe or list(restore.RECIPES), seed, limit, fidelity, steps, threads)
    show(reference.run(*about, model, sheet, say), out)


@app.command("old")
def bench_old(
    photos: PhotosOption,
    fidelity: Annotated[float, typer.Option(help="See `studio restore`.")] = 0.5,
    scale: Annotated[str, typer.Option(help="See `studio restore`.")] = "auto",
    limit: Annotated[int, typer.Option(help="At most so many photos; 0 takes all.")] = 0,
    model: ModelOption = "restore",
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of the faces here.")] = None,
    out: OutOption = None,
) -> None:
    """Restore real old photographs, where no original exists: identity kept, faces found again, sharpness."""
    from studio.benchmarks import old

    show(old.run(photos, fidelity, size_of_result(scale), limit, model, sheet, say), out)


@app.command("speed")
def bench_speed(
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 2,
    repeats: Annotated[int, typer.Option(help="Runs; the median counts.")] = 5,
    model: Annotated[
        list[str] | None, typer.Option(help="As of `studio restore`; repeat it for several in one run.")
    ] = None,
    out: OutOption = None,
) -> None:
    """Seconds per face and per step, batch 1 and 8, and peak memory; published models that are not here too."""
    from studio.benchmarks import speed

    show(speed.run(threads, repeats, model or ["restore"]), out)


@app.command("identity")
def bench_identity(photos: PhotosOption, out: OutOption = None) -> None:
    """Verification on the pairs of `PHOTOS/pairs.csv`."""
    from studio.benchmarks import identity

    show(identity.run(photos), out)


@app.command("album")
def bench_album(photos: PhotosOption, out: OutOption = None) -> None:
    """Grouping by person: the photographs of `PHOTOS/pairs.csv` as one album, compared with who is who."""
    from studio.benchmarks import album

    show(album.run(photos), out)


@app.command("upsample")
def bench_upsample(
    photos: PhotosOption,
    size: Annotated[int, typer.Option(help="Side of the small faces in pixels.")] = 32,
    samples: Annotated[int, typer.Option(help="Per face.")] = 4,
    steps: Annotated[int, typer.Option(help="Of the search at most.")] = 50,
    move_map: Annotated[bool, typer.Option(help="--no-move-map searches latents alone.")] = True,
    limit: Annotated[int, typer.Option(help="At most so many photos, spread over the folder; 0 takes all.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    model: ModelOption = "upsample",
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) here.")] = None,
    out: OutOption = None,
) -> None:
    """Shrink portraits, search for faces that shrink to them, and compare with the originals."""
    from studio.benchmarks import upsample

    show(upsample.run(photos, size, samples, steps, move_map, limit, threads, model, sheet, say), out)


@app.command("generate")
def bench_generate(
    photos: PhotosOption,
    people: Annotated[int, typer.Option(help="From PHOTOS/pairs.csv, judged by another photo of them.")] = 50,
    portraits: Annotated[int, typer.Option(help="From PHOTOS/portraits, a single photo each.")] = 0,
    samples: Annotated[int, typer.Option(help="Per person.")] = 8,
    corrected: Annotated[int, typer.Option(help="People of whom a sample is corrected; 0: none.")] = 50,
    ablations: Annotated[int, typer.Option(help="People for the ablations; 0 leaves them out.")] = 16,
    audited: Annotated[int, typer.Option(help="Generated people for the audit; 0 leaves it out.")] = 48,
    timed: Annotated[bool, typer.Option(help="Measure seconds, on a machine that does nothing else.")] = True,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    model: ModelOption = "generate",
    out: OutOption = None,
) -> None:
    """Generate people of real photographs: likeness, diversity, pose, seconds, ablations."""
    from studio.benchmarks import generate

    counts = (people, portraits, samples, corrected, ablations, audited)
    show(generate.run(photos, *counts, timed, seed, threads, model, say), out)


@app.command("frontalize")
def bench_frontalize(
    photos: Annotated[Path | None, typer.Option(help="Folder with pairs.csv: real photographs too.")] = None,
    people: Annotated[int, typer.Option(help="Generated persons, each turned by every angle; 0: none.")] = 6,
    pairs: Annotated[bool, typer.Option(help="Measure verification on PHOTOS/pairs.csv.")] = True,
    limit: Annotated[int, typer.Option(help="At most so many turned photographs of pairs; 0 takes all.")] = 0,
    min_yaw: Annotated[float, typer.Option(help="Photographs of pairs turned at least so far count.")] = 15.0,
    profiles: Annotated[int, typer.Option(help="Half-profiles of PHOTOS/aligned_old; 0: none.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the generated persons.")] = 0,
    method: Annotated[
        list[str] | None, typer.Option(help="network or search; repeat it for both side by side. Default: network.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of the search for a likeness; default: the method's own.")] = None,
    refine: Annotated[int, typer.Option(help="Steps back towards the person after turning.")] = 30,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    model: ModelOption = "frontalize",
    frontalizer: Annotated[
        Path | None, typer.Option(help="Folder of a network to measure, such as RUN/frontalizer of a training.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of the generated persons here.")] = None,
    profile_sheet: Annotated[Path | None, typer.Option(help="Write a sheet of the half-profiles here.")] = None,
    out: OutOption = None,
) -> None:
    """Turn generated faces back whose front is known; and what turning does to verification on real pairs."""
    from studio.benchmarks import frontalize

    about = (photos, people, pairs, limit, min_yaw, profiles, seed, method or ["network"], steps, refine, threads)
    show(frontalize.run(*about, model, sheet, profile_sheet, say, frontalizer), out)


@app.command("inversion")
def bench_inversion(
    photos: PhotosOption,
    steps: Annotated[int, typer.Option(help="Of the search for the likeness.")] = 20,
    limit: Annotated[int, typer.Option(help="At most so many photos, spread over the folder; 0 takes all.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    model: ModelOption = "frontalize",
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of photos and likenesses here.")] = None,
    out: OutOption = None,
) -> None:
    """Search the prior for the faces of portraits: how like the nearest ones are."""
    from studio.benchmarks import inversion

    show(inversion.run(photos, steps, limit, threads, model, sheet, say), out)


@app.command("edit")
def bench_edit(
    photos: PhotosOption,
    limit: Annotated[int, typer.Option(help="At most so many photos, spread over the folder; 0 takes all.")] = 0,
    compare: Annotated[bool, typer.Option(help="Also edit a likeness of each; a minute a photo.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of photos and edits here.")] = None,
    out: OutOption = None,
) -> None:
    """Change smiles, eyes, light, glasses and age in photos: what came of it, identity distances, seconds."""
    from studio.benchmarks import edit

    show(edit.run(photos, limit, compare, threads, sheet, say), out)


@app.command("reenact")
def bench_reenact(
    photos: PhotosOption,
    people: Annotated[int, typer.Option(help="Generated people whose true frames are known; 0 leaves them out.")] = 8,
    limit: Annotated[int, typer.Option(help="At most so many photos, spread over the folder; 0 takes all.")] = 36,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave out, to see what it is worth: network, depth, plane or head; repeat it."),
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of frames here.")] = None,
    out: OutOption = None,
) -> None:
    """Move generated people and photos: pose, points, mouth, eyes, likeness, trembling, depth, frames a second."""
    from studio.benchmarks import reenact

    show(reenact.run(photos, people, limit, threads, without or [], sheet, say), out)


@app.command("background")
def bench_background(
    photos: PhotosOption,
    limit: Annotated[int, typer.Option(help="At most so many photos, spread over the folder; 0 takes all.")] = 8,
    scale: Annotated[int, typer.Option(help="How many times the photos are shrunk and enlarged.", min=2, max=4)] = 2,
    seed: Annotated[int, typer.Option(help="Of the damage.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the default.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of the first photos here.")] = None,
    out: OutOption = None,
) -> None:
    """What `--background span` and `realesrgan` cost, and do to clean, compressed, noisy and printed photos."""
    from studio.benchmarks import background

    show(background.run(photos, limit, scale, seed, threads, sheet, say), out)


@app.command("app")
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
