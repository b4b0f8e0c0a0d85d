"""How much a restoration helps, on portraits damaged on purpose."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.restore import RestorePipeline
from studio import images, sheets, weights
from studio.benchmarks.provenance import FINDER, provenance
from studio.degradations import degrade
from studio.errors import InputError
from studio.faces.faces import Faces
from studio.faces.paste import soft_mask
from studio.metrics import (
    blockiness,
    edge_contrast,
    iris_colours,
    iris_error,
    iris_mismatch,
    landmark_error,
    mean_lab_difference,
    niqe,
    overshoot,
    psnr,
    sharpness,
    ssim,
    weave,
)
from studio.motion.gaze import CORNERS, irises
from studio.networks.iris import IrisNet
from studio.networks.restorer import Restorer
from studio.photosets import held_out
from studio.tone import tone_curve

WEIGHTS = ("restore", "map_flow", "cleaner", "parts", "head_512", "generator", "identity", "iris", *FINDER)
RECIPES = ("gfpgan", "codeformer_large")
SHEET_ROWS = 8
CELLS = 16
SAME_PSNR = 99.0  # dB, of two pictures that are the same, and the most that counts
MIDDLE = slice(170, 400), slice(130, 382)  # rows and columns of the face in an aligned crop of 512 px
PARTS = {"dictionary": "dictionary", "spatial": "to_spatial", "fine": "to_fine", "styles": "to_styles"}  # attributes
JUDGE_NOTE = "the identity encoder and the face mesh took part in training, so they flatter the restored side"


@torch.inference_mode()
def run(
    photos: Path,
    recipes: Sequence[str],
    seed: int,
    limit: int,
    fidelities: Sequence[float],
    model: str,
    sheet: Path | None,
    unseen: bool,
    without: Sequence[str],
    restorer: Path | None,
    find: bool,
    steps: int,
    cases: Path | None,
    seeds: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Damage the largest face of each portrait, restore it, compare both with the original.

    Args:
        photos: folder of clean portraits, whole photographs.
        recipes: names of degradation recipes.
        seed: of the damage; face i of a recipe always gets the same.
        limit: at most so many photos; 0 takes all.
        fidelities: settings to compare.
        model: see `RestorePipeline.from_pretrained`.
        sheet: where a contact sheet goes (original, input, restored per fidelity), or None.
        unseen: take only those that no training may see, see `studio.photosets`; `photos` must then be the
            `aligned_clean` of such a folder.
        without: parts of the restorer to switch off, see `leave_out`.
        restorer: folder of a restorer to measure in place of the model's, such as `FOLDER/restorer` of a training.
        find: start from the damaged picture alone, as a user does: the face is found in it and aligned by what is
            found, and the person guarded. Else the crop is restored as it is: the original says where the face is.
        steps: of the flow; 0 leaves it out, so that the mean of all faces is drawn.
        cases: a folder with `cases.csv`, whose columns `damaged` and `original` name aligned faces of 512 px: measured
            too, under the folder's name. None: no such.
        seeds: with `find`, restore with so many seeds and compare what comes of them; 1 leaves that out.
        say: receives progress lines.

    Returns:
        Per recipe the means for the `input` and for each fidelity: `psnr` dB (99 at most), `ssim`,
        `identity_distance` (dlib, to the original), `identity_to_input` (to the damaged picture), `landmark_error`
        (share of the eye distance; over all faces, the mesh on both pictures started where the original's face is),
        `landmark_error_found` (the same over the faces that the detector finds, wherever it finds them), `sharpness`,
        `sharpness_inside` (of the face's
        middle), `niqe` (naturalness, lower is better), `blockiness`, `overshoot` and `weave` (in the hair of the
        original, 0 where there is none) as `studio.metrics` has them, `lab_difference`, `colour_shift` (Lab difference
        to the input, both averaged over cells of 1/16 of the side: what changed in colour and tone, without texture),
        `iris_error` and `iris_mismatch` (Lab difference of the irises to the original's, and of one to the other),
        `edge_noise` and `edge_sharpness` (finest octave, and the next, just inside of the edge of the face's mask over
        just outside of it: a composite is far from the original's), `found` (share of the faces that the detector
        finds). For each fidelity `nearer` (share of the faces that are nearer to the original than the input is, in
        identity and in
        landmarks). With `find` also `untouched` (share of the pictures that
        came back as they
        were), `points_found` and `points_settled` (distance of the mesh's points to those of the clean face in eye
        distances, as found in the damaged picture, and as they are after a second look at a first restoration; over
        the faces that are found), and with several seeds `seeds_apart` (identity distance of what other seeds draw to
        what the first one draws) and `seeds_niqe` (of the others). Of the `original` what needs no other picture.
    """
    pipeline = RestorePipeline.from_pretrained(model)
    if restorer:
        net = Restorer.from_pretrained(restorer).to(memory_format=torch.channels_last)
        net.prepare(pipeline.generator)
        pipeline.register_modules(restorer=net)
    for part in without:
        leave_out(pipeline.restorer, part)
    paths = images.find_images([photos])
    if unseen:
        names = held_out(photos.parent)
        paths = [path for path in paths if path.stem in names]
    clean, faces = portraits(pipeline, paths[: limit or None])
    say(f"{len(clean)} faces from {photos.name}")
    sets = {recipe: (clean, faces, damage(clean, recipe, seed)) for recipe in recipes}
    if cases:
        sets[cases.name] = given_pairs(pipeline, cases, limit)
    report: dict[str, Any] = {}
    rows: list[list[Tensor]] = []
    originals = {}
    for name, (clean, faces, damaged) in sets.items():
        if id(clean) not in originals:  # the same for all recipes
            placed = place_meshes(pipeline, clean, faces)
            originals[id(clean)] = placed, pipeline.read(clean).hair, place_irises(clean, placed)
        placed, hair, eyes = originals[id(clean)]
        known = (clean, faces, placed, hair, eyes)
        before, each_before = measure(pipeline, *known, damaged, damaged)
        report[name] = {"original": naturalness(clean, placed, hair), "input": before}
        shown = [clean[:SHEET_ROWS], damaged[:SHEET_ROWS]]
        for fidelity in fidelities:
            more: dict[str, float] = {}
            if find:
                restored, more = found_and_restored(pipeline, damaged, placed, fidelity, steps)
                if seeds > 1:
                    more |= apart(pipeline, faces, damaged, restored, fidelity, steps, seeds)
            else:
                restored = torch.cat([restored_crop(pipeline, crop[None], fidelity, steps) for crop in damaged])
            measured, each = measure(pipeline, *known, damaged, restored)
            more["nearer"] = mean(np.all(each < each_before, 0))
            report[name][f"fidelity {fidelity:g}"] = measured | more
            shown.append(restored[:SHEET_ROWS])
            say(f"{name} fidelity {fidelity:g}: {line(report[name], f'fidelity {fidelity:g}')}")
        rows += [list(cells) for cells in zip(*shown, strict=True)]
    if sheet:
        sheets.write(sheet, rows)
    return {
        "benchmark": "restore",
        "set": f"{photos.name}, unseen by training" if unseen else photos.name,
        "faces": len(clean),
        "seed": seed,
        "steps": steps,
        "without": list(without),
        "find": find,
        "recipes": report,
        "note": JUDGE_NOTE,
        "provenance": measured_with(model, restorer),
    }


def found_and_restored(
    pipeline: RestorePipeline, damaged: Tensor, placed: np.ndarray, fidelity: float, steps: int
) -> tuple[Tensor, dict[str, float]]:
    """Damaged pictures (N,3,512,512) given to the pipeline as they are, and what came of them; see `run`.

    `placed` are the meshes (N,468,3) of the clean faces in those pictures.
    """
    restored, untouched, found, settled = [], 0, [], []
    for crop, mesh in zip(damaged, placed, strict=True):
        output = pipeline(crop, fidelity=fidelity, num_inference_steps=steps, output_type="pt")
        restored.append(output.images[0])
        untouched += not any(report.restored for report in output.reports[0])
        first = pipeline.find(images.load(crop))
        if len(first):
            for errors, faces in ((found, first), (settled, output.faces[0])):
                errors.append(landmark_error(faces.mesh, np.repeat(mesh[None], len(faces), 0)).min())
    return torch.stack(restored), {
        "untouched": round(untouched / len(damaged), 4),
        "points_found": mean(found),
        "points_settled": mean(settled),
    }


def apart(
    pipeline: RestorePipeline,
    faces: Faces,
    damaged: Tensor,
    restored: Tensor,
    fidelity: float,
    steps: int,
    seeds: int,
) -> dict[str, float]:
    """How far the faces that seeds from 1 on draw are from those (N,3,512,512) of the default one; see `run`."""
    settings: dict[str, Any] = {"fidelity": fidelity, "num_inference_steps": steps, "output_type": "pt"}
    distances, natural = [], []
    for seed in range(1, seeds):
        others: list[Any] = [
            pipeline(crop, generator=torch.Generator().manual_seed(seed), **settings).images[0] for crop in damaged
        ]
        distances.append(pipeline.distances(torch.stack(others), restored, unmoved(len(damaged)), faces))
        natural.append(niqe(torch.stack(others)))
    return {"seeds_apart": mean(np.stack(distances)), "seeds_niqe": mean(torch.stack(natural))}


def restored_crop(pipeline: RestorePipeline, crop: Tensor, fidelity: float, steps: int) -> Tensor:
    """An aligned crop (1,3,512,512), restored as it is."""
    tone = tone_curve(crop[0])
    return pipeline.join(pipeline.read(crop, tone, steps), fidelity, tone).picture


def given_pairs(pipeline: RestorePipeline, folder: Path, limit: int) -> tuple[Tensor, Faces, Tensor]:
    """Originals (N,3,512,512) of a folder with `cases.csv`, their faces, and the damaged ones."""
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
        named = list(csv.DictReader(file))[: limit or None]
    clean, damaged, faces = [], [], []
    for row in named:
        pair = [images.load(folder / row[name]).pixels for name in ("original", "damaged")]
        face = find_in_crop(pipeline, pair[0])
        if face is not None:
            clean.append(pair[0])
            damaged.append(pair[1])
            faces.append(face)
    return torch.stack(clean), Faces.cat(faces), torch.stack(damaged)


def damage(clean: Tensor, recipe: str, seed: int) -> Tensor:
    """Originals (N,3,S,S), damaged: number i by the seed and i alone, however many there are."""
    seeds = (torch.Generator().manual_seed(seed * 10_007 + i) for i in range(len(clean)))
    return torch.cat([degrade(crop, recipe, rng)[0] for crop, rng in zip(clean.split(1), seeds, strict=True)])


def measured_with(model: str, restorer: Path | None = None) -> dict[str, Any]:
    """`provenance`, with the hash of the restorer that was measured where it is not the committed one."""
    folder = restorer or (Path(model, "restorer") if Path(model).is_dir() else None)
    return provenance(WEIGHTS, {"restore": folder} if folder else {})


def leave_out(restorer: Restorer, part: str) -> None:
    """Switch a part of a trained restorer off, in place: what it was trained to do with the others stays as it is.

    Args:
        restorer: the network.
        part: "dictionary", "spatial" (all scales and shifts), "fine" (those of the 256 px map alone) or "styles" (the
            style layers' own latents).

    Raises:
        InputError: another name, or a part that this restorer does not have.
    """
    if part not in PARTS:
        raise InputError(f"without must be one of {', '.join(PARTS)}, got {part!r}: choose one of them")
    if not getattr(restorer, PARTS[part]):
        raise InputError(f"the restorer must have the part that is left out, this one has no {part}")
    setattr(restorer, PARTS[part], nn.ModuleList() if part == "spatial" else None)
    if part == "spatial":
        restorer.to_fine = None


def portraits(pipeline: RestorePipeline, paths: Sequence[Path]) -> tuple[Tensor, Faces]:
    """The largest face of each photo, aligned: crops (N,3,512,512), and the faces in pixels of those crops."""
    crops, faces = [], []
    for path in paths:
        photo = images.load(path)
        found = pipeline.find(photo)
        if not len(found):
            continue
        crop, _ = pipeline.crop(photo, found.largest)
        again = find_in_crop(pipeline, crop[0])
        if again is not None:
            crops.append(crop)
            faces.append(again)
    if not crops:
        raise InputError(f"the folder must hold portraits, no face was found in {len(paths)} photos: give another one")
    return torch.cat(crops), Faces.cat(faces)


def find_in_crop(pipeline: RestorePipeline, crop: Tensor) -> Faces | None:
    """The face in an aligned crop (3,512,512), or None."""
    found = pipeline.find(images.load(crop))
    return found.largest if len(found) else None


def measure(
    pipeline: RestorePipeline,
    clean: Tensor,
    faces: Faces,
    placed: np.ndarray,
    hair: Tensor,
    eyes: tuple[np.ndarray, np.ndarray],
    damaged: Tensor,
    crops: Tensor,
) -> tuple[dict[str, float], np.ndarray]:
    """Means over the faces of one version, and (2,N) identity distances and landmark errors of each.

    The identity chip is cut with the original's mesh on both sides, and irises lie where the original has them.
    `placed` are the meshes (N,468,3) that `place_meshes` puts on the originals, `hair` (N,1,h,w) where their hair is,
    `eyes` what `place_irises` says of them.
    """
    colours = iris_colours(crops, *eyes)
    still = unmoved(len(crops))
    found = [find_in_crop(pipeline, crop) for crop in crops]
    meshes = {i: face.mesh for i, face in enumerate(found) if face is not None}
    seen = list(meshes)
    of_found = landmark_error(np.concatenate(list(meshes.values())), faces.mesh[seen]) if seen else [np.nan]
    identity = pipeline.distances(crops, clean, still, faces)
    landmarks = landmark_error(place_meshes(pipeline, crops, faces), placed)
    means = {
        "psnr": mean(psnr(crops, clean).clamp(max=SAME_PSNR)),
        "ssim": mean(ssim(crops, clean)),
        "identity_distance": mean(identity),
        "identity_to_input": mean(pipeline.distances(crops, damaged, still, faces)),
        "landmark_error": mean(landmarks),
        "landmark_error_found": mean(of_found),
        **naturalness(crops, placed, hair),
        "lab_difference": mean(mean_lab_difference(crops, clean)),
        "iris_error": mean_known(iris_error(colours, iris_colours(clean, *eyes))),
        "iris_mismatch": mean_known(iris_mismatch(colours)),
        "colour_shift": mean(mean_lab_difference(*(F.adaptive_avg_pool2d(x, CELLS) for x in (crops, damaged)))),
        "found": round(len(seen) / len(crops), 4),
    }
    return means, np.stack([identity, landmarks])


def naturalness(crops: Tensor, placed: np.ndarray, hair: Tensor) -> dict[str, float]:
    """What can be said of faces (N,3,512,512) without their originals, but for where their mesh and their hair are."""
    noise, edges = edge_contrast(crops, soft_mask(placed, unmoved(len(crops)), crops.shape[2], hair))
    return {
        "sharpness": mean(sharpness(crops)),
        "sharpness_inside": mean(sharpness(crops[:, :, MIDDLE[0], MIDDLE[1]])),
        "niqe": mean(niqe(crops)),
        "blockiness": mean(blockiness(crops)),
        "overshoot": mean(overshoot(crops)),
        "weave": mean_known(weave(crops, hair)),
        "edge_noise": mean(noise),
        "edge_sharpness": mean(edges),
    }


def place_irises(crops: Tensor, placed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the irises of faces (N,3,S,S) with meshes (N,468,3) are: centres (N,2,2) and widths of the eyes (N,2)."""
    net = IrisNet.from_pretrained(weights.path("iris")).to(memory_format=torch.channels_last)
    ends = placed[:, np.array(CORNERS), :2]  # (N, eye, corner, 2)
    centres = np.stack([irises(net, crop, mesh) for crop, mesh in zip(crops, placed, strict=True)])
    return centres, np.linalg.norm(ends[:, :, 1] - ends[:, :, 0], axis=2)


def unmoved(count: int) -> np.ndarray:
    """Crop-to-photo transforms (N,2,3) of crops that are photos themselves."""
    return np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (count, 1, 1))


def place_meshes(pipeline: RestorePipeline, crops: Tensor, faces: Faces) -> np.ndarray:
    """The mesh on every crop, started from the original's box and eyes, so that no face is left out: (N,468,3)."""
    finder = pipeline.finder()
    meshes = []
    for crop, face in zip(crops, faces, strict=True):
        mesh = torch.from_numpy(face.mesh)
        eyes = torch.stack([mesh[:, list(pair), :2].mean(1) for pair in ((33, 133), (263, 362))], 1)  # (1, 2, 2)
        meshes.append(finder.steady(crop, finder.place(crop, torch.from_numpy(face.boxes), eyes)[0]))
    return torch.cat(meshes).cpu().numpy()


def mean(values: Tensor | np.ndarray | list[float]) -> float:
    """Mean to four digits."""
    return round(float(np.mean(np.asarray(values, np.float64))), 4)


def mean_known(values: Tensor) -> float:
    """`mean` of the (N,) that are not NaN; 0 where none is known."""
    known = values[~values.isnan()]
    return mean(known) if len(known) else 0.0


def line(versions: dict[str, dict[str, float]], name: str) -> str:
    """Input -> restored, for the eye."""
    before, after = versions["input"], versions[name]
    return "  ".join(f"{key} {before[key]:.3g} -> {after[key]:.3g}" for key in before)
