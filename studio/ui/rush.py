"""Many visitors at once: serves the app and sends it requests. `studio bench app` is its command.

Every request must be answered: with a restored photo, or with the words that the queue is full.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from studio import images
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


def run(visitors: int, side: int = 0, models: dict[str, Callable[[], Any]] | None = None) -> dict[str, Any]:
    """Serve the app and rush it; the visitors are in another process, so that their memory is not the app's.

    Args:
        visitors: at the same time.
        side: px, longer side to which the example photo is enlarged; 0 leaves it as it is.
        models: as `build` takes them; None serves the committed ones.

    Returns:
        What `rush` says, with the `photo` sent (width and height), `queue` (who may wait), and the peak memory of the
        process that serves, MB: `peak_mb_one` after the first visitor, who loads the model, and `peak_mb` at the end.
    """
    photo = images.load(EXAMPLES / "portrait.jpg")
    share = side / max(photo.height, photo.width) if side else 1
    photo = photo.with_pixels(images.resize(photo.pixels, round(photo.height * share), round(photo.width * share)))
    app = build(models)
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, **options(os.environ))
    try:
        with TemporaryDirectory() as folder, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as outside:
            file = images.save(photo, Path(folder) / "photo.jpg")
            outside.submit(rush, url, file, 1).result()
            before = peak()
            found = outside.submit(rush, url, file, visitors).result()
    finally:
        app.close()
    return {**found, "photo": [photo.width, photo.height], "queue": QUEUE, "peak_mb_one": before, "peak_mb": peak()}


def peak() -> int:
    """Largest resident memory of this process so far, MB."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; bytes on a Mac
    return found // (2**20 if sys.platform == "darwin" else 2**10)
