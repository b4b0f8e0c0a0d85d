"""Pictures of every tab, light, dark and as on a phone: `python -m studio.ui.screenshots docs/img`.

Serves the app with the committed weights, works it as a visitor would in a headless Chromium (the package playwright,
and a browser named `chromium` on the path), and writes PNG files. The people in them are generated.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from studio import images
from studio.errors import InputError
from studio.ui.app import build, options
from studio.ui.common import EXAMPLES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MINUTES = 10 * 60_000  # ms, for a slow machine


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium that talks to nobody on its own.

    Raises:
        InputError: no browser on the path.
    """
    from playwright.sync_api import sync_playwright

    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        raise InputError(f"a browser must be on the path, found none of {', '.join(BROWSERS)}: install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def restore(page: Page, photo: Path) -> None:
    """Upload a photo in the Restore tab, wait for its faces, and restore it."""
    page.locator("input[type=file]").first.set_input_files(str(photo))
    page.get_by_role("button", name="Restore", exact=True).click()
    page.get_by_text("restored.").first.wait_for(timeout=MINUTES)


def shoot(page: Page, path: Path, *, whole: bool = True) -> None:
    """Write the page, from the top or as it is scrolled, in 256 colours: a third of the bytes."""
    page.wait_for_timeout(1500)  # pictures fade in
    page.screenshot(path=str(path), full_page=whole)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def run(folder: Path) -> list[Path]:
    """Write the pictures of every tab; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    app = build()
    _, url, _ = app.launch(prevent_thread_lock=True, quiet=True, **options(os.environ))
    written: list[Path] = []

    def to(name: str) -> Path:
        written.append(folder / f"app-{name}.png")
        return written[-1]

    try:
        with chromium() as browser, TemporaryDirectory() as scratch:
            wide(browser, url, to, Path(scratch))
            other(browser, url, to)
    finally:
        app.close()
    return written


def people(folder: Path) -> list[Path]:
    """Three generated people, each in three photos: as drawn, turned, smiling in other light; and a tiny one."""
    from studio import EditPipeline

    pipeline = EditPipeline.from_pretrained("edit")
    views: dict[str, dict[str, float]] = {"a": {}, "b": {"yaw": 22.0}, "c": {"smile": 0.5, "yaw": -12.0, "light": 1.0}}
    files = []
    for seed in (3, 5, 8):
        person = pipeline.prepare(generator=torch.Generator().manual_seed(seed))
        for name, changes in views.items():
            drawn = pipeline(person, **changes, output_type="pt").images[0][None]
            files.append(images.save(images.resize(drawn, 400, 400), folder / f"photo-{seed}{name}.jpg"))
    return [*files, images.save(images.resize(drawn, 40, 40), folder / "tiny.png")]


def wide(browser: Browser, url: str, to: Any, folder: Path) -> None:
    """Every tab on a large screen."""
    page = browser.new_page(viewport=WIDE, color_scheme="light")
    page.goto(url)
    restore(page, EXAMPLES / "three-friends.jpg")
    shoot(page, to("restore"))
    page.get_by_role("tab", name="Upsample").click()
    page.get_by_text("Choose a tiny face").wait_for()
    small = images.resize(images.load(EXAMPLES / "portrait.jpg").pixels, 32, 32)
    page.locator("input[type=file]:not([multiple])").first.set_input_files(
        str(images.save(small, folder / "face-32px.png"))
    )
    page.get_by_text("face-32px").first.wait_for()
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_text("These are guesses").first.wait_for(timeout=MINUTES)
    shoot(page, to("upsample"))
    photos = people(folder)
    page.get_by_role("tab", name="Turn").click()
    page.get_by_text("Choose a photo of one face").wait_for()
    panel = page.get_by_role("tabpanel").filter(has=page.get_by_role("button", name="Turn", exact=True)).last
    panel.locator("input[type=file]").set_input_files(str(folder / "photo-3b.jpg"))
    page.get_by_text("photo-3b").first.wait_for()
    page.get_by_role("button", name="Turn", exact=True).click()
    page.get_by_text("A synthetic likeness").first.wait_for(timeout=MINUTES)
    shoot(page, to("turn"))
    page.get_by_role("tab", name="Edit").click()
    page.get_by_text("Choose a photo of one face, or none").wait_for()
    panel = page.get_by_role("tabpanel").filter(has=page.get_by_role("button", name="Edit", exact=True)).last
    panel.locator("input[type=file]").set_input_files(str(folder / "photo-5c.jpg"))
    page.get_by_text("photo-5c").first.wait_for()
    page.get_by_label("Age in years").first.fill("70")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("The photo, changed").first.wait_for(timeout=MINUTES)
    shoot(page, to("edit"))
    page.get_by_role("tab", name="Generate").click()
    page.get_by_text("Press Generate").wait_for()
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_text("4 synthetic pictures").first.wait_for(timeout=MINUTES)
    shoot(page, to("generate"))
    page.get_by_role("tab", name="Compare").click()
    page.get_by_text("Choose two photos").wait_for()
    page.get_by_role("button", name="Use two examples").click()
    page.get_by_text("old-print-2").first.wait_for()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("no evidence").or_(page.get_by_text("Too poor")).first.wait_for(timeout=MINUTES)
    shoot(page, to("compare"))
    page.get_by_role("tab", name="Album").click()
    page.get_by_text("Choose up to 200").wait_for()
    panel = page.get_by_role("tabpanel").filter(has=page.get_by_role("button", name="Group by person")).last
    panel.locator("input[type=file]").set_input_files([str(path) for path in photos])
    page.get_by_text("photo-8c").first.wait_for()
    page.get_by_role("button", name="Group by person").click()
    page.get_by_text("no evidence").last.wait_for(timeout=MINUTES)
    shoot(page, to("album"))
    page.get_by_role("tab", name="About").click()
    shoot(page, to("about"))
    page.close()


def other(browser: Browser, url: str, to: Any) -> None:
    """The first tab on a phone, in the dark."""
    page = browser.new_page(viewport=PHONE, color_scheme="dark", device_scale_factor=2, is_mobile=True, has_touch=True)
    page.goto(f"{url}?__theme=dark")
    restore(page, EXAMPLES / "portrait.jpg")
    page.get_by_text("Download in full quality").scroll_into_view_if_needed()
    shoot(page, to("phone"), whole=False)
    page.close()


if __name__ == "__main__":
    for picture in run(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/img")):
        sys.stderr.write(f"{picture}\n")
