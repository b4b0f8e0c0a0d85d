"""The picker of restorers: what it offers, and that nothing else can be loaded through it."""

import pytest

from studio import models, weights
from studio.errors import InputError
from studio.ui.common import Models, choice, model_picker


def test_one_other_model_is_kept_at_a_time():
    loaded = []
    chosen = Models(lambda: "ours", lambda name: loaded.append(name) or name.upper())
    assert chosen() == "ours"
    assert [chosen("gfpgan-1.4"), chosen("gfpgan-1.4"), chosen("codeformer"), chosen("restore")] == [
        *("GFPGAN-1.4", "GFPGAN-1.4", "CODEFORMER", "ours")
    ]
    assert loaded == ["gfpgan-1.4", "codeformer"]


@pytest.mark.parametrize("name", ["/", "../weights", "owner/name", "realesrgan", "", "liveportrait"])
def test_no_path_and_no_other_name_is_loaded(name):
    with pytest.raises(InputError, match="model must be one of restore, gfpgan"):
        Models(lambda: "ours", lambda _: pytest.fail("loaded"))(name)


def test_the_picker_shows_the_table(monkeypatch):
    picker = model_picker()
    assert [name for _, name in picker.choices] == [one.name for one in models.chosen("restore")]
    assert picker.value == "restore"
    assert choice(models.models()["codeformer"]).startswith("CodeFormer (377 MB")
    assert "no commercial use" in choice(models.models()["codeformer"])
    with weights.only("commercial"):
        assert model_picker().choices == []
