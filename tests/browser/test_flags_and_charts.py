"""What people look at on a page: why a number is flagged, what a point of a chart is, in the light and in the dark."""

from __future__ import annotations

import statistics

from playwright.sync_api import Locator, expect

from robustbench_cmic.audit import RULES
from robustbench_cmic.report import Summary
from robustbench_cmic.report.class_batches import find_size_lines
from robustbench_cmic.report.metrics import NCMI
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.report.summary import RankedModel, SeedValues
from robustbench_cmic.report.tables import seeds_text, spread
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite.fields import CLEAN, Threat, format_eps
from tests.browser.conftest import COMMITTED, Visit, at_both_sizes, board, on_every_screen

BESIDE = "FGSM"

# --- flags ---------------------------------------------------------------------------------------------------------


def first_flag(entry: RankedModel) -> str | None:
    """The flag that a row of the standings names first: the worst case's own come before those of single attacks."""
    single = sorted({name for number in entry.attacks.values() for name in number.flags})
    return next(iter([*entry.worst.flags, *single]), None)


def check_flag(dialog: Locator, board: Summary, name: str, model: str) -> None:
    """The dialog says what the rule means and shows each of its flags, with those of the model marked."""
    expect(dialog).to_contain_text(RULES[name].meaning)
    expect(dialog).to_contain_text(RULES[name].source)
    raised = [flag for flag in board.flags if flag.name == name]
    rows = dialog.locator("tbody tr")
    expect(rows).to_have_count(len(raised))
    for place, flag in enumerate(raised):
        expect(rows.nth(place).locator("th, td")).to_have_text([flag.model, str(flag.seed), flag.about, flag.evidence])
    expect(dialog.locator("tr.here")).to_have_count(sum(flag.model == model for flag in raised))


@on_every_screen
def test_a_flag_opens_its_explanation_and_gives_the_focus_back(visit: Visit) -> None:
    suite, model, name = next(
        (suite, entry.model, name)
        for suite in COMMITTED
        for entries in board(suite).standings.values()
        for entry in entries
        if (name := first_flag(entry)) is not None
    )
    page = visit.open(f"{suite}/index.html")
    button = page.locator("#standings-table button.flag").first
    expect(button).to_have_text(name)
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=name)
    check_flag(dialog, board(suite), name, model)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    visit.press(button)
    expect(dialog).to_be_visible()
    visit.press(dialog.get_by_role("button", name="Close"))
    expect(dialog).to_be_hidden()


# --- charts --------------------------------------------------------------------------------------------------------


def number(board: Summary, model: str, label: str, threat: Threat) -> SeedValues:
    """What a curve shows at a threat."""
    (entry,) = [entry for entry in board.standings[threat] if entry.model == model]
    return entry.worst if label == "worst case" else entry.attacks[label]


def alone(board: Summary, label: str, others: list[tuple[str, str]]) -> int:
    """Which point of the second model's curve lies farthest from other curves, so that nothing hides it."""
    inside = [threat for threat in board.results.threats if threat.norm == "linf"]
    model = board.results.models[1]

    def gap(place: int) -> float:
        means = [number(board, *other, inside[place]).mean or 0.0 for other in others]
        own = number(board, model, label, inside[place]).mean or 0.0
        return min(abs(own - mean) for mean in means)

    return max(range(len(inside)), key=gap)


def said(board: Summary, label: str, place: int) -> list[str]:
    """What is to be read at a point of the second model's curve."""
    threat = [threat for threat in board.results.threats if threat.norm == "linf"][place]
    model = board.results.models[1]
    shown = number(board, model, label, threat)
    flags = f"flagged: {', '.join(shown.flags)}" if shown.flags else "not flagged"
    accuracy = f"accuracy %: {spread(shown.values.values(), board.results.seeds)}"
    n = board.examples[-1]
    interval = " … ".join(f"{100 * end:.1f}" for end in wilson_interval((shown.mean or 0.0) * n, n))
    return [model, f"{label}, eps {format_eps(threat.eps)}", accuracy, f"95 % over examples: {interval}", flags]


def first_claim(board: Summary) -> PairTest:
    """The first point of a pair's chart."""
    lines = next(iter(board.pairs.values()))
    shown = [line for line in lines if line.in_points and line.seeds and line.claim]
    return next(line for line in shown if not line.withdrawn)


@on_every_screen
def test_pointing_at_a_curve_tells_its_numbers(visit: Visit, digits: Summary) -> None:
    page = visit.open()
    models = digits.results.models
    second = models[1]
    for label in ("FGSM", "FGSM-margin"):
        visit.press(page.get_by_role("checkbox", name=label, exact=True))
    expect(page.locator("#curves-linf .scatterlayer .trace")).to_have_count(len(models))
    page.wait_for_timeout(500)  # the chart is as high as its key needs
    others = [(model, "worst case") for model in models if model != second]
    place = alone(digits, "worst case", others)
    shown = visit.point_at("curves-linf", 1, 1 + place)  # behind the clean accuracy
    expect(shown).to_have_text("".join(said(digits, "worst case", place)))
    visit.press(page.get_by_role("checkbox", name=BESIDE, exact=True))
    expect(page.locator("#curves-linf .scatterlayer .trace")).to_have_count(2 * len(models))
    page.wait_for_timeout(500)
    others += [(second, "worst case"), *((model, BESIDE) for model in models if model != second)]
    place = alone(digits, BESIDE, others)
    shown = visit.point_at("curves-linf", 3, 1 + place)
    expect(shown).to_have_text("".join(said(digits, BESIDE, place)))


@on_every_screen
def test_pointing_at_a_difference_tells_its_numbers(visit: Visit, digits: Summary) -> None:
    visit.open()
    line = first_claim(digits)
    shown = visit.point_at("pair-0", 0, 0)
    expect(shown).to_contain_text("clean" if line.threat == CLEAN else f"{line.what}, {line.threat}")
    difference = 100 * statistics.fmean(seed.difference for seed in line.seeds.values())
    expect(shown).to_contain_text(f"{difference:+.1f} points")
    assert line.interval is not None
    interval = " … ".join(f"{100 * end:+.1f}" for end in line.interval)
    expect(shown).to_contain_text("no example differs" if line.no_discordant else f"95 % over examples: {interval}")
    expect(shown).to_contain_text(line.verdict)


@at_both_sizes
def test_pointing_at_a_size_of_class_batches_tells_its_numbers(visit: Visit) -> None:
    visit.open("centroid-ablation/index.html")
    summary = board("centroid-ablation")
    lines = find_size_lines(summary.results)
    title, line = list(lines.items())[-1]
    model = line.sizes[8]
    ncmi = seeds_text(summary.clean[model].measures["ncmi"], summary, NCMI)
    shown = visit.point_at("class-batches-1", len(lines) - 1, 3)
    expect(shown).to_have_text(f"{title}|B_c| 8clean NCMI: {ncmi}not flagged")


@at_both_sizes
def test_a_folded_chart_is_drawn_when_it_is_opened_and_an_animation_goes_through_the_epochs(visit: Visit) -> None:
    page = visit.open("simplex/index.html")
    chart = page.locator("#simplex-0")
    expect(chart.locator("svg")).to_have_count(0)
    visit.press(page.get_by_text("Outputs of three classes over training"))
    expect(chart).to_contain_text("epoch 5")
    expect(chart).to_contain_text("2 of 6 points overlap")
    slider, told = page.get_by_role("slider", name="epoch"), page.locator(".frames output")
    slider.fill("0")
    expect(told).to_have_text("1")
    expect(chart).to_contain_text("6 of 6 points overlap")
    assert slider.get_attribute("aria-valuetext") == "1"
    x = page.evaluate("document.getElementById('simplex-0').data[1].x")
    assert [round(value, 3) for value in x] == [0.5, 0.5], "in the middle before it has learned"
    visit.press(page.get_by_role("button", name="Play"))
    expect(told).to_have_text("5")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    x = page.evaluate("document.getElementById('simplex-0').data[1].x")
    assert [round(value, 2) for value in x] == [0.0, 0.25]


# --- themes --------------------------------------------------------------------------------------------------------


def luminance(color: str) -> float:
    red, green, blue = (int(part) for part in color[color.index("(") + 1 :].rstrip(")").split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


@on_every_screen
def test_the_theme_is_the_systems_until_it_is_chosen_and_charts_follow(visit: Visit) -> None:
    page = visit.open()
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")

    def is_dark() -> tuple[bool, bool]:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ticks = page.evaluate("getComputedStyle(document.querySelector('#curves-linf .xtick text')).fill")
        return luminance(ground) < 0.5, luminance(ticks) > 0.5

    toggle = page.get_by_role("button", name="Dark")
    expect(toggle).to_have_attribute("aria-pressed", str(dark).lower())

    def check(expected: bool) -> None:
        for _ in range(50):  # charts are drawn after the page
            if is_dark() == (expected, expected):
                break
            page.wait_for_timeout(100)
        assert is_dark() == (expected, expected)

    check(dark)
    visit.press(toggle)
    expect(toggle).to_have_attribute("aria-pressed", str(not dark).lower())
    check(not dark)
    page.reload()
    visit.open()
    assert is_dark()[0] is not dark, "the choice is kept"
