"""The certificate of a reproduction: typed, versioned, with a checksum over itself; and its overall verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from robustbench_cmic.report.compare.differences import Difference
from robustbench_cmic.report.compare.verdicts import VERDICTS, CellVerdict, Verdict
from robustbench_cmic.suite.fields import Frozen

Overall = Literal["bit-identical", "same predictions", "within interval", "drifted", "different inputs", "incomplete"]
REPRODUCED, INCOMPLETE, DIFFERENT = 0, 1, 3
MAX_FLIPS = 10


class Conclusion(NamedTuple):
    """What a whole reproduction is worth.

    Attributes:
        verdict: that of the worst cell; `different inputs` where it was not the recorded experiment that was made
            anew; `incomplete` where cells could not be run, or nothing is recorded of them.
        exit_code: of the command.
        sentence: the finding for people.
    """

    verdict: Overall
    exit_code: int
    sentence: str


def conclude(suite: str, cells: Sequence[CellVerdict], inputs: Sequence[Difference], sampled: str = "") -> Conclusion:
    """The verdict of a whole reproduction; `sampled` says what the cells are a sample of, and may be empty."""
    counts, n = counts_of(cells), len(cells)
    lacking: list[Verdict] = [name for name in ("failed", "missing") if counts[name]]
    verdict: Overall
    if inputs:
        verdict, code = "different inputs", DIFFERENT
        rest = f", and {len(inputs) - 1} more" if len(inputs) > 1 else ""
        text = f"NOT A REPRODUCTION: not the recorded experiment: {inputs[0].text()}{rest}"
    elif counts["drifted"]:
        verdict, code = "drifted", DIFFERENT
        text = f"DRIFTED: {counts['drifted']} of {n} cells (first: {_first(cells, 'drifted')})"
    elif lacking:
        verdict, code = "incomplete", INCOMPLETE
        what = " and ".join(f"{counts[name]} {name}" for name in lacking)
        text = f"INCOMPLETE: {what} of {n} cells (first: {_first(cells, lacking[0])})"
    elif not cells:
        verdict, code, text = "incomplete", INCOMPLETE, "INCOMPLETE: nothing is recorded"
    elif counts["bit-identical"] == n:
        verdict, code, text = "bit-identical", REPRODUCED, f"{n} of {n} cells bit-identical"
    else:
        verdict, code = "within interval" if counts["within interval"] else "same predictions", REPRODUCED
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        text = f"reproduced: of {n} cells {', '.join(parts)}"
    return Conclusion(verdict, code, f"{suite}: {text}" + (f" ({sampled})" if sampled else ""))


class Certificate(Frozen):
    """A comparison of recorded and new results, with a header that says what it is worth: see `Conclusion`.

    Attributes:
        started: UTC, ISO 8601; seconds: wall time of the run.
        against: the recorded results; results: the folder of the new ones.
        fraction: share of the recorded evaluations that was asked for; recorded: how many cells are recorded in all.
        inputs: in which data, examples, given weights, configuration or seeds differ; old is recorded, new is here.
        environment: in which code, versions or machines differ; environment_recorded, environment_here: all of that.
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
