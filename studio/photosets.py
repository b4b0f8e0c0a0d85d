"""Which photographs are kept for measuring: said once, for training and for the benchmarks."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

from studio.errors import InputError


def held_out(photos: Path) -> frozenset[str]:
    """Names of `aligned_clean` faces that no training may see.

    Every face of a person in `portraits` (the same source pictures), and about an eighth of the rest, by the name.

    Args:
        photos: a folder with `aligned_clean/` and `portraits/`.

    Returns:
        File names without their ending.

    Raises:
        InputError: one of the two folders is not there.
    """
    for name in ("portraits", "aligned_clean"):
        if not (photos / name).is_dir():
            raise InputError(f"{photos} must hold the folders portraits and aligned_clean, {name} is missing")
    people = {path.name.split("_")[0] for path in (photos / "portraits").iterdir()}
    stems = {path.stem for path in (photos / "aligned_clean").iterdir()}
    return frozenset(stem for stem in stems if stem in people or crc32(stem.encode()) % 8 == 0)
