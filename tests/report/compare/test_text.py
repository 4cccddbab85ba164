"""Certificates for people: what their template says, section by section."""

from __future__ import annotations

import re

from robustbench_cmic.report.compare.certificate import CellVerdict
from robustbench_cmic.report.compare.differences import Difference
from robustbench_cmic.report.compare.text import certificate_text
from tests.report.compare.test_history import certificate

HASH = "0123456789abcdef" * 4


def sections(text: str) -> dict[str, str]:
    """What stands under each heading."""
    parts = re.split(r"^##? (.+)\n\n", text, flags=re.MULTILINE)
    assert parts[0] == ""
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def cells(table: str, name: str) -> list[str]:
    """The cells of a row that begins with a name."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_certificate_says_what_was_found_worst_first() -> None:
    parts = sections(certificate_text(certificate()))
    assert list(parts) == ["Reproduction of `made`", "Cells", "Hashes (SHA-256)", "Hardware and settings", "Versions"]
    head = parts["Reproduction of `made`"]
    assert head.startswith(
        "**made: so**\n\n3 cells judged of 3 recorded; started 2026-01-02T03:04:05+00:00, 61 seconds; "
    )
    assert cells(head, "drifted") == ["drifted", "1"]
    assert cells(head, "missing") == ["missing", "0"]
    rows = [line.split("|")[1].strip() for line in parts["Cells"].splitlines() if line.startswith("| ")][1:]
    assert rows == ["b", "c", "a"]
    assert cells(parts["Cells"], "b") == ["b", "drifted", "50.00", "48.00", "3 flipped: 1, 4, 9", ""]
    assert cells(parts["Cells"], "a") == ["a", "bit-identical", "–", "–", "", ""]
    assert cells(parts["Hardware and settings"], "processor") == ["processor", "–", "EPYC"]
    assert cells(parts["Versions"], "versions.torch") == ["versions.torch", "–", "2.15.0"]
    assert "versions" not in parts["Hardware and settings"]


def test_differences_samples_and_hashes_are_named() -> None:
    training = CellVerdict(
        cell="t", title="a seed 0: train", kind="train", verdict="drifted", why="its weights differ",
        largest=Difference(key="parameters", old=1, new=2), checkpoint_recorded=HASH,
    )  # fmt: skip
    inputs = [Difference(key="training.epochs", old=20, new=30, where=["a", "b"], cells=2)]
    environment = [Difference(key="versions.torch", old="2.8", new=None)]
    made = certificate(
        cells=[training], inputs=inputs, environment=environment, fraction=0.25,
        dataset_sha256={"recorded": [HASH], "here": []},
    )  # fmt: skip
    parts = sections(certificate_text(made))
    head = parts["Reproduction of `made`"]
    assert "1 cells judged of 3 recorded, a sample of 0.25 of the evaluations and what they depend on; started" in head
    assert cells(parts["Not the recorded experiment"], "training.epochs") == ["training.epochs", "20", "30", "a, b"]
    assert cells(parts["Differences of environment"], "versions.torch") == ["versions.torch", "2.8", "–", ""]
    assert cells(parts["Cells"], "a seed 0: train")[-1] == "its weights differ; differs most: parameters: 1 -\\> 2"
    assert (
        f"- suite file `made.yaml`: {'0' * 64}\n- data, recorded: {HASH}\n- data, here: –\n"
        in (parts["Hashes (SHA-256)"])
    )
    assert cells(parts["Hashes (SHA-256)"], "a seed 0: train") == ["a seed 0: train", HASH, "–"]


def test_a_suites_own_words_are_no_markdown() -> None:
    cell = CellVerdict(cell="c", title="a|b", kind="attack", verdict="failed", why="<b>crashed</b>\n# so")
    text = certificate_text(certificate(sentence="a *b*", cells=[cell]))
    assert "**a \\*b\\***" in text
    assert "| a\\|b " in text
    assert "\\<b\\>crashed\\</b\\> \\# so" in text
