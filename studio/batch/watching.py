"""A watched folder: what appears in it is done, once it has stopped growing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from studio.batch.inputs import without_results
from studio.folders import gather

Stamp = tuple[int, int]  # bytes, and the time of the last change in nanoseconds


def watch(
    folder: Path,
    output: Path,
    do: Callable[[list[Path]], None],
    *,
    every: float = 1.0,
    settle: float = 3.0,
    once: bool = False,
) -> None:
    """Look into a folder again and again, and do what is new in it or has changed.

    A file is left alone until its size and its time of change have been the same for `settle` seconds: a scanner that
    still writes it, or a copy that is under way, is not disturbed. One that changes later is done again.

    Args:
        folder: of the photos, with its sub-folders.
        output: of the results; those of earlier runs are no photos, wherever they lie.
        do: called with the files that are ready.
        every: seconds between two looks.
        settle: seconds.
        once: stop when nothing that is there is waited for any more.

    Raises:
        InputError: the folder is not there.
    """
    seen: dict[Path, tuple[Stamp, float]] = {}  # what a file was like, and since when
    done: dict[Path, Stamp] = {}
    while True:
        gathered = gather([folder])
        now = time.monotonic()
        stamps = {path: stamp for path in gathered.files if (stamp := stamp_of(path))}
        seen = {path: (stamp, _since(seen.get(path), stamp, now)) for path, stamp in stamps.items()}
        gathered.files = [
            path for path, (stamp, since) in seen.items() if done.get(path) != stamp and now - since >= settle
        ]
        if gathered.files:
            done |= {path: stamps[path] for path in gathered.files}
            without_results(gathered, output)
        if gathered.files:
            do(gathered.files)
        if once and all(done.get(path) == stamp for path, stamp in stamps.items()):
            return
        time.sleep(every)


def _since(before: tuple[Stamp, float] | None, stamp: Stamp, now: float) -> float:
    return before[1] if before and before[0] == stamp else now


def stamp_of(path: Path) -> Stamp | None:
    """Size and time of the last change; None where the file is gone again."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
