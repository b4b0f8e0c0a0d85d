"""Videos that a model made: every frame carries the invisible mark, the file Content Credentials where it can."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio import provenance, video, watermark
from studio.errors import ImageError
from studio.provenance import Operation

MARKED_ANEW = 25  # frames; between them the same wave is added, which costs no time and compresses well


def save(
    frames: Iterable[tuple[float, Tensor]],
    path: str | Path,
    size: tuple[int, int],
    fps: float,
    operation: Operation,
    *,
    source: bytes | None = None,
    credentials: bool = True,
    overwrite: bool = False,
    **settings: Any,
) -> tuple[list[str], str]:
    """Write frames as they come; the file is there when all of it is, signed.

    Args:
        frames: seconds, rising, and (3,H,W) float RGB in [0,1]; taken one at a time.
        path: of the file, a suffix of `video.WRITTEN`.
        size: (height, width) of the frames in px.
        fps: frames a second, nominally.
        operation: what made it; its name is one of `watermark.KINDS`.
        source: the file that it was made from.
        credentials: whether they are wanted; the mark always is.
        overwrite: replace a file of that name.
        settings: `audio_from`, `audio_start`, `audio_end` and `quality` of `video.Writer`.

    Returns:
        What was done besides, one line each, and why the file has no mark or no credentials, or an empty text.

    Raises:
        InputError: another size of a frame, or a setting outside its range.
        ImageError: the file is there, or cannot be written.
        CredentialsError: a certificate that cannot be used.
    """
    path = Path(path)
    check_free(path, overwrite)
    reasons = []
    if min(size) < watermark.SMALLEST:
        reasons.append(f"too small for the invisible mark, which needs {watermark.SMALLEST} px")
    else:
        frames = marked(frames, operation.name)
    part = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        with video.Writer(part, size, fps, **settings) as writer:
            for moment, pixels in frames:
                writer.write(pixels, moment)
        if credentials and (reason := provenance.reason_not(path.suffix)):
            reasons.append(f"no Content Credentials: {reason}")
        elif credentials:
            provenance.sign_file(part, [operation], source=source, synthetic=True)
        check_free(path, overwrite)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return writer.notes, "; ".join(reasons)


def marked(frames: Iterable[tuple[float, Tensor]], kind: str) -> Iterator[tuple[float, Tensor]]:
    """Frames with the mark of a kind; of two on which the same wave lies, the later one may carry it a little less."""
    wave = torch.zeros(())
    for index, (moment, pixels) in enumerate(frames):
        pixels = pixels.float().cpu()
        if index % MARKED_ANEW == 0:
            wave = watermark.embed(pixels, kind) - pixels
        yield moment, (pixels + wave).clamp(0, 1)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to write over what is there."""
    if path.exists() and not overwrite:
        raise ImageError(f"the target must be new, got {str(path)!r}, which is there: say overwrite, or rename")
