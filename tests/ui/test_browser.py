"""The app in a real browser, with toy models: what a visitor does, and what must not happen meanwhile."""

import zipfile
from pathlib import Path

import pytest
import torch
from gradio_client import handle_file

from studio import images
from studio.ui import app
from studio.ui.screenshots import PHONE
from tests import tiny
from tests.ui.toy import MARKS, Slow, ToyRestore
from tests.ui.visitor import CONTRAST, Visitor

TABS = [one.TITLE for one in app.TABS]
pytestmark = [*MARKS, pytest.mark.slow]

# What one can press or fill in, and has no name that a screen reader could say.
NAMELESS = """() => [...document.querySelectorAll('button, input:not([type=file]), select, textarea, [role=tab]')]
    .filter(one => one.offsetParent !== null)
    .filter(one => !(one.innerText || one.ariaLabel || one.title || one.alt
        || (one.labels && one.labels.length) || one.getAttribute('aria-labelledby')
        || one.querySelector('img[alt]:not([alt=""]), [aria-label]')))
    .map(one => one.outerHTML.slice(0, 150))"""

# Lines of text whose contrast with what is behind them is below 4.5 to 1 (WCAG 2.2, success criterion 1.4.3).
FAINT = (
    f"() => {{{CONTRAST}"
    + """
    const found = []
    for (const one of document.querySelectorAll('body *')) {
        const own = [...one.childNodes].filter(node => node.nodeType === 3 && node.data.trim())
        const shown = one.checkVisibility({opacityProperty: true, visibilityProperty: true})
        if (!own.some(node => /[\\p{L}\\d]/u.test(node.data)) || !shown || one.closest(':disabled, style')) continue
        if (one.getBoundingClientRect().width < 2) continue
        const below = behind(one), text = seen(numbers(getComputedStyle(one).color), below)
        const ratio = apart(text, below)
        if (ratio < 4.5) found.push([own[0].data.trim().slice(0, 40), ratio.toFixed(2), one.className])
    }
    return found
}"""
)


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
    picture, second = visitor.page.get_by_alt_text("Your photo, with"), visitor.page.get_by_label("Face 2")
    second.wait_for()  # the faces were found
    assert second.is_checked()
    visitor.page.wait_for_timeout(500)
    box = picture.bounding_box()
    visitor.page.mouse.click(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2)  # shown 1:1, centred
    for _ in range(100):
        if not second.is_checked():
            break
        visitor.page.wait_for_timeout(100)
    assert not second.is_checked()
    assert visitor.page.get_by_label("Face 1").is_checked()
    visitor.restore()


def test_an_example_works_at_once(visit):
    visitor = visit()
    visitor.page.get_by_role("img", name="Three friends").click()
    visitor.page.get_by_alt_text("Your photo, with").wait_for()
    visitor.restore()


@pytest.mark.parametrize(
    ("tab", "offer", "press", "said"),
    [
        ("Compare", "Use two examples", "Compare", "pairs of two people"),
        ("Album", "Use the examples", "Group by person", "10 faces in 5 photos"),
    ],
)
def test_examples_of_the_other_tabs(visit, tab, offer, press, said):
    visitor = visit()
    visitor.open(tab)
    visitor.page.get_by_role("button", name=offer).click()
    visitor.page.get_by_text("old-print").or_(visitor.page.get_by_text("old-print-2")).last.wait_for()
    visitor.page.get_by_role("button", name=press, exact=True).click()
    visitor.say(said)


def test_a_damaged_upload_is_said_and_taken_off(visit, text):
    visitor = visit()
    visitor.page.locator("input[type=file]").first.set_input_files(str(text))
    visitor.page.get_by_text("notes.jpg' must be a JPEG").first.wait_for()
    visitor.page.get_by_text("Drop File Here").first.wait_for()
    visitor.page.get_by_role("button", name="Restore", exact=True).click()
    visitor.page.get_by_text("a photo is needed, got none").first.wait_for()


def test_a_file_that_is_too_large_is_said(visit, tmp_path):
    (tmp_path / "huge.tif").write_bytes(bytes(41 * 2**20))
    visitor = visit()
    visitor.page.locator("input[type=file]").first.set_input_files(str(tmp_path / "huge.tif"))
    visitor.page.get_by_text("exceed the maximum allowed size of 40").first.wait_for()
    visitor.complaints.clear()  # the browser notes the refusal


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
    for name in TABS:
        visitor.open(name)
        assert visitor.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name


def test_keyboard_and_screen_reader(visit, photo):
    """Everything one can press or fill in has a name, the tabs answer to keys, and the message is announced."""
    visitor = visit()
    page = visitor.page
    for name in reversed(TABS):
        visitor.open(name)
        assert page.evaluate(NAMELESS) == [], name
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(visit, photo, scheme):
    """In both schemes, on every tab, and with a result."""
    visitor = visit(color_scheme=scheme)
    assert visitor.page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")
    visitor.upload(photo)
    visitor.restore()
    for name in TABS:
        visitor.open(name)
        assert visitor.page.evaluate(FAINT) == [], name


@pytest.fixture(scope="module")
def slow_url(_loops):
    made = app.build({"Restore": Slow(ToyRestore(tiny.tiny_net()), seconds=4)})
    _, address, _ = made.launch(prevent_thread_lock=True, quiet=True, **app.options({}))
    yield address
    made.close()


def test_progress_and_cancel(slow_url, browser, photo):
    visitor = Visitor(browser, slow_url)
    visitor.upload(photo)
    visitor.page.get_by_role("button", name="Restore", exact=True).click()
    visitor.say("Working")
    visitor.page.get_by_text("Looking for faces").first.wait_for()
    visitor.page.get_by_role("button", name="Cancel").first.click()
    visitor.say("Stopped. Nothing was kept.")
    visitor.page.wait_for_timeout(5000)
    assert not visitor.page.get_by_text("1 restored.").count()
    assert not visitor.page.get_by_role("button", name="Download in full quality").is_visible()
    visitor.restore()  # and the next one is served
    visitor.close()


def test_many_photos_and_their_zip(visit, client, photo, black, tmp_path):
    visitor = visit()
    page = visitor.page
    page.get_by_role("tab", name="Many photos").click()
    page.locator("input[type=file]:visible, input[type=file]").last.wait_for(state="attached")
    panel = page.get_by_role("tabpanel").filter(has=page.get_by_role("button", name="Restore all")).last
    panel.locator("input[type=file]").set_input_files([str(photo), str(black)])
    page.get_by_text("black.png").or_(page.get_by_text("black")).first.wait_for()
    panel.get_by_label("Content Credentials").uncheck()  # they tell the time
    page.get_by_role("button", name="Restore all").click()
    visitor.say("1 restored, 1 no face.")
    found = visitor.download(tmp_path, "Download all as a zip")
    file, *_ = client.predict(handle_file(photo), credentials=False, api_name="/restore")
    with zipfile.ZipFile(found) as archive:
        assert sorted(archive.namelist()) == ["aunt.png", "report.json"]
        assert archive.read("aunt.png") == Path(file).read_bytes()


def test_an_album(visit, tmp_path):
    visitor = visit()
    visitor.open("Album")
    page = visitor.page
    panel = page.get_by_role("tabpanel").filter(has=page.get_by_role("button", name="Group by person")).last
    names = ("ann.png", "bob.png")
    files = [str(images.save(images.load(tiny.sharp_photo()), tmp_path / name)) for name in names]
    panel.locator("input[type=file]").set_input_files(files)
    panel.get_by_text("bob").first.wait_for()
    page.get_by_role("button", name="Group by person").click()
    visitor.say("4 faces in 2 photos: 2 people, 2 of them in more than one photo.")
    page.get_by_role("heading", name="Person 1: 2 photos").wait_for()
    assert page.get_by_role("img", name="Face in bob.png").count() == 2
    with zipfile.ZipFile(visitor.download(tmp_path, "Download as a zip")) as archive:
        assert "album.csv" in archive.namelist()
