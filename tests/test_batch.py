"""Many files: where the results go, what happens to bad files, and what the report says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipelines import restore
from studio import batch, images, provenance
from studio.batch import FileReport, plan_outputs, restore_files
from studio.errors import InputError
from tests import tiny


def plan(*inputs, suffix=None, folder="out"):
    return [str(path) for path in plan_outputs([Path(name) for name in inputs], Path(folder), suffix)]


# ---- names


def test_results_keep_name_and_kind():
    assert plan("a/x.jpg", "a/Y.PNG", "a/z.tif") == ["out/x.jpg", "out/Y.png", "out/z.tif"]


def test_kinds_that_cannot_be_written_become_png():
    assert plan("a/x.heic", "a/y.gif", "a/z") == ["out/x.png", "out/y.png", "out/z.png"]


def test_sub_folders_stay():
    assert plan("album/1900/x.jpg", "album/1910/x.jpg", "album/y.jpg") == [
        "out/1900/x.jpg",
        "out/1910/x.jpg",
        "out/y.jpg",
    ]


def test_names_that_meet_are_numbered():
    names = plan("a/x.jpg", "a/x.heic", "a/x.png", "a/x-2.jpg", suffix=".png")
    assert names == ["out/x.png", "out/x-2.png", "out/x-3.png", "out/x-2-2.png"]


def test_folders_above_do_not_lead_out_of_the_output(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    outputs = plan_outputs([Path("../photos/x.jpg"), Path("y.jpg"), Path("z/../w.jpg")], Path("out"))
    assert [str(path) for path in outputs] == ["out/photos/x.jpg", "out/here/y.jpg", "out/here/w.jpg"]


def test_one_order_for_resuming(tmp_path):
    """The same inputs give the same names, whether results are there or not."""
    names = plan("a/x.jpg", "a/x.png", suffix=".png", folder=tmp_path)
    Path(names[0]).write_bytes(b"")
    assert plan("a/x.jpg", "a/x.png", suffix=".png", folder=tmp_path) == names


def test_no_inputs():
    assert plan() == []


def test_inputs_are_never_outputs(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="another output folder"):
        plan_outputs([tmp_path / "x.jpg"], tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(InputError, match="another output folder"):
        plan_outputs([tmp_path / "x.jpg"], link)
    # Not even another one's: x.heic would become the x.png that is there.
    with pytest.raises(InputError, match="another output folder"):
        plan_outputs([tmp_path / "x.heic", tmp_path / "x.png"], tmp_path)


@pytest.mark.parametrize("suffix", [".psd", "png", "", ".heic"])
def test_unknown_kinds(suffix):
    with pytest.raises(InputError, match="format must be one of"):
        plan("a/x.jpg", suffix=suffix)


# ---- restoring


@pytest.fixture(scope="module")
def pipeline():
    return tiny.restore_pipeline()


@pytest.fixture(autouse=True)
def _two_faces(monkeypatch):
    monkeypatch.setattr(restore, "FaceFinder", tiny.TwoFaces)


@pytest.fixture
def album(tmp_path):
    """One good photo, one that is text, one without a face."""
    folder = tmp_path / "album"
    images.save(images.load(tiny.photo()), folder / "1 good.png")
    (folder / "2 text.jpg").write_text("this is no photo")
    Image.new("RGB", (64, 48), "gray").save(folder / "3 nobody.jpg")
    return folder


SETTINGS = {"identity_guard": None}


def run(pipeline, album, **options):
    return restore_files(
        pipeline,
        images.find_images([album]),
        album.parent / "out",
        **{"settings": SETTINGS, "journal": True, **options},
    )


def shown(folder):
    """Names of the files that a user sees in a folder."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def test_a_bad_file_is_reported_and_the_rest_goes_on(pipeline, album):
    seen = []
    good, text, nobody = run(pipeline, album, on_file=seen.append)
    assert seen == [good, text, nobody]
    assert (good.status, good.reason, len(good.faces)) == (batch.RESTORED, "", 2)
    assert images.load(good.output).pixels.shape == tiny.photo().shape
    assert (text.status, text.output) == (batch.FAILED, None)
    assert "2 text.jpg" in text.reason and "\n" not in text.reason
    assert (nobody.status, nobody.output, nobody.reason) == (batch.NO_FACE, None, batch.NONE_FOUND)
    assert shown(album.parent / "out") == ["1 good.png"]
    assert all(report.seconds >= 0 for report in seen)


def test_a_network_that_draws_the_background_leaves_no_photo_out(pipeline, album, monkeypatch):
    class Drawn:
        def __call__(self, source, **settings):
            return pipeline(source, scale=2, identity_guard=None)

    settings = {"background": "span"}
    _, _, nobody = restore_files(Drawn(), images.find_images([album]), album.parent / "out", settings=settings)
    assert (nobody.status, nobody.scale) == (batch.NO_FACE, 2)
    assert nobody.reason.startswith("no face was found")
    assert images.load(nobody.output).pixels.shape == (3, 96, 128)
    if not provenance.reason_not(".jpg"):
        told = provenance.verify(nobody.output)
        assert "the rest of the photo drawn by the network span" in str(told)


def test_faces_that_were_left_alone_write_nothing_and_say_why(pipeline, album):
    report = run(pipeline, album, settings={"strength": 0.0})[0]
    assert (report.status, report.output) == (batch.UNCHANGED, None)
    assert report.reason == "face 0: strength 0; face 1: strength 0"
    assert not shown(album.parent / "out")


def test_wrong_settings_fail_file_by_file(pipeline, album):
    reports = run(pipeline, album, settings={"faces": [7]})
    assert [report.status for report in reports] == [batch.FAILED] * 3
    assert "index must be in range" in reports[0].reason


def test_results_that_are_there(pipeline, album):
    target = album.parent / "out" / "1 good.png"
    first = run(pipeline, album)[0]
    before = target.read_bytes()

    refused = run(pipeline, album)[0]
    assert refused.status == batch.FAILED
    assert "--resume" in refused.reason and "--overwrite" in refused.reason

    resumed = run(pipeline, album, resume=True)[0]
    first.earlier = True
    assert resumed == first
    assert target.read_bytes() == before

    replaced = run(pipeline, album, overwrite=True, settings={**SETTINGS, "strength": 0.4})[0]
    assert replaced.status == batch.RESTORED
    assert target.read_bytes() != before


def test_settings_and_file_options_arrive(pipeline, album):
    report = run(pipeline, album, settings={**SETTINGS, "scale": 2, "faces": "largest"}, suffix=".jpg", quality=30)[0]
    assert Path(report.output).suffix == ".jpg"
    assert images.load(report.output).width == 2 * tiny.photo().shape[2]
    assert [face["restored"] for face in report.faces] == [True, False]


def test_depth_and_alpha_go_through(pipeline, album):
    alpha = torch.rand(1, 176, 256)
    images.save(images.Photo(tiny.photo(), alpha, bits=16), album / "0 deep.png")
    found = images.load(run(pipeline, album)[0].output)
    assert found.bits == 16
    torch.testing.assert_close(found.alpha, alpha, atol=1e-4, rtol=0)


def test_results_carry_credentials_and_the_same_pixels(pipeline, album, monkeypatch):
    pytest.importorskip("c2pa", reason="the extra `provenance` is not installed")
    signed, *_ = run(pipeline, album)
    found = provenance.verify(signed.output)
    assert (signed.credentials, found.credentials) == ("written", "intact")
    assert found.operations[1]["description"] == "2 of 2 faces restored with a generative model"
    assert found.operations[1]["settings"] == {"pipeline": "restore", "model": "restore", **SETTINGS}
    assert not found.mark.found  # restored photographs are not synthetic
    pixels = images.load(signed.output).pixels
    plain, *_ = run(pipeline, album, credentials=False, overwrite=True)
    assert plain.credentials == "not wanted"
    assert provenance.verify(plain.output).credentials == "none"
    assert torch.equal(images.load(plain.output).pixels, pixels)


def test_missing_credentials_are_reported(pipeline, album, monkeypatch):
    bitmap, *_ = run(pipeline, album, suffix=".bmp")
    assert (bitmap.status, bitmap.credentials) == (batch.RESTORED, "a .bmp file holds none")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plain, *_ = run(pipeline, album, overwrite=True)
    assert plain.status == batch.RESTORED
    assert "not installed" in plain.credentials


def test_sheets_of_restored_photos(pipeline, album):
    for name in ("1 good.webp", "sub/1 good.png"):  # the same name, but for the folder or the kind
        images.save(images.load(tiny.photo(seed=3)), album / name)
    run(pipeline, album, sheets=True)
    folder = album.parent / "out" / "sheets"
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    assert written == ["1 good.png.jpg", "1 good.webp.jpg", "sub/1 good.png.jpg"]
    with Image.open(folder / written[0]) as sheet:
        assert sheet.format == "JPEG"
        assert sheet.height == 3 * (320 + 18)  # the photo and two faces


def test_pictures_of_what_was_drawn(pipeline, album):
    run(pipeline, album, invented=True)
    folder = album.parent / "out" / "invented"
    assert [path.name for path in folder.iterdir()] == ["1 good.png"]  # of restored photos alone
    shown = images.load(folder / "1 good.png").pixels
    restored = images.load(album.parent / "out" / "1 good.png").pixels
    assert shown.shape == restored.shape
    assert (shown - restored).abs().max() > 0.1


def test_a_seed_is_one_for_every_photo(pipeline, album):
    images.save(images.load(tiny.photo()), album / "0 the same.png")
    run(pipeline, album, settings=SETTINGS | {"seed": 5, "fidelity": 0.0}, journal=False)
    first, second = (images.load(album.parent / "out" / name).pixels for name in ("0 the same.png", "1 good.png"))
    assert torch.equal(first, second)


# ---- the report


def test_report_round_trip(pipeline, album, tmp_path):
    path = tmp_path / "reports" / "r.json"
    reports = run(pipeline, album)
    batch.write_report(path, reports, {"settings": SETTINGS})
    document = json.loads(path.read_text())
    assert document["settings"] == SETTINGS
    assert [entry["status"] for entry in document["files"]] == [batch.RESTORED, batch.FAILED, batch.NO_FACE]
    assert set(document["files"][0]) == {
        *("input", "output", "status", "reason", "scale", "seconds", "credentials", "faces", "doubtful"),
        *("notes", "duplicate_of", "earlier"),
    }
    assert set(document["files"][0]["faces"][0]) >= {"box", "pose", "restored", "strength", "identity_distance"}
    earlier = batch.read_report(path)
    assert earlier[reports[0].input]["faces"] == document["files"][0]["faces"]
    assert [part.name for part in path.parent.iterdir()] == ["r.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": [1]}', '{"files": [{}]}', '{"files": 3}'])
def test_an_unreadable_report_is_no_report(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    assert batch.read_report(tmp_path / "r.json") == {}
    assert batch.read_report(tmp_path / "nothing.json") == {}


def test_crops_for_the_sheet_stay_inside():
    pixels = torch.zeros(3, 100, 200)
    assert batch.cut(pixels, [-20, -20, 30, 30], 1.0).shape == (3, 38, 38)
    assert batch.cut(pixels, [90, 40, 110, 60], 1.0).shape == (3, 26, 26)
    assert batch.cut(pixels, [40, 10, 60, 30], 2.0).shape == (3, 54, 54)


def test_reports_start_empty():
    assert FileReport("x").faces is not FileReport("y").faces
