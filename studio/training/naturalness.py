"""Fitting the measure of naturalness (`studio.metrics.niqe`) on clean portraits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from studio import images
from studio.metrics.niqe import fit_clean, niqe
from studio.photosets import held_out


def fit_niqe(photos: Path, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Fit on the faces of `aligned_clean` that trainings may see and on `aligned_studio`, at their own size.

    Args:
        photos: a folder with `aligned_clean/`, `aligned_studio/` and `portraits/`.
        folder: where `fit.safetensors` goes, such as weights/niqe; replaced.
        say: receives a line.

    Returns:
        How many pictures, and the mean distance of the first 50 from the fit.
    """
    kept = held_out(photos)
    paths = [path for path in images.find_images([photos / "aligned_clean"]) if path.stem not in kept]
    paths += images.find_images([photos / "aligned_studio"])
    pictures = [images.load(path).pixels for path in paths]
    mean, covariance = fit = fit_clean(pictures)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"mean": mean, "covariance": covariance}, folder / "fit.safetensors")
    own = [float(niqe(picture[None], fit)) for picture in pictures[:50]]
    say(f"fitted on {len(pictures)} portraits")
    return {"pictures": len(pictures), "mean_of_50": round(sum(own) / len(own), 3)}
