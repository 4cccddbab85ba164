"""The README and the page of findings: they are short, examples run, numbers are those of the committed results."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from robustbench_cmic.report import Summary, read_results, summarize
from robustbench_cmic.report.figures import KINDS_OF_FIGURES, drawings_of
from robustbench_cmic.report.tables import seeds_text
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.fields import Threat, parse_number
from tests.attacks.nets import convolutional, examples
from tests.conftest import ROOT, readme_block

README = (ROOT / "README.md").read_text()
FINDINGS = (ROOT / "docs" / "findings.md").read_text()
FIGURE = ROOT / "docs" / "figures" / "one-step.svg"
ARMS = ("ce", "cmic-printed", "cmic-authors")


@cache
def summary_of(suite: str) -> Summary:
    return summarize(read_results(ROOT / "results" / suite))


def table_rows(text: str) -> list[list[str]]:
    """Rows of the first table of a text, without its head."""
    (table, *_) = re.findall(r"^(?:\|.*\n?)+", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()][2:]


def test_the_readme_is_short_and_gives_the_two_commands() -> None:
    assert len(README.splitlines()) <= 200
    two = readme_block("pip install -e .").splitlines()
    assert two == ["pip install -e .", "python -m robustbench_cmic run suites/digits.yaml --results mine"]


def test_the_model_and_the_suite_of_the_readme_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_model.py").write_text(readme_block("import math"))
    (tmp_path / "mine.yaml").write_text(readme_block("suite: mine"))
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_suite(tmp_path / "mine.yaml")
    assert loaded.warnings == []
    assert [attack.label for attack in loaded.suite.attacks] == ["FGSM", "PGD-margin"]


def test_other_models_and_data_of_the_readme_are_valid(tmp_path: Path) -> None:
    text = " ".join(README.split())
    (model,) = re.findall(r"`(\{id: theirs, .*?\})`", text)
    datasets = re.findall(r"`(\{name: (?:arrays|imagefolder), .*?\})`", text)
    assert len(datasets) == 2
    (tmp_path / "theirs.pth").write_bytes(b"")
    (tmp_path / "mine.npz").write_bytes(b"")
    (tmp_path / "mine").mkdir()
    file = tmp_path / "x.yaml"
    for dataset in datasets:
        file.write_text(f"suite: x\ndataset: {dataset}\nmodels: [{model}]\n")
        assert load_suite(file).warnings == []


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    names = {"model": convolutional(), "images": examples(8)[0], "labels": examples(8)[1]}
    exec(readme_block("from robustbench_cmic import"), names)
    assert "cnn-cmic-authors" in capsys.readouterr().out


def one_radius() -> Iterator[tuple[list[str], str, str, Threat]]:
    """Of each row of the README's table: its cells, suite, network and ball."""
    names = {"digits": ("digits-10", "cnn"), "MNIST": ("mnist", "lenet"),
             "CIFAR-100, 8": ("cifar100-lite", "resnet8"), "CIFAR-100, R": ("cifar100", "resnet18")}  # fmt: skip
    for row in table_rows(README[README.index("## What it shows") :]):
        ((suite, network),) = [found for start, found in names.items() if row[0].startswith(start)]
        yield row, suite, network, Threat("linf", parse_number(row[0].split(", ")[-2]))


def test_the_readme_table_is_that_of_the_committed_results() -> None:
    suites = []
    for row, suite, network, threat in one_radius():
        summary = summary_of(suite)
        entries = {entry.model: entry for entry in summary.standings[threat]}
        cleans = [summary.clean[f"{network}-{arm}"].measures["accuracy"] for arm in ARMS]
        worst = [entries[f"{network}-{arm}"].worst for arm in ARMS]
        expected = []
        for number in (*cleans, *worst):
            values = list(number.values.values())
            seeds = len(cleans[0].values)
            fewer = f" ({len(values)} seed{'s' if len(values) > 1 else ''})" if len(values) < seeds else ""
            expected.append(f"{100 * sum(values) / len(values):.1f}{' †' if number.flags else ''}{fewer}")
        assert row[1:] == expected, row[0]
        assert row[0].split(", ")[-1].split()[0] == str(len(cleans[0].values))
        suites.append(suite)
    assert suites == ["digits-10", "mnist", "cifar100-lite", "cifar100"]


HEADING = re.compile(r"^## .*?\(`([\w-]+)`\), L-inf (\S+)$", re.MULTILINE)
SHOWN = ("FGSM", "FGSM-margin")


def test_tables_of_findings_are_those_of_the_committed_results() -> None:
    """Of each suite one table: clean accuracy, both single steps and the worst case at one radius."""
    headings = list(HEADING.finditer(FINDINGS))
    assert [heading[1] for heading in headings] == [
        "digits-10", "mnist", "tabular", "tabular-digits", "cifar100-lite", "cifar100", "objectives",
        "objectives-mnist", "robust-training",
    ]  # fmt: skip
    for heading in headings:
        summary = summary_of(heading[1])
        found = table_rows(FINDINGS[heading.end() :].lstrip().split("\n\n", 1)[0])
        expected = []
        for entry in summary.standings[Threat("linf", parse_number(heading[2]))]:
            clean = summary.clean[entry.model].measures["accuracy"]
            if clean.values:
                numbers = [clean, *(entry.attacks[attack] for attack in SHOWN), entry.worst]
                expected.append([f"`{entry.model}`", *(seeds_text(number, summary) for number in numbers)])
        assert sorted(found) == sorted(expected), heading[0]


def test_the_figure_shows_the_committed_results() -> None:
    script = runpy.run_path(str(FIGURE.with_name("one_step.py")))
    expected = []
    for suite, eps, network, _ in script["PANELS"]:
        for arm, *_ in script["ARMS"]:
            summary = summary_of(suite)
            bars = script["bars"](summary, f"{network}-{arm}", Threat("linf", parse_number(eps)))
            planned = len({cell.seed for cell in summary.results.plan.cells if cell.model == f"{network}-{arm}"})
            expected += [script["text_of"](*bar, planned) for bar in bars]
    labels = re.findall(r">(\d+\.\d[^<]*)</text>", FIGURE.read_text())
    assert len(expected) == 18
    assert sorted(set(expected) - set(labels)) == []


INTERVAL = re.compile(r"([-+]?\d+(?:\.\d+)?) … ([-+]?\d+(?:\.\d+)?)")


SINGLE_ATTACK = re.compile(r"^\| (?!\*\*)\S+ +\| L(?:-inf|2) .*$", re.MULTILINE)
"""A row of a comparison that is no claim; prose is on claims."""


def intervals(text: str) -> set[tuple[str, str]]:
    return {(low.lstrip("+"), high.lstrip("+")) for low, high in INTERVAL.findall(text)}


def rounded(found: set[tuple[str, str]], like: str) -> set[tuple[str, str]]:
    """Intervals to as many digits as `like` has, and those of the same differences taken the other way round."""
    form = f".{len(like.partition('.')[2])}f"
    values = [(float(low), float(high)) for low, high in found]
    return {(f"{a:{form}}", f"{b:{form}}") for low, high in values for a, b in ((low, high), (-high, -low))}


def test_intervals_in_prose_are_those_of_the_boards() -> None:
    """Of the suites that a section of the findings, or a paragraph or item of the README, names."""
    texts = [*re.split(r"^## ", FINDINGS, flags=re.MULTILINE), *re.split(r"\n\n|\n(?=- )", README)]
    suites = {path.parent.name for path in (ROOT / "results").glob("*/leaderboard.md")}
    seen = 0
    for text in texts:
        boards = [
            ROOT / "results" / name / "leaderboard.md" for name in re.findall(r"`([a-z0-9-]+)`", text) if name in suites
        ]
        found = {interval for board in boards for interval in intervals(SINGLE_ATTACK.sub("", board.read_text()))}
        for interval in intervals(text):
            assert interval in rounded(found, interval[0]), (interval, text[:60])
            seen += 1
    assert seen > 40


PICTURE = re.compile(
    r"!\[[^\]]+\]\(figures/((\S+?)-(curves-linf|class-batches|ncmi-error|simplex-1|training-test))\.svg\)"
)


def test_figures_of_findings_show_the_committed_results() -> None:
    """Each has its numbers in its description, which does not depend on the version of matplotlib."""
    pictures = PICTURE.findall(FINDINGS)
    assert len(pictures) == FINDINGS.count("](figures/")
    for file, suite, name in pictures:
        kind = next(kind for kind in KINDS_OF_FIGURES if name.startswith(kind))
        drawings = drawings_of(summary_of(suite), kind)
        assert not isinstance(drawings, str), drawings
        (drawing,) = (drawing for drawing in drawings if drawing.name == name)
        svg = ElementTree.parse(FIGURE.with_name(f"{file}.svg"))
        (told,) = svg.iterfind("{http://www.w3.org/2000/svg}desc")
        assert told.text == drawing.text, file
