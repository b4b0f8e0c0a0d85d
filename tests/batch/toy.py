"""A task that costs nothing: the negative of a photo, darker by a setting. The rest of a run is the real one."""

from __future__ import annotations

import time
from pathlib import Path

from studio import images
from studio.batch import RESTORED, RESULT, Task, run, write_report
from studio.folders import gather


def negative(dark=0.0, *, calls=None, beside=(), weights=None, pause=0.0):
    """A `Task`; `calls` collects the names of the inputs that it is really done for."""

    def make(source, places, found):
        photo = images.load(source)
        result = photo.with_pixels((1 - photo.pixels) * (1 - dark))
        if calls is not None:
            calls.append(source.name)
        time.sleep(pause)
        found.status, found.output, found.scale, found.credentials = RESTORED, str(places[RESULT]), 1, "not wanted"
        files = {RESULT: images.encode(result, places[RESULT].suffix)}
        return files | {kind: images.encode(result, places[kind].suffix) for kind in beside}

    def settings(target):
        return {"dark": dark, "suffix": target.suffix}

    later = {"sheets": lambda source, places, found: {"sheets": images.encode(images.load(source), ".jpg")}}
    return Task(make, settings, weights or {}, dict.fromkeys(beside, ".jpg"), later)


def main(album, folder, report, *options):
    """One run as a process of its own, which a test may kill."""
    found = gather([album])
    task = negative(beside=("sheets",))
    done = run(task, found.files, Path(folder), root=found.root, resume="--resume" in options, workers=2)
    write_report(Path(report), done, {})
