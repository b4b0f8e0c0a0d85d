"""How much a restoration helps real old photographs, of which nobody has the original."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipelines.restore import RestorePipeline
from studio import images, sheets
from studio.benchmarks.restore import JUDGE_NOTE, mean, measured_with
from studio.metrics import sharpness
from studio.tone import luma, tone_curve

CLEAN_SHARPNESS = 0.022  # mean of the 72 portraits on 512 px
PER_ROW = 2


@torch.inference_mode()
def run(
    photos: Path,
    fidelity: float,
    scale: float | Literal["auto"],
    limit: int,
    model: str,
    sheet: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Restore whole old photographs; nothing says what the faces were, so only what can be known is measured.

    Args:
        photos: folder of photographs.
        fidelity: see `RestorePipeline.__call__`, like `scale`.
        scale: of the results.
        limit: at most so many photos; 0 takes all.
        model: see `RestorePipeline.from_pretrained`.
        sheet: where a contact sheet goes (the largest face of each photo: as it is, restored with fidelity 0, with
            `fidelity`, and with 1), or None.
        say: receives progress lines.

    Returns:
        `identity_distance` (restored to input, mean), `found_again` (share of the faces found before that are found in
        the result), `sharpness_gain` (mean ratio on the aligned face, cut at 512 px from photo and result), the same
        apart for faces that were blurred and for those that were as sharp as a clean portrait or grainy
        (`by_sharpness`), how many photos came out how many times as large (`photos_by_scale`), and counts.
    """
    pipeline = RestorePipeline.from_pretrained(model)
    distances, sharp, again, total, skipped = [], [], 0, 0, []
    sizes: Counter[float] = Counter()
    cells: list[list[Tensor]] = []
    paths = images.find_images([photos])[: limit or None]
    for path in paths:
        photo = images.load(path)
        output = pipeline(photo, fidelity=fidelity, identity_guard=None, scale=scale)
        size = output.scales[0]
        sizes[size] += 1
        faces, after = output.faces[0], pipeline.find(output.photos[0])
        done = [report.index for report in output.reports[0] if report.restored]
        skipped += [f"{path.name}: {report.reason}" for report in output.reports[0] if not report.restored]
        if not len(faces):
            skipped.append(f"{path.name}: no face was found")
        if not done:
            continue
        total += len(done)
        distances += [report.identity_distance for report in output.reports[0] if report.restored]
        enlarged = replace(faces[done], boxes=faces.boxes[done] * size, mesh=faces.mesh[done] * np.float32(size))
        again += sum(is_found(box, after.boxes) for box in enlarged.boxes)
        cuts = [pipeline.crop(photo, faces[done])[0], pipeline.crop(output.photos[0], enlarged)[0]]
        pair = [sharpness(luma(crops).expand(-1, 3, -1, -1)) for crops in cuts]
        sharp += torch.stack(pair, 1).tolist()
        if sheet:
            crops, tone = pipeline.crop(photo, faces[done[:1]])[0], tone_curve(photo.pixels)
            cells.append([crops[0], *(pipeline.restore_crops(crops, f, tone)[0] for f in (0.0, fidelity, 1.0))])
        say(f"{path.name}: {len(done)} faces, identity {np.mean(distances[-len(done) :]):.2f}")
    if sheet:
        rows = [list(chain(*cells[i : i + PER_ROW])) for i in range(0, len(cells), PER_ROW)]
        sheets.write(sheet, rows)
    return {
        "benchmark": "old",
        "set": photos.name,
        "photos": len(paths),
        "faces": total,
        "fidelity": fidelity,
        "scale": scale,
        "photos_by_scale": dict(sorted(sizes.items())),
        "identity_distance": mean(np.array(distances)),
        "found_again": round(again / max(total, 1), 4),
        **sharpness_gains(np.array(sharp).reshape(-1, 2)),
        "skipped": skipped,
        "note": JUDGE_NOTE,
        "provenance": measured_with(model),
    }


def sharpness_gains(pairs: np.ndarray) -> dict[str, Any]:
    """Mean ratio of sharpness after and before (N,2), of all faces and of blurred, sharp and grainy ones.

    Grain and printing dots count as sharpness and are meant to go, so that one mean over all tells little.
    """
    before, gains = pairs[:, 0], pairs[:, 1] / pairs[:, 0].clip(1e-6)
    kinds = {
        "blurred": before < 0.5 * CLEAN_SHARPNESS,
        "sharp": (before >= 0.5 * CLEAN_SHARPNESS) & (before <= 2 * CLEAN_SHARPNESS),
        "grainy": before > 2 * CLEAN_SHARPNESS,
    }
    apart = {
        name: {"faces": int(of.sum()), "before": mean(before[of]), "gain": mean(gains[of])}
        for name, of in kinds.items()
        if of.any()
    }
    return {"sharpness_gain": mean(gains), "by_sharpness": apart}


def is_found(box: np.ndarray, others: np.ndarray) -> bool:
    """Whether a box overlaps one of the others by half."""
    for other in others:
        low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
        shared = np.prod(np.clip(high - low, 0, None))
        if shared > 0.5 * min(np.prod(box[2:] - box[:2]), np.prod(other[2:] - other[:2])):
            return True
    return False
