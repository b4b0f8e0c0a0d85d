"""Content Credentials (C2PA): what was done to a file, signed, so that a later change shows; and reading them back.

Needs the extra `provenance` (the package c2pa-python); `reason_not` says so where it is missing. Nothing is asked of
any server: no time stamp, no remote manifest, no revocation list. A file's name, its EXIF and its place are not
repeated in its credentials.

Without a certificate of their own, users sign with one that is made on this machine at the first use and kept in the
cache. It proves that a file is as it was when it was signed, and says nothing about who signed it: anybody can make
one of the same name. `verify` therefore tells whether this machine knows the signer. Environment:

    STUDIO_CERTIFICATE   PEM file, the signing certificate first and then its issuers
    STUDIO_PRIVATE_KEY   PEM file, its private key (P-256, unencrypted)
"""

from __future__ import annotations

import datetime
import importlib.util
import io
import json
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

import studio
from studio import images, video, watermark
from studio.errors import CredentialsError, ImageError, InputError, StudioError
from studio.watermark import Mark
from studio.weights import cache_dir

EDITED = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SOURCE_TYPES = {EDITED: "a photo edited with a trained model", GENERATED: "made by a trained model"}

TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".avif": "image/avif",
    ".mp4": "video/mp4",
}
"""Suffixes of files that can hold credentials."""

SELF_MADE = "Face Studio self-made test certificate"
DAYS = 3650
LOOKED_THROUGH = 8  # frames of a video, in which the mark is looked for
INTACT, BROKEN, NONE, UNREAD = "intact", "broken", "none", "not read"
NOT_INSTALLED = "the extra `provenance` is not installed (pip install c2pa-python)"
_UNTRUSTED = "signingCredential.untrusted"  # told as `signer_known` instead: not a change of the file
_SETTINGS = {
    "version": 1,
    "builder": {"thumbnail": {"enabled": False}},  # it would quadruple the file
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}


@dataclass(frozen=True)
class Operation:
    """One thing done to a file.

    Attributes:
        name: of the pipeline, such as "restore".
        description: one line for people.
        settings: the call's arguments, and statements such as a consent; anything JSON can say.
    """

    name: str
    description: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Certificate:
    """What signs: PEM bytes of the chain (the signing certificate first) and of its private key."""

    chain: bytes
    key: bytes


@dataclass(frozen=True)
class Verdict:
    """What a file says about itself, and whether that can be believed.

    Attributes:
        credentials: "intact", "broken" (the file or its credentials were changed after signing), "none", or "not
            read" (the extra `provenance` is missing).
        signer: name in the certificate; anybody can write any name there.
        signer_known: the certificate is this machine's own or one that its issuer is trusted for.
        made_by: program and version that wrote the credentials.
        operations: of the last signing: action, when, description, settings.
        source_type: the last `digitalSourceType`.
        problems: the validator's codes, where broken.
        mark: the invisible mark of synthetic pictures and videos; None where the file is neither, or cannot be read.
    """

    credentials: str
    signer: str = ""
    signer_known: bool = False
    made_by: str = ""
    operations: tuple[dict[str, Any], ...] = ()
    source_type: str = ""
    problems: tuple[str, ...] = ()
    mark: Mark | None = None

    @property
    def ok(self) -> bool:
        """Credentials that are intact, or no sign of a change and the mark of a synthetic picture."""
        return self.credentials == INTACT or (self.credentials == NONE and bool(self.mark and self.mark.found))


def reason_not(suffix: str) -> str:
    """Why a file of this suffix would get no credentials here; empty where it would."""
    if suffix.lower() not in TYPES:
        return f"a {suffix.lower()} file holds none"
    return "" if importlib.util.find_spec("c2pa") else NOT_INSTALLED


def sign(
    data: bytes,
    suffix: str,
    operations: Sequence[Operation],
    *,
    source: bytes | None = None,
    synthetic: bool = False,
    certificate: Certificate | None = None,
) -> bytes:
    """Add credentials to a finished file; its pixels are not touched.

    Args:
        data: the whole file.
        suffix: a key of `TYPES`.
        operations: what was done, in order; at least one.
        source: the file that was edited. Credentials that it brings are kept inside the new ones.
        synthetic: the picture was made by a model, rather than edited with one.
        certificate: who signs; None takes STUDIO_CERTIFICATE, and without it the self-made one.

    Returns:
        The file with its credentials.

    Raises:
        InputError: no operation, or a suffix that cannot hold credentials.
        CredentialsError: the extra is missing, the certificate cannot be used, or the file cannot be signed.
    """
    _check(suffix, operations)
    signed = io.BytesIO()
    _sign(io.BytesIO(data), signed, suffix, operations, source, synthetic, certificate)
    return signed.getvalue()


def sign_file(
    path: str | Path,
    operations: Sequence[Operation],
    *,
    source: bytes | None = None,
    synthetic: bool = False,
    certificate: Certificate | None = None,
) -> None:
    """`sign` for a file on disk, such as a video: it is never held whole, and is replaced only when it is signed.

    Args:
        path: of the file; its suffix is a key of `TYPES`.
        operations: see `sign`; so are the others.
        source: the file that was edited.
        synthetic: the file was made by a model.
        certificate: who signs.

    Raises:
        InputError: as `sign`.
        CredentialsError: likewise; the file is then as it was.
    """
    path = Path(path)
    _check(path.suffix, operations)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with path.open("rb") as stream, part.open("w+b") as signed:
            _sign(stream, signed, path.suffix, operations, source, synthetic, certificate)
        part.replace(path)
    except OSError as error:
        raise CredentialsError(
            f"{path.name!r} must be signed where it is, got {error.strerror}: make room, or switch credentials off"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def verify(path: str | Path) -> Verdict:
    """Read what a file says about itself: its credentials, and the invisible mark.

    Raises:
        InputError: no file there.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the file must be readable, got {str(path)!r} ({error.strerror}): check its name") from error
    mark = _mark(path, data)
    if not importlib.util.find_spec("c2pa"):
        return Verdict(UNREAD, mark=mark)
    return Verdict(**_read(data), mark=mark)


def is_own(path: Path) -> bool:
    """Whether a file's credentials say that this program wrote it. Quick: few files hold its name at all.

    Files that cannot be read are not; without the extra `provenance`, the name alone decides.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if b"c2pa" not in data or b"face-studio" not in data:
        return False
    return not importlib.util.find_spec("c2pa") or _read(data).get("made_by", "").startswith("face-studio")


def lines(verdict: Verdict) -> list[str]:
    """A verdict in words."""
    credentials = {
        INTACT: "credentials  intact: the file is as it was when it was signed",
        BROKEN: f"credentials  BROKEN: changed after signing ({', '.join(verdict.problems)})",
        NONE: "credentials  none",
        UNREAD: f"credentials  not read: {NOT_INSTALLED}",
    }
    said = [credentials[verdict.credentials]]
    if verdict.signer:
        known = "known to this machine" if verdict.signer_known else "NOT known to this machine: this may be anybody"
        said.append(f"signer       {verdict.signer} ({known})")
    if verdict.made_by:
        said.append(f"written by   {verdict.made_by}")
    for step in verdict.operations:
        settings = " ".join(f"{name}={value}" for name, value in step["settings"].items())
        said.append(
            f"done         {' '.join(part for part in (step['action'], step['description'], settings) if part)}"
        )
    if verdict.source_type:
        said.append(f"which makes  {SOURCE_TYPES.get(verdict.source_type, verdict.source_type)}")
    if verdict.mark is None:
        said.append("mark         not looked for: not a picture or video that can be read here")
    elif verdict.mark.found:
        said.append(f"mark         synthetic picture, made by: {verdict.mark.kind} (score {verdict.mark.score:.1f})")
    else:
        said.append(f"mark         none found (score {verdict.mark.score:.1f}, {watermark.THRESHOLD:.0f} are needed)")
    return said


def save_synthetic(
    pixels: Tensor | images.Photo,
    path: str | Path,
    operation: Operation,
    *,
    source: bytes | None = None,
    credentials: bool = True,
) -> str:
    """Write a picture that a model made: with the invisible mark, and with credentials where they can be written.

    Args:
        pixels: (3,H,W) float32 RGB in [0,1]; or a `Photo`, whose alpha, colour profile, EXIF and bit depth are kept.
        path: of the file; its suffix says the format.
        operation: what made it; its name is one of `watermark.KINDS`.
        source: the file that it was made from.
        credentials: whether they are wanted; the mark always is.

    Returns:
        Why the file has no mark or no credentials, or an empty text.

    Raises:
        InputError: not one picture.
        ImageError: the file cannot be written.
        CredentialsError: a certificate that cannot be used.
    """
    if isinstance(pixels, Tensor) and pixels.ndim != 3:
        raise InputError(f"one picture (3,H,W) is written at a time, got {tuple(pixels.shape)}: pass each by itself")
    path, reasons = Path(path), []
    photo = images.load(pixels)
    if min(photo.height, photo.width) >= watermark.SMALLEST:
        photo = photo.with_pixels(watermark.embed(photo.pixels, operation.name))
    else:
        reasons.append(f"too small for the invisible mark, which needs {watermark.SMALLEST} px")
    data = images.encode(photo, path.suffix)
    if credentials and (reason := reason_not(path.suffix)):
        reasons.append(f"no Content Credentials: {reason}")
    elif credentials:
        data = sign(data, path.suffix, [operation], source=source, synthetic=True)
    images.write(data, path)
    return "; ".join(reasons)


# ---- writing


def _check(suffix: str, operations: Sequence[Operation]) -> None:
    """Refuse what cannot be signed."""
    if not operations:
        raise InputError("credentials must tell at least one operation, got none: say what was done")
    if suffix.lower() not in TYPES:
        raise InputError(f"credentials need one of {', '.join(TYPES)}, got {suffix!r}: choose another format")
    if reason := reason_not(suffix):
        raise CredentialsError(f"credentials cannot be written, {reason}: install it, or switch credentials off")


def _sign(
    stream: BinaryIO,
    signed: BinaryIO,
    suffix: str,
    operations: Sequence[Operation],
    source: bytes | None,
    synthetic: bool,
    certificate: Certificate | None,
) -> None:
    """Copy a file with its credentials from one stream to another."""
    import c2pa

    certificate = certificate or own_certificate() or self_made_certificate()
    kind = GENERATED if synthetic else EDITED
    first: dict[str, Any] = (
        {"action": "c2pa.created", "digitalSourceType": GENERATED} if synthetic else {"action": "c2pa.opened"}
    )
    if source is not None or not synthetic:
        first["parameters"] = {"ingredientIds": ["source"]}
    actions = [first, *(_action(operation, kind) for operation in operations)]
    manifest = {
        "claim_generator_info": [{"name": "face-studio", "version": studio.__version__}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
    try:
        builder = c2pa.Builder(manifest, c2pa.Context.from_dict(_SETTINGS))
        if "parameters" in first:
            _add_source(builder, source or b"", "inputTo" if synthetic else "parentOf")
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", certificate.chain, certificate.key, None))
        builder.sign(signer, TYPES[suffix.lower()], stream, signed)
    except c2pa.C2paError as error:
        raise CredentialsError(
            f"the file must take credentials, got {_line(error)}: check the certificate, or switch credentials off"
        ) from error


def _action(operation: Operation, kind: str) -> dict[str, Any]:
    """An operation as C2PA writes it. Lists become text: the format would take them for bytes."""
    settings = {
        name: value if isinstance(value, str | int | float | bool | None) else json.dumps(value)
        for name, value in operation.settings.items()
    }
    return {
        "action": "c2pa.edited",
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "softwareAgent": {"name": "face-studio", "version": studio.__version__},
        "description": operation.description,
        "digitalSourceType": kind,
        "parameters": {"pipeline": operation.name, **settings},
    }


def _add_source(builder: Any, source: bytes, relationship: str) -> None:
    """The edited file as an ingredient, without its name; one that C2PA cannot read, as unknown bytes."""
    import c2pa

    about = {"relationship": relationship, "label": "source"}
    try:
        builder.add_ingredient(about, _type_of(source), io.BytesIO(source))
    except c2pa.C2paError:
        builder.add_ingredient(about, "application/octet-stream", io.BytesIO(source))


def _type_of(data: bytes) -> str:
    kinds = [
        (data.startswith(b"\x89PNG"), "image/png"),
        (data.startswith(b"\xff\xd8"), "image/jpeg"),
        (data.startswith((b"II*\0", b"MM\0*")), "image/tiff"),
        (data[8:12] == b"WEBP", "image/webp"),
        (data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"), "image/avif"),
        (data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"mif"), "image/heic"),
        (data[4:8] == b"ftyp", "video/mp4"),
    ]
    return next((kind for found, kind in kinds if found), "application/octet-stream")


# ---- reading


def _mark(path: Path, data: bytes) -> Mark | None:
    """The mark of a picture; of a video its first frame's, or that of some laid over one another; None of the rest."""
    try:
        return watermark.detect(images.load(data).pixels)
    except ImageError:
        pass
    try:
        frames = [frame.pixels for frame in islice(video.read(path), LOOKED_THROUGH)]
    except StudioError:  # no video, or one that cannot be read here
        return None
    looked = watermark.detect(frames[0]), watermark.detect(torch.stack(frames).mean(0))
    return max(looked, key=lambda mark: mark.score)


def _read(data: bytes) -> dict[str, Any]:
    """The fields of a `Verdict` that the credentials give."""
    import c2pa

    known = [certificate.chain.decode() for certificate in (_cached(), own_certificate()) if certificate]
    settings = {**_SETTINGS, "trust": {"user_anchors": "".join(known)}} if known else _SETTINGS
    try:
        reader = c2pa.Reader(_type_of(data), io.BytesIO(data), context=c2pa.Context.from_dict(settings))
        results, active = reader.get_validation_results() or {}, reader.get_active_manifest() or {}
    except c2pa.C2paError as error:
        # Without credentials, and of a kind that has none, there is nothing; anything else is damage.
        absent = type(error).__name__.endswith(("ManifestNotFound", "NotSupported"))
        return {"credentials": NONE} if absent else {"credentials": BROKEN, "problems": (_line(error),)}
    failures = [entry["code"] for entry in results.get("activeManifest", {}).get("failure", [])]
    problems = tuple(dict.fromkeys(code for code in failures if code != _UNTRUSTED))
    steps = tuple(_step(action) for action in _actions(active))
    types = [action["digitalSourceType"] for action in _actions(active) if "digitalSourceType" in action]
    generator = (active.get("claim_generator_info") or [{}])[0]
    return {
        "credentials": BROKEN if problems else INTACT,
        "signer": (active.get("signature_info") or {}).get("common_name") or "",
        "signer_known": _UNTRUSTED not in failures,
        "made_by": " ".join(str(generator[key]) for key in ("name", "version") if key in generator),
        "operations": steps,
        "source_type": types[-1] if types else "",
        "problems": problems,
    }


def _actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        action
        for assertion in manifest.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]


def _step(action: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in action.get("parameters", {}).items() if name != "ingredients"}
    return {
        "action": action["action"].removeprefix("c2pa."),
        "when": action.get("when", ""),
        "description": action.get("description", ""),
        "settings": settings,
    }


# ---- certificates


def own_certificate() -> Certificate | None:
    """The certificate that the environment names, None where it names none.

    Raises:
        CredentialsError: half a setting, or files that cannot be read.
    """
    chain, key = (os.environ.get(name) or None for name in ("STUDIO_CERTIFICATE", "STUDIO_PRIVATE_KEY"))
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        raise CredentialsError(
            "STUDIO_CERTIFICATE and STUDIO_PRIVATE_KEY must be set together, got one of them: set both, or none"
        )
    try:
        return Certificate(Path(chain).read_bytes(), Path(key).read_bytes())
    except OSError as error:
        raise CredentialsError(
            f"STUDIO_CERTIFICATE and STUDIO_PRIVATE_KEY must be files that can be read, got {error.strerror}: "
            "check both names"
        ) from error


def self_made_certificate() -> Certificate:
    """This machine's test certificate, made at the first use, and again when it has run out.

    Raises:
        CredentialsError: the cache cannot be written.
    """
    found = _cached()
    if found is None:
        found = _made()
        try:
            _kept(found)
        except OSError as error:
            raise CredentialsError(
                f"the cache must be writable to keep a certificate, got {error.strerror}: set STUDIO_CACHE"
            ) from error
    return found


def _place() -> Path:
    return cache_dir() / "provenance" / "self-made.pem"


def _cached() -> Certificate | None:
    """The self-made certificate, unless it is missing, unreadable or about to run out."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        data = _place().read_bytes()
        key, begin, chain = data.partition(b"-----BEGIN CERTIFICATE-----")
        load_pem_private_key(key, None)
        ends = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(begin + chain))
    except (OSError, ValueError):
        return None
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    return Certificate(begin + chain, key) if ends > soon else None


def _kept(certificate: Certificate) -> None:
    """Write key and chain as one file that only the user can read, all of it or nothing."""
    place = _place()
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=place.parent)  # readable by nobody else
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(certificate.key + certificate.chain)
        Path(part).replace(place)
    finally:
        Path(part).unlink(missing_ok=True)


def _made() -> Certificate:
    """A root and a signing certificate as C2PA 2.2 §14.5 wants them; the root's key is thrown away."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(text: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "face-studio")
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def usage(*wanted: str) -> x509.KeyUsage:
        names = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
        names += " digital_signature key_cert_sign crl_sign"
        return x509.KeyUsage(**{name: name in wanted for name in names.split()})

    now = datetime.datetime.now(datetime.UTC)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())

    def certificate(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(
            issuer_name=named(f"{SELF_MADE}, root"),
            subject_name=named(subject),
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(days=1),
            not_valid_after=now + datetime.timedelta(days=DAYS),
        )
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)

    root = (
        certificate(f"{SELF_MADE}, root", root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
    )
    leaf = (
        certificate(SELF_MADE, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
    )
    pem = serialization.Encoding.PEM
    chain = [builder.sign(root_key, hashes.SHA256()).public_bytes(pem) for builder in (leaf, root)]
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Certificate(b"".join(chain), key.private_bytes(pem, *plain))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
