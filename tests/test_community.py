"""The files around the code say the same as the code."""

import re
import tomllib

import pytest
import yaml

import studio


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_is_of_this_version(repository, project):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == studio.__version__
    assert citation["license"] == project["license"]
    assert [one["name"].lower() for one in citation["authors"]] == [one["name"].lower() for one in project["authors"]]


def test_pre_commit_runs_the_ruff_of_the_constraints(repository):
    pinned = re.search(r"^ruff==.*$", (repository / "constraints.txt").read_text(), re.M).group()
    hooks = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["additional_dependencies"] for hook in hooks] == [[pinned], [pinned]]


def test_ci_runs_the_pythons_that_the_package_names(repository, project):
    job = yaml.safe_load((repository / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]
    named = [one.rsplit(" ", 1)[1] for one in project["classifiers"] if re.search(r":: 3\.\d+$", one)]
    assert job["strategy"]["matrix"]["python"] == named == ["3.11", "3.12"]
    assert job["steps"][-1]["run"] == ".ci/run"


def test_every_target_that_contributing_names_is_there(repository):
    makefile = (repository / "Makefile").read_text()
    named = set(re.findall(r"^make ([\w-]+)", (repository / "CONTRIBUTING.md").read_text(), re.M))
    assert {"test", "lint", "types", "docs"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.M)] == []
