"""What scripts send to the endpoints, looked at before anything runs: so many values, and of the right kinds."""

from __future__ import annotations

import json
import re
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio_client.utils import construct_args
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import InputError

CALLS = re.compile(r"/gradio_api/(call/v2|call|run|api)/(\w+)/?|/gradio_api/queue/join/?")
LARGEST = 8 * 2**20  # bytes; photos are uploaded, not sent in here
KINDS: tuple[tuple[type, tuple[type, ...], str], ...] = (
    (gr.Checkbox, (bool,), "true or false"),
    (gr.Slider, (int, float), "a number"),
    (gr.Number, (int, float), "a number"),
    (gr.Textbox, (str,), "text"),
)


class Checked:
    """Refuses calls that cannot be run, with one line and a status that says so; hands on all others.

    Args:
        app: what is called.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        found = CALLS.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None or not let_in(scope):
            await self.app(scope, receive, send)
            return
        body = await whole(receive)
        try:
            if body is None:
                raise RefusalError(413, f"a call must be at most {LARGEST} bytes, got more: upload photos before it")
            check(scope["app"].get_blocks(), found[1] or "queue", found[2], body)
        except InputError as error:
            status = error.status if isinstance(error, RefusalError) else 422
            await JSONResponse({"detail": str(error)}, status)(scope, receive, send)
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


def let_in(scope: Scope) -> bool:
    """Whether a visitor has logged in, where that is asked for; others are told nothing but that, by gradio."""
    app, cookies = scope["app"], HTTPConnection(scope).cookies
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return app.auth is None or any(cookies.get(name) in app.tokens for name in names)


class RefusalError(InputError):
    """A call that is refused with a status of its own."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


async def whole(receive: Receive) -> bytes | None:
    """The body of a request; None if it is too large."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > LARGEST:
            return None
    return body


def check(blocks: gr.Blocks, way: str, name: str | None, body: bytes) -> None:
    """Refuse a call that cannot be run.

    Args:
        blocks: the app.
        way: "call", "call/v2", "run", "api" or "queue".
        name: of the endpoint; None where the body has its number.
        body: of the request.

    Raises:
        InputError: what is wrong with it, in one line.
    """
    try:
        call = json.loads(body)
    except (UnicodeDecodeError, ValueError):
        call = None
    if not isinstance(call, dict):
        raise RefusalError(400, "a call must be a JSON object, got something else: send {…}")
    if way == "call/v2":
        values: Any = positional(blocks, str(name), call)
    else:
        values = call.get("data")
    if not isinstance(values, list):
        raise InputError(f"data must be a list of values, got {shown(values)}: send it in brackets")
    function = endpoint(blocks, name, call)
    if call.get("session_hash") is not None and not isinstance(call["session_hash"], str):
        raise InputError(f"session_hash must be text, got {shown(call['session_hash'])}: leave it out")
    inputs = function.inputs
    if len(values) != len(inputs):
        inputs = [one for one in inputs if not one.skip_api]
    if len(values) != len(inputs) and not function.cancels:
        raise InputError(f"{len(inputs)} values are needed, got {len(values)}: gradio_api/info lists them")
    for number, (component, value) in enumerate(zip(inputs, values, strict=False), 1):
        if wanted := mismatch(component, value):
            label = getattr(component, "label", "") or "value"
            raise InputError(f"value {number} ({label}) must be {wanted}, got {shown(value)}: send one")


def endpoint(blocks: gr.Blocks, name: str | None, call: dict[str, Any]) -> BlockFunction:
    """What is called.

    Raises:
        InputError: there is no such thing.
    """
    number = call.get("fn_index")
    if isinstance(number, int) and not isinstance(number, bool) and number in blocks.fns:
        return blocks.fns[number]
    named = [one for one in blocks.fns.values() if one.api_name == name] if number is None and name else []
    if not named:
        raise RefusalError(
            404, f"an endpoint must be one of gradio_api/info, got {shown(name if number is None else number)}"
        )
    return named[0]


def positional(blocks: gr.Blocks, name: str, call: dict[str, Any]) -> list[Any]:
    """The values of a call by names, in their order, with defaults where they are left out."""
    known = blocks.get_api_info()["named_endpoints"].get(f"/{name}")
    if known is None:
        raise RefusalError(404, f"an endpoint must be one of gradio_api/info, got {shown(name)}")
    try:
        return list(construct_args(known["parameters"], (), {k: v for k, v in call.items() if k != "oauth_token"}))
    except (TypeError, ValueError) as error:
        raise InputError(" ".join(str(error).split())) from None


def mismatch(component: Any, value: Any) -> str:
    """What a component must be given, if this is something else; "" where it fits."""
    for kind, types, wanted in KINDS:
        if isinstance(component, kind):
            fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
            return "" if fits else wanted
    if isinstance(component, gr.Radio) or is_number_choice(component):
        choices = [choice for _, choice in component.choices]
        fits = value in choices and not isinstance(value, bool)
        return "" if fits else f"one of {', '.join(map(str, choices))}"
    if isinstance(component, gr.Dropdown) and not component.multiselect:
        return "" if isinstance(value, str) else "text"
    if isinstance(component, gr.File):
        return files(value, many=component.file_count == "multiple")
    return ""


def is_number_choice(component: Any) -> bool:
    """Whether a component is a list of numbers of which one is chosen, such as that of faces."""
    listed = isinstance(component, gr.Dropdown) and not component.multiselect
    return listed and bool(component.choices) and all(isinstance(choice, int) for _, choice in component.choices)


def files(value: Any, *, many: bool) -> str:
    """The same, of uploads."""
    if value is None:
        return ""
    if many:
        fits = isinstance(value, list) and all(map(is_file, value))
        return "" if fits else 'a list of uploads, {"path": …, "meta": {"_type": "gradio.FileData"}}'
    return "" if is_file(value) else 'an upload, {"path": …, "meta": {"_type": "gradio.FileData"}}'


def is_file(value: Any) -> bool:
    """Whether something names an upload."""
    return isinstance(value, dict) and isinstance(value.get("path"), str)


def shown(value: Any) -> str:
    """A value in a message: one line, and not long."""
    return json.dumps(value, ensure_ascii=False)[:60]
