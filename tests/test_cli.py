"""The command line: words, exit codes, and starting quickly."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import studio
from pipelines import restore
from pipelines.restore import RestorePipeline
from studio import cli, images, provenance, weights
from studio.benchmarks import album as album_bench
from studio.benchmarks import background as drawn
from studio.benchmarks import edit, frontalize, generate, identity, inversion, old, reference, speed, upsample
from studio.benchmarks import find as finding
from studio.benchmarks import reenact as reenacting
from studio.benchmarks import restore as bench
from studio.errors import InputError
from studio.faces import select
from studio.find import FaceFinder
from studio.identity.album import AlbumMaker
from studio.identity.compare import Comparer
from studio.training import run as training
from tests import tiny
from tests.ui.toy import ToyAlbum, ToyComparer

# Others call these from their scripts: a change belongs into the changelog.
COMMANDS = {
    "": [
        "restore",
        "faces",
        "compare",
        "album",
        "verify",
        "watch",
        "upsample",
        "frontalize",
        "edit",
        "generate",
        "reenact",
        "motion",
        "weights",
        "bench",
        "train",
    ],
    "weights": ["list", "pull", "verify", "path"],
    "bench": [
        "restore",
        "find",
        "reference",
        "old",
        "speed",
        "identity",
        "album",
        "upsample",
        "generate",
        "frontalize",
        "inversion",
        "edit",
        "reenact",
        "background",
        "app",
    ],
    "train": [
        "list",
        "faces",
        "run",
        "heads",
        "encoder",
        "directions",
        "ages",
        "parts",
        "identities",
        "generate",
        "reader",
        "turned",
        "frontal",
        "niqe",
        "expression",
        "finder-faces",
        "finder",
        "maps",
        "map-flow",
        "pairs",
        "cleaner",
        "acted",
        "depth",
        "moved",
        "reenactor",
        "lent",
        "export",
    ],
}
OPTIONS = {
    "restore": "output faces box aligned fidelity region strength scale background guard caution colorize seed steps "
    "reference reference-steps format quality name report html sheets show-invented resume overwrite salvage keep-gps "
    "credentials model licence device workers",
    "faces": "json draw depth",
    "compare": "json sheet",
    "album": "threshold json csv sheet",
    "verify": "json",
    "watch": "output fidelity scale background format name report settle once credentials model licence device",
    "upsample": "output scale samples steps move-map consistent find reference seed report sheet credentials overwrite "
    "model device",
    "frontalize": "output yaw pitch expression background face method steps refine size report sheet credentials "
    "overwrite model device",
    "edit": "output seed face yaw pitch smile mouth eyes brow light glasses age likeness steps before credentials "
    "overwrite model device",
    "generate": "output consent face samples guidance steps correction candidates solver lora yaw pitch smile mouth "
    "eyes brow light glasses age seed report sheet credentials overwrite model licence device",
    "reenact": "output consent absolute region expression size stitch face driving-face start end fps seconds yaw "
    "pitch roll smile mouth brow gaze-x gaze-y talk blink sway seed audio quality report depth credentials overwrite "
    "model device",
    "motion": "output start end driving-face smooth seconds fps yaw pitch roll smile mouth brow gaze-x gaze-y talk "
    "blink sway seed plot overwrite device",
    "weights list": "models licence markdown",
    "weights pull": "",
    "weights verify": "",
    "weights path": "",
    "bench restore": "photos recipe seed limit fidelity model sheet unseen without restorer find steps cases seeds out",
    "bench find": "photos cases pictures detector recipe seed limit threads net sheet out",
    "bench inversion": "photos steps limit threads model sheet out",
    "train parts": "folder cache sheet skin hair",
    "train reader": "folder cache steps",
    "train turned": "folder people faces",
    "train frontal": "folder cache steps drawn without minutes resume",
    "bench edit": "photos limit compare threads sheet out",
    "bench reenact": "photos people limit threads without sheet out",
    "bench reference": "photos recipe seed limit fidelity steps threads model sheet out",
    "bench old": "photos fidelity scale limit model sheet out",
    "bench speed": "threads repeats model out",
    "bench identity": "photos out",
    "bench album": "photos out",
    "bench upsample": "photos size samples steps move-map limit threads model sheet out",
    "bench generate": "photos people portraits samples corrected ablations audited timed seed threads model out",
    "bench frontalize": "photos people pairs limit min-yaw profiles seed method steps refine threads model frontalizer "
    "sheet profile-sheet out",
    "bench background": "photos limit scale seed threads sheet out",
    "bench app": "visitors side threads out",
    "train list": "",
    "train faces": "count cache device size",
    "train run": "folder minutes resume cache photos device start accumulate dry-run",
    "train heads": "folder images cache minutes resume device start",
    "train encoder": "folder images cache minutes resume device",
    "train directions": "folder cache count seed only",
    "train ages": "folder photos people seed",
    "train identities": "folder count faces",
    "train generate": "folder cache steps minutes resume",
    "train niqe": "photos folder",
    "train expression": "folder people",
    "train finder-faces": "folder cache photos",
    "train finder": "folder pictures faces scenes minutes resume device dry-run",
    "train maps": "folder cache",
    "train map-flow": "folder maps steps minutes resume",
    "train pairs": "folder cache photos pictures",
    "train cleaner": "folder pairs steps minutes resume",
    "train acted": "folder people",
    "train depth": "folder acted steps minutes resume",
    "train moved": "folder count acted photos depth",
    "train reenactor": "folder moved steps minutes resume",
    "train lent": "folder photos seconds device pool",
    "train export": "mean-with mean-of rows keep",
}


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command as the shell would: call("restore", …) -> exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["studio", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return run


@pytest.fixture(scope="module")
def pipeline():
    return tiny.restore_pipeline()


@pytest.fixture(autouse=True)
def _toys(monkeypatch, pipeline):
    def from_pretrained(cls, name, *, device=None, licence=""):
        if name != "restore":
            raise InputError(f"no pipeline {name!r}")
        return pipeline

    monkeypatch.setattr(RestorePipeline, "from_pretrained", classmethod(from_pretrained))
    monkeypatch.setattr(restore, "FaceFinder", tiny.TwoFaces)
    finder = tiny.TwoFaces(pipeline.finder().detector, pipeline.mesh)
    monkeypatch.setattr(FaceFinder, "from_pretrained", classmethod(lambda cls, folder=None: finder))


@pytest.fixture
def album(tmp_path):
    folder = tmp_path / "album"
    images.save(images.load(tiny.photo()), folder / "good.png")
    Image.new("RGB", (64, 48), "gray").save(folder / "nobody.png")
    return folder


def error_line(result):
    """The only line of an error, after its exit code and streams have been checked."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1, err
    return err


# ---- starting


@pytest.mark.alone
def test_help_is_quick_and_imports_no_torch(repository):
    code = """
import sys, studio.cli
sys.argv = ["studio", "--help"]
try:
    studio.cli.main()
except SystemExit as done:
    assert not done.code
heavy = [name for name in ("torch", "numpy", "PIL", "diffusers") if name in sys.modules]
assert not heavy, heavy
"""
    seconds = []
    for _ in range(3):  # the quickest of three: the machine may be busy
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert "Restore the faces in photographs" in done.stdout
        if seconds[-1] < 1.5:
            return
    raise AssertionError(f"--help takes {min(seconds):.1f} s")


@pytest.mark.parametrize("group", COMMANDS)
def test_command_names(group):
    application = typer.main.get_command(cli.app)
    names = list((application.commands[group] if group else application).commands)
    assert names == COMMANDS[group]


def test_every_command_is_pinned():
    names = {f"{group} {name}".strip() for group, names in COMMANDS.items() for name in names}
    assert set(OPTIONS) == names - set(COMMANDS)


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_every_command(command):
    done = CliRunner().invoke(cli.app, [*command.split(), "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for option in [*OPTIONS[command].split(), "help"]:
        assert f"--{option} " in done.stdout or f"--{option}\n" in done.stdout, option
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.strip().startswith(("-", "*"))]
    assert len(listed) == len(OPTIONS[command].split()) + 1, listed


def test_without_a_command_it_shows_the_help(call):
    code, out, err = call()
    assert code == 2
    assert "Usage" in out + err


def test_unknown_commands_and_options(call):
    assert call("restoer")[0] == 2
    code, _, err = call("restore", "--sharpness", "3")
    assert code == 2
    assert "--sharpness" in err
    assert call("restore", "x.jpg")[0] == 2  # no --output


# ---- restore


def test_restores_an_album(call, album, tmp_path):
    report = tmp_path / "report.json"
    code, out, err = call("restore", album, "-o", tmp_path / "out", "--report", report, "--guard", 0, "--scale", 2)
    assert (code, out) == (0, "")
    lines = err.splitlines()
    assert lines[0].startswith("good.png") and "2/2 faces  identity 0." in lines[0]
    assert lines[0].endswith("  2 times as large")
    assert lines[1].startswith("nobody.png") and lines[1].endswith("or say --aligned if the photo is a cut-out face")
    assert lines[2] == f"1 restored, 1 no face; results in {tmp_path / 'out'}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".studio-journal.sqlite", "good.png"]
    document = json.loads(report.read_text())
    assert document["settings"]["scale"] == 2
    assert document["settings"]["identity_guard"] is None
    assert [entry["status"] for entry in document["files"]] == ["restored", "no face"]
    assert {"date", "packages", "machine"} <= set(document)
    assert set(document["weights"]) >= {"restorer", "generator", "identity"}
    assert all(len(digest) == 64 for digest in document["weights"].values())


def test_a_reference_is_embedded_once_and_named_in_the_report_alone(call, album, tmp_path):
    report = tmp_path / "report.json"
    given = ("--reference", album / "good.png", "--reference-steps", 1)
    code, _, err = call("restore", album, "-o", tmp_path / "out", "--report", report, "--guard", 0, *given)
    assert code == 0, err
    assert "the reference guides one face in each of 2 photos: give those of this person only" in err
    document = json.loads(report.read_text())
    assert document["settings"]["reference"] == ["good.png"]
    faces = document["files"][0]["faces"]
    assert all(face["reference_before"] is not None for face in faces)
    assert sum(face["guided"] for face in faces) <= 1
    code, _, err = call("restore", album / "good.png", "-o", tmp_path / "x", "--reference", album / "nobody.png")
    assert code == 2
    assert "the reference photo must show a face" in err
    assert not (tmp_path / "x").exists()


def test_a_box_and_a_cut_out_face(call, album, tmp_path):
    nobody = album / "nobody.png"
    code, _, err = call("restore", nobody, "-o", tmp_path / "a", "--box", "5,8,40,44", "--guard", 0)
    assert code == 0 and "1 restored" in err
    report = tmp_path / "r.json"
    code, _, err = call("restore", album / "good.png", "-o", tmp_path / "b", "--box", "5,8,40,44", "--report", report)
    assert code == 0 and json.loads(report.read_text())["settings"]["boxes"] == [[5, 8, 40, 44]]
    code, _, err = call("restore", nobody, "-o", tmp_path / "c", "--aligned", "--guard", 0)
    assert code == 1 and "must be square, the photo is 64x48" in err
    for wrong, said in (
        ((album, "--box", "1,2,3,4"), "a box lies in one photo, and PATHS name 2"),
        ((nobody, "--box", "1,2,3"), "a box must be x0,y0,x1,y1"),
        ((nobody, "--box", "1,2,9,9", "--aligned"), "can't be had both"),
    ):
        code, _, err = call("restore", *wrong, "-o", tmp_path / "d")
        assert code == 2 and said in err


def test_a_bad_file_is_exit_code_1(call, album, tmp_path):
    (album / "bad.jpg").write_text("text")
    code, _, err = call("restore", album, "-o", tmp_path / "out")
    assert code == 1
    assert "bad.jpg" in err and "failed" in err
    assert "1 failed, 1 restored, 1 no face" in err
    assert "Traceback" not in err
    assert (tmp_path / "out" / "good.png").exists()


def test_resuming_keeps_the_numbers_of_the_first_run(call, album, tmp_path):
    arguments = ("restore", album / "good.png", "-o", tmp_path / "out", "--report", tmp_path / "r.json")
    call(*arguments)
    first = json.loads((tmp_path / "r.json").read_text())["files"][0]
    code, _, err = call(*arguments, "--resume")
    second = json.loads((tmp_path / "r.json").read_text())["files"][0]
    assert code == 0
    assert "already done" in err
    assert second == first | {"earlier": True}
    assert second["scale"] and second["credentials"]
    assert call(*arguments)[0] == 1  # neither --resume nor --overwrite
    assert call(*arguments, "--overwrite")[0] == 0


def test_the_output_folder_may_lie_in_the_input_folder(call, album):
    arguments = ("restore", album, "-o", album / "restored", "--guard", 0)
    assert call(*arguments)[0] == 0
    code, _, err = call(*arguments, "--resume")
    assert code == 0 and "2 already done" in err
    assert "left out, as 1 result of earlier runs" in err
    (album / "restored" / ".studio-journal.sqlite").unlink()
    code, _, err = call(*arguments, "--overwrite")
    if not provenance.reason_not(".png"):  # the credentials tell, too
        assert code == 0 and "1 restored, 1 no face" in err and "left out, as 1 result" in err


def test_what_is_not_read_is_said_counted_and_reported(call, album, tmp_path):
    for name in ("a.pdf", "b.pdf", "c.cr2", "scan"):
        (album / name).write_bytes(b"%PDF-1.4")
    (album / "gone.jpg").symlink_to(tmp_path / "nothing")
    report = tmp_path / "report.json"
    code, _, err = call("restore", album, "-o", tmp_path / "out", "--report", report)
    assert code == 0 and err.splitlines()[0] == "not read: 2 .pdf, 1 .cr2, 1 .jpg, 1 without a suffix"
    unread = {entry["path"]: entry["reason"] for entry in json.loads(report.read_text())["unread"]}
    assert len(unread) == 5 and unread[str(album / "gone.jpg")] == "a link that leads nowhere"
    for name in ("good.png", "nobody.png"):
        (album / name).unlink()
    assert "(not read: 2 .pdf, 1 .cr2" in error_line(call("restore", album, "-o", tmp_path / "out"))


def test_scans_keep_what_they_say_and_pages_are_counted(call, album, tmp_path):
    pages = [images.to_pil(tiny.photo(seed=seed)) for seed in (0, 1)]
    pages[0].save(album / "leaf.tif", save_all=True, append_images=pages[1:], dpi=(600, 600))
    pages[0].save(album / "leaf.jfif", "JPEG", dpi=(300, 300), comment=b"box 7")
    report = tmp_path / "report.json"
    options = ("--scale", 2, "--guard", 0, "--report", report)
    code, _, err = call("restore", album / "leaf.tif", album / "leaf.jfif", "-o", tmp_path / "out", *options)
    assert code == 0 and "the first of 2 pages or frames: the others are left out" in err
    assert json.loads(report.read_text())["files"][0]["notes"]
    assert images.load(tmp_path / "out" / "leaf.tif").dpi == (1200, 1200)
    jpeg = images.load(tmp_path / "out" / "leaf.jpg")
    assert (jpeg.dpi, jpeg.texts) == ((600, 600), (("Comment", "box 7"),))


def test_a_jpeg_without_its_end_can_be_salvaged(call, album, tmp_path):
    data = images.encode(images.load(tiny.photo()), ".jpg")
    (album / "cut.jpg").write_bytes(data[: len(data) * 9 // 10])
    code, _, err = call("restore", album / "cut.jpg", "-o", tmp_path / "out")
    assert code == 1 and "copy it again" in err
    code, _, err = call("restore", album / "cut.jpg", "-o", tmp_path / "out", "--salvage", "--guard", 0, "--sheets")
    assert code == 0 and "the file is cut short and lacks" in err
    assert (tmp_path / "out" / "cut.jpg").exists()


def test_names_of_results(call, album, tmp_path):
    pattern = ("--name", "{stem}-restored{suffix}")
    assert call("restore", album, "-o", album, *pattern)[0] == 0
    assert (album / "good-restored.png").exists()
    code, _, err = call("restore", album, "-o", album, *pattern, "--resume")
    assert code == 0 and "2 already done" in err
    assert "name must hold" in error_line(call("restore", album / "good.png", "-o", tmp_path / "out", "--name", "x"))


def test_two_photos_at_a_time_give_the_same(call, album, tmp_path):
    for seed in (1, 2, 3):
        images.save(images.load(tiny.photo(seed=seed)), album / f"more{seed}.png")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # with more, sums of shared work are rounded otherwise
        arguments = ("restore", album, "--guard", 0, "--no-credentials")
        assert call(*arguments, "-o", tmp_path / "one")[0] == 0
        assert call(*arguments, "-o", tmp_path / "two", "--workers", 2)[0] == 0
    finally:
        torch.set_num_threads(threads)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in ("one", "two"))
    assert len(one) == 4 and one == two


def test_a_page_and_a_watched_folder(call, album, tmp_path):
    page, out = tmp_path / "page.html", tmp_path / "out"
    assert call("restore", album, "-o", out, "--html", page)[0] == 0
    text = page.read_text()
    assert text.count("<article") == 2 and text.count("data:image/jpeg") == 3
    images.save(images.load(tiny.photo(seed=5)), album / "new" / "late.png")
    code, _, err = call("watch", album, "-o", out, "--settle", 0, "--once", "--report", tmp_path / "r.json")
    assert code == 0 and err.count("already done") == 2
    assert (out / "new" / "late.png").exists()
    assert len(json.loads((tmp_path / "r.json").read_text())["files"]) == 3
    assert "must be a folder" in error_line(call("watch", album / "good.png", "-o", out))


def test_standard_input_and_output_are_refused(call, album, tmp_path):
    assert "standard input is not read" in error_line(call("restore", "-", "-o", tmp_path / "out"))
    assert "standard output" in error_line(call("restore", album, "-o", "-"))
    assert "standard input" in error_line(call("faces", "-"))


def test_version(call):
    assert call("--version") == (0, f"face-studio {studio.__version__}\n", "")


def test_one_face_is_no_faces(call, album, tmp_path):
    small = images.load(album / "good.png").pixels[:, :90, :90]
    path = images.save(images.load(small), tmp_path / "one.png")
    count = len(json.loads(call("faces", path, "--json")[1])["faces"])
    first = call("faces", path)[1].splitlines()[0]
    assert first == (f"1 face in {path}" if count == 1 else f"{count} faces in {path}")
    with pytest.raises(InputError, match="the photo has one face, which is 0"):
        select._index(3, 1)


def test_options_reach_the_pipeline(call, album, tmp_path):
    output = tmp_path / "out"
    options = ("--faces", "1", "--format", "JPG", "--quality", 50, "--sheets", "--strength", 0.5)
    assert call("restore", album / "good.png", "-o", output, *options)[0] == 0
    assert (output / "good.jpg").exists()
    assert (output / "sheets" / "good.jpg").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--faces", "first"), "faces must be"),
        (("--fidelity", "1.5"), "fidelity must be from 0 to 1"),
        (("--strength", "-1"), "strength must be from 0 to 1"),
        (("--scale", "5"), "scale must be 1, 1.5, 2, 3 or 4, or 'auto', got 5"),
        (("--background", "esrgan"), "background must be one of none, lanczos, span, realesrgan, or a function"),
        (("--background", "none", "--scale", "2"), "keeps the photo's size, got scale 2"),
        (("--scale", "big"), "got big"),
        (("--guard", "-0.5"), "identity_guard must be"),
        (("--format", "psd"), "format must be one of"),
        (("--device", "abacus"), "device must be auto, cpu, cuda or mps"),
        (("--device", "mps"), "got 'mps', here is cpu"),
        (("--model", "nothing"), "no pipeline 'nothing'"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(call, album, tmp_path, options, message):
    assert message in error_line(call("restore", album, "-o", tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def test_wrong_paths_are_one_line_and_exit_code_2(call, album, tmp_path):
    assert "nothing.jpg" in error_line(call("restore", tmp_path / "nothing.jpg", "-o", tmp_path / "out"))
    assert "another output folder" in error_line(call("restore", album, "-o", album))
    (tmp_path / "empty").mkdir()
    assert "at least one image" in error_line(call("restore", tmp_path / "empty", "-o", tmp_path / "out"))


def test_quality_is_checked_by_the_parser(call, album, tmp_path):
    code, _, err = call("restore", album, "-o", tmp_path / "out", "--quality", 101)
    assert code == 2
    assert "--quality" in err


def test_stopping_by_hand(call, album, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("studio.batch.restore_files", stopped)
    code, _, err = call("restore", album, "-o", tmp_path / "out")
    assert code == 130
    assert "Traceback" not in err


# ---- the other commands


def test_faces(call, album, tmp_path):
    code, out, _ = call("faces", album / "good.png", "--draw", tmp_path / "drawn" / "good.png")
    assert code == 0
    assert out.startswith("2 faces in ")
    assert out.count("score") == 2
    with Image.open(tmp_path / "drawn" / "good.png") as drawn:
        assert drawn.size == (256, 176)


def test_faces_as_json(call, album):
    code, out, _ = call("faces", album / "good.png", "--json")
    found = json.loads(out)
    assert code == 0
    assert len(found["faces"]) == 2
    assert set(found["faces"][0]) == {"box", "score", "mesh_score", "quality", "pose"}
    assert json.loads(call("faces", album / "nobody.png", "--json")[1])["faces"] == []


def test_compare(call, album, tmp_path, monkeypatch):
    monkeypatch.setattr(Comparer, "from_pretrained", classmethod(lambda cls: ToyComparer()))
    other = images.save(images.load(tiny.photo(seed=1)), tmp_path / "other.png")
    code, out, _ = call("compare", album / "good.png", other, "--sheet", tmp_path / "sheets" / "both.png")
    assert code == 0
    assert "pairs of two people" in out
    assert (tmp_path / "sheets" / "both.png").exists()
    found = json.loads(call("compare", album / "good.png", album / "good.png", "--json")[1])
    assert (found["verdict"], found["distance"]) == ("same", 0.0)
    assert "shows none" in error_line(call("compare", album / "good.png", album / "nobody.png"))


def test_album(call, album, tmp_path, monkeypatch):
    monkeypatch.setattr(AlbumMaker, "from_pretrained", classmethod(lambda cls: ToyAlbum()))
    two = [images.save(images.load(tiny.sharp_photo()), album / f"sharp{i}.png") for i in (0, 1)]
    code, out, err = call("album", two[0], album / "nobody.png", "--sheet", tmp_path / "sheets" / "all.png")
    assert (code, err) == (0, "")
    assert f"person 1     {two[0]}  face 0" in out
    assert "2 faces in 2 photos: 2 people. No face was found in 1 photo." in out
    assert (tmp_path / "sheets" / "all.png").exists()
    (album / "notes.jpg").write_text("no photo")
    code, out, err = call("album", album, "--threshold", "0.001", "--json")
    found = json.loads(out)
    assert (code, found["threshold"], len(found["faces"])) == (1, 0.001, 6)
    assert [face["person"] for face in found["faces"]] == [None, None, 1, 2, 1, 2]
    assert found["failed"][0]["photo"] == str(album / "notes.jpg")
    assert err.startswith(str(album / "notes.jpg"))
    assert call("album", two[0], "--csv")[1].splitlines()[0].startswith("photo,face,person,distance")
    assert "got both" in error_line(call("album", two[0], "--csv", "--json"))
    assert "threshold" in error_line(call("album", two[0], "--threshold", "0"))
    assert "leave --sheet out" in error_line(call("album", album / "nobody.png", "--sheet", tmp_path / "none.png"))


def test_verify(call, album, tmp_path):
    pytest.importorskip("c2pa", reason="the extra `provenance` is not installed")
    call("restore", album / "good.png", "-o", tmp_path / "signed")
    code, out, _ = call("verify", tmp_path / "signed" / "good.png")
    assert code == 0
    assert out.startswith("credentials  intact") and "2 of 2 faces restored" in out and "fidelity=0.5" in out
    code, _, err = call("restore", album / "good.png", "-o", tmp_path / "plain", "--no-credentials")
    assert "Credentials" not in err
    code, out, _ = call("verify", tmp_path / "plain" / "good.png", "--json")
    assert code == 1
    assert json.loads(out)["credentials"] == "none"
    assert "check its name" in error_line(call("verify", tmp_path / "gone.png"))


def test_what_has_no_credentials_is_said(call, album, tmp_path, monkeypatch):
    code, _, err = call("restore", album / "good.png", "-o", tmp_path / "out", "--format", "bmp")
    assert code == 0
    assert err.splitlines()[-1] == "1 without Content Credentials: a .bmp file holds none"
    monkeypatch.setenv("STUDIO_CERTIFICATE", "only half")
    assert "set both" in error_line(call("restore", album, "-o", tmp_path / "never"))
    assert not (tmp_path / "never").exists()


def test_faces_refuses(call, album, tmp_path):
    assert "must not be an input" in error_line(call("faces", album / "good.png", "--draw", album / "good.png"))
    assert "nothing.png" in error_line(call("faces", tmp_path / "nothing.png"))


def test_weights(call, monkeypatch, tmp_path):
    code, out, _ = call("weights", "list")
    assert code == 0
    assert len(out.splitlines()) == len(weights.entries())
    assert "generator" in out and "commercial" in out
    assert len({line.index("commercial: ") for line in out.splitlines()}) == 1  # columns
    models = call("weights", "list", "--models")[1].splitlines()[::2]
    assert len({line.index("commercial: ") for line in models}) == 1
    monkeypatch.setattr(weights, "path", lambda name: tmp_path / name)
    assert call("weights", "path", "mesh")[:2] == (0, f"{tmp_path / 'mesh'}\n")
    monkeypatch.setattr(weights, "pull", lambda names, say: say("mesh", "fetching") or {"mesh": tmp_path})
    assert call("weights", "pull", "mesh") == (0, f"mesh: {tmp_path}\n", "mesh: fetching\n")


def test_verifying_weights(call, monkeypatch):
    good, bad = weights.Check("mesh", "cache", True), weights.Check("iris", "cache", False, "damaged")
    monkeypatch.setattr(weights, "verify", lambda names: [good])
    assert call("weights", "verify")[0] == 0
    monkeypatch.setattr(weights, "verify", lambda names: [good, bad])
    code, out, _ = call("weights", "verify", "mesh", "iris")
    assert code == 1
    assert "BAD  damaged" in out
    monkeypatch.undo()
    assert "got 'moustache'" in error_line(call("weights", "path", "moustache"))


def test_benchmarks_print_json_and_write_it(call, monkeypatch, tmp_path):
    seen = []

    def record(*arguments):
        seen.append(arguments)
        return {"benchmark": 1}

    modules = (
        bench,
        old,
        reference,
        speed,
        identity,
        album_bench,
        upsample,
        frontalize,
        inversion,
        edit,
        generate,
        drawn,
    )
    modules += (finding, reenacting)
    for module, name in ((module, "run") for module in modules):
        monkeypatch.setattr(module, name, record)
    out = tmp_path / "bench" / "x.json"
    for name in COMMANDS["bench"]:
        if name == "app":  # serves the app itself
            continue
        photos = () if name == "speed" else ("--photos", tmp_path)
        code, text, _ = call("bench", name, *photos, "--out", out)
        assert code == 0
        assert json.loads(text) == json.loads(out.read_text()) == {"benchmark": 1}
        out.unlink()
    settings = "restore", None, False, [], None, False, 4, None, 1, cli.say
    assert seen[0] == (tmp_path, ["gfpgan", "codeformer_large"], 0, 0, [0.5], *settings)
    call("bench", "restore", "--photos", tmp_path, "--recipe", "none", "--fidelity", 0, "--fidelity", 1, "--limit", 3)
    assert seen[-1] == (tmp_path, ["none"], 0, 3, [0.0, 1.0], *settings)


def test_training(call, monkeypatch, tmp_path):
    presets = json.loads(call("train", "list")[1])
    assert presets["restore"]["name"] == "restore"
    code, out, _ = call("train", "run", "restore-tiny", "--folder", tmp_path / "run", "--dry-run")
    assert (code, json.loads(out)) == (0, presets["restore-tiny"])
    assert not (tmp_path / "run").exists()
    assert "preset must be" in error_line(call("train", "run", "nothing", "--folder", tmp_path / "run"))

    seen = []
    for name in ("train", "make_faces", "train_heads", "train_encoder", "export"):
        monkeypatch.setattr(training, name, lambda *arguments: seen.append(arguments))
    call("train", "run", "restore-tiny", "--folder", tmp_path, "--minutes", 2, "--resume", "--cache", tmp_path)
    call("train", "faces", "--count", 300, "--cache", tmp_path, "--device", "cpu")
    call("train", "heads", "--folder", tmp_path, "--images", 40, "--minutes", 1)
    call("train", "encoder", "--folder", tmp_path, "--images", 50, "--cache", tmp_path, "--resume")
    call("train", "export", tmp_path, tmp_path / "out")
    call("train", "export", tmp_path, tmp_path / "out", "--mean-with", tmp_path / "old", "--mean-of", "to_styles.")
    assert seen == [
        ("restore-tiny", tmp_path, tmp_path, None, 2.0, True, "auto", cli.say, None, 1),
        (300, tmp_path, "cpu", cli.say, 256),
        (tmp_path, 40, None, 1.0, False, "auto", cli.say, None),
        (tmp_path, 50, tmp_path, None, True, "auto", cli.say),
        (tmp_path, tmp_path / "out", None, False, [], []),
        (tmp_path, tmp_path / "out", tmp_path / "old", False, [], ["to_styles."]),
    ]


def test_a_failed_file_says_why_even_where_faces_were_restored():
    from studio.batch import FileReport
    from studio.cli.photos import summary

    face = {"restored": True, "identity_distance": 0.1}
    failed = summary(FileReport("a.jpg", status="failed", reason="the disk is full", faces=[face]))
    assert "the disk is full" in failed
    assert "1/1 faces  identity 0.10" in summary(FileReport("a.jpg", status="restored", faces=[face]))
