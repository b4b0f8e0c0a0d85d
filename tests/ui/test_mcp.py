"""STUDIO_MCP=1: the endpoints are tools with descriptions of their arguments, and every one can be called."""

import asyncio
import base64
import contextlib

import httpx
import pytest

from pipelines import edit as pipelines_edit
from pipelines import frontalize as pipelines_frontalize
from pipelines import reenact as pipelines_reenact
from pipelines import upsample as pipelines_upsample
from studio import images
from studio.errors import InputError
from studio.ui.app import build, options
from tests import tiny
from tests.ui.toy import MARKS, ToyAlbum, ToyComparer, ToyRestore

mcp = pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
# The package leaves a socket of its own open.
pytestmark = [
    *MARKS,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:too small for the invisible mark"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Named by the owner: with a photo."""
    place = tmp_path_factory.mktemp("named")
    images.save(images.load(tiny.sharp_photo()), place / "aunt.png")
    images.save(tiny.image(72, 80, seed=7), place / "one.png")
    images.save(tiny.image(12, 12), place / "tiny.png")
    return place


@pytest.fixture(scope="module")
def served(_loops, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines_edit, "FaceFinder", tiny.SureFinder)
        patch.setattr(pipelines_frontalize, "FaceFinder", tiny.SureFinder)
        patch.setattr(pipelines_upsample, "FaceFinder", tiny.SureFinder)
        patch.setattr(pipelines_reenact, "FaceFinder", tiny.SureFinder)
        models = {"Restore": ToyRestore(tiny.tiny_net()), "Compare": ToyComparer(), "Album": ToyAlbum()}
        models |= {"Upsample": tiny.upsample_pipeline(), "Edit": tiny.edit_pipeline()}
        models |= {"Turn": tiny.frontalize_pipeline(), "Generate": tiny.generate_pipeline()}
        app = build({**models, "Reenact": tiny.reenact_pipeline()})
        environment = {"STUDIO_MCP": "1", "STUDIO_MCP_FOLDERS": str(folder)}
        _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, **options(environment))
        yield url
        app.close()


def call(url, *calls):
    """(name, arguments), … -> the results, by a real client."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def run():
        async with contextlib.AsyncExitStack() as stack:
            read, write, _ = await stack.enter_async_context(streamablehttp_client(f"{url}gradio_api/mcp/"))
            session = await stack.enter_async_context(ClientSession(read, write))
            await session.initialize()
            await session.list_tools()
            return [await session.call_tool(name, given) for name, given in calls]

    return asyncio.run(run())


def texts(result):
    return " ".join(part.text for part in result.content if part.type == "text")


def uri(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def test_tools(served, folder):
    tools = {tool["name"]: tool for tool in httpx.get(f"{served}gradio_api/mcp/schema").json()}
    assert set(tools) == {
        *("restore", "restore_many", "upsample", "frontalize", "edit", "generate", "reenact", "compare", "album")
    }
    for name, tool in tools.items():
        assert tool["description"]
        schema = tool["inputSchema"]["properties"]
        assert "request" not in schema
        assert "$ref" not in str(tool), name
        for argument in {"photo", "photos", "first", "second", "reference", "driving"} & schema.keys():
            assert "data: URI" in schema[argument]["description"] and str(folder) in schema[argument]["description"]
            kind = "data:video/mp4" if argument == "driving" else "data:image/jpeg"
            assert kind in schema[argument]["description"], "what is wanted is what is described"


def test_a_picture_in_every_way(served, folder):
    """As a data: URI, as a file of a named folder, and as an upload, by its path and by its address."""
    photo = folder / "aunt.png"
    with photo.open("rb") as file:
        upload = httpx.post(f"{served}gradio_api/upload", files={"files": ("aunt.png", file)}).json()[0]
    ways = [uri(photo), str(photo), upload, f"{served}gradio_api/file={upload}"]
    found = call(served, *(("restore", {"photo": way, "faces": "0", "scale": 2}) for way in ways))
    for result in found:
        assert not result.isError, texts(result)
        assert "'status': 'restored'" in texts(result)
        picture = next(part for part in result.content if part.type == "image")
        assert images.load(base64.b64decode(picture.data)).width == 2 * images.load(photo).width


def test_every_tool_can_be_called(served, folder):
    photo, one, small = (uri(folder / name) for name in ("aunt.png", "one.png", "tiny.png"))
    path = str(folder / "aunt.png")
    given = {
        "restore": {"photo": photo},
        "restore_many": {"photos": [photo, path]},
        "upsample": {"photo": small, "samples": 1, "steps": 10},
        "frontalize": {"photo": one, "steps": 1},
        "edit": {"photo": one, "smile": 1, "steps": 2},
        "generate": {"samples": 1, "correction": 0, "seed": 1},
        "reenact": {"photo": str(folder / "one.png"), "consent": True, "seconds": 1},
        "compare": {"first": photo, "second": path},
        "album": {"photos": [photo, path]},
    }
    for name, result in zip(given, call(served, *given.items()), strict=True):
        assert not result.isError, (name, texts(result))
        assert result.content, name


def test_no_other_file_and_no_address(served, folder, tmp_path, repository):
    secret = images.save(tiny.image(12, 12), tmp_path / "secret.png")
    (folder / "link.png").unlink(missing_ok=True)
    (folder / "link.png").symlink_to(secret)
    wrong = [
        str(secret),
        str(folder / "link.png"),
        f"{folder}/../{tmp_path.name}/secret.png",
        str(folder / "gone.png"),
        "https://example.com/aunt.jpg",
        f"{served}gradio_api/file={secret}",
        "aunt.png",
        "data:image/png;base64,???",
        "data:,x",
    ]
    for way, result in zip(wrong, call(served, *(("restore", {"photo": way}) for way in wrong)), strict=True):
        assert result.isError, way
        assert "must be" in texts(result) and "\n" not in texts(result), texts(result)


def test_a_folder_must_be_there_and_a_login_is_not_passed_by():
    with pytest.raises(InputError, match="STUDIO_MCP_FOLDERS"):
        options({"STUDIO_MCP": "1", "STUDIO_MCP_FOLDERS": "/nowhere"})
    with pytest.raises(InputError, match="STUDIO_AUTH"):
        options({"STUDIO_MCP": "1", "STUDIO_AUTH": "ann:secret"})
