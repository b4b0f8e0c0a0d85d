"""What a visitor sees in the first minute, in a real browser: nothing empty, the result at hand, and when to wait."""

import httpx
import pytest
from PIL import Image

from studio import images
from studio.ui import app, front
from studio.ui.screenshots import PHONE
from tests import tiny
from tests.ui.toy import MARKS, Long, ToyRestore
from tests.ui.visitor import Visitor

pytestmark = [*MARKS, pytest.mark.slow]


def box(found):
    place = found.bounding_box()
    return place["x"], place["y"], place["x"] + place["width"], place["y"] + place["height"]


def test_the_page_is_english_whatever_the_browser_speaks(visit):
    visitor = visit(locale="de-DE")
    page = visitor.page
    page.get_by_text("Drop File Here").first.wait_for()
    assert page.evaluate("[document.documentElement.lang, navigator.language]") == ["en", "en"]
    assert page.title() == "Face Studio"


def test_a_shared_link_shows_the_app(url, tmp_path):
    page = httpx.get(url).text
    for line in (
        '<meta property="og:title" content="Face Studio">',
        f'<meta property="og:image" content="{url}preview.jpg">',
        f'<meta property="og:url" content="{url}">',
        '<html\n\tlang="en"',
    ):
        assert line in page, line
    head = page.partition("window.gradio_config")[0] + page.rpartition("</script>")[2]
    assert "gradio-app" not in head and 'content="Gradio"' not in page and "@Gradio" not in page
    (tmp_path / "preview.jpg").write_bytes(httpx.get(f"{url}preview.jpg").content)
    with Image.open(tmp_path / "preview.jpg") as picture:
        assert picture.size == front.PREVIEW_SIZE
    assert httpx.get(f"{url}favicon.ico").content == front.ICON.read_bytes()
    proxied = httpx.get(url, headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.b"}).text
    assert 'content="https://a.b/preview.jpg"' in proxied


def test_nothing_empty_before_there_is_a_result_and_none_of_an_old_one(visit, photo, tmp_path):
    visitor = visit()
    page = visitor.page
    download, slider = page.get_by_role("button", name="Download in full quality"), page.get_by_text("Before and after")
    page.get_by_text("Choose a photo, then press Restore.").first.wait_for()
    assert not download.is_visible() and not slider.first.is_visible()
    visitor.upload(photo)
    assert not page.get_by_text("Or an example").first.is_visible()
    visitor.restore()
    download.wait_for()
    assert slider.first.is_visible()
    page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).first.click()
    visitor.say("Choose a photo, then press Restore.")
    page.get_by_text("Or an example").first.wait_for()
    assert not download.is_visible(), "the old result is gone with its photo"
    visitor.upload(images.save(tiny.image(40, 60, seed=3), tmp_path / "other.png"))
    visitor.say("Choose a photo, then press Restore.")
    assert not download.is_visible() and not slider.first.is_visible()


def test_the_result_is_at_hand(visit, photo):
    """Beside the photo on a desktop, right under the button on a phone."""
    for options, beside in (({}, True), ({"viewport": PHONE, "is_mobile": True, "has_touch": True}, False)):
        visitor = visit(**options)
        visitor.upload(photo)
        visitor.restore()
        button = box(visitor.page.get_by_role("button", name="Restore", exact=True))
        picture = box(visitor.page.get_by_alt_text("Your photo, with"))
        message = box(visitor.page.locator("[role=status].message:visible").first)
        result = box(visitor.page.locator(".result:visible").first)
        assert button[1] - picture[3] < 250, "Restore stands under the photo"
        if beside:
            assert message[0] > picture[2] and result[1] < 900 - 300, "without scrolling"
        else:
            assert 0 <= message[1] - button[3] < 60
            assert result[1] - message[3] < 60


def test_three_ways_over_one_number(visit):
    visitor = visit()
    page = visitor.page
    page.get_by_role("button", name="Options").first.click()
    number = page.get_by_role("spinbutton", name="Fidelity").or_(page.get_by_label("number input for Fidelity")).first
    number.wait_for()
    for name, value in (("Natural", "0.8"), ("Sharpest", "0.2"), ("Balanced", "0.5")):
        page.get_by_role("radio", name=name).check()
        for _ in range(50):
            if number.input_value() == value:
                break
            page.wait_for_timeout(100)
        assert number.input_value() == value, name


@pytest.fixture(scope="module")
def long(_loops):
    pipeline = Long(ToyRestore(tiny.tiny_net()), seconds=60)
    made = app.build({"Restore": pipeline, "Edit": tiny.edit_pipeline()})
    _, address, _ = made.launch(prevent_thread_lock=True, quiet=True, **app.options({}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.edit.FaceFinder", tiny.SureFinder)
        yield address, pipeline
    made.close()


def test_who_waits_is_told_and_a_closed_tab_frees_the_lane(long, browser, photo):
    address, pipeline = long
    first, second = Visitor(browser, address), Visitor(browser, address)
    for visitor in (first, second):
        visitor.upload(photo)
    press = lambda visitor: visitor.page.get_by_role("button", name="Restore", exact=True).click()  # noqa: E731
    press(first)
    first.say("Working")
    for _ in range(100):
        if pipeline.inside:
            break
        first.page.wait_for_timeout(50)
    press(second)
    second.say("Waiting for your turn")
    pipeline.seconds = 0
    first.page.close()  # in the middle of sixty seconds
    second.page.get_by_text("1 restored.").first.wait_for(timeout=8000)
    pipeline.seconds = 60
    first.close()
    second.close()


def test_who_waits_can_cancel(long, browser, photo):
    address, _ = long
    first, second = Visitor(browser, address), Visitor(browser, address)
    for visitor, said in ((first, "Working"), (second, "Waiting for your turn")):
        visitor.upload(photo)
        visitor.page.get_by_role("button", name="Restore", exact=True).click()
        visitor.say(said)
    for visitor in (second, first):
        visitor.page.get_by_role("button", name="Cancel").first.click()
        visitor.say("Stopped. Nothing was kept.")
        visitor.close()


@pytest.mark.filterwarnings("ignore:too small for the invisible mark")
def test_more_of_a_change_that_fell_short(long, browser, monkeypatch):
    """A toy prior cannot smile: what was not reached is said, and one button asks for more."""
    visitor = Visitor(browser, long[0])
    visitor.open("Edit")
    page = visitor.page
    smile = page.get_by_label("number input for Smile").or_(page.get_by_role("spinbutton", name="Smile")).first
    smile.fill("1")
    smile.press("Tab")
    assert not page.get_by_role("button", name="More of it").is_visible()
    page.get_by_role("button", name="Edit", exact=True).click()
    visitor.say("smile came to")
    page.get_by_role("button", name="More of it").click()
    for _ in range(50):
        if float(smile.input_value()) > 1:
            break
        page.wait_for_timeout(100)
    assert float(smile.input_value()) > 1
    visitor.close()
