"""How well people are generated: likeness to a photo and to another one, diversity, pose, seconds, ablations.

The identity encoder is judge here. It steers the prior, and the correction follows its gradient, so that distances of
corrected pictures flatter; those to a *different* photo of the person flatter less, because no step has seen it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.generate import READ_STEPS, SOLVERS, GeneratePipeline
from studio import checks, images
from studio.benchmarks.identity import read_pairs
from studio.benchmarks.provenance import provenance
from studio.errors import InputError
from studio.faces import align
from studio.faces.attributes import cheek_luma
from studio.identity.compare import SMALLEST_EYE_DISTANCE
from studio.latents.edit import move
from studio.latents.identity_steps import Moved
from studio.latents.measure import place_aligned
from studio.networks.latent_space import AGE
from studio.photosets import evenly

WEIGHTS = ("generate", "reader", "generator", "head_256", "directions", "identity", "mesh")
GUIDANCE, STEPS, CORRECTIONS = (0.5, 1.0, 1.5, 2.0, 4.0), (4, 8, 12, 20), (10, 20, 40, 60)
CANDIDATES = 8  # for each sample
CORRECTION = 40  # steps
ASKED = {"yaw": (-25.0, 0.0, 25.0), AGE: (40.0, 55.0, 70.0)}
CLOSE = {"yaw": 6, AGE: 6}  # degrees, years
ABLATED_SAMPLES = 4
CORRECTED_PEOPLE = 4  # of the ablation of the correction, a sample each
COMPARED = 64  # px, of pictures whose pixels are compared
SIZE = 256
EDITED = ("yaw", "pitch", "smile", "light", AGE)
EXPRESSION = slice(2, 6)  # smile, mouth, eyes, brow of `ATTRIBUTES`


@dataclass
class Subject:
    """A person: the photo that is given, and another one to judge by, if there is one.

    Attributes:
        name: of the given photo.
        given, other: (128,) identity vectors.
        pictures: (1 or 2,3,256,256) aligned faces of the photos.
    """

    name: str
    given: Tensor
    other: Tensor | None = None
    pictures: Tensor = field(default_factory=lambda: torch.empty(0, 3, SIZE, SIZE))


@torch.no_grad()
def run(
    photos: Path,
    people: int,
    portraits: int,
    samples: int,
    corrected: int,
    ablations: int,
    audited: int,
    timed: bool,
    seed: int,
    threads: int,
    model: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Generate people of real photographs and measure.

    Args:
        photos: folder with `pairs.csv`, the photos that it names, and `portraits/`.
        people: from the genuine pairs in which both faces are large enough, evenly spread.
        portraits: from `portraits/`, evenly spread.
        samples: per person, 2 or more.
        corrected: people of whom one sample is corrected, and an eighth of them turned; 0 leaves both out.
        ablations: people for the ablations; 0 leaves them out.
        audited: generated people for the audit; 0 leaves it out.
        timed: measure seconds; say no on a busy machine.
        seed: of the samples.
        threads: CPU threads; 0 leaves the default.
        model: see `GeneratePipeline.from_pretrained`.
        say: receives progress lines.

    Returns:
        `prior` and `corrected`: mean identity distances of generated pictures `to_given` and `to_other` photo, and the
        share of faces `found` by the detector; `diversity` of the samples of one person beside that of the two photos
        of real pairs; `yaw`, `age`: see `asked_for`; `ablations`; `audit`; `seconds` per
        picture of 1024 px; counts and provenance.

    Raises:
        InputError: no person to measure on, or fewer than two samples.
    """
    if samples < 2:
        raise InputError(f"samples must be 2 or more, got {samples}: diversity needs pairs")
    if threads:
        torch.set_num_threads(threads)
    pipeline = GeneratePipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    subjects = [*from_pairs(pipeline, photos, people), *from_portraits(pipeline, photos / "portraits", portraits)]
    if not subjects:
        raise InputError(f"{photos} must hold people to measure on, and none was asked for or found: raise --people")
    say(f"{len(subjects)} people, {sum(one.other is not None for one in subjects)} with another photo")
    noise = noises(len(subjects), samples, CANDIDATES, pipeline.flow.config.dim, seed)
    result: dict[str, Any] = {
        "benchmark": "generate",
        "people": len(subjects),
        "with_another_photo": sum(one.other is not None for one in subjects),
        "samples": samples,
        "candidates": CANDIDATES,
        "correction_steps": CORRECTION,
        "seed": seed,
        "between_the_two_photos": spread_of(
            [float((one.given - one.other).norm()) for one in subjects if one.other is not None]
        ),
    }
    result |= likeness_and_diversity(pipeline, subjects, noise, say)
    if corrected:
        result["corrected"] = corrections(pipeline, subjects[:corrected], noise, say)
        for name in ASKED:
            result[name] = asked_for(pipeline, name, subjects[: -(-corrected // 8)], noise, say)
    if ablations:
        result["ablations"] = ablate(pipeline, subjects[:ablations], noise[:, :ABLATED_SAMPLES], say)
    if audited:
        result["audit"] = audit(pipeline, audited, seed, say)
    if timed:
        result["seconds"] = seconds(pipeline, subjects[0].given, seed)
        say(f"seconds a picture: {result['seconds']}")
    return result | {"provenance": provenance(WEIGHTS)}


# ---- people


def from_pairs(pipeline: GeneratePipeline, photos: Path, count: int) -> Iterator[Subject]:
    """People of `pairs.csv` of whom two photos have a face that is large enough."""
    pairs = [(a, b) for a, b, same in read_pairs(photos / "pairs.csv") if same]
    for a, b in evenly(pairs, count):
        first, second = (look(pipeline, photos / name) for name in (a, b))
        if first and second:
            yield Subject(Path(a).name, first[0], second[0], torch.stack([first[1], second[1]]))


def from_portraits(pipeline: GeneratePipeline, folder: Path, count: int) -> Iterator[Subject]:
    """People of a folder of portraits, a photo each."""
    for path in evenly(images.find_images([folder]), count) if count else ():
        if found := look(pipeline, path):
            yield Subject(path.name, found[0], None, found[1][None])


def look(pipeline: GeneratePipeline, path: Path) -> tuple[Tensor, Tensor] | None:
    """Identity vector (128,) and aligned picture (3,256,256) of the largest face, if it is large enough to tell."""
    pixels = images.load(path).pixels
    faces = pipeline.finder()(pixels)[:1]
    if not len(faces) or float(faces.eye_distances[0]) < SMALLEST_EYE_DISTANCE:
        return None
    crop = align.warp(pixels, align.ffhq_transform(faces.mesh, SIZE), SIZE)[0].clamp(0, 1)
    return pipeline.encoder().embed(pixels, faces.mesh)[0], crop


def noises(people: int, samples: int, candidates: int, dim: int, seed: int) -> Tensor:
    """(people,samples,candidates,dim) of noise to sample from."""
    rng = torch.Generator().manual_seed(seed)
    return checks.normal((people * samples * candidates, dim), rng).view(people, samples, candidates, dim)


def drawn(pipeline: GeneratePipeline, noise: Tensor, person: Tensor, **settings: Any) -> Tensor:
    """Noise (S,C,D) to latents (S,16,512) of the prior alone, out of S · C candidates."""
    w = pipeline.latents(pipeline.sample(noise.flatten(0, 1), person, **settings))
    return pipeline.choose(w, person, len(noise))


# ---- what is measured


def likeness_and_diversity(
    pipeline: GeneratePipeline, subjects: list[Subject], noise: Tensor, say: Callable[[str], None]
) -> dict[str, Any]:
    """Samples of the prior alone, drawn by the 256 px head: how near, and how different from each other."""
    to_given, to_other, found, generated, real = [], [], [], [], []
    for subject, given in zip(subjects, noise, strict=True):
        pictures = pipeline.quick(drawn(pipeline, given, subject.given))
        values, vectors, _ = pipeline.measure(pictures)
        to_given += distance_to(vectors, subject.given)
        to_other += [] if subject.other is None else distance_to(vectors, subject.other)
        found += [len(pipeline.finder()(picture)) > 0 for picture in pictures[:2]]
        generated.append(differences(pipeline, pictures, values))
        if len(subject.pictures) == 2:
            real.append(differences(pipeline, subject.pictures, pipeline.measure(subject.pictures)[0]))
        say(f"{len(generated)} of {len(subjects)}: {np.mean(to_given[-len(given) :]):.2f} from the photo")
    diversity = {"generated": mean_row(generated)} | ({"real_pairs": mean_row(real)} if real else {})
    likeness = {"to_given": spread_of(to_given), "to_other": spread_of(to_other), "found": share(found)}
    return {"prior": likeness, "diversity": diversity}


def corrections(
    pipeline: GeneratePipeline, subjects: list[Subject], noise: Tensor, say: Callable[[str], None]
) -> dict[str, Any]:
    """One sample of each person with the default correction, measured in the generator's own picture."""
    before, to_given, to_other, found = [], [], [], []
    for subject, given in zip(subjects, noise, strict=False):
        moved = correct(pipeline, drawn(pipeline, given[:1], subject.given), subject.given)
        picture = images.resize(pipeline.draw(moved.w), SIZE, SIZE).clamp(0, 1)
        _, vectors, _ = pipeline.measure(picture)
        before += moved.before.tolist()
        to_given += distance_to(vectors, subject.given)
        to_other += [] if subject.other is None else distance_to(vectors, subject.other)
        found.append(len(pipeline.finder()(picture[0])) > 0)
        say(f"corrected {len(before)} of {len(subjects)}: {before[-1]:.2f} to {to_given[-1]:.2f}")
    return {
        "people": len(before),
        "before": spread_of(before),
        "to_given": spread_of(to_given),
        "to_other": spread_of(to_other),
        "found": share(found),
    }


def correct(pipeline: GeneratePipeline, w: Tensor, person: Tensor, steps: int = CORRECTION) -> Moved:
    """`GeneratePipeline.correct` with a step or more."""
    moved = pipeline.correct(w, person, {}, steps)
    assert moved is not None
    return moved


def asked_for(
    pipeline: GeneratePipeline, name: str, subjects: list[Subject], noise: Tensor, say: Callable[[str], None]
) -> list[dict[str, float]]:
    """Asked-for angles or ages, after the directions alone and after the correction too: errors in degrees or years.

    Returns:
        A row for each of `ASKED`: mean error and share within `CLOSE`, both also `corrected_`, and the identity
        distance of the corrected ones to the given photo.
    """
    i, close, rows = pipeline.space.number(name), CLOSE[name], []
    for asked in ASKED[name]:
        steered, corrected, to_given = [], [], []
        for subject, given in zip(subjects, noise, strict=False):
            person = pipeline.space.at_age(subject.given, asked) if name == AGE else subject.given
            w = pipeline.steer(drawn(pipeline, given[:2], person), {name: asked})
            steered += (pipeline.measure(pipeline.quick(w))[0][:, i] - asked).abs().tolist()
            moved: Any = pipeline.correct(w[:1], person, {name: asked}, CORRECTION)
            values, vectors, _ = pipeline.measure(pipeline.quick(moved.w))
            corrected += (values[:, i] - asked).abs().tolist()
            to_given += distance_to(vectors, subject.given)
        rows.append(
            {
                "asked": asked,
                "faces": len(steered),
                "error": mean(steered),
                f"within_{close}": share([error <= close for error in steered]),
                "corrected_error": mean(corrected),
                f"corrected_within_{close}": share([error <= close for error in corrected]),
                "corrected_to_given": mean(to_given),
            }
        )
        say(f"{name} {rows[-1]}")
    return rows


def ablate(
    pipeline: GeneratePipeline, subjects: list[Subject], noise: Tensor, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """One setting changed at a time; the prior alone with one candidate, but for the rows about these."""

    def row(
        setting: dict[str, Any], solver: str = "euler", candidates: int = 1, read: int = READ_STEPS
    ) -> dict[str, Any]:
        usual = pipeline.scheduler
        pipeline.scheduler = SOLVERS[solver].from_config(usual.config)
        try:
            to_given, to_other, apart = [], [], []
            for subject, given in zip(subjects, noise, strict=False):
                pictures = pipeline.quick(
                    drawn(pipeline, given[:, :candidates], subject.given, read_steps=read, **setting)
                )
                values, vectors, _ = pipeline.measure(pictures)
                to_given += distance_to(vectors, subject.given)
                to_other += [] if subject.other is None else distance_to(vectors, subject.other)
                apart.append(differences(pipeline, pictures, values))
        finally:
            pipeline.scheduler = usual
        about = {"solver": solver, "candidates": candidates, "reader_steps": read}
        found = {**setting, **about, "to_given": mean(to_given), "to_other": mean(to_other), **mean_row(apart)}
        say(str(found))
        return found

    table = {
        "guidance": [row({"guidance_scale": scale}) for scale in GUIDANCE],
        "steps": [row({"num_inference_steps": steps}) for steps in STEPS],
        "solver": [row({"num_inference_steps": steps}, "heun") for steps in (4, 8)],
        "reader": [row({}, read=read) for read in (0, 3, READ_STEPS)],
        "candidates": [row({}, candidates=candidates) for candidates in (1, 2, 4, CANDIDATES)],
        "correction": [],
    }
    for steps in CORRECTIONS:
        before, after, start = [], [], time.perf_counter()
        for subject, given in zip(subjects[:CORRECTED_PEOPLE], noise, strict=False):
            moved = correct(pipeline, drawn(pipeline, given[:1], subject.given), subject.given, steps)
            before += moved.before.tolist()
            after += distance_to(pipeline.measure(pipeline.draw(moved.w))[1], subject.given)
        took = (time.perf_counter() - start) / len(before)
        table["correction"].append(
            {"steps": steps, "before": mean(before), "to_given": mean(after), "seconds": round(took, 2)}
        )
        say(f"correction {table['correction'][-1]}")
    return table


def audit(
    pipeline: GeneratePipeline, count: int, seed: int, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Whom it serves less well: generated people as references, in thirds by how they look, and edited one at a time.

    Returns:
        `thirds`: for cheek luma (skin and light together), turned by how much, smile, age and presentation (as read off
        the identity vector), the lowest, middle and highest third of the references: the range, `to_given`, and how
        different their samples are. `edits`: for each direction, references moved by a spread up and down: `edit`,
        the identity distance of that, and `to_given` for the same noise.
    """
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, pipeline.generator.config.style_dim, generator=rng)
    references = pipeline.generator.slots(pipeline.generator.latents(z.to(pipeline.generator.dtype), 0.8)).clone()
    noise = noises(count, ABLATED_SAMPLES, 1, pipeline.flow.config.dim, seed)

    def served(
        latents: Tensor, given: Tensor
    ) -> tuple[Tensor, np.ndarray, list[float], list[dict[str, float]], Tensor]:
        pictures = pipeline.quick(latents)
        values, vectors, _ = pipeline.measure(pictures)
        luma = np.mean(cheek_luma(pictures, place_aligned(pipeline.finder(), pictures).mesh), 0)
        away, apart = [], []
        for vector, each in zip(vectors, given, strict=True):
            made = pipeline.quick(drawn(pipeline, each, vector))
            found, who, _ = pipeline.measure(made)
            away.append(mean(distance_to(who, vector)))
            apart.append(differences(pipeline, made, found))
        return values, luma, away, apart, vectors

    values, luma, away, apart, vectors = served(references, noise)
    by = {
        "cheek luma": luma,
        "turned, degrees": values[:, 0].abs().numpy(),
        "smile": values[:, 2].numpy(),
        "age, as read": pipeline.space.read(vectors).numpy(),
        "presentation, as read": pipeline.space.read(vectors, "presentation").numpy(),
    }
    thirds = []
    for name, ranking in by.items():
        for part in np.array_split(np.argsort(ranking), 3):
            row: dict[str, Any] = {
                "by": name,
                "from": round(float(ranking[part].min()), 3),
                "to": round(float(ranking[part].max()), 3),
            }
            row |= {"people": len(part), "to_given": mean([away[i] for i in part])}
            thirds.append(row | mean_row([apart[i] for i in part]))
            say(str(thirds[-1]))
    edits, some = [], max(count // 4, 1)
    for name in EDITED:
        for sign in (-1, 1):
            step = sign * float(pipeline.space.attribute_spread[pipeline.space.number(name)])
            moved = served(move(pipeline.space, references[:some], name, step), noise[:some])
            edit = (moved[4] - vectors[:some]).norm(dim=1).tolist()
            edits.append({"direction": name, "spreads": sign, "edit": mean(edit), "to_given": mean(moved[2])})
            say(str(edits[-1]))
    edits.append({"direction": "none", "spreads": 0, "edit": 0.0, "to_given": mean(away[:some])})
    return {"thirds": thirds, "edits": edits}


def seconds(pipeline: GeneratePipeline, person: Tensor, seed: int) -> dict[str, float]:
    """Seconds per picture of 1024 px of whole calls, the second of two."""
    found = {}
    for name, count, correction in (
        ("batch 1", 1, 0),
        ("batch 8", 8, 0),
        ("corrected 1", 1, CORRECTION),
        ("corrected 4", 4, CORRECTION),
    ):
        for _ in range(2):
            start = time.perf_counter()
            pipeline(
                person,
                consent=True,
                num_images_per_prompt=count,
                correction_steps=correction,
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
            )
            found[name] = round((time.perf_counter() - start) / count, 2)
    return found


# ---- arithmetic


def differences(pipeline: GeneratePipeline, pictures: Tensor, values: Tensor) -> dict[str, float | None]:
    """Mean over all pairs of pictures (N,3,S,S) with attributes (N,A): how different they are.

    Returns:
        `pixels`, root mean square over RGB in [0,1] at 64 px; `pose`, degrees of yaw and pitch together;
        `expression`, root mean square of smile, mouth, eyes and brow in standard deviations of generated faces.
    """
    small = images.resize(pictures, COMPARED, COMPARED)
    faces = (values / pipeline.space.attribute_spread.float().cpu())[:, EXPRESSION]
    pairs = list(itertools.combinations(range(len(pictures)), 2))
    return {
        "pixels": mean([float((small[a] - small[b]).square().mean().sqrt()) for a, b in pairs]),
        "pose": mean([float((values[a, :2] - values[b, :2]).norm()) for a, b in pairs]),
        "expression": mean([float((faces[a] - faces[b]).square().mean().sqrt()) for a, b in pairs]),
    }


def distance_to(vectors: Tensor, person: Tensor) -> list[float]:
    """Of vectors (N,128) to one (128,)."""
    return (vectors - person.cpu()).norm(dim=1).tolist()


def spread_of(values: list[float]) -> dict[str, float | None] | None:
    """Count, mean and deciles of distances; None of no distances."""
    if not values:
        return None
    low, high = np.quantile(values, [0.1, 0.9])
    return {"count": len(values), "mean": mean(values), "p10": round(float(low), 4), "p90": round(float(high), 4)}


def mean_row(rows: list[dict[str, float]]) -> dict[str, float | None]:
    """Mean of each column."""
    return {name: mean([row[name] for row in rows]) for name in rows[0]}


def mean(values: list[float]) -> float | None:
    """Rounded; None of no values."""
    return round(float(np.mean(values)), 4) if values else None


def share(values: list[bool]) -> float | None:
    """Of those that are true."""
    return mean([float(value) for value in values])
