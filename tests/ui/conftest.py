"""Fixtures of the web app's tests: photos of several kinds, and a served app with toy models."""

import importlib.util
import os
import shutil

import pytest
from gradio_client import Client
from PIL import Image, ImageCms

from studio import images
from studio.images import Photo
from studio.ui.app import build, options
from studio.ui.screenshots import BROWSERS, chromium
from tests import tiny
from tests.ui.toy import ToyAlbum, ToyComparer, ToyRestore, closed_loops
from tests.ui.visitor import Visitor


@pytest.fixture(scope="module")
def _loops():
    with closed_loops():
        yield


@pytest.fixture
def pipeline():
    return ToyRestore(tiny.tiny_net())


@pytest.fixture
def photo(tmp_path):
    """16 bits, alpha, a colour profile: what a viewer's format would lose."""
    pixels, alpha = tiny.image(40, 60), tiny.image(40, 60, seed=1)[:1]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return images.save(Photo(pixels, alpha, icc=profile, bits=16), tmp_path / "aunt.png")


@pytest.fixture
def black(tmp_path):
    path = tmp_path / "black.png"
    Image.new("RGB", (32, 32)).save(path)
    return path


@pytest.fixture
def face(tmp_path):
    """A tiny one, for Upsample."""
    return images.save(tiny.image(12, 12), tmp_path / "face.png")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not a photo")
    return path


@pytest.fixture(scope="module")
def url(_loops):
    models = {"Restore": ToyRestore(tiny.tiny_net()), "Upsample": tiny.upsample_pipeline()}
    app = build({**models, "Compare": ToyComparer(), "Album": ToyAlbum()})
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True, **options({}))
    yield address
    app.close()


@pytest.fixture(scope="module")
def client(url):
    client = Client(url, verbose=False, analytics_enabled=False)
    yield client
    client.close()


@pytest.fixture(scope="module")
def browser(client):
    """After the app, whose server must not find a running event loop in this thread."""
    missing = None if any(map(shutil.which, BROWSERS)) else "browser"
    if importlib.util.find_spec("playwright") is None:
        missing = "package playwright"
    if missing and os.environ.get("STUDIO_BROWSER") == "required":
        pytest.fail(f"STUDIO_BROWSER=required, and there is no {missing}")
    if missing:
        pytest.skip(f"no {missing}: install chromium and playwright")
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser, url):
    visitors = []

    def one(**options):
        visitors.append(Visitor(browser, url, **options))
        return visitors[-1]

    yield one
    for visitor in visitors:
        visitor.close()
