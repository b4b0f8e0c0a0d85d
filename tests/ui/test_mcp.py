"""STUDIO_MCP=1: the endpoints are tools with descriptions of their arguments, and nothing else is."""

import httpx
import pytest

from studio.ui.app import build, options
from tests import tiny
from tests.ui.toy import MARKS, ToyComparer, ToyRestore

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
# The package leaves a socket of its own open.
pytestmark = [*MARKS, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


def test_tools(_loops):
    app = build({"Restore": ToyRestore(tiny.tiny_net()), "Compare": ToyComparer()})
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, **options({"STUDIO_MCP": "1"}))
    try:
        tools = {tool["name"]: tool for tool in httpx.get(f"{url}gradio_api/mcp/schema").json()}
    finally:
        app.close()
    assert set(tools) == {
        "restore",
        "restore_many",
        "upsample",
        "frontalize",
        "edit",
        "generate",
        "reenact",
        "compare",
        "album",
    }
    for tool in tools.values():
        assert tool["description"]
        assert "request" not in tool["inputSchema"]["properties"]
