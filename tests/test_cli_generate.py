"""`studio generate` with toy networks."""

import json
import sys

import pytest

from pipelines import arc2face, generate
from pipelines.arc2face import Arc2FacePipeline
from pipelines.generate import GeneratePipeline
from studio import cli, images, provenance
from studio.base import saved_class
from tests import tiny


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command as the shell would: call("generate", …) -> exit code, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["studio", "generate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, capsys.readouterr().err

    return run


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    monkeypatch.setattr(generate, "FaceFinder", tiny.SureFinder)
    monkeypatch.setattr(
        GeneratePipeline, "from_pretrained", classmethod(lambda cls, name, **_: tiny.generate_pipeline())
    )


@pytest.fixture
def photo(tmp_path):
    return images.save(tiny.image(72, 80, seed=7), tmp_path / "aunt.png")


QUICK = ("--samples", 2, "--steps", 2, "--correction", 1, "--seed", 1)


def test_writes_pictures_report_and_sheet(call, photo, tmp_path):
    report, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    code, err = call(photo, "-o", tmp_path / "out", "--consent", *QUICK, "--report", report, "--sheet", sheet)
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["generated-1.png", "generated-2.png"]
    found = json.loads(report.read_text())
    assert found["consent"] is True
    assert found["references"][0]["name"] == "aunt.png"
    assert [sample["correction_step"] in (0, 1) for sample in found["samples"]] == [True, True]
    assert images.load(sheet).width > 2 * 256
    assert "before the correction" in err


def test_a_print_is_better_restored_first(call, photo, tmp_path):
    images.save(images.load(photo).pixels.mean(0, keepdim=True).expand(3, -1, -1), tmp_path / "print.png")
    for name, said in ((photo, False), (tmp_path / "print.png", True)):
        code, err = call(name, "-o", tmp_path / "out", "--consent", "--overwrite", *QUICK)
        assert (code, "--colorize first" in err) == (0, said), err


def test_nobody_needs_no_photo(call, tmp_path):
    code, err = call("-o", tmp_path / "out", *QUICK)
    assert code == 0, err
    assert "identity distance" not in err
    assert "yaw" in err


def test_nothing_without_consent(call, photo, tmp_path):
    code, err = call(photo, "-o", tmp_path / "out", *QUICK)
    assert code == 2
    assert "consent" in err
    assert not (tmp_path / "out").exists()


def test_replaces_nothing_unasked(call, tmp_path):
    assert call("-o", tmp_path, *QUICK)[0] == 0
    code, err = call("-o", tmp_path, *QUICK)
    assert code == 2
    assert "--overwrite" in err
    assert call("-o", tmp_path, *QUICK, "--overwrite")[0] == 0


def test_seeds_solvers_and_angles_matter(call, tmp_path):
    pictures = {}
    for name, options in {
        "plain": (),
        "again": (),
        "seed": ("--seed", 2),
        "heun": ("--solver", "heun"),
        "turned": ("--yaw", 20),
    }.items():
        assert call("-o", tmp_path / name, *QUICK, *options)[0] == 0
        pictures[name] = images.load(tmp_path / name / "generated-1.png").pixels
    assert pictures["plain"].equal(pictures["again"])
    assert not any(pictures["plain"].equal(pictures[name]) for name in ("seed", "heun", "turned"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--solver", "rk4"), "euler, heun"),
        (("--samples", 17), "1 to 16"),
        (("--yaw", 90), "yaw must be"),
        (("--guidance", "nan"), "guidance_scale"),
        (("--lora", "owner/name"), "--lora must be left out with generate"),
        (("--model", "arc2face", "--consent"), "no photo says whom"),
        (("--model", "arc2face", "--yaw", 20), "--yaw must be left out with arc2face"),
        (("--model", "arc2face", "--correction", 0), "--correction must be left out with arc2face"),
        (("--model", "arc2face", "--solver", "heun"), "dpm, euler, ddim, lcm"),
        (("--model", "arc2face", "--guidance", 0.5), "guidance_scale must be from 1 to 20"),
    ],
)
def test_wrong_options_are_one_line(call, tmp_path, options, said):
    code, err = call("-o", tmp_path / "out", *options)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


@pytest.fixture
def second(tmp_path, monkeypatch):
    """A saved Arc2Face of toy networks, which a folder's index makes known."""
    monkeypatch.setattr(arc2face, "FaceFinder", tiny.SureFinder)
    tiny.arc2face_pipeline().save_pretrained(tmp_path / "second")
    return tmp_path / "second"


def test_arc2face_writes_what_ours_writes(call, photo, second, tmp_path):
    report = tmp_path / "report.json"
    options = ("--model", second, "--samples", 2, "--steps", 2, "--seed", 1, "--report", report)
    code, err = call(photo, "-o", tmp_path / "out", *options)
    assert (code, "consent" in err) == (2, True)
    code, err = call(photo, "-o", tmp_path / "out", "--consent", *options, "--sheet", tmp_path / "sheet.png")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["generated-1.png", "generated-2.png"]
    found = json.loads(report.read_text())
    assert found["consent"] is True and found["references"][0]["name"] == "aunt.png"
    assert found["settings"] == {"num_images_per_prompt": 2, "guidance_scale": 3.0, "num_inference_steps": 2}
    assert "identity distance" in err and "ArcFace similarity" in err and "yaw" in err


def test_arc2face_signs_what_it_made(call, photo, second, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        provenance, "save_synthetic", lambda picture, file, operation, **_: made.append(operation) or ""
    )
    assert call(photo, "-o", tmp_path, "--consent", "--model", second, "--samples", 1, "--solver", "lcm")[0] == 0
    (operation,) = made
    assert operation.name == "generate" and "with the stated consent" in operation.description
    assert operation.settings == {
        "num_images_per_prompt": 1,
        "guidance_scale": 1.0,
        "num_inference_steps": 4,
        "solver": "lcm",
        "seed": None,
        "person": True,
        "consent": True,
        "engine": "arc2face",
    }


def test_an_adapter_changes_the_picture(call, photo, second, tmp_path):
    peft = pytest.importorskip("peft", reason="the extra `lora` is not installed")
    net = tiny.unet()
    net.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    Arc2FacePipeline.save_lora_weights(tmp_path / "lora", peft.get_peft_model_state_dict(net))
    options = ("--consent", "--model", second, "--samples", 1, "--steps", 1, "--seed", 1)
    for name, more in (("plain", ()), ("adapted", ("--lora", tmp_path / "lora"))):
        code, err = call(photo, "-o", tmp_path / name, *options, *more)
        assert code == 0, err
    plain, adapted = (images.load(tmp_path / name / "generated-1.png").pixels for name in ("plain", "adapted"))
    assert not plain.equal(adapted)


def test_which_pipeline_a_folder_is_of(second, tmp_path):
    assert saved_class(second) == "Arc2FacePipeline"
    assert saved_class(tmp_path) == saved_class("generate") == saved_class(tmp_path / "nothing") == ""
    (tmp_path / "model_index.json").write_text("no JSON")
    assert saved_class(tmp_path) == ""
