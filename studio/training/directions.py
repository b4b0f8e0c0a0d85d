"""Fitting the latent space: its statistics, directions with a meaning, and the bank of samples.

The direction to *move along* for an attribute y is cov(w, y) / var(y): the mean change of w over faces whose y differs
by one, which takes along what naturally goes with it, and stays where faces are. The regression of y on w,
cov(w)^-1 cov(w, y), which finds y best, leaves that set quickly; it is used to say how much of y is linear in w (R²).

What goes with *glasses* is age and sex: along the first, a child gets a beard with them. Between the two lies
(cov(w) + a)^-1 cov(w, y), here with an a of five mean variances: people stay who they are. For *age* (whose label and
fit are in `studio/training/ages.py`) one mean variance kept people nearest. For pose and expression it
was hardly better (16 faces: for the same turn the identity moved by 0.29 instead of 0.27, for the same smile by 0.23
instead of 0.26).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from studio import weights
from studio.errors import InputError
from studio.faces.attributes import ATTRIBUTES, UNITS
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.latents.edit import move
from studio.latents.measure import attributes, embed, measure_all, place_aligned
from studio.latents.prior import render
from studio.networks.generator import Generator
from studio.networks.latent_space import AGE, THUMB, LatentSpace

SAMPLES = 100_000  # mapped for the statistics
BANK = 2048
HELD_OUT = 0.15
RIDGES = (1.0, 10.0, 100.0, 1000.0)
APART = {"glasses": 5.0, "age": 1.0}  # mean variances of w, see above
REGRESSED = 0.02  # the same, of the regression that says how far such a direction goes
EFFECT_FACES = 24
SIZE = 256


@torch.inference_mode()
def fit(
    cache: Path,
    folder: Path,
    count: int = 8192,
    seed: int = 0,
    report: Callable[[str], None] = print,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Label generated faces, fit, and write a `LatentSpace` and `fit.json` to `folder`.

    Args:
        cache: shards of generated faces, see `studio train faces`; only read.
        folder: where the latent space goes; replaced, or with `only` changed.
        count: faces to label at most.
        seed: of the samples for the statistics and of the choice of test faces.
        report: receives progress lines.
        only: directions to fit; all else stays as it is in `folder`. Empty fits everything.

    Returns:
        What `fit.json` holds: faces labelled and seen, R² per attribute, and what moving along each direction does.

    Raises:
        InputError: no shards in the cache, or too few faces for a bank.
    """
    if AGE in only:
        raise InputError("age must be learned from people whose age is known: run `studio train ages`")
    generator = Generator.from_pretrained(weights.path("generator"))
    finder, encoder = FaceFinder.from_pretrained(), IdentityEncoder.from_pretrained()
    labelled = label(cache, count, finder, encoder, report)
    names = tuple(only) or ATTRIBUTES
    if only:
        space = with_room(LatentSpace.from_pretrained(folder))
        summary = json.loads((folder / "fit.json").read_text())
    else:
        space = LatentSpace(bank=min(BANK, int(labelled["own"].sum())))
        rng = torch.Generator().manual_seed(seed)
        space.fit(generator.mapping(torch.randn(SAMPLES, generator.config.style_dim, generator=rng)))
        fill_bank(space, labelled)
        summary = {"attributes": {}, "effects": {}}
    rows = [space.number(name) for name in names]
    scores = fit_directions(space, labelled["latents"], labelled["attributes"][:, rows], names)
    report("R² " + ", ".join(f"{name} {score:.2f}" for name, score in scores.items()))
    keep_half(space).save_pretrained(folder)
    for name, row in zip(names, rows, strict=True):
        summary["attributes"][name] = described(space, name, UNITS[row], len(labelled["latents"]), scores[name])
    summary["effects"] |= effects(space, generator, finder, encoder, seed, report, names)
    (folder / "fit.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def described(space: LatentSpace, name: str, unit: str, faces: int, r2: float) -> dict[str, Any]:
    """What `fit.json` says of an attribute that was fitted."""
    i = space.number(name)
    return {
        "unit": unit,
        "faces": faces,
        "mean": round(float(space.attribute_mean[i]), 4),
        "spread": round(float(space.attribute_spread[i]), 4),
        "r2": round(r2, 3),
    }


def with_room(space: LatentSpace) -> LatentSpace:
    """The same with a row, still zero, for every one of `DIRECTIONS`."""
    config = space.config
    grown = LatentSpace(dim=config.dim, bank=config.bank, embedding_dim=config.embedding_dim)
    known = space.state_dict()
    for name, buffer in grown.state_dict().items():
        buffer[: len(known[name])].copy_(known[name])
    return grown


def label(
    cache: Path, count: int, finder: FaceFinder, encoder: IdentityEncoder, report: Callable[[str], None]
) -> dict[str, Tensor]:
    """Measure cached faces, and keep those in which the mesh sees a face.

    Returns:
        `latents` (N,512) of the structure layers, `attributes` (N,8), `thumbs` (N,3,16,16) uint8, `embeddings`
        (N,128), `own` (N,) bool: one latent made the whole face.
    """
    paths = sorted(cache.glob("faces-*.safetensors"))
    if not paths:
        raise InputError(f"a cache of generated faces must exist, {cache} holds none: run `studio train faces`")
    parts: list[dict[str, Tensor]] = []
    done = 0
    for path in paths:
        if done >= count:
            break
        shard = load_file(path)
        pictures = shard["images"][: count - done].float() / 255
        pairs = shard["latents"][: count - done]
        done += len(pictures)
        found = place_aligned(finder, pictures)
        seen = found.seen
        pictures, pairs, mesh = pictures[torch.from_numpy(seen)], pairs[torch.from_numpy(seen)], found.mesh[seen]
        parts.append(
            {
                "latents": pairs[:, 0].float(),
                "attributes": torch.from_numpy(attributes(pictures, mesh)),
                "thumbs": (F.interpolate(pictures, (THUMB, THUMB), mode="area") * 255).round().byte(),
                "embeddings": embed(encoder, pictures, mesh),
                "own": (pairs[:, 0] == pairs[:, 1]).all(1),
            }
        )
        report(f"{done} faces looked at, {sum(len(part['own']) for part in parts)} seen")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def fit_directions(space: LatentSpace, w: Tensor, y: Tensor, names: Sequence[str] = ATTRIBUTES) -> dict[str, float]:
    """Set directions of `space`; returns R² of ridge regressions on faces that they were not fitted on.

    Args:
        space: has a row for each of them.
        w: (N,D) latents.
        y: (N,K) attributes, those of `names` in their order.
        names: which ones.
    """
    rows = [space.number(name) for name in names]
    w, y = w.double(), y.double()
    centred, deviation = w - w.mean(0), y - y.mean(0)
    together = deviation.T @ centred / len(w)  # (A, D)
    covariance = centred.T @ centred / len(w)
    for k, name in enumerate(names):
        direction = together[k] / deviation[:, k].square().mean()
        if name in APART:
            direction = apart(together[k], covariance, APART[name])
        space.directions[rows[k]] = direction
    space.attribute_mean[rows] = y.mean(0).float()
    space.attribute_spread[rows] = y.std(0).float()
    return dict(zip(names, regression_scores(w, y).tolist(), strict=True))


def apart(together: Tensor, covariance: Tensor, more: float) -> Tensor:
    """A direction (D,) that takes along less of what goes with it; a regression of y on w sees it change by one.

    Args:
        together: (D,), cov(w, y).
        covariance: (D,D), cov(w).
        more: added to the diagonal, in mean variances.
    """
    variance = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    slope = torch.linalg.solve(covariance + REGRESSED * variance, together)
    own = torch.linalg.solve(covariance + more * variance, together)
    return own / (own @ slope).clamp_min(torch.finfo(own.dtype).tiny)


def regression_scores(w: Tensor, y: Tensor) -> Tensor:
    """R² (A,) of ridge regressions of y (N,A) on w (N,D), on the last of the faces, which they were not fitted on."""
    cut = round(len(w) * (1 - HELD_OUT))
    best = torch.full((y.shape[1],), -torch.inf, dtype=torch.float64)
    mean_w, mean_y = w[:cut].mean(0), y[:cut].mean(0)
    gram = (w[:cut] - mean_w).T @ (w[:cut] - mean_w)
    for ridge in RIDGES:
        solved = torch.linalg.solve(
            gram + ridge * torch.eye(len(gram), dtype=gram.dtype), (w[:cut] - mean_w).T @ (y[:cut] - mean_y)
        )
        error = ((w[cut:] - mean_w) @ solved + mean_y - y[cut:]).square().mean(0)
        best = torch.maximum(best, 1 - error / (y[cut:] - y[cut:].mean(0)).square().mean(0))
    return best


def fill_bank(space: LatentSpace, labelled: dict[str, Tensor]) -> None:
    """Faces of one latent, the first ones, as starting points."""
    own = labelled["own"].nonzero()[:, 0][: space.config.bank]
    for buffer, name in (
        (space.bank_latents, "latents"),
        (space.bank_thumbs, "thumbs"),
        (space.bank_embeddings, "embeddings"),
    ):
        buffer.copy_(labelled[name][own])


def effects(
    space: LatentSpace,
    generator: Generator,
    finder: FaceFinder,
    encoder: IdentityEncoder,
    seed: int,
    report: Callable[[str], None],
    names: Sequence[str] = ATTRIBUTES,
) -> dict[str, dict[str, float]]:
    """What moving faces by one spread up and down along each direction does.

    Returns:
        Per direction, half the mean difference between up and down of every attribute, in its spread (the direction's
        own would ideally be 1, the others 0), and `identity`: mean distance of up and down to the face in between.
    """
    choice = torch.randperm(space.config.bank, generator=torch.Generator().manual_seed(seed))[:EFFECT_FACES]
    w = generator.slots(space.bank_latents[choice].float())

    def look(latents: Tensor) -> tuple[np.ndarray, Tensor, np.ndarray]:
        pictures = torch.cat([render(generator, one[None], SIZE) for one in latents])
        found = place_aligned(finder, pictures)
        values, vectors = measure_all(space, encoder, pictures, found.mesh)
        return values.numpy(), vectors, found.seen

    _, before, seen = look(w)
    shown = space.config.attributes if space.readings.any() else ATTRIBUTES  # age is the last one
    table = {}
    for name in names:
        i = space.number(name)
        step = float(space.attribute_spread[i])
        (high, up, seen_up), (low, down, seen_down) = (look(move(space, w, name, sign * step)) for sign in (1, -1))
        kept = seen & seen_up & seen_down
        change = ((high - low) / 2)[kept].mean(0) / space.attribute_spread.numpy()
        moved = torch.stack([(up - before).norm(dim=1), (down - before).norm(dim=1)]).mean(0)[torch.from_numpy(kept)]
        table[name] = {other: round(float(value), 2) for other, value in zip(shown, change, strict=False)}
        table[name]["identity"] = round(float(moved.mean()), 3)
        report(f"{name}: " + ", ".join(f"{key} {value:+.2f}" for key, value in table[name].items()))
    return table


def keep_half(space: LatentSpace) -> LatentSpace:
    """The bank and the directions in half precision: they are measurements, and rounding is far below their spread."""
    for name in ("directions", "bank_latents", "bank_embeddings"):
        setattr(space, name, getattr(space, name).half())
    return space
