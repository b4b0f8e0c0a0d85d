"""The report as one page: thumbnails before and after, filters, identity distances; nothing is fetched to show it."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from studio import images
from studio.batch.reports import FileReport
from studio.errors import InputError, StudioError

SIDE = 150  # px of a thumbnail's height

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Restored photographs</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
body { font: 14px/1.4 sans-serif; margin: 1rem; color: #222; background: #fff }
header { position: sticky; top: 0; background: #fff; padding: .5rem 0; border-bottom: 1px solid #ccc }
label { margin-right: 1rem } input[type=number] { width: 5rem }
article { display: flex; gap: 1rem; padding: .5rem 0; border-bottom: 1px solid #eee; content-visibility: auto;
  contain-intrinsic-size: auto 170px }
article[hidden] { display: none } img { height: 150px } h2 { font-size: 1rem; margin: 0; overflow-wrap: anywhere }
p { margin: .2rem 0 } .status { color: #666 }
</style></head><body>
"""
_SCRIPT = """<script>
const rows = [...document.querySelectorAll('article')], reason = document.querySelector('#reason');
const least = document.querySelector('#least'), words = document.querySelector('#words');
function filter() {
  let shown = 0;
  for (const row of rows) {
    const fits = (!reason.value || row.dataset.reason === reason.value)
      && (!least.value || Number(row.dataset.distance) >= Number(least.value))
      && row.dataset.name.toLowerCase().includes(words.value.toLowerCase());
    row.hidden = !fits;
    shown += fits;
  }
  document.querySelector('#shown').textContent = shown;
}
for (const field of [reason, least, words]) field.addEventListener('input', filter);
</script></body></html>
"""


def write_page(path: Path, reports: Sequence[FileReport]) -> None:
    """Write the page, one photo after another; it is there under its name only when it is complete.

    Args:
        path: an .html file; its folder is made.
        reports: of every file, in the order in which they are shown.

    Raises:
        InputError: it cannot be written there.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", errors="replace") as stream:
            stream.write(_HEAD + _header(reports))
            for found in reports:
                stream.write(_article(found))
            stream.write(_SCRIPT)
        part.replace(path)
    except OSError as error:
        raise InputError(f"the page must be writable, got {path} ({error.strerror}): choose another place") from error


def reason_of(found: FileReport) -> str:
    """What a photo is filtered by: its status, and why, without the numbers of faces."""
    if found.status == "failed":
        return "failed"
    if found.duplicate_of:
        return f"{found.status}, the same as another"
    reasons = sorted({face["reason"].split(":")[0] for face in found.faces if face.get("reason")})
    return ", ".join([found.status, *reasons])


def distance_of(found: FileReport) -> float | None:
    """The largest identity distance of its restored faces."""
    return max((face["identity_distance"] for face in found.faces if face.get("restored")), default=None)


def _header(reports: Sequence[FileReport]) -> str:
    counts = Counter(map(reason_of, reports)).most_common()
    options = "".join(f'<option value="{_text(name)}">{_text(name)} ({count})</option>' for name, count in counts)
    return (
        f'<header><b><span id="shown">{len(reports)}</span> of {len(reports)} photographs</b> '
        f'<label>what came of it <select id="reason"><option value="">all</option>{options}</select></label>'
        '<label>identity distance from <input id="least" type="number" step="0.05" min="0"></label>'
        '<label>name <input id="words"></label></header>\n'
    )


def _article(found: FileReport) -> str:
    distance = distance_of(found)
    restored = sum(bool(face.get("restored")) for face in found.faces)
    lines = [
        found.reason,
        *found.notes,
        *(f"face {face['index']}: {face['reason']}" for face in found.faces if face.get("reason")),
    ]
    if found.duplicate_of:
        lines.insert(0, f"the same file as {found.duplicate_of}")
    faces = f"{restored} of {len(found.faces)} faces" if found.faces else ""
    apart = "" if distance is None else f"identity distance {distance:.2f}"
    about = " · ".join(filter(None, (found.status, faces, apart)))
    pictures = "".join(f'<img loading="lazy" alt="" src="{thumb}">' for thumb in _thumbnails(found))
    return (
        f'<article data-reason="{_text(reason_of(found))}" data-distance="{-1 if distance is None else distance:g}" '
        f'data-name="{_text(found.input)}">{pictures}<div><h2>{_text(found.input)}</h2>'
        f'<p class="status">{_text(about)}</p>'
        + "".join(f"<p>{_text(line)}</p>" for line in dict.fromkeys(lines) if line)
        + "</div></article>\n"
    )


def _thumbnails(found: FileReport) -> list[str]:
    """Before and after as data addresses; what cannot be read has none."""
    made = []
    for path in filter(None, (found.input, found.output)):
        try:
            photo = images.load(path, salvage=True)
        except StudioError:
            continue
        width = max(1, round(photo.width * SIDE / photo.height))
        stream = io.BytesIO()
        images.to_pil(images.resize(photo.pixels, SIDE, min(width, 4 * SIDE))).save(stream, "JPEG", quality=70)
        made.append("data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode())
    return made


def _text(text: str) -> str:
    return html.escape(text, quote=True)
