"""The suite in several processes (pytest-xdist): what each of them has to itself, and what runs alone.

This file is imported before torch and gradio are: both read the environment when they are.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# More threads than two make toy networks slower, and sums differ from machine to machine.
THREADS = max(1, min(2, (os.cpu_count() or 1) // WORKERS))
PORTS = 100  # gradio tries as many from its first one on


def own_share() -> dict[str, str]:
    """For the environment of a worker: part of the cores, ports and a folder for the app's files.

    What the environment says already is left out, and all of it where there is one process.
    """
    if WORKERS == 1:
        return {}
    worker = os.environ["PYTEST_XDIST_WORKER"]  # gw0, gw1, …
    own = {
        "OMP_NUM_THREADS": str(THREADS),  # of the processes that tests start, too
        "GOMP_SPINCOUNT": "0",  # a thread that waits leaves its core to the other workers
        "GRADIO_SERVER_PORT": str(7860 + PORTS * int(worker.removeprefix("gw"))),
        "GRADIO_TEMP_DIR": str(Path(tempfile.gettempdir()) / f"gradio-{worker}"),  # equal uploads have equal names
    }
    return {name: value for name, value in own.items() if name not in os.environ}


@contextmanager
def turn(folder: Path, alone: bool) -> Iterator[None]:
    """Be at work together with others, or alone. Who waits to be alone keeps newcomers out.

    Works between processes: by locks on two files of the folder, `door` and `room`.
    """
    import fcntl  # not on Windows, where the suite runs in one process

    with (folder / "door").open("a") as door, (folder / "room").open("a") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)


def slow_files_first(items: list[pytest.Item]) -> None:
    """Sort, and keep files whole: a long file that begins last would be waited for by all other workers."""
    slow = Counter(item.path for item in items if "slow" in item.keywords)
    items.sort(key=lambda item: -slow[item.path])
