"""What stands between the app and the net: who may ask, under which name, from which page, and how often.

A page of another site that is open in the same browser can send requests to an app on this machine, and a name of that
site's owner can be made to point here (DNS rebinding). So the app answers to its own names alone, takes nothing that
another site's page sends, and tells the browser what its pages may do.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping
from time import monotonic

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

READING = ("GET", "HEAD", "OPTIONS")
TRIES = 5  # wrong passwords from one address, before it has to wait
LONGEST_WAIT = 300.0  # s
ADDRESSES = 10_000  # that are remembered
# gradio's page needs scripts of its own text, and makes functions of its templates; but no other server's.
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {frames}"
)
log = logging.getLogger(__name__)


class Names:
    """The names under which the app is reached.

    Args:
        environment: STUDIO_HOSTS (names with commas between them), STUDIO_HOST (where it is one name, and not all that
            this machine has), and on a Space SPACE_HOST are read from it; names of the loopback are always there.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        space = environment.get("SPACE_HOST", "")
        listed = [*environment.get("STUDIO_HOSTS", "").split(","), *space.split(",")]
        self.on_space = bool(space)
        self.listed = frozenset(name.strip().lower() for name in listed if name.strip())
        own = environment.get("STUDIO_HOST", "").strip("[] ").lower()
        self.own = frozenset() if own in ("", "0.0.0.0", "::") else frozenset([own])

    def known(self, host: str) -> bool:
        """Whether a Host header, "name", "name:port" or "[address]:port", is one of ours.

        A Space is asked for its health by the address of its machine, and nobody's browser reaches it by that.
        """
        name = name_of(host)
        return name in self.listed | self.own or is_loopback(name) or (self.on_space and is_address(name))

    def trusts(self, origin: str, host: str) -> bool:
        """Whether a page of an origin, "https://name:port", may send to the app that was asked for as `host`."""
        _, slashes, place = origin.lower().partition("://")
        return bool(slashes) and (place == host.lower() or name_of(place) in self.listed)


class Guard:
    """Refuses what comes under a foreign name or from a foreign page, slows down wrong passwords, and sets headers.

    Args:
        app: what it guards.
        names: of the app.
    """

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self.app, self.names = app, names
        self.wrong: dict[str, tuple[int, float]] = {}  # address -> wrong passwords in a row, when the last one came
        frames = "https://huggingface.co" if names.on_space else "'none'"  # where a Space is shown
        self.headers = {
            "Content-Security-Policy": CSP.format(frames=frames),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
        } | ({} if names.on_space else {"X-Frame-Options": "DENY"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        wrapped = self.with_headers(send)
        if refusal := self.refusal(scope):
            status, said = refusal
            await PlainTextResponse(said, status)(scope, receive, wrapped)
        elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"].rstrip("/") == "/login":
            await self.login(scope, receive, wrapped)
        else:
            await self.app(scope, receive, wrapped)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and line for a request that is not answered."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.names.known(host):
            return 421, (
                f"this app must be asked for by a name that it knows, got {host[:100]!r}: whoever runs it can set "
                "STUDIO_HOSTS to the names that it has, with commas between them"
            )
        if scope.get("method") in READING:
            return None
        foreign = not self.names.trusts(origin, host) if origin else headers.get("sec-fetch-site") == "cross-site"
        if foreign:
            return 403, (
                f"requests must come from the app's own page, got one from {(origin or 'another site')[:100]!r}: open "
                "the app itself, or set STUDIO_HOSTS where it is behind a proxy"
            )
        return None

    def with_headers(self, send: Send) -> Send:
        """`send`, which adds the headers."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        return sending

    async def login(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One try at the password: refused where it comes too soon after others that were wrong."""
        address = str((scope.get("client") or ("unknown",))[0])
        count, last = self.wrong.get(address, (0, 0.0))
        left = last + wait(count) - monotonic()
        if left > 0:
            said = f"{count} wrong passwords came from here: wait {left:.0f} seconds, then try again"
            await PlainTextResponse(said, 429, {"Retry-After": f"{left + 1:.0f}"})(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.count(address, count, message["status"])
            await send(message)

        await self.app(scope, receive, counting)

    def count(self, address: str, before: int, status: int) -> None:
        """Remember how a try went."""
        if status == 400:
            log.warning("wrong password from %s, %d in a row", address, before + 1)
            self.wrong.pop(address, None)  # to the end
            self.wrong[address] = before + 1, monotonic()
            while len(self.wrong) > ADDRESSES:
                self.wrong.pop(next(iter(self.wrong)))
        elif status < 400:
            self.wrong.pop(address, None)


def wait(count: int) -> float:
    """Seconds after so many wrong passwords: none at first, then twice as long each time."""
    return 0.0 if count < TRIES else min(LONGEST_WAIT, 2.0 ** (count - TRIES + 1))


def name_of(host: str) -> str:
    """The name or address in "name:port", without brackets, in small letters; "" where it is none."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^\s:/?#@\[\]]+))(?::\d{1,5})?", host.lower())
    return (found[1] or found[2]).rstrip(".") if found else ""


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether a name means this machine itself, whoever is asked for it."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return is_address(name) and ipaddress.ip_address(name).is_loopback
