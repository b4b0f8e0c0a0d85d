"""Compare and About."""

import gradio as gr
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError

from studio import images, provenance, weights
from studio.identity.compare import SMALLEST_EYE_DISTANCE
from studio.ui import about, app
from tests import tiny
from tests.ui.toy import MARKS

pytestmark = MARKS


@pytest.fixture
def two(tmp_path):
    return [images.save(images.load(tiny.photo(seed=seed)), tmp_path / f"{seed}.png") for seed in (0, 1)]


def test_compare(client, two):
    report, message, faces = client.predict(*map(handle_file, two), api_name="/compare")
    assert report["verdict"] in ("same", "different", "unsure")
    assert report["sentence"] in message
    assert report["face_counts"] == [2, 2]
    assert min(report["eye_distances"]) > SMALLEST_EYE_DISTANCE
    assert len(faces) == 2
    same, *_ = client.predict(handle_file(two[0]), handle_file(two[0]), api_name="/compare")
    assert (same["verdict"], same["distance"]) == ("same", 0.0)


def test_compare_says_what_is_missing(client, two, black, text):
    with pytest.raises(AppError, match="both photos must show a face, black"):
        client.predict(handle_file(two[0]), handle_file(black), api_name="/compare")
    with pytest.raises(AppError, match=r"notes\.jpg"):
        client.predict(handle_file(text), handle_file(two[0]), api_name="/compare")


def test_about_names_every_weight_and_licence(url):
    import httpx

    page = httpx.get(f"{url}config").text
    for entry in weights.entries().values():
        assert entry.title in page.replace("&quot;", '"'), entry.name
    assert "StyleGAN2-FFHQ" in page
    trained = [name for name, entry in weights.entries().items() if entry.sha256]
    assert sorted(card.parent.name for card in about.cards()) == sorted(trained)


def test_about_says_how_results_are_signed(monkeypatch):
    assert "signed with" in about.credentials() or "not signed" in about.credentials()
    monkeypatch.setattr(provenance, "reason_not", lambda suffix: "no package")
    assert "**not signed** here: no package" in about.credentials()


def test_tabs_follow_one_pattern():
    for one in app.TABS:
        assert isinstance(one.TITLE, str) and callable(one.load) and callable(one.tab)
    assert [one.TITLE for one in app.TABS] == [
        "Restore",
        "Upsample",
        "Turn",
        "Edit",
        "Generate",
        "Reenact",
        "Compare",
        "Album",
        "About",
    ]


def test_no_number_starts_empty():
    """A browser shows and sends 0 for a number without a value: 0 must be what is meant."""
    numbers = [block for block in app.build().blocks.values() if isinstance(block, gr.Number)]
    assert len(numbers) >= 5
    assert all(number.value is not None for number in numbers)
