"""What people do with a page's tables: sort, filter, open a row; with mouse, finger and keyboard."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report import Summary
from robustbench_cmic.report.summary import RankedModel
from robustbench_cmic.report.tables import seeds_text
from tests.browser.conftest import Visit, at_both_sizes

OPEN = "where this number came from"


def column(table: Locator, place: int) -> list[str]:
    cells = table.locator(f"tbody tr:visible > :nth-child({place})").all_inner_texts()
    return [text.strip() for text in cells]


def header(table: Locator, name: str) -> Locator:
    return table.locator("thead th").filter(has=table.page.get_by_role("button", name=name, exact=True))


def standings(board: Summary) -> list[RankedModel]:
    return [entry for entries in board.standings.values() for entry in entries]


def measured(board: Summary) -> list[tuple[Cell, AttackRecord]]:
    """The evaluations of a whole suite, each with its record."""
    found = [(cell, board.results.attack(cell.id)) for cell in board.results.plan.of("attack")]
    whole = [(cell, record) for cell, record in found if record is not None]
    assert len(whole) == len(found) > 0
    return whole


# --- sorting -------------------------------------------------------------------------------------------------------


@at_both_sizes
def test_sorting_by_mouse_or_finger(visit: Visit, digits: Summary) -> None:
    table = visit.open().locator("#standings-table")
    entries = standings(digits)
    assert column(table, 1) == [str(entry.threat) for entry in entries]
    assert column(table, 2) == [entry.model for entry in entries]
    head = header(table, "worst case %")
    expect(head).to_have_attribute("aria-sort", "none")
    visit.press(head.get_by_role("button"))
    expect(head).to_have_attribute("aria-sort", "ascending")
    entries.sort(key=lambda entry: entry.worst.mean or 0.0)
    assert column(table, 3) == [seeds_text(entry.worst, digits) for entry in entries]
    visit.press(head.get_by_role("button"))
    expect(head).to_have_attribute("aria-sort", "descending")
    entries.sort(key=lambda entry: -(entry.worst.mean or 0.0))
    assert column(table, 3) == [seeds_text(entry.worst, digits) for entry in entries]
    assert column(table, 2) == [entry.model for entry in entries], "equal ones stay in their order"
    visit.press(header(table, "model").get_by_role("button"))
    expect(head).to_have_attribute("aria-sort", "none")
    assert column(table, 2) == sorted(entry.model for entry in entries)


@at_both_sizes
def test_sorting_by_keyboard(visit: Visit, digits: Summary) -> None:
    page = visit.open()
    table = page.locator("#standings-table")
    table.get_by_role("button", name="worst case %", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(header(table, "rank")).to_have_attribute("aria-sort", "ascending")
    ranks = sorted(entry.rank for entry in standings(digits) if entry.rank is not None)
    without = ["–" for entry in standings(digits) if entry.rank is None]
    assert without, "where the best keeps nothing"
    assert column(table, 4) == [*map(str, ranks), *without]


@at_both_sizes
def test_numbers_are_sorted_as_numbers_and_what_is_missing_comes_last(visit: Visit, digits: Summary) -> None:
    table = visit.open("hostile/index.html").locator("#numbers-table")
    for _ in range(2):
        visit.press(header(table, "accuracy %").get_by_role("button"))
        assert column(table, 6)[-1] == "–"
    table = visit.open().locator("#numbers-table")
    visit.press(header(table, "forwards").get_by_role("button"))
    forwards = sorted(record.forwards or 0 for _, record in measured(digits))
    assert len(str(forwards[0])) < len(str(forwards[-1])), "as texts they would be in another order"
    assert column(table, 13) == list(map(str, forwards))


# --- filtering -----------------------------------------------------------------------------------------------------


@at_both_sizes
def test_filtering_by_text_and_by_choice(visit: Visit, digits: Summary) -> None:
    page = visit.open()
    cells = [cell for cell, _ in measured(digits)]
    filters = page.locator("[data-filters=numbers-table]")
    count = filters.get_by_role("status")
    expect(count).to_have_text(f"{len(cells)} of {len(cells)} rows")
    filters.get_by_label("attack").select_option("PGD")
    model = digits.results.models[1]
    filters.get_by_label("model").select_option(model)
    chosen = [cell for cell in cells if (cell.attack, cell.model) == ("PGD", model)]
    assert 0 < len(chosen) < len(cells)
    assert column(page.locator("#numbers-table"), 16) == [cell.id for cell in chosen]
    expect(count).to_have_text(f"{len(chosen)} of {len(cells)} rows")
    filters.get_by_label("contains").fill("EPS0.2 s1")
    few = [cell.id for cell in chosen if (cell.seed, cell.eps) == (1, 0.2)]
    assert 0 < len(few) < len(chosen)
    assert column(page.locator("#numbers-table"), 16) == few
    filters.get_by_label("contains").fill("no such text")
    expect(count).to_have_text(f"0 of {len(cells)} rows")
    filters.get_by_label("contains").fill("")
    for name in ("attack", "model"):
        filters.get_by_label(name).select_option("")
    for choice in ("yes", "no"):
        filters.get_by_label("flagged").select_option(choice)
        flagged = [cell.id for cell in cells if bool(digits.audit.of_cell(cell)) is (choice == "yes")]
        expect(count).to_have_text(f"{len(flagged)} of {len(cells)} rows")
        assert column(page.locator("#numbers-table"), 16) == flagged


# --- where a number came from --------------------------------------------------------------------------------------


@at_both_sizes
def test_a_row_opens_where_its_number_came_from(visit: Visit, digits: Summary) -> None:
    page = visit.open()
    table = page.locator("#numbers-table")
    cell, record = measured(digits)[3]
    row = table.locator("tbody tr").nth(3)
    expect(row.locator("td").nth(3)).to_have_text(str(record.n))
    assert record.accuracy is not None
    dagger = " †" if digits.audit.of_cell(cell) else ""
    expect(row.locator("td").nth(4)).to_have_text(f"{100 * record.accuracy:.1f}{dagger}")
    button = row.get_by_role("button", name=OPEN)
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    opened = table.locator("tr.provenance")
    expect(opened).to_contain_text(f"python -m robustbench_cmic run digits --only {cell.id} --results mine")
    expect(opened.get_by_role("link")).to_have_attribute("href", f"./{cell.id}.json")
    known = [value for value in record.provenance.values() if isinstance(value, str)]
    assert len(known) > 1
    for text in [record.schema_, record.timing.started, record.checkpoint_sha256, *known]:
        expect(opened).to_contain_text(str(text))
    visit.press(header(table, "seed").get_by_role("button"))
    expect(opened).to_have_count(0)
    expect(button).to_have_attribute("aria-expanded", "false")
    button = table.locator("tbody tr").first.get_by_role("button", name=OPEN)
    visit.press(button)
    expect(opened).to_have_count(1)
    visit.press(button)
    expect(opened).to_have_count(0)
