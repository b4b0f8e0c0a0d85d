"""The page as others see it before it runs: its language, title, icon, and the picture beside a shared link."""

from __future__ import annotations

import html
import re
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAME = "Face Studio"
SENTENCE = "Restores the faces of old, small or damaged photographs. Photos stay on the machine that runs the page."
ASSETS = Path(__file__).parent / "assets"
ICON, PREVIEW = ASSETS / "icon.png", ASSETS / "preview.jpg"
PREVIEW_PATH = "/preview.jpg"
PREVIEW_SIZE = 1200, 630  # what those who show shared links ask for
FOREIGN = re.compile(rb"<meta\s+(?:property=\"og:|name=\"twitter:)[^>]*>\s*")
# gradio shows its own words in the language of the browser; ours are English, and so is the page.
LANGUAGE = """<script>
for (const [name, value] of [["language", "en"], ["languages", ["en"]]])
  Object.defineProperty(navigator, name, {get: () => value});
</script>"""


class Front:
    """Puts our head into gradio's page, and serves the picture of it.

    Args:
        app: what makes the page.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] == PREVIEW_PATH:
            await FileResponse(PREVIEW, media_type="image/jpeg")(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/":
            await self.app(scope, receive, rewritten(send, head(scope)))
        else:
            await self.app(scope, receive, send)


def rewritten(send: Send, inside: str) -> Send:
    """`send`, which puts `inside` into the head of an HTML page and takes foreign descriptions out."""
    start: Message = {}
    body: list[bytes] = []

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            if not is_page(message):
                await send(message)
        elif not is_page(start):
            await send(message)
        else:
            body.append(message.get("body", b""))
            if not message.get("more_body"):
                page = FOREIGN.sub(b"", b"".join(body)).replace(b"<head>", b"<head>" + inside.encode(), 1)
                MutableHeaders(scope=start)["content-length"] = str(len(page))
                await send(start)
                await send({"type": "http.response.body", "body": page})

    return sending


def is_page(start: Message) -> bool:
    """Whether a response is HTML."""
    return Headers(raw=start["headers"]).get("content-type", "").startswith("text/html")


def head(scope: Scope) -> str:
    """Our lines of the head; the picture's address is whole, since those who show links want it so."""
    headers = Headers(scope=scope)
    scheme = headers.get("x-forwarded-proto", scope["scheme"]).split(",")[0].strip()
    host = headers.get("x-forwarded-host", headers.get("host", "")).split(",")[0].strip()
    here = html.escape(f"{scheme}://{host}", quote=True)
    width, height = PREVIEW_SIZE
    described = {
        "og:title": NAME,
        "og:type": "website",
        "og:url": f"{here}/",
        "og:description": SENTENCE,
        "og:image": f"{here}{PREVIEW_PATH}",
        "og:image:width": width,
        "og:image:height": height,
        "og:image:alt": "A damaged photograph of a face, and the same face restored",
    }
    lines = [f'<meta property="{name}" content="{value}">' for name, value in described.items()]
    lines += [
        f'<meta name="description" content="{SENTENCE}">',
        '<meta name="twitter:card" content="summary_large_image">',
        f"<title>{NAME}</title>",
        '<link rel="icon" type="image/png" href="favicon.ico">',
        LANGUAGE,
    ]
    return "\n".join(lines)
