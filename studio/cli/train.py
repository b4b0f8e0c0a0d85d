"""`studio train`: train the networks of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studio.cli.common import say, show

app = typer.Typer(no_args_is_help=True, help="Train the networks of this project.")


@app.command("list")
def train_list() -> None:
    """The presets, as data."""
    from dataclasses import asdict

    from studio.training.presets import FINDER, PRESETS

    show({name: asdict(preset) for name, preset in {**PRESETS, FINDER.name: FINDER}.items()})


@app.command("faces")
def train_faces(
    count: Annotated[int, typer.Option(help="At least so many generated faces.")] = 20_000,
    cache: Annotated[Path, typer.Option(help="Folder of the generated faces.")] = Path(".cache/faces"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    size: Annotated[int, typer.Option(help="Their side, px: 512 for maps and pairs.")] = 256,
) -> None:
    """Generate faces to train on; can be stopped and continued."""
    from studio.training.run import make_faces

    make_faces(count, cache, device, say, size)


@app.command("run")
def train_run(
    preset: Annotated[str, typer.Argument(help="See `studio train list`.")],
    folder: Annotated[Path, typer.Option(help="Checkpoints, log and sample sheets.")],
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the preset's end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
    cache: Annotated[Path, typer.Option(help="Generated faces, see `studio train faces`.")] = Path(".cache/faces"),
    photos: Annotated[Path | None, typer.Option(help="Real faces: a folder with aligned_clean and portraits.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    start: Annotated[Path | None, typer.Option(help="Folder of weights to begin with, not the preset's own.")] = None,
    accumulate: Annotated[int, typer.Option(help="Batches of each process in a step.")] = 1,
    dry_run: Annotated[bool, typer.Option(help="Print the preset and stop.")] = False,
) -> None:
    """Train a preset; on several GPUs or machines: accelerate launch -m studio.cli train run …."""
    from dataclasses import asdict

    from studio.training.run import find_preset, train

    if dry_run:
        show(asdict(find_preset(preset)))
        return
    train(preset, folder, cache, photos, minutes, resume, device, say, start, accumulate)


@app.command("heads")
def train_heads(
    folder: Annotated[Path, typer.Option(help="Checkpoint, heads and sample sheet.")],
    images: Annotated[int, typer.Option(help="Generated faces over the whole training.")] = 6000,
    cache: Annotated[
        Path | None, typer.Option(help="Cached faces: trains the 256 px head alone, faster. Default: draws new ones.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    start: Annotated[Path | None, typer.Option(help="Folder of one head to train further, alone.")] = None,
) -> None:
    """Distil the generator's 256 and 512 px image heads from its own pictures."""
    from studio.training.run import train_heads

    train_heads(folder, images, cache, minutes, resume, device, say, start)


@app.command("encoder")
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


@app.command("directions")
def train_directions(
    folder: Annotated[Path, typer.Option(help="Where the latent space goes, such as weights/directions.")],
    cache: Annotated[Path, typer.Option(help="Generated faces, see `studio train faces`.")] = Path(".cache/faces"),
    count: Annotated[int, typer.Option(help="Faces to measure at most.")] = 8192,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="Fit this one alone, in the FOLDER that is there.")] = None,
) -> None:
    """Measure generated faces and fit the directions that turn, light and move them."""
    from studio.training.directions import fit

    show(fit(cache, folder, count, seed, say, only or ()))


@app.command("ages")
def train_ages(
    folder: Annotated[Path, typer.Option(help="Of the latent space, such as weights/directions; changed.")],
    photos: Annotated[Path, typer.Option(help="Folder with manifest.csv and the photos that it names.")],
    people: Annotated[
        list[Path], typer.Option(help="Birthdays: legislators-*.json of congress-legislators; repeat it.")
    ],
    seed: Annotated[int, typer.Option(help="Of the faces on which the direction is tried.")] = 0,
) -> None:
    """Learn to read age off identity vectors, and fit the direction along which faces age."""
    from studio.training.ages import fit_ages

    show(fit_ages(folder, photos, people, seed, say))


@app.command("parts")
def train_parts(
    folder: Annotated[Path, typer.Option(help="Where the parser goes, such as weights/parts.")],
    cache: Annotated[Path, typer.Option(help="Generated faces, see `studio train faces`.")] = Path(".cache/faces"),
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet with a row for each cluster.")] = None,
    skin: Annotated[list[int] | None, typer.Option(help="A cluster that is skin; repeat it.")] = None,
    hair: Annotated[list[int] | None, typer.Option(help="A cluster that is hair; repeat it.")] = None,
) -> None:
    """Cluster the generator's cells, and make a parser of the clusters that you name."""
    from studio.training.parts import make_parts

    make_parts(folder, cache, skin or [], hair or [], sheet, say)


@app.command("identities")
def train_identities(
    folder: Annotated[Path, typer.Option(help="Cache of the pairs.")] = Path(".cache/identities"),
    count: Annotated[int, typer.Option(help="At least so many new faces.")] = 51_200,
    faces: Annotated[Path | None, typer.Option(help="Also use these cached faces, see `studio train faces`.")] = None,
) -> None:
    """Draw generated faces and keep latent and identity descriptor of each; can be stopped and continued."""
    from studio.training.identities import make_identities

    make_identities(folder, count, faces, say)


@app.command("generate")
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


@app.command("reader")
def train_reader(
    folder: Annotated[Path, typer.Option(help="Log and the averaged network.")],
    cache: Annotated[Path, typer.Option(help="Pairs, see `studio train identities`.")] = Path(".cache/identities"),
    steps: Annotated[int, typer.Option(help="Of the whole training.")] = 3000,
) -> None:
    """Train the network that reads an identity from a latent, which leads `studio generate` to a person."""
    from studio.training.run import read_identities

    read_identities(folder, cache, steps, say)


@app.command("turned")
def train_turned(
    folder: Annotated[Path, typer.Option(help="Cache of the turned faces.")] = Path(".cache/turned"),
    people: Annotated[int, typer.Option(help="At least so many new ones, four pictures of each.")] = 2048,
    faces: Annotated[Path | None, typer.Option(help="Also use these cached faces, see `studio train faces`.")] = None,
) -> None:
    """Draw generated people from the front and turned, to learn turning from; can be stopped and continued."""
    from studio.training.turned import make_turned

    make_turned(folder, people, faces, say)


@app.command("frontal")
def train_frontal(
    folder: Annotated[Path, typer.Option(help="Checkpoint, log and the averaged network.")],
    cache: Annotated[Path, typer.Option(help="Turned faces, see `studio train turned`.")] = Path(".cache/turned"),
    steps: Annotated[int, typer.Option(help="Of the whole training.")] = 2400,
    drawn: Annotated[bool, typer.Option(help="--no-drawn leaves out the terms that draw a picture.")] = True,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A term to leave out: person, critic, pixels, symmetry or identity; repeat it."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
) -> None:
    """Train the two-pathway network of `studio frontalize`."""
    from studio.training.run import train_frontal

    train_frontal(folder, cache, steps, drawn, minutes, resume, say, without or ())


@app.command("niqe")
def train_niqe(
    photos: Annotated[Path, typer.Option(help="Folder with aligned_clean, aligned_studio and portraits.")],
    folder: Annotated[Path, typer.Option(help="Where the fit goes.")] = Path("weights/niqe"),
) -> None:
    """Fit the measure of naturalness on clean portraits."""
    from studio.training.naturalness import fit_niqe

    show(fit_niqe(photos, folder, say))


@app.command("expression")
def train_expression(
    folder: Annotated[Path, typer.Option(help="Where the basis goes.")] = Path("weights/expression"),
    people: Annotated[int, typer.Option(help="Generated people whose mean is taken.", min=2)] = 48,
) -> None:
    """Make the basis of expressions that moves faces, from generated people and anatomy."""
    from studio.training.expression import make_basis

    show(make_basis(folder, people, say))


@app.command("finder-faces")
def train_finder_faces(
    folder: Annotated[Path, typer.Option(help="Of the labelled faces.")] = Path(".cache/finder-faces"),
    cache: Annotated[Path, typer.Option(help="Generated faces, see `studio train faces`.")] = Path(".cache/faces"),
    photos: Annotated[
        Path | None, typer.Option(help="Real faces too: aligned_clean, aligned_studio, aligned_old, portraits.")
    ] = None,
) -> None:
    """Label faces by their mesh, generated ones, turned ones and real ones; can be stopped and continued."""
    from studio.training.run import make_finder_faces

    make_finder_faces(folder, cache, photos, say)


@app.command("finder")
def train_finder(
    folder: Annotated[Path, typer.Option(help="Checkpoint, log, sheet and the averaged network.")],
    pictures: Annotated[Path, typer.Option(help="Images without faces, and things cut out (PNG with transparency).")],
    faces: Annotated[Path, typer.Option(help="See `studio train finder-faces`.")] = Path(".cache/finder-faces"),
    scenes: Annotated[int | None, typer.Option(help="Of the whole training; default: the preset's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dry_run: Annotated[bool, typer.Option(help="Print the preset and stop.")] = False,
) -> None:
    """Train the face finder."""
    from dataclasses import asdict

    from studio.training.presets import FINDER
    from studio.training.run import train_finder

    if dry_run:
        show(asdict(FINDER))
        return
    train_finder(folder, faces, pictures, scenes, minutes, resume, device, say)


@app.command("maps")
def train_maps(
    folder: Annotated[Path, typer.Option(help="Of the maps.")] = Path(".cache/maps"),
    cache: Annotated[Path, typer.Option(help="Generated faces, see `studio train faces`.")] = Path(".cache/faces"),
) -> None:
    """Damage generated faces and keep their maps, which the flow learns from; can be stopped and continued."""
    from studio.training.run import make_flow_maps

    make_flow_maps(folder, cache, say)


@app.command("map-flow")
def train_map_flow(
    folder: Annotated[Path, typer.Option(help="Checkpoint, log and the averaged network.")],
    maps: Annotated[Path, typer.Option(help="See `studio train maps`.")] = Path(".cache/maps"),
    steps: Annotated[int, typer.Option(help="Of 16 faces, of the whole training.")] = 4600,
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
) -> None:
    """Train the flow that draws one face where the damage allows many."""
    from studio.training.run import train_map_flow

    train_map_flow(folder, maps, steps, minutes, resume, say)


@app.command("pairs")
def train_pairs(
    folder: Annotated[Path, typer.Option(help="Of the pairs.")] = Path(".cache/pairs"),
    cache: Annotated[Path, typer.Option(help="Generated faces of 512 px.")] = Path(".cache/faces-512"),
    photos: Annotated[Path | None, typer.Option(help="Real faces too: aligned_clean, aligned_studio.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Pictures without faces, one safetensors file.")] = None,
) -> None:
    """Damage photographs for the cleaner to learn from; can be stopped and continued."""
    from studio.training.cleaner import make_pairs

    make_pairs(folder, cache, photos, pictures, say)


@app.command("cleaner")
def train_cleaner(
    folder: Annotated[Path, typer.Option(help="Checkpoint, log and the averaged network.")],
    pairs: Annotated[Path, typer.Option(help="See `studio train pairs`.")] = Path(".cache/pairs"),
    steps: Annotated[int, typer.Option(help="Of 8 patches, of the whole training.")] = 5200,
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
) -> None:
    """Train the cleaner, which says what a damaged photograph tells for sure."""
    from studio.training.run import train_cleaner

    train_cleaner(folder, pairs, steps, minutes, resume, say)


@app.command("acted")
def train_acted(
    folder: Annotated[Path, typer.Option(help="Cache of the acting faces.")] = Path(".cache/acted"),
    people: Annotated[int, typer.Option(help="At least so many, three pictures of each.")] = 1280,
) -> None:
    """Draw generated people in several poses and expressions, for `studio reenact`; can be stopped and continued."""
    from studio.training.acted import make_acted

    make_acted(folder, people, say)


@app.command("depth")
def train_depth(
    folder: Annotated[Path, typer.Option(help="Checkpoint, log and the averaged network.")],
    acted: Annotated[Path, typer.Option(help="See `studio train acted`.")] = Path(".cache/acted"),
    steps: Annotated[int, typer.Option(help="Of 12 pairs, of the whole training.")] = 700,
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
) -> None:
    """Train the depth of whole heads, from the mesh's depth of the face and from people who turn."""
    from studio.training.run import train_depth

    train_depth(folder, acted, steps, minutes, resume, say)


@app.command("moved")
def train_moved(
    folder: Annotated[Path, typer.Option(help="Cache of the examples.")] = Path(".cache/moved"),
    count: Annotated[int, typer.Option(help="At least so many.")] = 6400,
    acted: Annotated[Path, typer.Option(help="See `studio train acted`.")] = Path(".cache/acted"),
    photos: Annotated[Path | None, typer.Option(help="Real faces: aligned_clean, aligned_studio, portraits.")] = None,
    depth: Annotated[Path | None, typer.Option(help="Of the depth network, RUN/depth of its training.")] = None,
) -> None:
    """Move stills by geometry, for the network that mends them; can be stopped and continued."""
    from studio.training.moved import make_moved

    make_moved(folder, count, acted, photos, depth, say)


@app.command("reenactor")
def train_reenactor(
    folder: Annotated[Path, typer.Option(help="Checkpoint, log and the averaged network.")],
    moved: Annotated[Path, typer.Option(help="See `studio train moved`.")] = Path(".cache/moved"),
    steps: Annotated[int, typer.Option(help="Of 8 examples, of the whole training.")] = 3000,
    minutes: Annotated[float | None, typer.Option(help="Stop after these; default: to the end.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the checkpoint in FOLDER.")] = False,
) -> None:
    """Train the network that draws the frames of `studio reenact`."""
    from studio.training.run import train_reenactor

    train_reenactor(folder, moved, steps, minutes, resume, say)


@app.command("lent")
def train_lent(
    folder: Annotated[Path, typer.Option(help="Receives the flow and the restorer.")],
    photos: Annotated[Path, typer.Option(help="Real faces: aligned_clean, aligned_studio.")],
    seconds: Annotated[float, typer.Option(help="In all.")] = 580,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    pool: Annotated[int, typer.Option(help="Generated faces held on the device, 1.5 MB each.")] = 26_000,
) -> None:
    """Ten minutes on a lent GPU: the flow and the restorer around it, on faces drawn and damaged meanwhile."""
    from studio.training.run import train_lent

    train_lent(folder, photos, seconds, device, pool, say)


@app.command("export")
def train_export(
    folder: Annotated[Path, typer.Argument(help="Folder of a training.")],
    target: Annotated[Path, typer.Argument(help="Folder to write, such as weights/restore.")],
    mean_with: Annotated[Path | None, typer.Option(help="Write the mean with the weights in this folder.")] = None,
    mean_of: Annotated[list[str] | None, typer.Option(help="Of these alone, by the beginnings of names.")] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Large weights as int8, a scale a row: half the size.")] = False,
    keep: Annotated[list[str] | None, typer.Option(help="Not those whose names begin so; may be repeated.")] = None,
) -> None:
    """Write a training's (averaged) weights in half precision, or less."""
    from studio.training.run import export

    export(folder, target, mean_with, rows, keep or [], mean_of or [])
