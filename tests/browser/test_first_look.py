"""What a reader sees first: the finding, a number on a phone, the curves that the project is about; figures to keep."""

from __future__ import annotations

import struct
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Locator, Page, expect

from robustbench_cmic.report import Summary
from robustbench_cmic.report.counts import claim_counts
from robustbench_cmic.report.finding import finding
from robustbench_cmic.report.tables import seeds_text
from tests.browser.conftest import HELD, PHONE, Visit, at_both_sizes, board
from tests.browser.twelve import MODELS

CHART = "curves-linf"
on_a_phone = pytest.mark.parametrize("visit", [HELD | {"color_scheme": "dark"}], ids=["phone-dark"], indirect=True)
OPENING = ("worst case", "FGSM", "FGSM-margin")


def drawn(page: Page, chart: str = CHART) -> list[dict[str, Any]]:
    """The traces that are shown, as Plotly has them."""
    found: list[dict[str, Any]] = page.evaluate(
        """id => document.getElementById(id)._fullData.filter(({ visible }) => visible === true).map(
            ({ name, line, marker }) => {
                return { name, color: line.color, dash: line.dash, symbol: [].concat(marker.symbol) };
            })""",
        chart,
    )
    return found


def on_screen(target: Locator) -> bool:
    """Whether the whole of it is in the window, and in whatever scrolls around it."""
    seen: bool = target.evaluate(
        """target => {
            const { left, top, right, bottom } = target.getBoundingClientRect();
            const box = target.closest(".scroll")?.getBoundingClientRect() ?? { left: 0, right: innerWidth };
            return left >= Math.max(0, box.left) && right <= Math.min(innerWidth, box.right)
                && top >= 0 && bottom <= innerHeight;
        }"""
    )
    return seen


def words(text: str) -> str:
    return text.replace("`", "")


# --- the finding ---------------------------------------------------------------------------------------------------


@at_both_sizes
def test_the_finding_stands_first_and_that_of_the_other_reading_is_open(visit: Visit, digits: Summary) -> None:
    page = visit.open()
    section = page.locator("main > *").first
    expect(section.get_by_role("heading", level=2)).to_have_text("Finding")
    first, *others = digits.pairs
    sentences = [words(sentence) for sentence in finding(digits, *first)]
    assert len(sentences) == 3
    expect(section.locator(":scope > p")).to_have_text(sentences)
    assert on_screen(section.locator(":scope > p").first)
    folds = section.locator("details")
    expect(folds).to_have_count(len(others))
    for place, (a, b) in enumerate(others):
        fold = folds.nth(place)
        expect(fold.locator("summary")).to_have_text(f"{b} against {a}: {claim_counts(digits.pairs[a, b])}")
        expect(fold.locator("p")).to_have_text([words(sentence) for sentence in finding(digits, a, b)])
        expect(fold.locator("p").first).to_be_visible()
        visit.press(fold.locator("summary"))
        expect(fold.locator("p").first).to_be_hidden()


@at_both_sizes
def test_explanations_stand_once_and_are_folded(visit: Visit, digits: Summary) -> None:
    page = visit.open()
    assert len(digits.pairs) > 1
    for text in ("exact McNemar", "counts an example only if"):
        expect(page.get_by_text(text)).to_have_count(1)
        expect(page.get_by_text(text)).to_be_hidden()
    visit.press(page.get_by_text("How to read a comparison"))
    expect(page.get_by_text("exact McNemar")).to_be_visible()


@on_a_phone
def test_standings_on_a_phone_show_their_numbers_on_the_first_screen(visit: Visit) -> None:
    for suite in ("digits", "mnist", "cifar100"):
        page = visit.open(f"{suite}/index.html")
        visit.press(page.get_by_role("navigation").get_by_role("link", name="Standings"))
        row = page.locator("#standings-table tbody tr").first
        page.wait_for_function("row => row.getBoundingClientRect().top < innerHeight", arg=row.element_handle())
        page.wait_for_timeout(600)  # the page scrolls smoothly
        entry = next(iter(board(suite).standings.values()))[0]
        number = row.locator("td").nth(1)
        expect(number).to_have_text(seeds_text(entry.worst, board(suite)))
        assert page.viewport_size == PHONE
        assert on_screen(number), suite


def test_a_table_that_goes_on_says_so_and_a_verdict_is_never_beyond_the_edge(visit: Visit) -> None:
    page = visit.open()
    frame = page.locator("#pairs ~ .frame").first
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        box = frame.locator(".scroll")
        cut = box.evaluate("box => box.scrollWidth > box.clientWidth + 1")
        assert cut or width > 1000, "there is something to hint at"
        expect(frame.locator("th", has_text="verdict")).to_have_count(1)
        verdict = frame.locator("td.wrap").first.bounding_box()
        assert verdict is not None
        assert verdict["x"] + verdict["width"] <= width
        for scrolled, classes in ((0, "frame more-behind"), (9999, "frame more-before")):
            box.evaluate("(box, left) => { box.scrollLeft = left; }", scrolled)
            expect(frame).to_have_class(classes if cut else "frame")


@on_a_phone
def test_captions_are_not_cut_off_on_a_phone(visit: Visit) -> None:
    for name in ("digits/index.html", "index.html"):
        page = visit.open(name)
        edges = page.locator("caption").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
        assert 0 < max(edges) <= PHONE["width"], name


# --- curves --------------------------------------------------------------------------------------------------------


@at_both_sizes
def test_curves_open_with_the_two_steps_and_the_worst_case_of_both_readings(visit: Visit, digits: Summary) -> None:
    page = visit.open()
    models = digits.results.models
    expected = {f"{model}, {attack}" for model, attack in product(models, OPENING)}
    assert {trace["name"] for trace in drawn(page)} == expected
    legend = page.locator(".legend").first
    checked = legend.locator("input:checked").evaluate_all("boxes => boxes.map(box => box.value)")
    assert sorted(checked) == sorted([*models, *OPENING])
    legend.get_by_role("checkbox", name="FGSM", exact=True).focus()
    page.keyboard.press("Space")
    expect(page.locator(f"#{CHART} .scatterlayer .trace")).to_have_count(6)
    assert {trace["name"] for trace in drawn(page)} == {name for name in expected if not name.endswith("FGSM")}


@at_both_sizes
def test_twelve_models_stay_distinct(visit: Visit) -> None:
    page = visit.open("twelve/index.html")
    assert {trace["name"] for trace in drawn(page)} == {f"{m}, {attack}" for m, attack in product(MODELS[:2], OPENING)}
    for box in page.locator(".legend").first.get_by_role("checkbox").all():
        box.check()
    expect(page.locator(f"#{CHART} .scatterlayer .trace")).to_have_count(4 * len(MODELS))
    for style in (("color", "symbol"), ("color", "dash")):
        looks = {tuple(str(trace[part]) for part in style) for trace in drawn(page) if "worst" in trace["name"]}
        assert len(looks) == len(MODELS), style
    looks = {tuple(str(trace[part]) for part in ("color", "symbol", "dash")) for trace in drawn(page)}
    assert len(looks) == 4 * len(MODELS)
    # The chart grows to its key after it is drawn, so that curves keep their room. Beyond `bg` the key is clipped.
    page.wait_for_function(
        """chart => {
            const box = part => document.querySelector(`#${chart} ${part}`).getBoundingClientRect();
            const grid = box(".gridlayer");
            return box(".legend .bg").bottom <= grid.top + 1 && grid.height > 200;
        }""",
        arg=CHART,
    )


# --- saving --------------------------------------------------------------------------------------------------------


def saved(visit: Visit, name: str, tmp_path: Path) -> tuple[str, bytes]:
    button = visit.page.get_by_role("button", name=name).first
    button.focus()
    with visit.page.expect_download() as download:
        visit.page.keyboard.press("Enter")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    expect(visit.page.get_by_role("status").filter(has_text=f"Saved {file.name}")).to_be_visible()
    return file.name, file.read_bytes()


@at_both_sizes
def test_a_chart_is_saved_as_svg_as_it_is_shown_and_light(visit: Visit, digits: Summary, tmp_path: Path) -> None:
    page = visit.open()
    third = digits.results.models[2]
    page.get_by_role("checkbox", name=third, exact=True).check()
    name, content = saved(visit, "Save SVG: Accuracy of 3 models over eps", tmp_path)
    assert name == f"digits-{CHART}.svg"
    root = ElementTree.fromstring(content)
    texts = {"".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert texts >= {f"{third}, worst case", f"{third}, FGSM-margin", "accuracy %", "eps (L-inf)"}
    assert f"{third}, PGD" not in texts
    assert b"rgb(255, 255, 255)" in content
    name, content = saved(visit, "Save SVG: Differences of", tmp_path)
    assert name == "digits-pair-0.svg"
    assert b"worst case, L-inf 0.1" in content


@at_both_sizes
def test_a_chart_is_saved_as_png(visit: Visit, tmp_path: Path) -> None:
    visit.open()
    name, content = saved(visit, "Save PNG: Accuracy of 3 models over eps", tmp_path)
    assert name == f"digits-{CHART}.png"
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width == 2700
    assert height > 1200
    assert len(content) > 50_000, "something is drawn"


@pytest.mark.parametrize("visit", [HELD], ids=["phone"], indirect=True)
def test_the_name_of_a_saved_chart_is_harmless(visit: Visit, tmp_path: Path) -> None:
    visit.open("hostile/index.html")
    name, _ = saved(visit, "Save SVG: Accuracy", tmp_path)
    assert set("<>\"'`:/ ").isdisjoint(name)
    assert name.endswith("-curves-l2.svg")
