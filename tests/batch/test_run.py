"""Runs by the journal: what is done, what is left, and what a result is called, over any number of runs."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

from studio import images
from studio.batch import FAILED, RESTORED, Task, plan_outputs, run, without_results
from studio.batch.journal import FILE, WRITING, Journal, part_of
from studio.errors import InputError
from studio.folders import gather
from tests.batch.toy import negative


def picture(path, seed=0):
    pixels = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(seed))
    return images.save(images.Photo(pixels), path)


@pytest.fixture
def album(tmp_path):
    for seed, name in enumerate(("a.png", "b.png", "sub/c.png")):
        picture(tmp_path / "album" / name, seed)
    return tmp_path / "album"


class Batch:
    """Runs over one album into one folder; remembers what the last one really did."""

    def __init__(self, album, folder):
        self.album, self.folder, self.calls = album, folder, []

    def __call__(self, *, dark=0.0, beside=(), weights=None, paths=None, **options):
        self.calls.clear()
        found = gather(paths or [self.album])
        self.own = without_results(found, self.folder)
        task = negative(dark, calls=self.calls, beside=beside, weights=weights)
        return run(task, found.files, self.folder, root=found.root, **options)

    def files(self):
        return sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )


@pytest.fixture
def batch(album, tmp_path):
    return Batch(album, tmp_path / "out")


def is_negative(result, source, dark=0.0):
    expected = (1 - images.load(source).pixels) * (1 - dark)
    return float((images.load(result).pixels - expected).abs().max()) < 0.6 / 255


# ---- going on


def test_a_second_run_does_nothing_and_tells_all(batch):
    first = batch()
    assert batch.calls == ["a.png", "b.png", "c.png"]
    second = batch(resume=True)
    assert batch.calls == []
    assert all(one.earlier for one in second)
    for one in first:
        one.earlier = True
    assert second == first


def test_without_resume_nothing_is_replaced(batch):
    batch()
    before = {name: (batch.folder / name).read_bytes() for name in batch.files()}
    again = batch(dark=0.5)
    assert [one.status for one in again] == [FAILED] * 3 and "--resume" in again[0].reason
    assert before == {name: (batch.folder / name).read_bytes() for name in batch.files()}
    assert [one.status for one in batch(dark=0.5, overwrite=True)] == [RESTORED] * 3
    assert is_negative(batch.folder / "a.png", batch.album / "a.png", 0.5)


def test_only_what_changed_is_made(batch, album):
    batch()
    batch(dark=0.5, resume=True)
    assert batch.calls == ["a.png", "b.png", "c.png"]
    batch(dark=0.5, resume=True, weights={"net": "1"})
    assert batch.calls == ["a.png", "b.png", "c.png"]
    picture(album / "b.png", 9)
    batch(dark=0.5, resume=True, weights={"net": "1"})
    assert batch.calls == ["b.png"]
    assert is_negative(batch.folder / "b.png", album / "b.png", 0.5)
    (batch.folder / "a.png").unlink()
    batch(dark=0.5, resume=True, weights={"net": "1"})
    assert batch.calls == ["a.png"]
    done = batch(dark=0.5, resume=True, weights={"net": "1"}, beside=("sheets",))
    assert batch.calls == [] and all(one.earlier for one in done)
    assert (batch.folder / "sheets/sub/c.png.jpg").exists()


def test_a_result_that_these_settings_do_not_give_is_told_of(batch, album):
    batch()
    task = Task(lambda source, places, found: {}, lambda _: {"other": 1})
    found = run(task, [album / "a.png"], batch.folder, root=album, resume=True)
    assert found[0].output is None and found[0].notes == ["a.png is there from earlier settings"]
    assert (batch.folder / "a.png").exists()


def test_a_bad_file_is_tried_again(batch, album):
    (album / "b.png").write_text("text")
    assert [one.status for one in batch()] == [RESTORED, FAILED, RESTORED]
    picture(album / "b.png", 5)
    assert [one.status for one in batch(resume=True)] == [RESTORED] * 3
    assert batch.calls == ["b.png"]


def test_results_that_somebody_altered_are_kept(batch):
    batch()
    (batch.folder / "a.png").write_bytes(b"retouched")
    found = batch(resume=True)
    assert batch.calls == [] and found[0].notes == ["the result was altered since it was written, and kept"]
    found = batch(resume=True, dark=0.5)
    assert found[0].status == FAILED and "--overwrite" in found[0].reason
    assert (batch.folder / "a.png").read_bytes() == b"retouched"


def test_files_of_others_are_never_replaced(batch):
    batch.folder.mkdir()
    (batch.folder / "a.png").write_bytes(b"somebody else's")
    found = batch(resume=True)
    assert [one.status for one in found] == [FAILED, RESTORED, RESTORED]
    assert (batch.folder / "a.png").read_bytes() == b"somebody else's"


# ---- names


def test_one_more_sub_folder_changes_nothing(batch, album, tmp_path):
    deep = Batch(album / "sub", tmp_path / "deep")
    deep()
    assert deep.files() == ["c.png"]
    picture(album / "sub/new/d.png", 7)
    found = deep(resume=True)
    assert deep.calls == ["d.png"] and deep.files() == ["c.png", "new/d.png"]
    assert [one.earlier for one in found] == [True, False]


def test_two_files_that_become_one_format_are_two_results(batch, album):
    picture(album / "a.bmp", 11)
    batch(paths=[album / "a.png"], suffix=".jpg")
    found = batch(paths=[album / "a.bmp"], suffix=".jpg", resume=True)
    assert batch.calls == ["a.bmp"] and found[0].output == str(batch.folder / "a-2.jpg")
    assert batch.files() == ["a-2.jpg", "a.jpg"]
    both = batch(suffix=".jpg", resume=True)
    assert {Path(one.input).name: Path(one.output).name for one in both if one.earlier} == {
        "a.png": "a.jpg",
        "a.bmp": "a-2.jpg",
    }


def test_names_by_a_pattern(batch, album):
    batch(name="{stem}-restored{suffix}")
    assert batch.files() == ["a-restored.png", "b-restored.png", "sub/c-restored.png"]
    for wrong in ("x", "{stem}", "{stem}.png", "{stem}/{suffix}", "{stem}{other}{suffix}", "{", "{suffix}{stem}"):
        with pytest.raises(InputError, match="name must hold"):
            plan_outputs([album / "a.png"], batch.folder, name=wrong)


def test_sheets_keep_out_of_a_sub_folder_of_that_name(batch, album):
    picture(album / "sheets/a.jpg", 3)
    picture(album / "a.webp", 4)
    batch(beside=("sheets",))
    assert "sheets/a.jpg" in batch.files()
    assert {"sheets-2/a.png.jpg", "sheets-2/a.webp.jpg", "sheets-2/sheets/a.jpg"} <= set(batch.files())


# ---- an output folder among the inputs


def test_the_output_may_lie_in_the_input(album):
    batch = Batch(album, album / "restored")
    batch()
    for options in ({"resume": True}, {"overwrite": True}):
        found = batch(**options)
        assert len(found) == 3 and sorted(path.name for path in batch.own) == ["a.png", "b.png", "c.png"]
        assert [one.status for one in found] == [RESTORED] * 3
    assert batch.files() == ["a.png", "b.png", "sub/c.png"]


def test_the_output_may_be_the_input_under_other_names(album):
    batch = Batch(album, album)
    batch(name="{stem}-restored{suffix}")
    found = batch(name="{stem}-restored{suffix}", resume=True)
    assert len(found) == 3 and batch.calls == []
    other = Batch(album, album.parent / "out")  # the journal of the album tells which are results
    other()
    assert other.files() == ["a.png", "b.png", "sub/c.png"]


# ---- duplicates, renamed and moved inputs


def test_duplicates_are_done_once(batch, album):
    shutil.copy(album / "a.png", album / "sub/again.png")
    found = {Path(one.input).name: one for one in batch()}
    assert batch.calls == ["a.png", "b.png", "c.png"]
    assert found["again.png"].duplicate_of == str(album / "a.png")
    assert found["again.png"].output == found["a.png"].output and found["again.png"].status == RESTORED
    resumed = {Path(one.input).name: one for one in batch(resume=True)}
    assert batch.calls == [] and resumed["again.png"].duplicate_of == str(album / "a.png")
    picture(album / "a.png", 20)  # no duplicate any more: nothing may be mixed up
    batch(resume=True)
    assert sorted(batch.calls) == ["a.png", "again.png"]
    assert is_negative(batch.folder / "sub/again.png", album / "sub/again.png")
    assert is_negative(batch.folder / "a.png", album / "a.png")


def test_a_duplicate_takes_over_when_the_first_is_gone(batch, album):
    shutil.copy(album / "a.png", album / "z.png")
    batch()
    (album / "a.png").unlink()
    found = {Path(one.input).name: one for one in batch(resume=True)}
    assert batch.calls == [] and batch.files() == ["b.png", "sub/c.png", "z.png"]
    assert (found["z.png"].output, found["z.png"].duplicate_of) == (str(batch.folder / "z.png"), None)


def test_renamed_inputs_take_their_results_with_them(batch, album):
    batch(beside=("sheets",))
    (album / "a.png").rename(album / "sub/z.png")
    found = {Path(one.input).name: one for one in batch(resume=True, beside=("sheets",))}
    assert batch.calls == []
    assert batch.files() == [
        *("b.png", "sheets/b.png.jpg", "sheets/sub/c.png.jpg", "sheets/sub/z.png.jpg", "sub/c.png", "sub/z.png")
    ]
    assert is_negative(found["z.png"].output, album / "sub/z.png") and found["z.png"].earlier


def test_names_that_are_exchanged(batch, album):
    batch()
    (album / "a.png").rename(album / "x.png")
    (album / "b.png").rename(album / "a.png")
    (album / "x.png").rename(album / "b.png")
    batch(resume=True)
    for name in ("a.png", "b.png"):
        assert is_negative(batch.folder / name, album / name)


def test_names_that_move_on_by_one(batch, album):
    batch()
    (album / "b.png").rename(album / "c.png")
    (album / "a.png").rename(album / "b.png")
    batch(resume=True)
    for name in ("b.png", "c.png"):
        assert is_negative(batch.folder / name, album / name)


def test_everything_may_move(batch, album, tmp_path):
    batch()
    (tmp_path / "elsewhere").mkdir()
    album.rename(tmp_path / "elsewhere" / "box")
    batch.folder.rename(tmp_path / "elsewhere" / "results")
    moved = Batch(tmp_path / "elsewhere/box", tmp_path / "elsewhere/results")
    found = moved(resume=True)
    assert moved.calls == [] and moved.files() == ["a.png", "b.png", "sub/c.png"]
    assert [one.output for one in found] == [str(moved.folder / name) for name in moved.files()]


def test_without_resume_a_moved_box_is_no_other_box(batch, album):
    batch()
    album.rename(album.parent / "moved")
    again = batch(paths=[album.parent / "moved"])
    assert [one.status for one in again] == [FAILED] * 3
    again = batch(paths=[album.parent / "moved"], overwrite=True, dark=0.5)
    assert [one.status for one in again] == [RESTORED] * 3
    assert batch.files() == ["a.png", "b.png", "sub/c.png"]


def test_another_photo_of_the_name_of_one_that_is_gone(batch, album):
    batch()
    before = (batch.folder / "b.png").read_bytes()
    shutil.rmtree(album)
    picture(album.parent / "new" / "b.png", 30)
    found = batch(paths=[album.parent / "new"], resume=True)
    assert found[0].output == str(batch.folder / "b-2.png")
    assert (batch.folder / "b.png").read_bytes() == before


# ---- interrupted


@pytest.mark.parametrize("stage", ["before", "half", "between", "after"])
def test_killed_within_a_file(batch, album, monkeypatch, stage):
    """As if the power went: the journal says `writing`, and the files are there in part."""
    write = images.write
    count = iter(range(100))

    def killed(data, path, part=None):
        number = next(count)
        if stage == "before" or (stage == "between" and number == 1):
            raise KeyboardInterrupt
        if stage == "half":
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        write(data, path, part)
        if stage == "after" and number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(images, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        batch(beside=("sheets",))
    monkeypatch.setattr(images, "write", write)
    with Journal(batch.folder) as journal:
        assert journal.row(album / "a.png").state == WRITING
        assert not part_of(batch.folder / "a.png").exists()
    found = batch(beside=("sheets",), resume=True)
    assert batch.calls == [*(() if stage == "after" else ("a.png",)), "b.png", "c.png"]
    assert [one.status for one in found] == [RESTORED] * 3
    assert len(batch.files()) == 6 and all(Path(one.output).is_file() for one in found)
    assert not [path for path in batch.folder.rglob("*") if path.name.endswith(".part")]


def test_killed_twice_with_other_settings_in_between(batch, monkeypatch):
    batch()
    for dark in (0.25, 0.5):

        def killed(data, path, part=None):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(images, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                batch(dark=dark, resume=True)
    assert [one.status for one in batch(dark=0.75, resume=True)] == [RESTORED] * 3
    assert is_negative(batch.folder / "a.png", batch.album / "a.png", 0.75)


def test_killed_while_a_result_is_renamed(batch, album, monkeypatch):
    batch()
    (album / "a.png").rename(album / "z.png")
    replace = Path.replace

    def killed(self, target):
        replace(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        batch(resume=True)
    monkeypatch.setattr(Path, "replace", replace)
    batch(resume=True)
    assert batch.calls == [] and batch.files() == ["b.png", "sub/c.png", "z.png"]


def test_a_full_disk_ends_the_run_and_says_how_to_go_on(batch, monkeypatch):
    write = images.write

    def full(data, path, part=None):
        if path.name == "b.png":
            monkeypatch.setattr("os.fsync", no_room)
        return write(data, path, part)

    def no_room(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(images, "write", full)
        with pytest.raises(InputError, match="--resume"):
            batch()
    monkeypatch.undo()
    assert batch.files() == ["a.png"]
    batch(resume=True)
    assert batch.calls == ["b.png", "c.png"] and batch.files() == ["a.png", "b.png", "sub/c.png"]


# ---- several at a time


def test_several_at_a_time_give_the_same(batch, album, tmp_path):
    for seed in range(10, 18):
        picture(album / f"more/{seed}.png", seed)
    shutil.copy(album / "a.png", album / "a2.png")  # right behind its twin, which is still being made
    (album / "more/bad.png").write_text("text")
    alone = batch()
    other = Batch(album, tmp_path / "other")
    seen = []
    together = other(workers=3, on_file=seen.append)
    assert seen == together and sorted(other.calls) == sorted(batch.calls) and "a2.png" not in other.calls
    assert [(one.input, one.status, one.duplicate_of) for one in together] == [
        (one.input, one.status, one.duplicate_of) for one in alone
    ]
    assert other.files() == batch.files()
    assert all((batch.folder / name).read_bytes() == (other.folder / name).read_bytes() for name in batch.files())
    other(workers=3, resume=True)
    assert other.calls == ["bad.png"] or not other.calls
    for wrong in (0, 65, 1.5):
        with pytest.raises(InputError, match="workers"):
            other(workers=wrong)


# ---- the journal


def test_one_run_at_a_time(batch):
    with Journal(batch.folder), pytest.raises(InputError, match="another run is at work"):
        batch()


def test_a_journal_that_could_not_be_opened_leaves_no_lock(batch, monkeypatch):
    def full(self, *_):
        raise InputError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_rows", full)
        with pytest.raises(InputError) as kept:  # the error holds on to what it came through
            Journal(batch.folder)
    assert batch(resume=True)[0].status == RESTORED and kept


def test_folders_that_cannot_be_written_and_damaged_journals(batch):
    batch.folder.write_bytes(b"")
    with pytest.raises(InputError, match="must be a folder that can be written"):
        batch()
    batch.folder.unlink()
    batch.folder.mkdir()
    (batch.folder / FILE).write_bytes(b"no database " * 100)
    with pytest.raises(InputError, match="damaged"):
        batch()


def test_the_journal_of_a_read_only_folder_is_read(album, monkeypatch):
    Batch(album, album / "old")()
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda path, mode: False)
        found = gather([album])
        assert len(without_results(found, album.parent / "out")) == 3 and len(found.files) == 3


def test_a_journal_of_a_later_version(batch):
    batch()
    base = sqlite3.connect(batch.folder / FILE)
    base.execute("PRAGMA user_version=99")
    base.close()
    with pytest.raises(InputError, match="version"):
        batch(resume=True)


def test_resume_needs_the_journal(batch):
    with pytest.raises(InputError, match="journal"):
        batch(resume=True, journal=False)


def test_names_that_are_no_unicode(batch, album):
    odd = Path(f"{album}/\udcff.png")
    shutil.copy(album / "a.png", odd)
    picture(odd, 40)
    batch()
    assert len(batch.calls) == 4
    assert all(one.earlier for one in batch(resume=True)) and batch.calls == []


def test_one_file_named_twice_is_done_once(batch, album):
    found = batch(paths=[album / "a.png", f"{album}/../album/a.png"])
    assert len(found) == 1
