"""The app in a real browser, with toy models: what a visitor does, and what must not happen meanwhile."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
import torch
from gradio_client import handle_file

from studio import images
from studio.ui.screenshots import BROWSERS, PHONE, WIDE, chromium
from tests import tiny
from tests.ui.toy import MARKS

WAIT = 30_000  # ms: the machine may be busy
pytestmark = [*MARKS, pytest.mark.slow]


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


class Visitor:
    """A page of its own session, with everything it asked for and complained about."""

    def __init__(self, browser, url, **options):
        self.url = url
        self.context = browser.new_context(**{"viewport": WIDE, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.asked, self.complaints = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)

    def upload(self, path):
        self.page.locator("input[type=file]").first.set_input_files(str(path))
        self.page.get_by_alt_text("Your photo, with").wait_for()

    def restore(self):
        self.page.get_by_role("button", name="Restore", exact=True).click()
        self.page.get_by_text("1 restored.").first.wait_for()

    def download(self, folder):
        with self.page.expect_download() as event:
            self.page.get_by_role("button", name="Download in full quality").click()
        path = Path(folder) / event.value.suggested_filename
        event.value.save_as(path)
        return path

    def close(self):
        foreign = {one for one in self.asked if not one.startswith((self.url, "data:", "blob:"))}
        self.context.close()
        assert not self.complaints
        assert not foreign


@pytest.fixture
def visit(browser, url):
    visitors = []

    def one(**options):
        visitors.append(Visitor(browser, url, **options))
        return visitors[-1]

    yield one
    for visitor in visitors:
        visitor.close()


def test_restore_and_download(visit, client, photo, tmp_path):
    """The file that the browser gets is that of the API, bit for bit; the slider moves."""
    visitor = visit()
    visitor.upload(photo)
    visitor.page.get_by_role("button", name="Options").click()
    visitor.page.get_by_label("Content Credentials").first.uncheck()  # they tell the time
    visitor.restore()
    file, *_ = client.predict(handle_file(photo), credentials=False, api_name="/restore")
    found = visitor.download(tmp_path)
    assert found.read_bytes() == Path(file).read_bytes()
    assert images.load(found).bits == 16

    handle = visitor.page.get_by_role("slider", name="Image comparison slider").or_(
        visitor.page.locator(".slider-wrap .inner")
    )
    handle = handle.first
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visitor.page.mouse.move(*at)
    visitor.page.mouse.down()
    visitor.page.mouse.move(at[0] + 80, at[1], steps=4)
    visitor.page.mouse.up()
    assert handle.bounding_box()["x"] > box["x"] + 40


def test_choosing_a_face_by_a_click(visit, tmp_path):
    """A click into the second of two faces leaves it out; the list says so."""
    visitor = visit()
    visitor.upload(images.save(images.load(tiny.image(120, 240)), tmp_path / "pair.png"))
    picture, faces = visitor.page.get_by_alt_text("Your photo, with"), visitor.page.get_by_label("Faces to restore")
    faces.first.click()
    visitor.page.get_by_role("option", name="1", exact=True).wait_for()  # the faces were found
    visitor.page.keyboard.press("Escape")
    visitor.page.wait_for_timeout(500)
    box = picture.bounding_box()
    visitor.page.mouse.click(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2)  # shown 1:1, centred
    visitor.page.wait_for_function("() => [...document.querySelectorAll('input')].some(one => one.value === '0')")
    assert faces.first.input_value() == "0"
    visitor.restore()


def test_a_damaged_upload_is_said_and_taken_off(visit, text):
    visitor = visit()
    visitor.page.locator("input[type=file]").first.set_input_files(str(text))
    visitor.page.get_by_text("notes.jpg' must be a JPEG").first.wait_for()
    visitor.page.get_by_text("Drop File Here").first.wait_for()
    visitor.page.get_by_role("button", name="Restore", exact=True).click()
    visitor.page.get_by_text("a photo is needed, got none").first.wait_for()


def test_two_visitors_at_once(visit, tmp_path):
    """Each sees the own photo and result, and nothing of the other's."""
    names = ("mine", "yours")
    files = [images.save(images.load(tiny.image(40, 60, seed=7 + i)), tmp_path / f"{names[i]}.png") for i in (0, 1)]
    visitors = [visit(), visit()]
    for visitor, file in zip(visitors, files, strict=True):
        visitor.upload(file)
    for visitor in visitors:
        visitor.page.get_by_role("button", name="Restore", exact=True).click()
    found = []
    for visitor, own, others in zip(visitors, names, reversed(names), strict=True):
        visitor.page.get_by_text("1 restored.").first.wait_for()
        found.append(images.load(visitor.download(tmp_path / f"got-{own}")).pixels)
        shown = visitor.page.content()
        assert f"{own}.png" in shown and f"{others}." not in shown
        assert not [one for one in visitor.asked if f"{others}." in one]
    assert not torch.equal(*found)


def test_a_phone_needs_no_sideways_scrolling(visit, photo):
    visitor = visit(viewport=PHONE, is_mobile=True, has_touch=True, color_scheme="dark")
    visitor.upload(photo)
    visitor.restore()
    for name in ("Restore", "Upsample", "Turn", "Compare", "About"):
        tab = visitor.page.get_by_role("tab", name=name)
        if tab.count() and tab.first.is_visible():
            tab.first.click()
        else:  # on a narrow screen the last ones are in a menu
            visitor.page.locator(".overflow-menu > button").first.click()
            visitor.page.locator(".overflow-dropdown").get_by_text(name).click()
        visitor.page.wait_for_timeout(300)
        assert visitor.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name


def test_keyboard_and_screen_reader(visit, photo):
    """Everything one can press or fill in has a name, the tabs answer to keys, and the message is announced."""
    visitor = visit()
    page = visitor.page
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input:not([type=file]), select, textarea, [role=tab]')]
            .filter(one => one.offsetParent !== null)
            .filter(one => !(one.innerText || one.ariaLabel || one.title || one.alt
                || (one.labels && one.labels.length) || one.getAttribute('aria-labelledby')
                || one.querySelector('img[alt]:not([alt=""]), [aria-label]')))
            .map(one => one.outerHTML.slice(0, 150))"""
    )
    assert nameless == []
    assert page.locator("[role=status].message").first.inner_text() == "Choose a photo, then press Restore."
    page.get_by_role("tab", name="Restore").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Choose a tiny face").wait_for()
    page.get_by_role("tab", name="Restore").click()
    visitor.upload(photo)
    page.get_by_role("button", name="Restore", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("[role=status].message").get_by_text("1 restored.").first.wait_for()
