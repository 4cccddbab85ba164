"""What holds for every page: it is quiet, no wider than the screen, harmless, accessible, of use without scripts."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

from robustbench_cmic.report import Summary
from tests.browser.conftest import COMMITTED, HELD, LARGE_SCREEN, PHONE, SCREENS, SMALL, Visit

FILES = ("index.html", *(f"{name}/index.html" for name in COMMITTED), "hostile/index.html", "twelve/index.html")


def width(page: Page) -> int:
    found: int = page.evaluate("document.documentElement.scrollWidth")
    return found


def check_width(page: Page, size: ViewportSize) -> None:
    for opened in ("false", "true"):
        page.evaluate(f"document.querySelectorAll('details').forEach(one => {{ one.open = {opened} }})")
        assert width(page) == size["width"], f"details opened: {opened}"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("visit", [LARGE_SCREEN, HELD], ids=["desktop", "phone"], indirect=True)
def test_every_page_opens_quietly_and_never_scrolls_sideways(visit: Visit, name: str) -> None:
    page = visit.open(name)
    folder = name.rpartition("/")[0]
    if folder in COMMITTED:
        expect(page.get_by_role("heading", level=1)).to_have_text(folder)
        # A grid has maps instead of curves; a suite that is not whole yet has no comparison to draw.
        assert page.locator(".chart, table.heat").count() > 0
    size = page.viewport_size
    assert size is not None
    check_width(page, size)
    if size == PHONE:
        page.set_viewport_size(SMALL)
        check_width(page, SMALL)
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("visit", [LARGE_SCREEN, HELD], ids=["desktop", "phone"], indirect=True)
def test_hostile_strings_stay_text_wherever_they_are_shown(visit: Visit) -> None:
    page = visit.open("hostile/index.html")
    visit.press(page.locator("#standings-table button.flag").first)
    visit.press(page.get_by_role("button", name="Close"))
    visit.press(page.locator("button.open").first)
    for box in (
        page.locator(".legend").first.get_by_role("checkbox", checked=False).all()[::-1]
    ):  # each that is pressed leaves the list
        visit.press(box)
    shown = visit.point_at("curves-linf", 0, 1)
    expect(shown).to_contain_text("<img src=x")
    expect(shown).to_contain_text("&lt;i&gt;")  # as it stands in the suite
    assert page.evaluate("window.hacked") is None
    assert page.locator(".chart a, .chart image, main script, main img").count() == 0
    page.mouse.move(0, 0)


@pytest.mark.parametrize(
    ("visit", "name"),
    [
        *((screen, "digits/index.html") for screen in SCREENS.values()),
        (SCREENS["desktop-light"], "index.html"),
        (SCREENS["phone-dark"], "index.html"),
    ],
    indirect=["visit"],
    ids=[*SCREENS, "index-desktop-light", "index-phone-dark"],
)
def test_axe_finds_nothing(visit: Visit, name: str) -> None:
    page = visit.open(name)
    if name != "index.html":
        page.locator("[data-filters=numbers-table]").get_by_label("contains").fill("s0 AutoAttack")  # a few will do
        visit.press(page.locator("button.open:visible").first)
    found: Any = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == []


def test_the_way_from_the_index_and_past_the_head(visit: Visit) -> None:
    visit.site.file("digits/index.html")
    page = visit.open("index.html")
    page.get_by_role("link", name="digits", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("digits")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


@pytest.mark.parametrize("visit", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_the_tables_are_there(visit: Visit, digits: Summary) -> None:
    visit.page.goto(visit.site.file("digits/index.html").as_uri())
    expect(visit.page.locator("#numbers-table tbody tr")).to_have_count(len(digits.results.plan.of("attack")))
    expect(visit.page.locator(".filters").first).to_be_hidden()
    expect(visit.page.locator("#theme")).to_be_hidden()
    expect(visit.page.get_by_text("The chart needs JavaScript").first).to_be_visible()
