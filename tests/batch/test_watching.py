"""A watched folder, with files that grow while it is watched."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from studio import images
from studio.batch import run, watch
from studio.errors import InputError
from tests.batch.toy import negative


def data(seed=0):
    pixels = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(seed))
    return images.encode(images.Photo(pixels), ".png")


@pytest.fixture
def watched(tmp_path):
    """Watches `box` until all is done; returns the names that were done, in order."""
    folder, output = tmp_path / "box", tmp_path / "box" / "out"
    folder.mkdir()
    calls = []

    def do(files):
        assert all(
            one.status == "restored" for one in run(negative(calls=calls), files, output, root=folder, resume=True)
        )

    def look(settle=0.2):
        calls.clear()
        watch(folder, output, do, every=0.02, settle=settle, once=True)
        return calls

    return folder, look


def test_a_file_that_is_being_written_is_not_touched(watched):
    folder, look = watched
    whole = data()

    def scanner():
        with (folder / "scan.png").open("wb") as stream:
            for at in range(0, len(whole), len(whole) // 8):
                stream.write(whole[at : at + len(whole) // 8])
                stream.flush()
                time.sleep(0.05)

    writer = threading.Thread(target=scanner)
    writer.start()
    time.sleep(0.02)
    assert look(0.5) == ["scan.png"]  # once, and whole: half of it would have failed
    writer.join()
    assert images.load(folder / "out" / "scan.png").width == 16


def test_what_is_done_is_not_done_again_and_what_changes_is(watched):
    folder, look = watched
    (folder / "a.png").write_bytes(data())
    assert look() == ["a.png"]
    (folder / "b.png").write_bytes(data(1))
    assert look() == ["b.png"]
    assert look() == []
    (folder / "a.png").write_bytes(data(2))
    assert look() == ["a.png"]
    assert sorted(path.name for path in (folder / "out").glob("*.png")) == ["a.png", "b.png"]


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(InputError, match="existing"):
        watch(tmp_path / "nothing", tmp_path, lambda files: None, once=True)
