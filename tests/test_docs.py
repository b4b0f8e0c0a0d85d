"""The pages: every link leads somewhere, the README stays short, and the code that they show is code that runs."""

import ast
import importlib
import re
import urllib.parse

LEFT_OUT = {"out", "build", "runs", "node_modules"}
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^()\s>]+(?:\([^()]*\))?)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def pages_of(repository):
    found = ((path, path.relative_to(repository).parts) for path in repository.rglob("*.md"))
    return sorted(path for path, parts in found if not any(part.startswith(".") or part in LEFT_OUT for part in parts))


def anchors(text):
    """The names that GitHub gives the headings of a page."""
    seen, names = {}, set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", FENCE.sub("", text), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        number = seen.get(name, 0)
        seen[name] = number + 1
        names.add(f"{name}-{number}" if number else name)
    return names


def faults(page, repository):
    """What is wrong with the links of a page, one line each."""
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = page if not place else page.parent / urllib.parse.unquote(place)
        if not file.exists() or not file.resolve().is_relative_to(repository):
            yield f"{page.name}: {target}: no such file"
        elif anchor and (file.suffix != ".md" or anchor not in anchors(file.read_text(encoding="utf-8"))):
            yield f"{page.name}: {target}: no such heading"


def test_every_link_leads_somewhere(repository):
    pages = pages_of(repository)
    assert len(pages) > 30
    assert [fault for page in pages for fault in faults(page, repository)] == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading, and `code`\n\n```\n# none\n```\n## Twice\n## Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#a-heading-and-code) [c](other.md#twice-1) [d](https://x.example/y) `[e](no.md)`\n"
        "[f](gone.md) ![g](gone.png) [h](other.md#none) [i](#nothing) [![j](lost.png)](other.md)\n"
    )
    assert [fault.split(": ")[1] for fault in faults(page, tmp_path)] == [
        "gone.md", "gone.png", "other.md#none", "#nothing"
    ]  # fmt: skip


def test_every_page_and_picture_can_be_reached(repository):
    """From the README, by links alone."""
    reached, waiting = set(), [repository / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        if page.suffix == ".md":
            links = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
            waiting += [(page.parent / urllib.parse.unquote(link)).resolve() for link in links if link]
    docs = [*(repository / "docs").rglob("*.md"), *(repository / "docs" / "img").iterdir()]
    assert [str(path.relative_to(repository)) for path in sorted(docs) if path not in reached] == []


def test_the_readme_is_short_and_starts_with_the_picture_and_the_commands(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    head = text.split("\n## ")[0]
    assert head.index("](docs/img/") < head.index("pip install") < head.index("studio restore")


def blocks(repository):
    for page in pages_of(repository):
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S), 1):
            yield f"{page.relative_to(repository)}:{number}", code


def test_the_python_of_every_page_names_what_exists(repository):
    """Modules and names that it imports from here; that it compiles at all."""
    wrong, checked = [], 0
    for place, code in blocks(repository):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("studio", "pipelines"):
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    checked += 1
                    if not (hasattr(module, name) or is_module(f"{node.module}.{name}")):
                        wrong.append(f"{place}: from {node.module} import {name}")
    assert not wrong
    assert checked > 20


def is_module(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def test_the_commands_of_every_page_exist(repository):
    """`studio NAME` in the shell blocks, with options that the command has."""
    from typer.main import get_command

    from studio.cli import app

    root, wrong, checked = get_command(app), [], 0
    for page in pages_of(repository):
        for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
            for line in re.sub(r"\\\n", " ", block).splitlines():
                for call in re.findall(r"(?:^|[\s$/])studio ([a-z][^#|>]*)", line.split("  #")[0]):
                    checked += 1
                    if said := misfit(root, call.split()):
                        wrong.append(f"{page.relative_to(repository)}: studio {call.strip()}: {said}")
    assert not wrong, "\n".join(wrong)
    assert checked > 80


def misfit(command, words):
    """What a command line has that the command has not; empty where it fits."""
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return "" if not words or words[0].startswith("-") else f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    options = {"--help", *(name for one in command.params for name in (*one.opts, *one.secondary_opts))}
    return ", ".join(word for word in words if re.match(r"--[a-z]", word) and word.split("=")[0] not in options)


OLD_WORDS = re.compile(
    r"passport|\b(?<!no )(?<!as )evidence\b|\bspreads\b|\bslots?\b|\bin the mean\b|\bat the most\b", re.IGNORECASE
)


def test_the_pages_use_the_words_of_contributing(repository):
    """The table of CONTRIBUTING.md: one word for one thing. Code and names in code are left out."""
    wrong = []
    for page in pages_of(repository):
        if page.name in ("CONTRIBUTING.md", "CHANGELOG.md"):
            continue
        prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
        wrong += [f"{page.relative_to(repository)}: {match.group()}" for match in OLD_WORDS.finditer(prose)]
    assert not wrong


def test_the_words_are_those_of_the_table(repository):
    table = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## Words")[1].split("\n## ")[0]
    avoided = table.replace("spreads, sigmas", "spreads").lower()
    for word in ("passport", "evidence", "spreads", "slots", "in the mean", "at the most"):
        assert word in avoided
        assert OLD_WORDS.search(word)
