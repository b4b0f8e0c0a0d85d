"""Age: read off identity vectors by what is publicly known of the people in real photographs, and a direction for it.

Nothing that looks at a generated face knows how old it is. The identity network, which was not trained for it, tells:
a linear function of its vector is fitted to the ages of members of Congress, whose birthdays are public. The same
people give a second reading, of how a face presents (man or woman), which serves the audits and nothing else.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio import images, weights
from studio.errors import InputError
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.latents.measure import embed, place_aligned
from studio.networks.generator import Generator
from studio.networks.latent_space import AGE, READINGS, LatentSpace
from studio.training.directions import described, effects, fit_directions, keep_half

SETS = ("aligned_clean", "pairs", "portraits")  # of the manifest; older prints say next to nothing of age (R² 0.06)
RIDGE = 100.0  # of standardised vectors; the best of 1 to 3000 for age
FOLDS = 5
FIRST_CONGRESS = 1788  # the second year of the n-th Congress is this and 2 n


@dataclass(frozen=True)
class Sitter:
    """A photograph of somebody of whom it is known.

    Attributes:
        path: of the photo.
        person: their number in the Biographical Directory.
        age: in the second year of the Congress that the photo is of; it may be some years older.
        woman: as the directory says.
    """

    path: Path
    person: str
    age: int
    woman: bool


@torch.no_grad()
def fit_ages(
    folder: Path, photos: Path, people: Sequence[Path], seed: int = 0, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Fit the readings and the direction of age, and write them to the latent space in `folder`.

    Args:
        folder: of a `LatentSpace`; its readings, and its direction of age, are replaced.
        photos: a folder with `manifest.csv` and the photos that it names.
        people: files of `unitedstates/congress-legislators` in JSON.
        seed: of the faces that are moved along the direction, to see what it does.
        report: receives progress lines.

    Returns:
        What `fit.json` then holds.

    Raises:
        InputError: no photo of anybody in `people`.
    """
    finder, encoder = FaceFinder.from_pretrained(), IdentityEncoder.from_pretrained()
    sitters, vectors = embed_sitters(find_sitters(photos, people), finder, encoder, report)
    truth = torch.tensor([[sitter.age, sitter.woman] for sitter in sitters], dtype=torch.float64)
    guess = cross_validated(vectors, truth, [sitter.person for sitter in sitters])
    slopes, offsets = ridge(vectors, truth)
    space = LatentSpace.from_pretrained(folder)
    space.readings.copy_(slopes.T)
    space.reading_offsets.copy_(offsets)
    summary = json.loads((folder / "fit.json").read_text())
    summary["readings"] = scores(truth, guess) | {"people": len({sitter.person for sitter in sitters})}
    report(str(summary["readings"]))
    w, years = space.bank_latents, space.read(space.bank_embeddings)
    r2 = fit_directions(space, w, years[:, None], (AGE,))[AGE]
    summary["attributes"][AGE] = described(space, AGE, "years, as read off the identity vector", len(w), r2)
    keep_half(space).save_pretrained(folder)
    generator = Generator.from_pretrained(weights.path("generator"))
    summary["effects"] |= effects(space, generator, finder, encoder, seed, report, (AGE,))
    (folder / "fit.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def find_sitters(photos: Path, people: Sequence[Path]) -> list[Sitter]:
    """The photos of `SETS` whose person and Congress are known, in the order of the manifest."""
    known = {}
    for path in people:
        for one in json.loads(path.read_text()):
            if "birthday" in one["bio"]:
                keys = (one["id"]["bioguide"], f"{one['id'].get('icpsr', 0):06d}")
                known |= dict.fromkeys(keys, (keys[0], int(one["bio"]["birthday"][:4]), one["bio"]["gender"] == "F"))
    sitters = []
    with (photos / "manifest.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            name = Path(row["file"]).name
            number = re.match(r"[A-Z]\d{6}|\d{6}", name)
            congress = re.search(r"\d+", row["congress"]) or re.search(
                r"(\d+)(?=(?:st|nd|rd|th)\b.*Congress)", row["licence"]
            )
            if row["set"] in SETS and number and congress and number[0] in known:
                person, born, woman = known[number[0]]
                year = FIRST_CONGRESS + 2 * int(congress[0])
                sitters.append(Sitter(photos / row["set"] / name, person, year - born, woman))
    return sitters


def embed_sitters(
    sitters: Sequence[Sitter], finder: FaceFinder, encoder: IdentityEncoder, report: Callable[[str], None]
) -> tuple[list[Sitter], Tensor]:
    """Those in whose photo a face is found, and the identity vectors (N,128) of the largest."""
    kept, vectors = [], []
    for number, sitter in enumerate(sitters):
        pixels = images.load(sitter.path).pixels
        if sitter.path.parent.name.startswith("aligned"):
            found = place_aligned(finder, pixels[None])
            vector = embed(encoder, pixels[None], found.mesh)[found.seen]
        else:
            vector = encoder.embed(pixels, finder(pixels).mesh[:1])
        if len(vector):
            kept.append(sitter)
            vectors.append(vector[0])
        if number % 100 == 0:
            report(f"{number} of {len(sitters)} photographs looked at")
    if not kept:
        raise InputError("there must be photos of people whose birthday is known, none was found: check both files")
    return kept, torch.stack(vectors).double()


def ridge(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes (E,R) and offsets (R,) of a ridge regression of y (N,R) on x (N,E), standardised with `RIDGE`."""
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-9)
    scaled = (x - mean) / spread
    gram = scaled.T @ scaled + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    slopes = torch.linalg.solve(gram, scaled.T @ (y - y.mean(0))) / spread[:, None]
    return slopes, y.mean(0) - mean @ slopes


def cross_validated(x: Tensor, y: Tensor, people: Sequence[str]) -> Tensor:
    """What `ridge` says of each row of x when it has not seen that row's person: (N,R)."""
    order = sorted(set(people))
    fold = torch.tensor([order.index(person) % FOLDS for person in people])
    guess = torch.zeros_like(y)
    for k in range(FOLDS):
        slopes, offsets = ridge(x[fold != k], y[fold != k])
        guess[fold == k] = x[fold == k] @ slopes + offsets
    return guess


def scores(truth: Tensor, guess: Tensor) -> dict[str, Any]:
    """How well both `READINGS` are read, from (N,2) each: R², mean error in years, share told right."""
    error = guess - truth
    r2 = 1 - error.square().mean(0) / truth.var(0, correction=0).clamp_min(1e-9)
    right = ((guess[:, 1] > 0.5) == (truth[:, 1] > 0.5)).double().mean()
    return {
        "photos": len(truth),
        READINGS[0]: {
            "r2": round(float(r2[0]), 3),
            "mean_error": round(float(error[:, 0].abs().mean()), 2),
            "from": int(truth[:, 0].min()),
            "to": int(truth[:, 0].max()),
        },
        READINGS[1]: {"r2": round(float(r2[1]), 3), "told_right": round(float(right), 4)},
    }
