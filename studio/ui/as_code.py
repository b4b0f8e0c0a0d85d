"""What was just done, as code: a script, a command, curl, and a link that opens the tab with these settings."""

from __future__ import annotations

import html
import inspect
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.datastructures import QueryParams

from studio.ui.calls import mismatch, shown

HIDDEN = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}  # unqueued, none can warn
HEADING = "As code"
NEVER_LINKED = ("consent",)  # somebody says that themselves
FLAGS = {  # of `studio restore`, by the endpoint's argument
    **{name: f"--{name}" for name in ("faces", "fidelity", "strength", "scale", "background", "region", "seed")},
    **{"identity_guard": "--guard", "file_format": "--format", "reference": "--reference", "model": "--model"},
}
SWITCHES = {
    ("colorize", True): "--colorize",
    ("credentials", False): "--no-credentials",
    ("aligned", True): "--aligned",
}
GOT = "python3 -c 'import json,sys; print(json.load(sys.stdin){})'"


def names_of(event: Callable[..., Any]) -> list[str]:
    """The arguments of an endpoint; what gradio fills in comes after them."""
    return [name for name in inspect.signature(event).parameters if name not in ("request", "progress")]


def given(event: Callable[..., Any], components: Sequence[Any], values: Sequence[Any]) -> dict[str, Any]:
    """The arguments that are not as they are anyway; in place of an upload, its name as a `Path`."""
    parameters, found = inspect.signature(event).parameters, {}
    for name, component, value in zip(names_of(event), components, values, strict=True):
        if isinstance(component, gr.File) and value:
            found[name] = [Path(Path(one).name) for one in value] if isinstance(value, list) else Path(Path(value).name)
        elif value is not None and value != parameters[name].default:
            found[name] = value
    return found


def section(event: Callable[..., Any], components: Sequence[Any], api_name: str) -> tuple[list[gr.Textbox], Any]:
    """Lay out what can be copied, inside a result.

    Args:
        event: the endpoint's function.
        components: its arguments' widgets.
        api_name: its name.

    Returns:
        The fields, and a function that fills them from the widgets' values.
    """
    labels = ["Script", "Command", "curl", "Link to these settings"]
    if api_name != "restore":
        labels.remove("Command")
    with gr.Accordion(HEADING, open=False):
        fields = [gr.Textbox(label=one, lines=1, max_lines=20, interactive=False, buttons=["copy"]) for one in labels]

    def fill(request: gr.Request, *values: Any) -> list[str]:
        told, url = given(event, components, values), address(request)
        tab = [one.id for one in ancestors(fields[0]) if isinstance(one, gr.Tab)][-1]
        made = [script(url, api_name, told), curl(url, api_name, told), link(url, tab, told)]
        return [made[0], command(told), *made[1:]] if api_name == "restore" else made

    return fields, fill


def ancestors(component: Any) -> Iterator[Any]:
    """What a component lies in, from the nearest on."""
    while (component := component.parent) is not None:
        yield component


def address(request: gr.Request) -> str:
    """Of the app, as the visitor reached it."""
    scheme = request.headers.get("x-forwarded-proto", request.request.url.scheme).split(",")[0].strip()
    host = request.headers.get("x-forwarded-host", request.headers.get("host", "")).split(",")[0].strip()
    return f"{scheme}://{host}"


def script(url: str, api_name: str, told: Mapping[str, Any]) -> str:
    """Python, for the package gradio_client."""

    def python(value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(python, value))}]"
        return f"handle_file({str(value)!r})" if isinstance(value, Path) else repr(value)

    lines = [f"    {name}={python(value)}," for name, value in told.items()]
    inside = "\n".join([*lines, f'    api_name="/{api_name}",'])
    head = f"from gradio_client import Client, handle_file\n\nclient = Client({url!r})\n"
    return f"{head}result = client.predict(\n{inside}\n)\nprint(result)"


def curl(url: str, api_name: str, told: Mapping[str, Any]) -> str:
    """Three steps in a shell: upload, ask, listen."""
    lines, files = [f"URL={shlex.quote(url)}/gradio_api"], 0

    def sent(value: Any) -> str:
        nonlocal files
        if isinstance(value, list):
            return f"[{', '.join(map(sent, value))}]"
        if not isinstance(value, Path):
            return json.dumps(value).replace("'", "'\\''")
        files += 1
        source = shlex.quote(f"files=@{value}")
        lines.append(f"FILE{files}=$(curl -s -F {source} $URL/upload | {GOT.format('[0]')})")
        return f'{{"path": "\'"$FILE{files}"\'", "meta": {{"_type": "gradio.FileData"}}}}'

    body = ", ".join(f'"{name}": {sent(value)}' for name, value in told.items())
    asked = f"curl -s $URL/call/v2/{api_name} -H 'Content-Type: application/json' -d '{{{body}}}'"
    found = GOT.format('["event_id"]')
    return "\n".join([*lines, f"EVENT=$({asked} | {found})", f"curl -sN $URL/call/{api_name}/$EVENT"])


def command(told: Mapping[str, Any]) -> str:
    """`studio restore`, whose results are PNG files only where that is said."""
    parts = ["studio", "restore", str(told.get("photo", "PHOTO")), "-o", "restored"]
    for name, value in {"file_format": "png", **told}.items():
        if name in FLAGS:
            parts += [FLAGS[name], str(value)]
        elif (name, value) in SWITCHES:
            parts.append(SWITCHES[name, value])
        elif name == "boxes":
            parts += [part for box in value.split(";") if box.strip() for part in ("--box", box.strip())]
    return shlex.join(parts)


def link(url: str, tab: str, told: Mapping[str, Any]) -> str:
    """Opens the tab with these settings; photos, and that somebody agreed, are never in it."""
    plain = {name: value for name, value in told.items() if isinstance(value, str | int | float)}
    plain = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in plain.items()}
    return f"{url}/?{QueryParams({'tab': tab, **{k: v for k, v in plain.items() if k not in NEVER_LINKED}})}"


# ---- links into the page


def follow_links(app: gr.Blocks, tabs: gr.Tabs) -> None:
    """Open the tab that the page's address names, with the settings in it.

    Args:
        app: with all its endpoints.
        tabs: of the page.
    """
    places: dict[str, dict[str, Any]] = {}
    for endpoint in app.fns.values():
        if endpoint.api_visibility == "public":
            tab = next(
                one.id for one in ancestors(endpoint.inputs[0]) if isinstance(one, gr.Tab) and one.parent is tabs
            )
            named = zip(names_of(endpoint.fn), endpoint.inputs, strict=True)
            places.setdefault(tab, {name: one for name, one in named if name not in NEVER_LINKED})
    plain = [
        (tab, name, one) for tab, found in places.items() for name, one in found.items() if not isinstance(one, gr.File)
    ]

    def opened(request: gr.Request) -> list[Any]:
        asked = dict(request.query_params)
        tab = asked.get("tab", "")
        if tab not in {one.id for one in tabs.children if isinstance(one, gr.Tab)}:
            return [gr.skip()] * (1 + len(plain))
        return [
            gr.Tabs(selected=tab),
            *(wanted(asked, name, one) if tab == of else gr.skip() for of, name, one in plain),
        ]

    app.load(opened, None, [tabs, *(one for _, _, one in plain)], **HIDDEN)


def wanted(asked: Mapping[str, str], name: str, component: Any) -> Any:
    """A setting out of an address; what does not fit is said, and left as it is."""
    if name not in asked:
        return gr.skip()
    try:
        value = asked[name] if isinstance(component, gr.Textbox) else json.loads(asked[name])
    except ValueError:
        value = asked[name]
    wrong = mismatch(component, value)
    if not wrong and isinstance(component, gr.Slider) and not component.minimum <= value <= component.maximum:
        wrong = f"{component.minimum:g} to {component.maximum:g}"
    if not wrong and isinstance(component, gr.Dropdown) and value not in [choice for _, choice in component.choices]:
        wrong = "one of its choices"
    if wrong:
        said = f"{name} in the page's address must be {wrong}, got {shown(value)}: it was left as it is"
        gr.Warning(html.escape(said, quote=False))
        return gr.skip()
    return value
