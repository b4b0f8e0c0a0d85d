"""How well faces are found: started from the damaged picture alone, as a user starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio import images, sheets
from studio.benchmarks.provenance import FINDER, provenance
from studio.degradations import degrade
from studio.errors import InputError
from studio.faces.align import warp
from studio.faces.draw import draw
from studio.faces.faces import Faces
from studio.faces.templates import five_points
from studio.find import FaceFinder, spanned
from studio.latents.measure import place_aligned
from studio.photosets import held_out
from studio.training.scenes import clouds, gradient, pattern, written

RECIPES = ("none", "gfpgan", "codeformer_large", "old_photo")
SIDE = 512  # px of the aligned crops
OVERLAP = 0.4  # intersection over union from which on a face that is found is the true one
PASTED = (24.0, 96.0)  # px, width of pasted faces
CANVAS = (480, 640)  # px, of the pictures that they are pasted into
TURNS = (90, 180, 270)
PEOPLE, GROUPS, IN_GROUPS = 8, 12, (24.0, 40.0)  # faces of a group, groups, px of their width
FACELESS = 300
SHEET_FACES = 64
WEIGHTS = {"finder": FINDER, "blaze": FINDER[1:]}


def run(
    photos: Path,
    cases: Path | None,
    pictures: Path | None,
    detector: str,
    recipes: Sequence[str],
    seed: int,
    limit: int,
    threads: int,
    net: Path | None,
    sheet: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Find faces in pictures whose faces are known.

    Args:
        photos: a folder with `portraits/`, `aligned_clean/` and `old/`.
        cases: a folder with `upscaled/`, or None.
        pictures: a folder of pictures without faces, of which the eighth that no training sees is used; or None.
        detector: "finder" (ours and the published pair), or "blaze" for that pair alone.
        recipes: of the damage.
        seed: of the damage and of what is pasted where.
        limit: at most so many faces of each set; 0 takes all.
        threads: of the processor, while times are taken; 0 leaves the default.
        net: folder of a network to measure in place of the committed one, such as `RUN/finder` of a training.
        sheet: where a sheet of the worst faces of `codeformer_large` goes, or None.
        say: receives progress lines.

    Returns:
        `aligned` and, within it, per set and recipe: `recall` (found / all), `false` (faces that are none, for one
        picture), `points` (mean distance of the five points to those of the clean face's mesh, in eye distances),
        `points_detector` (of the detector's own, before the mesh), `yaw` and `roll` (mean errors in degrees). The same
        for `pasted` (into pictures of 640 x 480) and for `turned` ones, and then `eight` (groups), `upscaled`, `old`,
        `faceless`, `seconds`.
    """
    if cases and not (cases / "upscaled").is_dir():
        raise InputError(f"cases must be a folder that holds upscaled, got {cases}: give the folder above it")
    finder = make_finder(detector, net)
    report: dict[str, Any] = {"benchmark": "find", "detector": detector, "seed": seed}
    known = {"portraits": portraits(photos / "portraits", limit), "aligned_clean": unseen(photos, limit)}
    behind = faceless(photos, pictures, seed)
    worst: list[tuple[float, Image.Image]] = []
    for kind, measured in (("aligned", as_they_are), ("pasted", pasted), ("turned", turned)):
        report[kind] = {}
        for name, (crops, truth) in known.items():
            for recipe in recipes:
                damaged = damage(crops, recipe, seed)
                found = measured(finder, damaged, truth, behind, seed)
                report[kind].setdefault(name, {})[recipe] = found.figures()
                say(f"{kind} {name} {recipe}: {found.figures()}")
                if kind == "aligned" and recipe == "codeformer_large":
                    worst += found.drawn
    report["eight"] = eight(
        finder, damage(known["aligned_clean"][0], "gfpgan", seed), known["aligned_clean"][1], behind, seed
    )
    say(f"eight: {report['eight']}")
    if cases:
        report["upscaled"] = upscaled(finder, cases / "upscaled").figures()
        say(f"upscaled: {report['upscaled']}")
    report["old"] = old(finder, photos / "old", limit)
    say(f"old: {report['old']}")
    report["faceless"] = false_faces(finder, behind[:limit] if limit else behind)
    say(f"faceless: {report['faceless']}")
    report["seconds"] = seconds(finder, known["portraits"][0][0], threads)
    say(f"seconds: {report['seconds']}")
    if sheet and worst:
        chosen = [picture for _, picture in sorted(worst, key=lambda one: -one[0])[:SHEET_FACES]]
        pixels = [images.load(picture).pixels for picture in chosen]
        sheets.write(sheet, [pixels[i : i + 8] for i in range(0, len(pixels), 8)], height=192)
    folders = {"finder": net} if net else {}
    return report | {"provenance": provenance(WEIGHTS[detector], folders)}


def make_finder(detector: str, net: Path | None) -> FaceFinder:
    """The finder to measure.

    Raises:
        InputError: no such detector.
    """
    if detector not in WEIGHTS:
        raise InputError(f"detector must be one of {', '.join(WEIGHTS)}, got {detector!r}: choose one of them")
    if detector == "blaze":
        return FaceFinder.with_blaze()
    return FaceFinder.from_pretrained(net)


# ---- what is looked at


def portraits(folder: Path, limit: int) -> tuple[Tensor, Faces]:
    """The largest face of each portrait, aligned (N,3,512,512), and its mesh in that crop.

    Found by the published pair, whatever is measured, in the clean photo.
    """
    finder = FaceFinder.with_blaze()
    crops = []
    for path in images.find_images([folder])[: limit or None]:
        pixels = images.load(path).pixels
        faces = finder(pixels)
        if len(faces):
            crops.append(aligned_crop(pixels, faces))
    if not crops:
        raise InputError(f"{folder} must hold portraits, no face was found in it: give another folder")
    return known(torch.cat(crops), finder)


def aligned_crop(pixels: Tensor, faces: Faces) -> Tensor:
    """The largest of the faces, (1,3,512,512)."""
    return warp(pixels, faces.largest.crops(SIDE), SIDE).clamp(0, 1)


def unseen(photos: Path, limit: int) -> tuple[Tensor, Faces]:
    """Faces of `aligned_clean` that no training sees, as `portraits`."""
    names = held_out(photos)
    paths = [path for path in images.find_images([photos / "aligned_clean"]) if path.stem in names][: limit or None]
    if not paths:
        raise InputError(f"{photos / 'aligned_clean'} must hold faces that no training sees, it has none: give another")
    crops = torch.stack([images.resize(images.load(path).pixels, SIDE, SIDE) for path in paths])
    return known(crops.clamp(0, 1), FaceFinder.with_blaze())


def known(crops: Tensor, finder: FaceFinder) -> tuple[Tensor, Faces]:
    """Aligned clean faces and where the mesh lies on them, steady; no detector takes part."""
    meshes = place_aligned(finder, crops).mesh
    with torch.inference_mode():
        steady = [finder.steady(crop, torch.from_numpy(mesh[None])) for crop, mesh in zip(crops, meshes, strict=True)]
    return crops, spanned(torch.cat(steady), torch.ones(len(crops)), torch.ones(len(crops)))


def damage(crops: Tensor, recipe: str, seed: int) -> Tensor:
    """Crops, damaged: number i by the seed and i alone; as the restoration's benchmark damages them."""
    seeds = (torch.Generator().manual_seed(seed * 10_007 + i) for i in range(len(crops)))
    return torch.cat([degrade(crop, recipe, rng)[0] for crop, rng in zip(crops.split(1), seeds, strict=True)])


def faceless(photos: Path, pictures: Path | None, seed: int) -> list[Tensor]:
    """300 pictures (3,H,W) without faces, drawn from the seed.

    A third are blotches, woven patterns, letters and gradients; a third what lies below the faces of the portraits
    and old photographs: cloth, hands, paper; a third, where there is a folder of them, photographs of other things.
    """
    rng = np.random.default_rng(seed)
    third = FACELESS // 3
    drawn = [as_tensor((clouds, pattern, written, gradient)[i % 4](rng)) for i in range(third)]
    drawn = [images.resize(picture, 480, 480) for picture in drawn]
    finder, below = FaceFinder.with_blaze(), []
    for path in images.find_images([photos / "portraits", photos / "old"]):
        pixels = images.load(path).pixels
        faces = finder(pixels)
        if len(faces):
            edge = int(faces.boxes[:, 3].max() + 0.1 * (faces.boxes[:, 3] - faces.boxes[:, 1]).max())
            if pixels.shape[1] - edge >= 64:
                below.append(pixels[:, edge:])
    kept: list[Tensor] = []
    if pictures:
        paths = [path for path in images.find_images([pictures]) if crc32(path.stem.encode()) % 8 == 0]
        kept = [images.load(paths[i]).pixels for i in rng.permutation(len(paths))[:third]]
    return [*drawn, *below[:third], *kept]


def as_tensor(picture: Image.Image) -> Tensor:
    """(3,H,W) float32 in [0,1]."""
    return images.load(picture).pixels


# ---- what is found


class Found:
    """What was found of faces that are known."""

    def __init__(self) -> None:
        self.pictures, self.false = 0, 0
        self.seen: list[bool] = []
        self.errors: dict[str, list[float]] = {"points": [], "points_detector": [], "yaw": [], "roll": []}
        self.drawn: list[tuple[float, Image.Image]] = []

    def add(self, finder: FaceFinder, pixels: Tensor, truth: Faces) -> None:
        """Look at a picture (3,H,W) whose only face is known."""
        found = finder(pixels)
        shares = [overlap(box, truth.boxes[0]) for box in found.boxes]
        best = int(np.argmax(shares)) if shares and max(shares) >= OVERLAP else None
        self.pictures += 1
        self.seen.append(best is not None)
        self.false += len(found) - (best is not None)
        error = 1.0
        if best is not None:
            error = self.compare(finder, pixels, found[best], truth)
        self.drawn.append((error, draw(pixels, found)))

    def compare(self, finder: FaceFinder, pixels: Tensor, face: Faces, truth: Faces) -> float:
        """Keep how far a face that was found is from the true one; returns the error of its points."""
        eyes = truth.eye_distances[0]
        wanted = five_points(truth.mesh)[0]
        error = float(np.linalg.norm(five_points(face.mesh)[0] - wanted, axis=1).mean() / eyes)
        self.errors["points"].append(error)
        said = finder.detector(pixels, 0.1)
        shares = [overlap(box, truth.boxes[0]) for box in said.boxes.numpy()]
        if shares and max(shares) >= OVERLAP:
            points = said.points[int(np.argmax(shares))].numpy()
            apart = np.linalg.norm(points - wanted[: len(points)], axis=1).mean() / eyes
            self.errors["points_detector"].append(float(apart))
        yaw, _, roll = face.pose[0] - truth.pose[0]
        self.errors["yaw"].append(abs(float(yaw)))
        self.errors["roll"].append(abs((float(roll) + 180) % 360 - 180))
        return error

    def figures(self) -> dict[str, float]:
        """Means, see `run`."""
        means = {name: round(float(np.mean(values)), 4) for name, values in self.errors.items() if values}
        return {
            "faces": len(self.seen),
            "recall": round(sum(self.seen) / max(len(self.seen), 1), 4),
            "false": round(self.false / max(self.pictures, 1), 4),
            **means,
        }


def as_they_are(finder: FaceFinder, crops: Tensor, truth: Faces, behind: list[Tensor], seed: int) -> Found:
    """Aligned crops, each a photo of its own."""
    found = Found()
    for crop, face in zip(crops, truth, strict=True):
        found.add(finder, crop, face)
    return found


def pasted(finder: FaceFinder, crops: Tensor, truth: Faces, behind: list[Tensor], seed: int) -> Found:
    """Crops, shrunk until their face is 24 to 96 px wide, anywhere in a picture of 640 x 480 without another."""
    rng, found = np.random.default_rng(seed), Found()
    for crop, face in zip(crops, truth, strict=True):
        canvas = images.resize(behind[rng.integers(len(behind))], *CANVAS).clone()
        width = float(np.exp(rng.uniform(*np.log(PASTED))))
        side = round(SIDE * width / float(face.widths[0]))
        x, y = rng.integers(0, CANVAS[1] - side + 1), rng.integers(0, CANVAS[0] - side + 1)
        canvas[:, y : y + side, x : x + side] = images.resize(crop, side, side)
        mesh = face.mesh * (side / SIDE) + np.array([x, y, 0], np.float32)
        found.add(finder, canvas.clamp(0, 1), spanned(mesh, torch.ones(1), torch.ones(1)))
    return found


def turned(finder: FaceFinder, crops: Tensor, truth: Faces, behind: list[Tensor], seed: int) -> Found:
    """Crops, each turned clockwise by 90, by 180 and by 270 degrees."""
    found = Found()
    for i, (crop, face) in enumerate(zip(crops, truth, strict=True)):
        mesh = face.mesh
        for degrees in TURNS:
            mesh = np.concatenate([SIDE - mesh[..., 1:2], mesh[..., :1], mesh[..., 2:]], 2)
            picture = torch.rot90(crop, -degrees // 90, (1, 2))
            if i % len(TURNS) == TURNS.index(degrees):
                found.add(finder, picture, spanned(mesh, torch.ones(1), torch.ones(1)))
    return found


def eight(finder: FaceFinder, crops: Tensor, truth: Faces, behind: list[Tensor], seed: int) -> dict[str, Any]:
    """Groups of eight people of one size, 24 to 40 px wide, in two rows of a picture of 640 x 480.

    Returns:
        `groups`, `recall`, `complete` (groups all of whose faces are found), `said` (groups of the others of which the
        finder says that there may be more) and `false`.
    """
    rng = np.random.default_rng(seed)
    seen, complete, said, false = 0, 0, 0, 0
    for _ in range(GROUPS):
        canvas = images.resize(behind[rng.integers(len(behind))], *CANVAS).clone()
        width = float(rng.uniform(*IN_GROUPS))
        boxes = []
        for k in range(PEOPLE):
            i = int(rng.integers(len(crops)))
            side = round(SIDE * width / float(truth[i].widths[0]))
            x, y = 40 + 140 * (k % 4) + int(rng.integers(20)), 80 + 180 * (k // 4) + int(rng.integers(20))
            canvas[:, y : y + side, x : x + side] = images.resize(crops[i], side, side)
            boxes.append(truth.boxes[i] * (side / SIDE) + np.array([x, y, x, y], np.float32))
        found = finder(canvas.clamp(0, 1))
        hits = [any(overlap(box, other) >= OVERLAP for other in found.boxes) for box in boxes]
        seen += sum(hits)
        false += len(found) - sum(hits)
        complete += all(hits)
        said += not all(hits) and len(found.doubtful) > 0
    return {
        "groups": GROUPS,
        "recall": round(seen / (GROUPS * PEOPLE), 4),
        "complete": complete,
        "said": said,
        "false": false,
    }


def upscaled(finder: FaceFinder, folder: Path) -> Found:
    """Faces that websites and viewers enlarged; where they are is known from their originals."""
    found, reference = Found(), FaceFinder.with_blaze()
    for path in images.find_images([folder]):
        if "_original" in path.stem:
            continue
        original = folder / f"{path.stem.rsplit('_', 1)[0]}_original.jpg"
        _, truth = known(images.load(original).pixels[None], reference)
        found.add(finder, images.load(path).pixels, truth)
    return found


def old(finder: FaceFinder, folder: Path, limit: int) -> dict[str, Any]:
    """Real old photographs of one sitter, and of groups, whose names say of how many."""
    counts = {
        path.name: len(finder(images.load(path).pixels)) for path in images.find_images([folder])[: limit or None]
    }
    groups = {name: count for name, count in counts.items() if "group" in name}
    alone = {name: count for name, count in counts.items() if name not in groups}
    return {
        "photos": len(counts),
        "with_a_face": sum(count > 0 for count in counts.values()),
        "without": [name for name, count in counts.items() if not count],
        "more_than_one": {name: count for name, count in alone.items() if count > 1},
        "groups": groups,
    }


def false_faces(finder: FaceFinder, pictures: Sequence[Tensor]) -> dict[str, Any]:
    """Faces found in pictures that have none."""
    counts = [len(finder(picture)) for picture in pictures]
    return {
        "pictures": len(counts),
        "faces": sum(counts),
        "in_a_hundred": round(100 * sum(counts) / max(len(counts), 1), 2),
        "thirds": [sum(counts[i : i + FACELESS // 3]) for i in range(0, len(counts), FACELESS // 3)],
    }


def seconds(finder: FaceFinder, crop: Tensor, threads: int, repeats: int = 7) -> dict[str, Any]:
    """Median times of the detector alone and of the whole finder, for a small and a large photo with one face."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    times: dict[str, Any] = {"threads": torch.get_num_threads()}
    for name, height, width in (("640 x 480", 480, 640), ("4000 x 3000", 3000, 4000)):
        canvas = torch.full((3, height, width), 0.5)
        side = height // 2
        canvas[:, :side, :side] = images.resize(crop, side, side)
        canvas = canvas.clamp(0, 1)
        for part, call in (("detector", lambda photo: finder.detector(photo, 0.5)), ("finder", finder)):
            call(canvas)
            taken = []
            for _ in range(repeats):
                start = time.perf_counter()
                call(canvas)
                taken.append(time.perf_counter() - start)
            times[f"{part} {name}"] = round(float(np.median(taken)), 4)
    torch.set_num_threads(before)
    return times


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes xyxy."""
    shared = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None).prod()
    return float(shared / ((box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - shared))
