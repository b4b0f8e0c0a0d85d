"""Nothing foreign is in the repository: no paths of one machine, no registry hosts, no weights of other people's."""

import re
import subprocess

import pytest

# Put together from parts, so that this file does not find itself.
FOLDERS = "|".join(["home", "root", "work", "Users", "mnt", "opt", "srv", "tmp", "private", "var/folders"])
ABSOLUTE_PATH = re.compile(rf"(?<![\w.~*\])}}:/-])(?:file://)?/(?:{FOLDERS})/[\w.]|\b[A-Z]:\\+Users\\+")
REGISTRY = re.compile("|".join([r"pypi\." + "org", "files." + "pythonhosted", r"download\.pytorch\." + "org"]))
PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".dat", ".tflite", ".npy"}
WEIGHTS_LIMIT = 48_000_000


@pytest.fixture(scope="module")
def tracked(repository):
    """What is, or is about to be, in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = {name for name in done.stdout.decode().split("\0") if name}
    return sorted(path for path in (repository / name for name in names) if path.is_file())


def text_of(path):
    """The text of a file, or None when it is not text."""
    data = path.read_bytes()
    if b"\0" in data[:8192]:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


@pytest.mark.parametrize(("pattern", "what"), [(ABSOLUTE_PATH, "a path of one machine"), (REGISTRY, "a registry host")])
def test_text_files(tracked, repository, pattern, what):
    found = []
    for path in tracked:
        for number, line in enumerate((text_of(path) or "").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{path.relative_to(repository)}:{number}: {match.group()}")
    assert not found, f"{what} in:\n" + "\n".join(found)


def test_the_patterns_find_what_they_look_for():
    slash = "/"
    for leak in (f'open("{slash}home/me/x")', f"see {slash}tmp/run1", "C:" + r"\Users\me", f"file:{slash * 3}opt/x"):
        assert ABSOLUTE_PATH.search(leak), leak
    for fine in ("https://x.example/home/me", "studio/opt/x", "~/tmp/x", "a/b", "tmp_path / 'x'", "*/tmp/x"):
        assert not ABSOLUTE_PATH.search(fine), fine


def test_no_pickles_and_no_foreign_weights(tracked, repository):
    assert [str(path.relative_to(repository)) for path in tracked if path.suffix.lower() in PICKLES] == []


def test_weights_stay_small(tracked, repository):
    total = sum(path.stat().st_size for path in tracked if path.is_relative_to(repository / "weights"))
    assert total <= WEIGHTS_LIMIT
