"""Many visitors at once: `python -m studio.ui.rush 20` serves the app, sends it requests, and prints JSON.

Every request must be answered: with a restored photo, or with the words that the queue is full. Peak memory is of the
process that serves.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from studio.ui.app import QUEUE, build, options
from studio.ui.common import EXAMPLES

PATIENCE = 1800  # seconds for any one answer: the twentieth in the queue waits for nineteen photos


def rush(url: str, photo: Path, visitors: int) -> dict[str, Any]:
    """Send one photo from as many visitors at the same time.

    Returns:
        `visitors`, `finished`, `refused` (the queue was full), `failed` (with the messages), `seconds`.
    """
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError
    from gradio_client.utils import QueueError

    def visit(_: int) -> str:
        client = Client(url, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": PATIENCE})
        try:
            report = client.predict(photo=handle_file(photo), api_name="/restore")[1]
            return "finished" if report["status"] == "restored" else report["status"]
        except QueueError:
            return "refused"
        except AppError as error:
            return str(error)
        finally:
            client.close()

    start = time.perf_counter()
    with ThreadPoolExecutor(visitors) as pool:
        answers = Counter(pool.map(visit, range(visitors)))
    return {
        "visitors": visitors,
        "finished": answers.pop("finished", 0),
        "refused": answers.pop("refused", 0),
        "failed": dict(answers),
        "seconds": round(time.perf_counter() - start, 1),
    }


def run(visitors: int, models: dict[str, Callable[[], Any]] | None = None) -> dict[str, Any]:
    """Serve the app and rush it.

    Args:
        visitors: at the same time.
        models: as `build` takes them; None serves the committed ones.
    """
    app = build(models)
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, **options(os.environ))
    try:
        photo = EXAMPLES / "portrait.jpg"
        rush(url, photo, 1)  # loads the model
        before = peak()
        found = rush(url, photo, visitors)
    finally:
        app.close()
    return {**found, "queue": QUEUE, "peak_mb_one": before, "peak_mb": peak()}


def peak() -> int:
    """Largest resident memory of this process so far, MB."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; bytes on a Mac
    return found // (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(int(sys.argv[1]) if len(sys.argv) > 1 else 20), indent=1) + "\n")
