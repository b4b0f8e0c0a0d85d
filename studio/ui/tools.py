"""The endpoints as MCP tools: each can be given a picture, as a `data:` URI or by the name of a file that may be read.

gradio's own server asks for addresses, of which this app fetches none, and nobody can read its schema of several files.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio.mcp
from anyio.to_thread import run_sync
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from gradio_client import handle_file

from studio.errors import InputError

LARGEST = 40 * 2**20  # bytes of a picture, as of an upload
FILE = "gradio_api/file="  # in the address of an upload


def install(environment: Mapping[str, str]) -> None:
    """Let gradio offer our tools in place of its own; it has no setting for this.

    Args:
        environment: STUDIO_MCP_FOLDERS, folders whose files the tools may read, with the system's separator of paths
            between them, is read from it.

    Raises:
        InputError: a folder that is none.
    """
    folders = [Path(one) for one in environment.get("STUDIO_MCP_FOLDERS", "").split(os.pathsep) if one]
    for one in folders:
        if not one.is_dir():
            raise InputError(f"STUDIO_MCP_FOLDERS must name folders, got {str(one)!r}: make it, or leave it out")
    gradio.mcp.GradioMCPServer = partial(Tools, folders=[one.resolve() for one in folders])


class Tools(gradio.mcp.GradioMCPServer):
    """gradio's MCP server with pictures that can be given.

    Args:
        blocks: the app.
        folders: whose files may be read.
    """

    def __init__(self, blocks: Any, folders: Sequence[Path] = ()) -> None:
        self.folders = tuple(folders)
        super().__init__(blocks)

    @property
    def _file_data_tool_description(self) -> str:
        return f" A picture or a video is {self.ways()}."

    def ways(self, kind: str = "image/jpeg") -> str:
        """How a file of a kind is given, in words."""
        folders = ", ".join(map(str, self.folders))
        path = f", or the path of a file in {folders}" if folders else ""
        return f"a data: URI (data:{kind};base64,…){path}, or what an upload to gradio_api/upload returned"

    def get_input_schema(
        self, tool_name: str, parameters: dict[str, str] | None = None
    ) -> tuple[dict[str, Any], list[list[str | int]]]:
        """JSON schema of a tool's arguments, and the names of those that are pictures, each in a list."""
        name = self.tool_to_endpoint.get(tool_name)
        if name is None:
            raise ValueError(f"Unknown tool for this app: {tool_name}")
        properties, required, pictures = {}, [], []
        for given in self.api_info["named_endpoints"][name]["parameters"]:
            argument, kind = given["parameter_name"], given["type"]
            said = (parameters or {}).get(argument, "")
            if given["component"] == "File":
                pictures.append([argument])
                properties[argument] = self.picture(said, many=kind.get("type") == "array")
            else:
                properties[argument] = plain(kind) | ({"description": said} if said else {})
            if not given.get("parameter_has_default"):
                required.append(argument)
            elif given["parameter_default"] is not None:
                properties[argument]["default"] = given["parameter_default"]
        schema = {"type": "object", "properties": properties} | ({"required": required} if required else {})
        return schema, pictures

    def picture(self, said: str, *, many: bool) -> dict[str, Any]:
        """Schema of a picture, of several, or of a video, as its description says."""
        kind = "video/mp4" if said.startswith("a video") else "image/jpeg"
        one = {"type": "string", "description": f"{said.rstrip('.')}. Given as {self.ways(kind)}".lstrip(". ")}
        return {"type": "array", "items": one, "description": one["description"]} if many else one

    def convert_strings_to_filedata(self, value: Any, filedata_positions: list[list[str | int]]) -> Any:
        """Arguments with the pictures as gradio's client takes them."""
        found = dict(value)
        for (name,) in filedata_positions:
            given = found.get(name)
            if isinstance(given, list):
                found[name] = [self.file(one) for one in given]
            elif given is not None:
                found[name] = self.file(given)
        return found

    def file(self, given: str) -> dict[str, Any]:
        """A picture as gradio's client takes it.

        Raises:
            InputError: it is given in another way, is too large, or is not there.
        """
        if given.startswith("data:"):
            path = self.written(given)
        else:
            own = given.partition(FILE)[2] if given.startswith(("http://", "https://")) else given
            path = Path(own) if own else Path("/")
            readable = (*self.folders, Path(get_upload_folder()).resolve())
            if not (path.is_absolute() and any(path.resolve().is_relative_to(one) for one in readable)):
                raise InputError(f"a picture must be {self.ways()}, got {given[:80]!r}: addresses are not fetched")
            if not path.is_file():
                raise InputError(f"a picture must be a file that is there, got {given[:80]!r}: check the name")
        if path.stat().st_size > LARGEST:
            raise InputError(
                f"a picture must be at most {LARGEST >> 20} MB, got {path.stat().st_size >> 20}: shrink it"
            )
        return handle_file(str(path.resolve()))

    def written(self, uri: str) -> Path:
        """The picture of a data: URI as a file, which is deleted as uploads are."""
        head, comma, body = uri.partition(",")
        try:
            if not comma or not head.endswith(";base64"):
                raise ValueError
            data = base64.b64decode(body, validate=True)
        except (ValueError, binascii.Error):
            raise InputError(f"a data: URI must be data:image/…;base64,…, got {uri[:40]!r}: encode it so") from None
        suffix = {"image/jpeg": "jpg", "image/tiff": "tif"}.get(head[5:-7], head[5:-7].rpartition("/")[2])
        name = f"picture.{suffix if suffix.isalnum() else 'bin'}"
        path = save_bytes_to_cache(data, name, get_upload_folder())
        self.blocks.upload_file_set.add(path)
        return Path(path)

    async def _execute_tool_without_progress(self, job: Any) -> list[Any]:
        """All outputs of a call; it is ended where the client is gone."""
        try:
            found = await run_sync(job.result, abandon_on_cancel=True)
        except asyncio.CancelledError:
            job.cancel()
            raise
        return list(found) if isinstance(found, tuple) else [found]


def plain(kind: dict[str, Any]) -> dict[str, Any]:
    """A type as JSON schema has it: gradio calls every choice a string, numbers too."""
    if all(isinstance(choice, str) for choice in kind.get("enum", [])):
        return dict(kind)
    return {name: value for name, value in kind.items() if name != "type"}
