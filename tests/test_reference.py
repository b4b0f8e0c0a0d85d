"""`make docs`: the site is built without a warning, and needs no network."""

import re
import subprocess
import sys

import pytest

import studio

pytest.importorskip("pdoc", reason="pdoc is not installed: make setup-dev")


def build(repository, folder, *names):
    code = (
        "import sys; sys.path[:0] = ['docs', '.']; from pathlib import Path; import reference;"
        "reference.build(Path(sys.argv[1]), *sys.argv[2:])"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder), *names]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def site(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build(repository, folder)
    return folder


@pytest.mark.slow
def test_every_public_name_has_its_place(site):
    page = (site / "studio.html").read_text(encoding="utf-8")
    names = set(studio.__all__) - {"__version__"}
    assert [name for name in names if f'id="{name}"' not in page] == []
    assert "Restore the faces of photographs" in page or "RestorePipeline" in page


@pytest.mark.slow
def test_modules_that_are_used_in_scripts_have_a_page(site):
    for page in (
        "studio/images.html",
        "studio/motion/synthesis.html",
        "studio/watermark.html",
        "pipelines/restore.html",
    ):
        assert (site / page).is_file()
    assert not (site / "studio" / "cli").exists()
    assert (site / "search.js").is_file()


@pytest.mark.slow
def test_nothing_is_fetched(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="((?:https?:)?//[^"]*)"', text)
        assert not fetched, (page.name, fetched)
        assert not re.search(r"@import|url\((?!data:|\"data:|'data:)[\"']?https?:", text)
