"""The commands that search and turn: upsample, frontalize and edit, with toy networks."""

import json
import sys

import pytest
import torch

from pipelines import edit, frontalize, upsample
from pipelines.edit import EditPipeline
from pipelines.frontalize import FrontalizePipeline, FrontalizeReport
from pipelines.upsample import UpsamplePipeline
from studio import cli, images
from studio.cli import synthetic
from studio.latents import prior
from tests import tiny


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command as the shell would: call("upsample", …) -> exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["studio", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return run


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    pipeline = tiny.upsample_pipeline()
    monkeypatch.setattr(upsample, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(UpsamplePipeline, "from_pretrained", classmethod(lambda cls, name, *, device=None: pipeline))
    turning = tiny.frontalize_pipeline()
    monkeypatch.setattr(frontalize, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(FrontalizePipeline, "from_pretrained", classmethod(lambda cls, name, *, device=None: turning))
    editing = tiny.edit_pipeline()
    monkeypatch.setattr(edit, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(EditPipeline, "from_pretrained", classmethod(lambda cls, name, *, device=None: editing))


@pytest.fixture
def faces(tmp_path):
    folder = tmp_path / "faces"
    for seed in (0, 1):
        images.save(tiny.image(12, 12, seed=seed), folder / f"face{seed}.png")
    return folder


def test_upsample_writes_every_sample_and_the_report(call, faces, tmp_path):
    out, report, sheet = tmp_path / "out", tmp_path / "report.json", tmp_path / "sheets" / "all.png"
    options = ("--samples", 2, "--steps", 2, "--scale", 3, "--report", report, "--sheet", sheet)
    code, _, err = call("upsample", faces, "-o", out, *options)
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == [f"face{i}-{k}.png" for i in (0, 1) for k in (1, 2)]
    assert images.load(out / "face0-1.png").pixels.shape == (3, 36, 36)
    found = json.loads(report.read_text())
    assert [len(entry["samples"]) for entry in found] == [2, 2]
    assert found[0]["scale"] == 3
    assert images.load(sheet).width > 3 * 256
    assert "they are guesses" in err


def test_latents_alone_on_request(call, faces, tmp_path, monkeypatch):
    picture = prior.picture  # the head, whose toy weights are random, then draws what the prior draws
    monkeypatch.setattr(prior, "picture", lambda net, w, head=None, added=None: picture(net, w, None, added))
    shifts = []
    for name, options in (("both", ()), ("latents", ("--no-move-map",))):
        report = tmp_path / f"{name}.json"
        arguments = (faces / "face0.png", "-o", tmp_path / name, "--samples", 2, "--steps", 12, "--report", report)
        assert call("upsample", *arguments, *options)[0] == 0
        shifts.append([sample["map_shift"] for sample in json.loads(report.read_text())[0]["samples"]])
    assert max(shifts[0]) > 0
    assert max(shifts[1]) == 0


def test_upsample_replaces_nothing_unasked(call, faces, tmp_path):
    arguments = ("upsample", faces / "face0.png", "-o", tmp_path / "out", "--samples", 1, "--steps", 1)
    assert call(*arguments)[0] == 0
    code, _, err = call(*arguments)
    assert code == 1
    assert "--overwrite" in err
    assert call(*arguments, "--overwrite")[0] == 0


def test_seeds_start_elsewhere(call, faces, tmp_path):
    results = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        face = faces / "face0.png"
        call("upsample", face, "-o", tmp_path / name, "--samples", 1, "--steps", 1, "--seed", seed)
        results.append(images.load(tmp_path / name / "face0-1.png").pixels)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_a_bad_file_is_said_and_the_rest_goes_on(call, faces, tmp_path):
    images.save(tiny.image(12, 20), faces / "broad.png")
    code, _, err = call("upsample", faces, "-o", tmp_path / "out", "--samples", 1, "--steps", 1)
    assert code == 1
    assert "broad.png: an aligned face must be square" in err
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_upsample_checks_its_arguments_first(call, faces, tmp_path):
    code, _, err = call("upsample", faces, "-o", tmp_path / "out", "--samples", 0)
    assert (code, err.count("\n")) == (2, 1)
    assert "num_images_per_prompt" in err


def test_edit_of_a_generated_person(call, tmp_path):
    target, before = tmp_path / "new" / "smiling.png", tmp_path / "before.png"
    code, out, err = call("edit", "--seed", 3, "--smile", 1, "--yaw", 0, "-o", target, "--before", before)
    assert code == 0, err
    report = json.loads(out)
    assert report["asked"] == {"yaw": 0.0, "smile": 1.0}
    assert report["method"] == "likeness" and report["likeness_distance"] is None
    assert images.load(target).pixels.shape == images.load(before).pixels.shape == (3, 256, 256)
    assert target.read_bytes() != before.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "PHOTO or --seed"),
        (("photo.png", "--seed", "1"), "PHOTO or --seed"),
        (("--seed", "1", "--smile", "9"), "smile must be from -4 to 4"),
        (("--seed", "1", "--yaw", "80"), "yaw must be from -60 to 60"),
        (("--seed", "1", "--smile", "1", "--in-photo"), "--in-photo needs a photo"),
        (("--seed", "1", "--smile", "1", "--face", "0"), "--face needs a photo, got --seed"),
        (("PHOTO", "--smile", "1", "--before", "before.png"), "pass --likeness for before.png"),
        (("PHOTO", "--smile", "9"), "smile must be from -4 to 4"),
        (("PHOTO",), "a change is needed"),
        (("PHOTO", "--yaw", "9", "--in-photo"), "yaw can't be changed in the photograph itself"),
        (("PHOTO", "--smile", "1", "--face", "3"), "face must be from 0 to 0"),
    ],
)
def test_edit_refuses(call, tmp_path, arguments, message):
    photo = images.save(tiny.image(72, 80, seed=7), tmp_path / "photo.png")
    arguments = [photo if argument == "PHOTO" else argument for argument in arguments]
    code, out, err = call("edit", *arguments, "-o", tmp_path / "out.png")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_edit_of_a_photo_says_how_far_it_is_from_the_person(call, tmp_path):
    photo = images.save(tiny.image(72, 80, seed=7), tmp_path / "photo.png")
    code, out, err = call("edit", photo, "--smile", 1, "--likeness", "-o", tmp_path / "out.png", "--steps", 2)
    assert code == 0, err
    report = json.loads(out)
    assert 0 < report["likeness_distance"] < 0.6
    assert report["identity_distance"] > 0
    assert "step 2 of 2" in err


def test_edit_of_a_photo_without_a_likeness_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.edit.SAME_PERSON", 1e-6)
    photo = images.save(tiny.image(72, 80, seed=7), tmp_path / "photo.png")
    code, _, err = call("edit", photo, "--smile", 1, "--likeness", "-o", tmp_path / "out.png", "--steps", 2)
    assert code == 2
    assert "must hold a likeness" in err
    assert not (tmp_path / "out.png").exists()


def test_edit_in_the_photo(call, tmp_path):
    pixels = tiny.image(72, 160, seed=7)
    photo, target = images.save(pixels, tmp_path / "photo.png"), tmp_path / "out.png"
    arguments = ("edit", photo, "--smile", 4, "--face", 1, "-o", target, "--steps", 2)
    code, out, err = call(*arguments)
    assert code == 0, err
    report = json.loads(out)
    assert (report["asked"], report["face"], report["faces_found"]) == ({"smile": 4.0}, 1, 2)
    assert report["identity_distance"] > 0
    assert "step 2 of 2" in err
    assert images.load(target).pixels.shape == pixels.shape, "the photo comes back, not its aligned face"
    code, _, err = call(*arguments)
    assert (code, err.count("\n")) == (2, 1) and "--overwrite" in err
    assert call(*arguments, "--overwrite")[0] == 0


def test_a_turned_head_is_a_likeness(call, tmp_path):
    photo, before = images.save(tiny.image(72, 160, seed=7), tmp_path / "photo.png"), tmp_path / "before.png"
    arguments = ("edit", photo, "--yaw", 2, "--face", 0, "-o", tmp_path / "out.png", "--before", before, "--steps", 2)
    code, out, err = call(*arguments)
    assert code == 0, err
    assert json.loads(out)["likeness_distance"] > 0
    assert before.is_file()


@pytest.mark.parametrize("how", ["--likeness", "--in-photo"])
@pytest.mark.parametrize(("width", "message"), [(160, "shows 2"), (None, "none was found")])
def test_edit_needs_one_face(call, tmp_path, width, message, how):
    pixels = tiny.image(72, width, seed=7) if width else tiny.image(72, 80) * 0
    photo = images.save(pixels, tmp_path / "photo.png")
    code, _, err = call("edit", photo, "--smile", 1, how, "-o", tmp_path / "out.png")
    assert code == 2
    assert message in err


# ---- frontalize


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    images.save(tiny.image(72, 80, seed=7), folder / "aunt.png")
    images.save(tiny.image(72, 160, seed=8), folder / "both.png")
    return folder


STEPS = ("--method", "search", "--steps", 1, "--refine", 1)


def test_frontalize_turns_what_it_can_and_says_the_rest(call, photos, tmp_path):
    out, report, sheet = tmp_path / "out", tmp_path / "report.json", tmp_path / "sheets" / "all.png"
    code, _, err = call("frontalize", photos, "-o", out, *STEPS, "--yaw", 5, "--report", report, "--sheet", sheet)
    assert code == 1
    assert "both.png: one face must be chosen" in err
    assert "identity distance" in err
    assert [path.name for path in out.iterdir()] == ["aunt.png"]
    assert images.load(out / "aunt.png").pixels.shape == (3, 64, 64)
    turned, failed = json.loads(report.read_text())
    assert (turned["yaw"], turned["background"] in ("photo", "generated")) == (5.0, True)
    assert "one face must be chosen" in failed["failed"]
    assert images.load(sheet).width > 2 * 256


def test_frontalize_chooses_a_face_and_replaces_nothing_unasked(call, photos, tmp_path):
    settings = ("--steps", 0, "--refine", 0, "--face", 1, "--size", 32)
    arguments = ("frontalize", photos / "both.png", "-o", tmp_path / "out", *settings)
    assert call(*arguments)[0] == 0
    assert images.load(tmp_path / "out" / "both.png").pixels.shape == (3, 32, 32)
    code, _, err = call(*arguments)
    assert code == 1
    assert "--overwrite" in err
    assert call(*arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--yaw", 50), "yaw must be from -45 to 45"),
        (("--pitch", 30), "pitch must be from -35 to 20"),
        (("--expression", "happy"), "expression must be one of"),
        (("--face", -1), "face must be an index"),
        (("--method", "luck"), "method must be one of"),
        (("--method", "network", "--steps", -1), "num_inference_steps must be a whole number of 0 or more"),
        (("--method", "search", "--steps", 0), "num_inference_steps must be a whole number of 1 or more"),
    ],
)
def test_frontalize_checks_its_arguments_first(call, photos, tmp_path, options, message):
    code, out, err = call("frontalize", photos, "-o", tmp_path / "out", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_somebody_else_is_said_loudly():
    report = FrontalizeReport(0, None, [30, 0, 0], [1, -5], "network", 20, {}, {}, 0.2, 0.71, False, "generated", 0, 1)
    assert "NOT the person" in synthetic.turned(report)
    report.same_person = True
    assert "NOT" not in synthetic.turned(report)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("faces", "A", "--draw", "A"), "a.png must not be an input"),
        (("faces", "A", "--draw", "B"), "b.png must not exist yet"),
        (("faces", "A", "--draw", "OUT.xyz"), "must be a .png, .jpg, .jpeg, .webp file"),
        (("compare", "A", "B", "--sheet", "B"), "b.png must not be an input"),
        (("compare", "A", "B", "--sheet", "A/sheet.png"), "can't be written"),
        (("album", "A", "B", "--sheet", "A"), "a.png must not be an input"),
        (("restore", "A", "-o", "OUT", "--report", "B"), "the report must be a JSON file"),
        (("restore", "A", "-o", "OUT", "--report", "FOLDER"), "must be a file, and is a folder"),
        (("upsample", "A", "-o", "OUT", "--sheet", "A", "--overwrite"), "a.png must not be an input"),
        (("frontalize", "A", "-o", "OUT", "--report", "A"), "a.png must not be an input"),
        (("generate", "-o", "OUT", "--sheet", "B"), "b.png must not exist yet"),
        (("edit", "A", "--smile", "1", "-o", "A", "--overwrite"), "a.png must not be an input"),
    ],
)
def test_no_photograph_is_written_over(call, tmp_path, arguments, message):
    files = {name: images.save(tiny.image(72, 80), tmp_path / f"{name.lower()}.png") for name in "AB"}
    before = [file.read_bytes() for file in files.values()]
    places = {**files, "OUT": tmp_path / "out", "OUT.xyz": tmp_path / "out.xyz", "FOLDER": tmp_path}
    places["A/sheet.png"] = files["A"] / "sheet.png"
    code, out, err = call(*(places.get(argument, argument) for argument in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [file.read_bytes() for file in files.values()] == before


@pytest.mark.parametrize("command", ["upsample", "frontalize"])
def test_a_result_that_cannot_be_written_does_not_end_the_batch(call, faces, tmp_path, command):
    out = tmp_path / "out"
    blocked = "face0-1.png" if command == "upsample" else "face0.png"
    (out / blocked).mkdir(parents=True)
    options = ("--samples", 1) if command == "upsample" else ("--refine", 1)
    code, _, err = call(command, faces, "-o", out, "--steps", 1, "--overwrite", *options)
    assert code == 1 and "the target must be a file that can be written" in err
    assert (out / blocked.replace("0", "1", 1)).is_file()
