"""The programs of examples/scripts, the notebook and the README's Python run as they stand, with the real weights."""

import json
import re
import runpy
import shutil

import pytest
import torch

from studio import images, weights
from tests.convert import test_torch
from tests.pipelines import test_restore_published

pytestmark = pytest.mark.weights
SCRIPTS = {"restore_folder", "edit_face", "generate_faces", "compare_photos", "reenact_photo", "published_model"}


@pytest.fixture
def example(repository, tmp_path, monkeypatch):
    """A photo of the examples by its name, beside which programs are run."""
    monkeypatch.chdir(tmp_path)

    def copied(name, to=None):
        return shutil.copyfile(repository / "examples" / name, tmp_path / (to or name))

    return copied


@pytest.fixture
def main(repository):
    return lambda name: runpy.run_path(str(repository / "examples" / "scripts" / f"{name}.py"))["main"]


def test_every_program_is_tried_here(repository):
    assert {path.stem for path in (repository / "examples" / "scripts").glob("*.py")} == SCRIPTS


@pytest.mark.slow
def test_restore_a_folder(main, example, tmp_path, capsys):
    box = tmp_path / "box"
    box.mkdir()
    shutil.move(example("small.jpg"), box)
    main("restore_folder")(str(box), str(tmp_path / "out"), num_inference_steps=1)
    assert re.search(r"small.jpg, face 0: identity distance 0\.\d\d", capsys.readouterr().out)
    before, after = images.load(box / "small.jpg"), images.load(tmp_path / "out" / "small.jpg")
    assert after.pixels.shape == before.pixels.shape
    assert (after.pixels - before.pixels).abs().mean() > 0.01


@pytest.mark.slow
def test_edit_a_face(main, example, tmp_path, capsys):
    photo = example("portrait.jpg")
    main("edit_face")(str(photo), "out", {"smile": {"smile": 1.0}}, steps=1)
    assert "smile: asked {'smile': 1.0}, identity distance 0." in capsys.readouterr().out
    before, after = images.load(photo), images.load(tmp_path / "out" / "smile.png")
    changed = (after.pixels - before.pixels).abs().amax(0) > 0.02
    assert 0.001 < changed.float().mean() < 0.6  # a face, and not the photo


@pytest.mark.slow
def test_generate_faces(main, tmp_path):
    from studio.watermark import detect

    main("generate_faces")(str(tmp_path), count=1, candidates=1, num_inference_steps=2)
    assert detect(images.load(tmp_path / "person-0.png").pixels).kind == "generate"


@pytest.mark.slow
def test_compare_two_photos(main, example, capsys):
    main("compare_photos")(str(example("portrait.jpg")), str(example("three-friends.jpg")))
    assert re.search(r"distance 0\.\d\d; below 0.6", capsys.readouterr().out)


@pytest.mark.slow
def test_move_a_photo(main, example, tmp_path):
    pytest.importorskip("av")
    from studio import video

    main("reenact_photo")(str(example("portrait.jpg")), "moved.mp4", seconds=0.2, fps=10)
    frames = [frame.pixels for frame in video.read(tmp_path / "moved.mp4")]
    assert len(frames) >= 2
    assert (frames[0] - frames[-1]).abs().max() > 0.02


@pytest.mark.slow
def test_a_published_checkpoint(main, example, tmp_path, monkeypatch, capsys):
    """A .pth as GFPGAN's authors write it, of a network with few channels."""
    store = tmp_path / "cache" / "weights"
    store.mkdir(parents=True)
    for name in weights.FACE_NETWORKS.values():
        if (folder := weights.path(name)).is_relative_to(weights.cache_dir()):
            (store / folder.name).symlink_to(folder)
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    family = test_torch.published.FAMILIES["gfpgan"]
    few = {"widths": (8,) * 8, "latent_dim": 8, "mapping_depth": 1}
    toy = type(family)(family.mark, test_restore_published.GFPGAN, options=few)
    monkeypatch.setitem(test_torch.published.FAMILIES, "gfpgan", toy)
    torch.save({"params_ema": test_restore_published.toy("gfpgan").state_dict()}, tmp_path / "mine.pth")
    main("published_model")(str(example("small.jpg")), "out.png", "mine.pth")
    assert "face 0: restored" in capsys.readouterr().out
    assert images.load(tmp_path / "out.png").pixels.shape == images.load(tmp_path / "small.jpg").pixels.shape


@pytest.mark.slow
def test_the_notebook(repository, example, tmp_path):
    notebook = json.loads(example("first_photo.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "clear its outputs before it is committed"
    shutil.move(example("small.jpg"), tmp_path / "three-friends.jpg")  # one face instead of three
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert images.load(tmp_path / "three-friends-restored.png").pixels.shape[1:] == names["output"].images[0].size[::-1]


@pytest.mark.slow
def test_the_python_of_the_readme(repository, example, tmp_path, capsys):
    example("small.jpg", "grandmother.jpg")
    code = re.search(r"```python\n(.*?)```", (repository / "README.md").read_text(encoding="utf-8"), re.S).group(1)
    exec(code, {})
    assert capsys.readouterr().out.startswith("0 True")
    assert (tmp_path / "grandmother-restored.png").is_file()
