"""Kill a run with SIGKILL at random moments, go on, and compare with a run that nobody disturbed.

python -m tests.batch.torture FOLDER --files 200 --kills 40
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import torch

from studio import images
from studio.batch.journal import FILE
from tests.batch.toy import main as one_run

SEEN = "files were there when the run was killed"


def album_of(folder, count, rng):
    """Noise in sub-folders and several formats; every tenth file is a duplicate, some are no photos at all."""
    made = []
    for i in range(count):
        path = folder / f"box {i % 7}" / f"{i:05}{('.png', '.jpg', '.tif')[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % 25 == 24:
            path.write_bytes((b"", b"no photo at all", b"\xff\xd8\xff")[i % 3])
        elif i % 10 == 9:
            same = rng.choice(made)
            shutil.copy(same, path.with_suffix(same.suffix))
        else:
            pixels = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(i))
            made.append(images.save(images.Photo(pixels), path))


def told(report):
    """What a report says, without what may differ: when, how long, and by which run."""
    entries = json.loads(report.read_text())["files"]
    for entry in entries:
        entry.pop("seconds"), entry.pop("earlier")
        entry["output"] = entry["output"] and Path(*Path(entry["output"]).parts[-2:]).as_posix()
    return entries


def written(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(FILE)
    }


def states(folder):
    with closing(sqlite3.connect(folder / FILE)) as base:
        return dict(base.execute("SELECT input, state FROM files"))


def torture(folder, files, kills, seed=0):
    """Run it; returns the figures, raises AssertionError where anything differs."""
    rng = random.Random(seed)
    torch.set_num_threads(1)
    album_of(folder / "album", files, rng)
    context = multiprocessing.get_context("forkserver")  # imports torch once; a fork of it starts at once
    context.set_forkserver_preload(["tests.batch.toy"])

    def start(name):
        paths = folder / "album", folder / name, folder / f"{name}.json"
        process = context.Process(target=one_run, args=(*map(str, paths), "--resume"))
        process.start()
        return process

    def timed(name):
        begun = time.monotonic()
        process = start(name)
        process.join()
        assert process.exitcode == 0
        return time.monotonic() - begun

    timed("warm")
    whole, nothing = timed("calm"), timed("calm")  # the second finds everything done
    moments = []
    for _ in range(kills):
        process = start("killed")
        process.join(rng.uniform(0, nothing + 1.5 * max(whole - nothing, 0.2) / kills))
        if process.exitcode is None:
            process.kill()
            process.join()
            moments.append(len(written(folder / "killed")))
    timed("killed")
    one, other = written(folder / "calm"), written(folder / "killed")
    assert one.keys() == other.keys(), sorted(one.keys() ^ other.keys())[:5]
    assert one == other, "results differ"
    assert told(folder / "calm.json") == told(folder / "killed.json")
    calm, killed = states(folder / "calm"), states(folder / "killed")
    assert calm == killed and set(killed.values()) <= {"done", "failed"}
    return {
        "files": files,
        "kills": len(moments),
        "results": len(one),
        "undisturbed_seconds": round(whole, 1),
        SEEN: moments,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(torture(given.folder, given.files, given.kills, given.seed)))
