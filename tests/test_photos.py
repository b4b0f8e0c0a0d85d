"""End to end on real photographs, with the committed weights."""

import json
import sys
from pathlib import Path

import pytest
import torch

from pipelines.restore import RestorePipeline
from studio import batch, cli, images
from studio.degradations import degrade
from studio.tone import tone_curve

pytestmark = [pytest.mark.photos, pytest.mark.weights]


@pytest.fixture(scope="module")
def pipeline():
    built = RestorePipeline.from_pretrained("restore")
    built.set_progress_bar_config(disable=True)
    return built


def test_every_old_photo_has_an_output_or_a_reason(pipeline, photos, tmp_path):
    paths = sorted((photos / "old").glob("*.jpg"))[::25]
    reports = batch.restore_files(pipeline, paths, tmp_path, settings={})
    batch.write_report(tmp_path / "report.json", reports, {})
    assert len(json.loads((tmp_path / "report.json").read_text())["files"]) == len(paths)
    for report in reports:
        assert report.output or report.reason
        if report.output:
            assert images.load(report.output).pixels.shape == images.load(report.input).pixels.shape


def test_monochrome_photographs_are_recognised_and_colour_ones_are_not(photos):
    old = [tone_curve(images.load(path).pixels) for path in sorted((photos / "old").glob("raw_*.jpg"))[:10]]
    new = [tone_curve(images.load(path).pixels) for path in sorted((photos / "portraits").glob("*.jpg"))[:10]]
    assert sum(curve is not None for curve in old) >= 8
    assert sum(curve is None for curve in new) >= 8


@torch.inference_mode()
def test_restoring_brings_a_damaged_portrait_nearer_to_the_person(pipeline, photos):
    """The promise in small: over a few portraits, damaged heavily, the identity distance falls."""
    before, after = [], []
    for i, path in enumerate(sorted((photos / "portraits").glob("*.jpg"))[:6]):
        photo = images.load(path)
        faces = pipeline.find(photo)[[0]]
        clean, to_photo = pipeline.crop(photo, faces)
        damaged, _ = degrade(clean, "codeformer_large", torch.Generator().manual_seed(i))
        restored = pipeline.restore_crops(damaged)
        before.append(float(pipeline.distances(damaged, clean, to_photo, faces)[0]))
        after.append(float(pipeline.distances(restored, clean, to_photo, faces)[0]))
    assert sum(after) < sum(before)


@pytest.mark.slow
@torch.inference_mode()
def test_a_reference_brings_it_nearer_still(pipeline, photos):
    """Of two genuine pairs, one photo damaged: nearer to the original, which the steps never see, than without."""
    alone, guided = [], []
    for i, name in enumerate(("B001296", "A000377")):
        sides = [images.load(photos / "pairs" / f"{name}_{side}.jpg") for side in "ab"]
        original, other = sides if i == 0 else reversed(sides)
        faces = pipeline.find(original)[[0]]
        clean, to_photo = pipeline.crop(original, faces)
        damaged, _ = degrade(clean, "codeformer_large", torch.Generator().manual_seed(i))
        person = pipeline.embed_reference(other)
        given = (damaged, to_photo, faces, person, 0.5, None, False, 6)
        for made, restored in ((alone, pipeline.restore_crops(damaged)), (guided, pipeline.guide(*given).picture)):
            made.append(float(pipeline.distances(restored, clean, to_photo, faces)[0]))
    assert sum(guided) < sum(alone) - 0.05


@torch.inference_mode()
def test_fidelity_moves_towards_the_photograph(pipeline, photos):
    photo = images.load(sorted((photos / "portraits").glob("*.jpg"))[0])
    faces = pipeline.find(photo)[[0]]
    crops, to_photo = pipeline.crop(photo, faces)
    distances = [
        float(pipeline.distances(pipeline.restore_crops(crops, fidelity), crops, to_photo, faces)[0])
        for fidelity in (0.0, 0.5, 1.0)
    ]
    assert distances[0] > distances[1] >= distances[2] - 0.02


def test_the_command_says_what_came_of_every_photo(photos, tmp_path, monkeypatch, capsys):
    paths = [str(path) for path in sorted((photos / "old").glob("raw_*.jpg"))[:3]]
    report = tmp_path / "report.json"
    monkeypatch.setattr(
        sys, "argv", ["studio", "restore", *paths, "-o", str(tmp_path / "out"), "--report", str(report)]
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    files = json.loads(report.read_text())["files"]
    assert [entry["input"] for entry in files] == paths
    for entry in files:
        assert entry["reason"] or Path(entry["output"]).is_file()
    assert len(capsys.readouterr().err.splitlines()) == 4  # a line for each, and the sum
