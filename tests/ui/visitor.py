"""A visitor of the app in a real browser."""

from pathlib import Path

from studio.ui.screenshots import WIDE

WAIT = 30_000  # ms: the machine may be busy

# JavaScript: colours as they are seen over what is behind them, and the contrast of two (WCAG 2.2).
CONTRAST = """
    const numbers = colour => (colour.match(/[\\d.]+/g) || []).map(Number)
    const seen = ([r, g, b, a = 1], under) => [r, g, b].map((value, k) => value * a + under[k] * (1 - a))
    const behind = one => {
        if (!one) return [255, 255, 255]
        return seen(numbers(getComputedStyle(one).backgroundColor), behind(one.parentElement))
    }
    const light = colour => colour.map(value => value / 255)
        .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, k) => sum + value * [0.2126, 0.7152, 0.0722][k], 0)
    const apart = (one, other) => {
        const [high, low] = [light(one), light(other)].sort((a, b) => b - a)
        return (high + 0.05) / (low + 0.05)
    }
"""


class Visitor:
    """A page of its own session, with everything it asked for and complained about."""

    def __init__(self, browser, url, place="", **options):
        self.url = url
        self.context = browser.new_context(**{"viewport": WIDE, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.asked, self.complaints = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url + place)
        self.page.get_by_role("tab").first.wait_for()

    def upload(self, path):
        self.page.locator("input[type=file]").first.set_input_files(str(path))
        self.page.get_by_alt_text("Your photo, with").wait_for()

    def restore(self):
        self.page.get_by_role("button", name="Restore", exact=True).click()
        self.page.get_by_text("1 restored.").first.wait_for()

    def open(self, name):
        tab = self.page.get_by_role("tab", name=name, exact=True)
        if tab.count() and tab.first.is_visible():
            tab.first.click()
        else:  # on a narrow screen the last ones are in a menu
            self.page.locator(".overflow-menu > button").first.click()
            self.page.locator(".overflow-dropdown").get_by_text(name).click()
        self.page.wait_for_timeout(300)

    def say(self, text):
        """Wait until a message says this."""
        self.page.locator("[role=status].message:visible").get_by_text(text).first.wait_for()

    def download(self, folder, button="Download in full quality"):
        with self.page.expect_download() as event:
            self.page.get_by_role("button", name=button).click()
        path = Path(folder) / event.value.suggested_filename
        event.value.save_as(path)
        return path

    def close(self):
        foreign = {one for one in self.asked if not one.startswith((self.url, "data:", "blob:"))}
        self.context.close()
        assert not self.complaints, self.complaints
        assert not foreign
