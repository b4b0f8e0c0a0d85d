"""What can be done with a result, in a real browser: download it at one place, and use it in another tab."""

import pytest

from studio import images
from studio.ui import app
from studio.ui.onward import TAKERS, hand_over
from studio.ui.screenshots import PHONE
from tests import tiny
from tests.ui.toy import MARKS, ToyRestore

pytestmark = [*MARKS, pytest.mark.slow, pytest.mark.filterwarnings("ignore:too small for the invisible mark")]


@pytest.fixture(scope="module")
def url(_loops):
    models = {
        "Restore": ToyRestore(tiny.tiny_net()),
        "Edit": tiny.edit_pipeline(),
        "Upsample": tiny.upsample_pipeline(),
    }
    made = app.build(models)
    _, address, _ = made.launch(prevent_thread_lock=True, quiet=True, **app.options({}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.edit.FaceFinder", tiny.SureFinder)
        yield address
    made.close()


def use_in(visitor, title):
    visitor.page.get_by_label("Use this in").locator("visible=true").click()
    visitor.page.get_by_role("option", name=title).click()
    visitor.page.get_by_role("tab", name=title, exact=True, selected=True).wait_for()


def edit_a_generated_person(visitor):
    visitor.open("Edit")
    smile = visitor.page.get_by_label("number input for Smile").or_(visitor.page.get_by_label("Smile")).first
    smile.fill("1")
    smile.press("Tab")
    visitor.page.get_by_role("button", name="Edit", exact=True).click()
    visitor.say("Synthetic: smile")


@pytest.mark.parametrize("title", [title for title in TAKERS if title != "Restore"])
def test_a_restored_photo_is_used_in_another_tab(visit, photo, title):
    """It arrives as it was restored, and what was asked of the list is forgotten again."""
    visitor = visit()
    visitor.upload(photo)
    visitor.restore()
    use_in(visitor, title)
    taken = visitor.page.get_by_role("tabpanel").locator("visible=true").last
    taken.get_by_text("aunt_restored").first.wait_for()
    if title == "Upsample":
        assert taken.get_by_label("Find the face").is_checked(), "a result is no tiny face"
    visitor.open("Restore")
    assert visitor.page.get_by_label("Use this in").locator("visible=true").input_value() == "Use this in …"


def test_an_edited_face_is_downloaded_and_restored(visit, tmp_path):
    visitor = visit()
    edit_a_generated_person(visitor)
    found = visitor.download(tmp_path, "Download picture 2 of 2")
    assert found.name == "edited.png" and images.load(found).width
    use_in(visitor, "Restore")
    visitor.page.get_by_label("Face 2").wait_for()
    visitor.restore()


def test_the_picture_that_is_looked_at_is_downloaded(visit, tmp_path):
    visitor = visit()
    edit_a_generated_person(visitor)
    visitor.page.get_by_role("button", name="Thumbnail 1 of 2").locator("visible=true").first.click()
    assert visitor.download(tmp_path, "Download picture 1 of 2").name == "likeness.png"


@pytest.mark.parametrize("options", [{}, {"viewport": PHONE, "is_mobile": True, "has_touch": True}])
def test_the_download_is_at_the_same_place(visit, photo, options):
    """Right under the message, whatever the tab."""
    visitor = visit(**options)
    visitor.upload(photo)
    visitor.restore()
    below = []
    for name, act in (("Restore", lambda: None), ("Edit", lambda: edit_a_generated_person(visitor))):
        act()
        message = visitor.page.locator("[role=status].message:visible").first.bounding_box()
        button = visitor.page.locator(".onward:visible").get_by_role("button", name="Download").first
        button.wait_for()
        below.append(button.bounding_box()["y"] - message["y"] - message["height"])
        assert 0 <= below[-1] < 40, name
    assert abs(below[0] - below[1]) < 2


def test_without_a_result_nothing_is_handed_over():
    with pytest.raises(Exception, match="there must be a result to use, got none"):
        hand_over({}, "Edit", None)
