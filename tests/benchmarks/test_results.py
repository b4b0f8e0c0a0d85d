"""The tables of docs/results.md are what the figures say, and cannot drift from them."""

import json
import re

import pytest

from studio.benchmarks import results
from studio.errors import InputError


def test_the_page_is_as_the_figures_say(repository):
    page = (repository / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == results.written(page, repository / "docs" / "figures"), (
        "run: python -m studio.benchmarks.results docs"
    )


def test_a_figure_that_changes_changes_its_table(repository):
    figures = json.loads((repository / "docs" / "figures" / results.UPSAMPLE.file).read_text())
    before = results.markdown(results.UPSAMPLE, figures)
    assert before != results.markdown(results.UPSAMPLE, {**figures, "found": 0.123})
    assert "12 %" in results.markdown(results.UPSAMPLE, {**figures, "found": 0.123})


def test_every_table_holds_figures_in_every_row(repository):
    for table in results.TABLES:
        rows = results.markdown(
            table, json.loads((repository / "docs" / "figures" / table.file).read_text())
        ).splitlines()
        assert len(rows) == 4 + len(table.rows)
        for row in rows[2 : 2 + len(table.rows)]:
            assert re.search(r"\d", row.split("|", 2)[2]), row
            assert row.count("|") == len(table.columns) + 2


def test_what_is_missing_is_said():
    with pytest.raises(InputError, match="must name a figure that the file has, got 'a/b'"):
        results.filled("{a/b|.1f}", {"a": {}})
    with pytest.raises(InputError, match="must have <!-- restore -->"):
        results.written("a page", None)
