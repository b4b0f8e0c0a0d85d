"""Which photographs are kept for measuring, and which of many are measured: said once for all who choose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from studio.errors import InputError


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items, from the first to the last, or all when there are no more."""
    if count >= len(items):
        return list(items)
    return [items[round(i * (len(items) - 1) / max(count - 1, 1))] for i in range(count)]


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
    return frozenset(stem for stem in stems if stem in people) | an_eighth(stems)


def an_eighth(stems: Iterable[str]) -> frozenset[str]:
    """About an eighth of these names, always the same ones: what no training sees of photos without other rules."""
    return frozenset(stem for stem in stems if crc32(stem.encode()) % 8 == 0)
