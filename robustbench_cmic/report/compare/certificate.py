"""The certificate of a reproduction: typed, versioned, with a checksum over itself; and its overall verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from robustbench_cmic.records.files import write_atomically, write_json
from robustbench_cmic.report.compare.differences import Difference
from robustbench_cmic.report.compare.verdicts import VERDICTS, CellVerdict, Verdict
from robustbench_cmic.suite.fields import Frozen

Overall = Literal["bit-identical", "same predictions", "within interval", "drifted", "different inputs", "incomplete"]
REPRODUCED, INCOMPLETE, DIFFERENT = 0, 1, 3
MAX_FLIPS = 10
_LACKING: tuple[Verdict, ...] = ("failed", "missing")


def sentence(
    suite: str, verdict: Overall, cells: Sequence[CellVerdict], inputs: Sequence[Difference], sampled: str
) -> str:
    """The finding for people, in one sentence; `sampled` says what the cells are a sample of, and may be empty."""
    counts, n = counts_of(cells), len(cells)
    tail = f" ({sampled})" if sampled else ""
    if verdict == "different inputs":
        rest = f", and {len(inputs) - 1} more" if len(inputs) > 1 else ""
        return f"{suite}: NOT A REPRODUCTION: not the recorded experiment: {inputs[0].text()}{rest}{tail}"
    if verdict == "drifted":
        return f"{suite}: DRIFTED: {counts['drifted']} of {n} cells (first: {_first(cells, 'drifted')}){tail}"
    if verdict == "incomplete":
        if not cells:
            return f"{suite}: INCOMPLETE: nothing is recorded{tail}"
        lacking = " and ".join(f"{counts[name]} {name}" for name in _LACKING if counts[name])
        first = next(_first(cells, name) for name in _LACKING if counts[name])
        return f"{suite}: INCOMPLETE: {lacking} of {n} cells (first: {first}){tail}"
    if verdict == "bit-identical":
        return f"{suite}: {n} of {n} cells bit-identical{tail}"
    parts = [f"{counts[name]} {name}" for name in VERDICTS if counts[name]]
    return f"{suite}: reproduced: of {n} cells {', '.join(parts)}{tail}"


class Certificate(Frozen):
    """A comparison of recorded and new results, with a header that says what it is worth.

    Attributes:
        sentence: the finding in one sentence.
        verdict: that of the worst cell; `different inputs` where it was not the recorded experiment that was made
            anew; `incomplete` where cells could not be run, or nothing is recorded of them.
        exit_code: of the command.
        started: UTC, ISO 8601; seconds: wall time of the run.
        suite_file: name of the suite's file; suite_sha256: its hash.
        against: the recorded results; results: the folder of the new ones.
        fraction: share of the recorded evaluations that was asked for; recorded: how many cells are recorded in all.
        counts: how many cells have each verdict.
        inputs: in which data, examples, given weights, configuration or seeds differ; old is recorded, new is here.
        environment: in which code, versions or machines differ.
        environment_recorded, environment_here: all of that, key by key.
        dataset_sha256: recorded and here.
        cells: the verdicts, in the suite's order.
    """

    schema_: Literal["robustbench_cmic/certificate/1"] = Field("robustbench_cmic/certificate/1", alias="schema")
    suite: str
    sentence: str
    verdict: Overall
    exit_code: int
    started: str
    seconds: float
    suite_file: str
    suite_sha256: str
    against: str
    results: str
    fraction: float
    recorded: int
    counts: dict[str, int]
    inputs: list[Difference]
    environment: list[Difference]
    environment_recorded: dict[str, str]
    environment_here: dict[str, str]
    dataset_sha256: dict[Literal["recorded", "here"], list[str]]
    cells: list[CellVerdict]


def overall(cells: Sequence[CellVerdict], inputs: Sequence[Difference]) -> tuple[Overall, int]:
    """The verdict of a whole reproduction and its exit code."""
    verdicts = {cell.verdict for cell in cells}
    if inputs:
        return "different inputs", DIFFERENT
    if "drifted" in verdicts:
        return "drifted", DIFFERENT
    if not verdicts or verdicts & set(_LACKING):
        return "incomplete", INCOMPLETE
    if "within interval" in verdicts:
        return "within interval", REPRODUCED
    return ("same predictions" if "same predictions" in verdicts else "bit-identical"), REPRODUCED


def counts_of(cells: Sequence[CellVerdict]) -> dict[str, int]:
    """How many cells have each verdict, zeros included."""
    counted = Counter(cell.verdict for cell in cells)
    return {verdict: counted[verdict] for verdict in VERDICTS}


def _first(cells: Sequence[CellVerdict], verdict: Verdict) -> str:
    """The first cell of a verdict, with its flipped examples or the reason."""
    cell = next(cell for cell in cells if cell.verdict == verdict)
    return f"{cell.title}, {flipped_text(cell.flipped) or cell.why}"


def flipped_text(places: Sequence[int]) -> str:
    """`2 flipped: 3, 17`, with at most `MAX_FLIPS` examples; empty where none flipped."""
    if not places:
        return ""
    listed = ", ".join(map(str, places[:MAX_FLIPS]))
    return f"{len(places)} flipped: {listed}{', …' if len(places) > MAX_FLIPS else ''}"


def write_certificate(folder: Path, certificate: Certificate, text: str) -> None:
    """Write `certificate.json`, which `records.files.read_json` reads and checks, and `certificate.md`, atomically.

    Raises:
        OSError: the folder cannot be written to.
    """
    write_json(folder / "certificate.json", certificate.model_dump(mode="json"))
    write_atomically(folder / "certificate.md", text.encode())
