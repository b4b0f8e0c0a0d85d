"""Every tab, light and dark, as axe-core sees it, and what it does not look at: edges, and keys in place of words."""

import importlib.util
import os

import pytest

from studio.ui import app
from tests.ui.toy import MARKS
from tests.ui.visitor import CONTRAST

pytestmark = [*MARKS, pytest.mark.slow]
SERIOUS = ("serious", "critical")

# What one fills in or ticks, whose edge has a contrast below 3 to 1 with what is around it (WCAG 2.2, 1.4.11).
PALE = (
    f"() => {{{CONTRAST}"
    + """
    const filled = 'input:not([type=file]):not([type=range]):not([role=listbox]), textarea'
    return [...document.querySelectorAll(filled)]
        .filter(one => one.checkVisibility({opacityProperty: true, visibilityProperty: true}) && !one.disabled)
        .filter(one => one.getBoundingClientRect().width > 2)
        .map(one => {
            const edged = one.matches('.border-none') ? one.closest('.wrap') : one  // a list's is around its field
            const style = getComputedStyle(edged), around = behind(edged.parentElement)
            const edge = parseFloat(style.borderTopWidth) ? seen(numbers(style.borderTopColor), around) : around
            const inside = seen(numbers(style.backgroundColor), around)
            const best = Math.max(apart(edge, around), apart(inside, around))
            return [one.type, one.ariaLabel || one.labels?.[0]?.innerText || '', best.toFixed(2), one.className]
        })
        .filter(([type, name, best]) => best < 3)
}"""
)

# Names that gradio looked up and did not find, "common.upload" say, in what is read out or shown.
KEYS = """() => {
    const key = /^[a-z][a-z0-9_]*\\.[a-z][a-z0-9_]*$/
    const said = [...document.querySelectorAll('[aria-label], [title], [alt], [placeholder]')].flatMap(
        one => ['aria-label', 'title', 'alt', 'placeholder'].map(name => one.getAttribute(name)))
    const shown = [...document.querySelectorAll('button, label, span, p')]
        .filter(one => !one.children.length).map(one => one.textContent)
    return [...said, ...shown].filter(text => key.test((text || '').trim()) && !/\\.(png|jpg)$/.test(text))
}"""


@pytest.fixture
def axe(browser):
    if importlib.util.find_spec("axe_playwright_python") is None:
        if os.environ.get("STUDIO_BROWSER") == "required":
            pytest.fail("STUDIO_BROWSER=required, and there is no package axe-playwright-python")
        pytest.skip("no package axe-playwright-python: pip install it")
    from axe_playwright_python.sync_playwright import Axe

    return Axe()


def opened(visitor):
    """Every tab, with its options open."""
    for title in (one.TITLE for one in app.TABS):
        visitor.open(title)
        for found in visitor.page.get_by_role("button", name="Options").all():
            if found.is_visible():
                found.click()
                visitor.page.wait_for_timeout(300)
        yield title


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault(visit, axe, photo, scheme):
    visitor = visit(color_scheme=scheme)
    visitor.upload(photo)
    visitor.restore()
    for title in opened(visitor):
        found = axe.run(visitor.page).response["violations"]
        serious = {
            one["id"]: [node["html"][:150] for node in one["nodes"]] for one in found if one["impact"] in SERIOUS
        }
        assert serious == {}, title


def test_axe_is_at_work(visit, axe):
    """A fault that is put into the page is found."""
    visitor = visit()
    visitor.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<button></button>')")
    found = axe.run(visitor.page).response["violations"]
    assert "button-name" in {one["id"] for one in found if one["impact"] in SERIOUS}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_edges_can_be_seen_and_words_are_words(visit, photo, scheme):
    visitor = visit(color_scheme=scheme)
    visitor.upload(photo)
    visitor.restore()
    for title in opened(visitor):
        assert visitor.page.evaluate(PALE) == [], title
        assert visitor.page.evaluate(KEYS) == [], title
