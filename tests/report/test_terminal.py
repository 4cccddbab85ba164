"""What a run ends with on the terminal: the numbers of the leaderboard and its verdicts, in few columns."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import Summary
from robustbench_cmic.report.finding import finding
from robustbench_cmic.report.formats.terminal import MOST, board_text, print_board
from robustbench_cmic.report.tables import pair_table
from tests.report.folders import HEAD, attack_record, bits, cell_of, fill, planned, read, replace
from tests.report.hostile import hostile

N = 1000
SUITE = f"""{HEAD}attacks:
  - {{name: FGSM, eps: [0.1, 0.2]}}
  - {{name: PGD, eps: [0.1, 0.2], steps: 10, loss: margin}}
"""
KEPT = {("a", 0.0): (900,) * 3, ("a", 0.1): (600,) * 3, ("a", 0.2): (400,) * 3}
KEPT |= {("b", 0.0): (910, 890, 905), ("b", 0.1): (650, 651, 650), ("b", 0.2): (430, 380, 426)}


def made(tmp_path: Path, text: str = SUITE) -> Summary:
    def outcome(cell: Cell) -> list[bool]:
        return [place < KEPT[cell.model, cell.eps][cell.seed] for place in range(N)]

    return read(fill(tmp_path / "made", planned(tmp_path, text), outcome))


def test_each_line_has_the_numbers_and_the_verdict_of_the_leaderboard(tmp_path: Path) -> None:
    summary = made(tmp_path)
    text = board_text(summary, 160)
    assert text.startswith(
        "made: accuracy in % of 1000 test examples, mean ± standard deviation of 3 seeds; † flagged\n\n"
        "b (CMIC-DL printed) against a (CE)\nworst case  CE          CMIC-DL printed  diff.  verdict\n"
    )
    claims = [row for row in pair_table(summary, "a", "b").rows if row[0] in ("clean", "worst case")]
    assert [row[-1].split(":")[0].split(" (p")[0] for row in claims] == [
        "undecided", "CMIC-DL printed higher", "undecided",
    ]  # fmt: skip
    for _, eps, first, second, difference, *_, verdict in claims:
        cells = [eps or "clean", first, second, difference.split(" (")[0], verdict]
        assert re.search(r"^" + r" {2,}".join(map(re.escape, cells)) + "$", text, re.MULTILINE), cells
    assert text.endswith("\nflags of a: none\nflags of b: none\n\n")


def test_eighty_columns_are_enough_and_no_line_ends_in_blanks(tmp_path: Path) -> None:
    text = board_text(made(tmp_path), 40)
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r" $|\x1b", text, re.MULTILINE)
    words = " ".join(text.split())
    assert "CMIC-DL printed higher (p =" in words
    assert re.search(r"undecided: 3 seeds can detect", words)


def test_flags_are_named_with_their_seeds_and_what_they_took_away_is_said(tmp_path: Path) -> None:
    summary = made(tmp_path)
    for seed in (0, 2):
        cell = cell_of(summary.results.plan, "b", seed, "FGSM", 0.2)
        write_record(tmp_path / "made", attack_record(cell, [place < 880 for place in range(N)], outside=3))
    summary = read(tmp_path / "made")
    text = board_text(summary, 500)
    said = finding(summary, "a", "b")[2].replace("`", "")
    assert text.endswith(f"\nflags of a: none\nflags of b: invalid-examples (seeds 0, 2)\n{said}\n\n")
    assert said.startswith("Flags took away 1 of 7 comparisons of b (CMIC-DL printed) with a (CE)")


def test_where_seeds_are_missing_it_says_what_a_difference_is_over(tmp_path: Path) -> None:
    summary, note = made(tmp_path), "diff.: over the seeds that both models have a result for\n"
    assert note not in board_text(summary, 200)
    (tmp_path / "made" / f"{cell_of(summary.results.plan, 'b', 1, 'none').id}.json").unlink()
    assert board_text(read(tmp_path / "made"), 200).count(note) == 1


def test_what_is_missing_has_no_number_and_is_counted(tmp_path: Path) -> None:
    summary = made(tmp_path)
    for seed in range(3):
        replace(tmp_path / "made", cell_of(summary.results.plan, "b", seed, "train"), status="diverged")
    text = board_text(read(tmp_path / "made"), 200)
    assert re.search(r"^clean +90\.0 ± 0\.0 +– +– +–$", text, re.MULTILINE)
    assert "; incomplete: of 42 cells 3 diverged, 21 ok, 18 skipped\n" in text


def test_nothing_measured_is_one_line(tmp_path: Path) -> None:
    summary = read(fill(tmp_path / "made", planned(tmp_path, SUITE), lambda cell: None))
    assert board_text(summary, 200).startswith(
        "made: nothing is measured in full yet; incomplete: of 42 cells 30 not run, 12 ok\n"
    )
    assert len(board_text(summary, 200).splitlines()) == 1


def test_without_pairs_there_are_standings(tmp_path: Path) -> None:
    text = board_text(made(tmp_path, SUITE.replace("pairs: [[a, b]]\n", "")), 80)
    rows = [line.split() for line in text.splitlines() if line.startswith(("clean", "L-inf"))]
    assert [(*row[:-4], row[-4], row[-1]) for row in rows] == [
        ("clean", "90.0", "a"), ("clean", "90.2", "b"),
        ("L-inf", "0.1", "1", "65.0", "b"), ("L-inf", "0.1", "2", "60.0", "a"),
        ("L-inf", "0.2", "1", "41.2", "b"), ("L-inf", "0.2", "2", "40.0", "a"),
    ]  # fmt: skip
    assert text.endswith("flags of a: none\nflags of b: none\n\n")


def test_standings_of_many_models_end_with_how_many_more_there_are(tmp_path: Path) -> None:
    text = SUITE.replace("pairs: [[a, b]]\n", "").replace(
        "objective: {name: cmic}", f"objective: {{name: cmic}}, matrix: {{objective.beta: {[*range(1, 13)]}}}"
    )
    plan = planned(tmp_path, text)
    told = board_text(read(fill(tmp_path / "made", plan, lambda cell: bits("1101"))), 80)
    assert told.count("and 3 more\n") == 3, "clean, and at two radii"
    assert len(re.findall("^clean ", told, re.MULTILINE)) == MOST
    assert re.search(r"^of 3 more models \d have flags$", told, re.MULTILINE)


def test_a_terminal_gets_a_table_and_what_is_shown_stands_out(tmp_path: Path) -> None:
    out = io.StringIO()
    print_board(made(tmp_path), Console(file=out, width=100, force_terminal=True, soft_wrap=True))
    assert "────" in out.getvalue()
    assert re.search(r"\x1b\[1m[^\n]*CMIC-DL printed higher", out.getvalue())
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in out.getvalue().splitlines()) <= 100


def test_a_suite_s_own_words_are_no_markup_and_do_not_steer_the_terminal(tmp_path: Path) -> None:
    summary = hostile(tmp_path)
    plan = summary.results.plan.model_copy(update={"suite": "[bold]x[/bold]\x1b[2J\x07"})
    text = board_text(Summary(type(summary.results)(
        tmp_path, plan, summary.results.records, summary.results.limited, []
    ), summary.audit), 4000)  # fmt: skip
    assert text.startswith("[bold]x[/bold] [2J : ")
    assert "\x1b" not in text
    assert "\x07" not in text
