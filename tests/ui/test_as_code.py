"""What was done, as code that does it again, and links that open a tab with its settings."""

import re
import subprocess
import sys

import pytest

from studio.ui import as_code
from studio.ui.restore import Runner
from tests.ui.toy import MARKS

pytestmark = MARKS


def told(photo, **changed):
    return {"photo": photo, **changed}


@pytest.fixture
def folder(photo):
    """With a photo whose name a shell could misread."""
    photo.rename(photo.with_name("aunt's $HOME.png"))
    return photo.parent


def test_the_script_runs(url, folder):
    made = as_code.script(url, "restore", told(as_code.Path("aunt's $HOME.png"), fidelity=0.2, scale=2, colorize=True))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", made], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "_restored.png" in done.stdout and "'scale': 2" in done.stdout


def test_curl_runs(url, folder):
    made = as_code.curl(url.rstrip("/"), "restore", told(as_code.Path("aunt's $HOME.png"), faces="0", scale=2))
    done = subprocess.run(["bash", "-c", made], cwd=folder, capture_output=True, text=True)
    assert "event: complete" in done.stdout and "_restored.png" in done.stdout, done.stdout + done.stderr


def test_the_command_is_understood():
    """Every option that it may have is one of `studio restore`."""
    asked = told(as_code.Path("a b.png"), faces="0,1", fidelity=0.2, strength=0.9, scale=2, identity_guard=0.5)
    asked |= {"colorize": True, "file_format": "tiff", "credentials": False, "reference": as_code.Path("c.png")}
    asked |= {"background": "none", "boxes": "1,2,3,4; 5,6,7,8", "aligned": True, "region": "face", "seed": 3}
    made = as_code.command(asked | {"model": "restore"})
    assert made.startswith("studio restore 'a b.png' -o restored") and made.count("--box ") == 2
    known = subprocess.run(
        [sys.executable, "-m", "studio.cli", "restore", "--help"], capture_output=True, text=True, check=True
    ).stdout
    named = [part for part in as_code.shlex.split(made) if part.startswith("--")]
    assert len(named) == 16 and all(re.search(rf"{part}\b", known) for part in named), made


def test_only_what_differs_is_named():
    names = as_code.names_of(Runner.restore)[1:]
    assert names[0] == "photo" and "request" not in names


def test_a_link_has_settings_but_no_photo_and_no_consent():
    made = as_code.link(
        "http://a", "reenact", {"photo": as_code.Path("a.png"), "consent": True, "yaw": "0,9", "sound": False}
    )
    assert made == "http://a/?tab=reenact&yaw=0%2C9&sound=false"


def copied(visitor, label):
    """What stands in a field; its label is the copy button's, which is the only part that a key reaches."""
    return visitor.page.locator("label:visible").filter(has_text=label).locator("textarea").first.input_value()


@pytest.mark.slow
def test_code_of_a_run_and_its_link(visit, photo, browser, url):
    from tests.ui.visitor import Visitor

    visitor = visit()
    visitor.upload(photo)
    visitor.page.get_by_role("radio", name="Sharpest").check()
    visitor.page.wait_for_timeout(500)
    visitor.restore()
    visitor.page.get_by_role("button", name="As code").locator("visible=true").click()
    assert "fidelity=0.2" in copied(visitor, "Script")
    assert "--fidelity 0.2" in copied(visitor, "Command")
    link = copied(visitor, "Link to these settings")
    assert link == f"{url}?tab=restore&fidelity=0.2"
    second = Visitor(browser, url, link.removeprefix(url))
    second.page.get_by_role("radio", name="Sharpest").and_(second.page.locator(":checked")).wait_for()
    second.close()


@pytest.mark.slow
def test_a_link_opens_a_tab_and_refuses_what_does_not_fit(browser, url):
    from tests.ui.visitor import Visitor

    visitor = Visitor(browser, url, "?tab=upsample&samples=2&steps=9999&find=true")
    visitor.page.get_by_role("tab", name="Upsample", selected=True).wait_for()
    visitor.page.get_by_text("steps in the page's address must be 10 to 200, got 9999").first.wait_for()
    assert visitor.page.get_by_label("Find the face").is_checked()
    visitor.page.get_by_role("button", name="Options").locator("visible=true").click()
    number = visitor.page.get_by_label("number input for Samples").or_(visitor.page.get_by_label("Samples")).first
    assert number.input_value() == "2"
    visitor.page.goto(f"{url}?tab=reenact&consent=true")
    visitor.page.get_by_role("tab", name="Reenact", selected=True).wait_for()
    visitor.page.wait_for_timeout(500)
    assert not visitor.page.get_by_label("agreed to this").locator("visible=true").is_checked()
    visitor.close()
