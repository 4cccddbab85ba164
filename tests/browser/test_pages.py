"""What people do with a report's page: sort, filter, hover, open, change the theme; by mouse and by keyboard."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import COMMITTED, DESKTOP, PHONE, SMALL, Visit
from tests.conftest import ROOT

FILES = ("index.html", *(f"{name}/index.html" for name in COMMITTED), "hostile/index.html")


def column(table: Locator, place: int) -> list[str]:
    cells = table.locator(f"tbody tr:visible > :nth-child({place})").all_inner_texts()
    return [text.strip() for text in cells]


def header(table: Locator, name: str) -> Locator:
    return table.locator("thead th").filter(has=table.page.get_by_role("button", name=name, exact=True))


def width(page: Page) -> int:
    found: int = page.evaluate("document.documentElement.scrollWidth")
    return found


# --- tables --------------------------------------------------------------------------------------------------------


def test_sorting_by_mouse(visit: Visit) -> None:
    table = visit.open().locator("#standings-table")
    assert column(table, 1)[0] == "L-inf 0.05"
    head = header(table, "worst case %")
    expect(head).to_have_attribute("aria-sort", "none")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    rising = [float(text.split()[0]) for text in column(table, 6)]
    assert rising == sorted(rising)
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    assert column(table, 6)[0].startswith("85.7")
    header(table, "model").get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "none")
    assert column(table, 3) == ["cnn-ce"] * 4 + ["cnn-cmic"] * 4


def test_sorting_by_keyboard(visit: Visit) -> None:
    page = visit.open()
    page.locator("#standings-table").get_by_role("button", name="ball", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(header(page.locator("#standings-table"), "rank")).to_have_attribute("aria-sort", "ascending")
    assert column(page.locator("#standings-table"), 2) == ["1"] * 6 + ["2"] * 2


def test_numbers_are_sorted_as_numbers_and_what_is_missing_comes_last(visit: Visit) -> None:
    table = visit.open("hostile/index.html").locator("#numbers-table")
    for _ in range(2):
        header(table, "accuracy %").get_by_role("button").click()
        assert column(table, 6)[-1] == "–"
    table = visit.open().locator("#numbers-table")
    header(table, "forwards").get_by_role("button").click()
    forwards = [int(text) for text in column(table, 13)]
    assert forwards == sorted(forwards)
    assert forwards[-1] > 10_000 > 1000 > forwards[0], "more digits than the first"


def test_filtering_by_text_and_by_choice(visit: Visit) -> None:
    page = visit.open()
    with (ROOT / "results" / "digits" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    filters = page.locator("[data-filters=numbers-table]")
    expect(filters.get_by_role("status")).to_have_text("126 of 126 rows")
    filters.get_by_label("attack").select_option("PGD")
    filters.get_by_label("model").select_option("cnn-cmic")
    expected = [row["cell"] for row in rows if (row["attack"], row["model"]) == ("PGD", "cnn-cmic")]
    assert column(page.locator("#numbers-table"), 16) == expected
    expect(filters.get_by_role("status")).to_have_text(f"{len(expected)} of 126 rows")
    filters.get_by_label("contains").fill("EPS0.2 s1")
    assert column(page.locator("#numbers-table"), 16) == [cell for cell in expected if ".s1." in cell and "0.2" in cell]
    filters.get_by_label("contains").fill("no such text")
    expect(filters.get_by_role("status")).to_have_text("0 of 126 rows")
    filters.get_by_label("contains").fill("")
    for name in ("attack", "model"):
        filters.get_by_label(name).select_option("")
    filters.get_by_label("flagged").select_option("yes")
    flagged = sum(bool(row["flags"]) for row in rows)
    expect(filters.get_by_role("status")).to_have_text(f"{flagged} of 126 rows")


def test_a_row_opens_where_its_number_came_from(visit: Visit) -> None:
    page = visit.open()
    table = page.locator("#numbers-table")
    row = table.locator("tbody tr").nth(3)
    cell = row.get_by_role("link").inner_text()
    button = row.get_by_role("button", name="where this number came from")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    opened = table.locator("tr.provenance")
    expect(opened).to_contain_text(f"python -m robustbench_cmic run digits --only {cell} --force")
    expect(opened.get_by_role("link")).to_have_attribute("href", f"./{cell}.json")
    expect(opened).to_contain_text("AMD EPYC")
    expect(opened).to_contain_text("robustbench_cmic/record/3")
    header(table, "seed").get_by_role("button").click()
    expect(opened).to_have_count(0)
    expect(button).to_have_attribute("aria-expanded", "false")
    button = table.locator("tbody tr").first.get_by_role("button", name="where this number came from")
    button.click()
    expect(opened).to_have_count(1)
    button.click()
    expect(opened).to_have_count(0)


# --- flags, charts, themes -----------------------------------------------------------------------------------------


def test_a_flag_opens_its_explanation_and_gives_the_focus_back(visit: Visit) -> None:
    page = visit.open()
    button = page.locator("#standings-table").get_by_role("button", name="saturated").first
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="saturated")
    expect(dialog).to_contain_text("exactly 1 in float32")
    expect(dialog).to_contain_text("Yu & Xu 2023")
    expect(dialog).to_contain_text("109 of 128 examples; the median lead is 27.4")
    expect(dialog.locator("tr.here")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    button.click()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


def hover(page: Page, chart: str, trace: int, point: int) -> Locator:
    """What is shown at a point of a trace, counted among those that are drawn."""
    mark = page.locator(f"#{chart} .scatterlayer .trace").nth(trace).locator(".points path").nth(point)
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    return page.locator(f"#{chart} .hovertext").first


def test_hovering_a_curve_tells_its_numbers(visit: Visit) -> None:
    page = visit.open()
    shown = hover(page, "curves-linf", 1, 2)
    for expected in ("cnn-cmic", "worst case, eps 0.1", "47.5 ± 2.0", "not flagged"):
        expect(shown).to_contain_text(expected)
    page.get_by_label("beside the worst case").select_option("FGSM")
    expect(page.locator("#curves-linf .scatterlayer .trace")).to_have_count(4)
    shown = hover(page, "curves-linf", 3, 3)
    for expected in ("cnn-cmic", "FGSM, eps 0.2", "33.7 ± 4.1", "flagged: margin-beats-cross-entropy, saturated"):
        expect(shown).to_contain_text(expected)
    expect(hover(page, "pair-0", 0, 0)).to_contain_text("-0.2 points")


def luminance(color: str) -> float:
    red, green, blue = (int(part) for part in color[color.index("(") + 1 :].rstrip(")").split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


@pytest.mark.parametrize("visit", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_the_theme_is_the_systems_until_it_is_chosen_and_charts_follow(visit: Visit) -> None:
    page = visit.open()
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")

    def is_dark() -> tuple[bool, bool]:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ticks = page.evaluate("getComputedStyle(document.querySelector('#curves-linf .xtick text')).fill")
        return luminance(ground) < 0.5, luminance(ticks) > 0.5

    toggle = page.get_by_role("button", name="Dark")
    expect(toggle).to_have_attribute("aria-pressed", str(dark).lower())
    assert is_dark() == (dark, dark)
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", str(not dark).lower())
    page.wait_for_timeout(200)
    assert is_dark() == (not dark, not dark)
    page.reload()
    visit.open()
    assert is_dark()[0] is not dark, "the choice is kept"


# --- every page ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_no_page_scrolls_sideways_and_nothing_in_it_runs(visit: Visit, name: str) -> None:
    page = visit.open(name)
    for size in (DESKTOP, PHONE, SMALL):
        page.set_viewport_size(size)
        for opened in ("false", "true"):
            page.evaluate(f"document.querySelectorAll('details').forEach(one => {{ one.open = {opened} }})")
            assert width(page) == size["width"], f"details opened: {opened}"
    assert page.evaluate("window.hacked") is None


def test_hostile_strings_stay_text_wherever_they_are_shown(visit: Visit) -> None:
    page = visit.open("hostile/index.html")
    page.locator("#standings-table button.flag").first.click()
    page.get_by_role("button", name="Close").click()
    page.locator("button.open").first.click()
    page.get_by_label("beside the worst case").first.select_option("*")
    shown = hover(page, "curves-linf", 0, 1)
    expect(shown).to_contain_text("<img src=x")
    expect(shown).to_contain_text("&lt;i&gt;")  # as it stands in the suite
    assert page.evaluate("window.hacked") is None
    assert page.locator(".chart a, .chart image, main script, main img").count() == 0
    page.mouse.move(0, 0)


DARK_PHONE = {"color_scheme": "dark", "viewport": PHONE}


@pytest.mark.parametrize(
    ("visit", "name"),
    [({}, "index.html"), ({}, "digits/index.html"), (DARK_PHONE, "digits/index.html")],
    indirect=["visit"],
    ids=["index", "light", "dark"],
)
def test_axe_finds_nothing(visit: Visit, name: str) -> None:
    page = visit.open(name)
    if name != "index.html":
        page.locator("[data-filters=numbers-table]").get_by_label("contains").fill("s0 AutoAttack")  # a few will do
        page.locator("button.open:visible").first.click()
    found: Any = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == []


def test_the_way_from_the_index_and_past_the_head(visit: Visit) -> None:
    page = visit.open("index.html")
    page.get_by_role("link", name="digits").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("digits")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


@pytest.mark.parametrize("visit", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_the_tables_are_there(visit: Visit) -> None:
    visit.page.goto((visit.site / "digits" / "index.html").as_uri())
    expect(visit.page.locator("#numbers-table tbody tr")).to_have_count(126)
    expect(visit.page.locator(".filters").first).to_be_hidden()
    expect(visit.page.locator("#theme")).to_be_hidden()
    expect(visit.page.get_by_text("The chart needs JavaScript").first).to_be_visible()
