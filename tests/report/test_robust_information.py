"""Information on what the strongest attack returned: which attack that is, what stands beside it, on which boards."""

from __future__ import annotations

from pathlib import Path

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.probed import Outputs
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import write_report
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.robust_information import robust_information, strongest_attack
from robustbench_cmic.report.summary import RankedModel, SeedValues
from robustbench_cmic.suite.fields import Threat
from tests.report.folders import HEAD, attack_record, audit_record, bits, cell_of, fill, measures, planned, read

SUITE = (
    HEAD.replace("seeds: [0, 1, 2]", "seeds: [0, 1]")
    + """\
attacks:
  - {name: FGSM, eps: [0.1, 0.2]}
  - {name: PGD, eps: [0.1], loss: margin, steps: 20}
"""
)
LEFT = {"none": "1111111111", "FGSM": "1111100000", "PGD": "1110000000"}


def made(tmp_path: Path) -> Path:
    """PGD leaves less than FGSM of model a, and more of b; its examples have a CMI of 1.5, for a of 3 on one seed."""
    plan = planned(tmp_path, SUITE)

    def outcome(cell: Cell) -> list[bool]:
        return bits(LEFT[cell.attack] if cell.model == "a" or cell.attack != "PGD" else "1111110000")

    folder = fill(tmp_path / "results", plan, outcome)
    for model, seed, cmi in (("a", 0, 1.5), ("a", 1, 3.0), ("b", 0, 1.5), ("b", 1, 1.5)):
        cell = cell_of(plan, model, seed, "PGD", 0.1)
        write_record(folder, attack_record(cell, outcome(cell), information=measures(cmi, 3.0)))
    saturated = Outputs(probabilities=False, saturated=10, at_bound=1, median_lead=90.0)
    write_record(folder, audit_record(cell_of(plan, "b", 0, "audit"), outputs=saturated))
    return folder


def test_the_strongest_attack_of_each_model_and_ball_with_its_measures(tmp_path: Path) -> None:
    (table,) = robust_information(read(made(tmp_path))).values()
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    assert table.headers == [
        "eps", "model", "strongest attack", "accuracy %", "robust CMI (nats)", "robust separation (nats)",
        "robust NCMI", "NCMI, clean", "flags in the ball",
    ]  # fmt: skip
    assert rows["0.1", "a"][:6] == [
        "PGD", "30.0 ± 0.0 †", "2.25 ± 1.06", "3 ± 0", "0.75 ± 0.354", "0.25 ± 0",
    ]  # fmt: skip
    assert rows["0.1", "b"][0] == "FGSM"
    assert rows["0.1", "b"][2:5] == ["0.5 ± 0", "2 ± 0", "0.25 ± 0"]
    assert rows["0.2", "a"][0] == "FGSM"


def test_flags_of_the_ball_stand_beside_it(tmp_path: Path) -> None:
    (table,) = robust_information(read(made(tmp_path))).values()
    flags = {(row[0], row[1]): row[-1].split(", ") for row in table.rows}
    assert "saturated" in flags["0.1", "b"]
    assert "saturated" not in flags["0.1", "a"]


def test_boards_show_it_and_warn(tmp_path: Path) -> None:
    folder = made(tmp_path)
    text = leaderboard(read(folder))
    section = text.split("## Information under the strongest attack, L-inf\n")[1].split("\n## ")[0]
    assert "Robust NCMI is no measure of robustness" in section
    assert "| 0.1   | `a`" in section
    write_report(folder, formats=["html"])
    page = (folder / "index.html").read_text()
    assert "Robust CMI, separation and NCMI" in page
    assert page.count("2.25 ± 1.06") == 1


def test_without_attacks_there_is_no_such_table(tmp_path: Path) -> None:
    plan = planned(tmp_path, HEAD)
    folder = fill(tmp_path / "results", plan, lambda _: bits("1"))
    assert robust_information(read(folder)) == {}
    assert "strongest attack" not in leaderboard(read(folder))
    write_report(folder, formats=["html"])


def test_the_strongest_is_no_transfer_and_has_results_of_the_most_seeds() -> None:
    accuracies = {
        "FGSM": {0: 0.5, 1: 0.5}, "PGD": {0: 0.4, 1: 0.3}, "Twin": {0: 0.3, 1: 0.4}, "AutoAttack": {0: 0.1},
        "Transfer:b": {0: 0.0, 1: 0.0}, "never": {},
    }  # fmt: skip
    attacks = {label: SeedValues(values) for label, values in accuracies.items()}
    standing = RankedModel("a", Threat("linf", 0.1), 1, "", SeedValues({0: 0.1}), attacks)
    assert strongest_attack(standing) == "PGD", "of equal ones the first"
    assert strongest_attack(standing._replace(attacks={"Transfer:b": attacks["Transfer:b"]})) is None
