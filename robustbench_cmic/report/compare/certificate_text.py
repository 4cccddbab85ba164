"""A certificate for people, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_cmic.report.compare.certificate import Certificate, flipped_text
from robustbench_cmic.report.compare.differences import Difference, shown
from robustbench_cmic.report.compare.verdicts import VERDICTS, CellVerdict
from robustbench_cmic.report.tables import NOTHING, escaped, table

_NOT_HARDWARE = "versions."


def certificate_text(certificate: Certificate) -> str:
    """The whole file: verdict, counts, what differs, cells, hashes, environment."""
    return "\n".join(_parts(certificate))


def _parts(found: Certificate) -> Iterator[str]:
    yield f"# Reproduction of `{found.suite}`\n"
    yield f"**{escaped(found.sentence)}**\n"
    asked = f", a sample of {found.fraction:g} of the evaluations and what they depend on" if found.fraction < 1 else ""
    yield (
        f"{len(found.cells)} cells judged of {found.recorded} recorded{asked}; started {found.started}, "
        f"{found.seconds:.0f} seconds; exit code {found.exit_code}.\n"
    )
    yield table([[name, str(found.counts[name])] for name in VERDICTS], ["verdict", "cells"])
    yield from _differences("Not the recorded experiment", found.inputs)
    yield from _differences("Differences of environment", found.environment)
    yield "## Cells\n"
    yield "Examples are counted from 0 among the evaluated ones; `certificate.json` names all of them.\n"
    order = {verdict: place for place, verdict in enumerate(reversed(VERDICTS))}
    rows = [_row(cell) for cell in sorted(found.cells, key=lambda cell: order[cell.verdict])]
    yield table(rows, ["cell", "verdict", "recorded %", "here %", "flipped examples", "remarks"])
    yield from _hashes(found)
    yield from _environment(found)


def _differences(name: str, differences: list[Difference]) -> Iterator[str]:
    if differences:
        yield f"## {name}\n"
        rows = [[escaped(t) for t in (d.key, shown(d.old), shown(d.new), ", ".join(d.where))] for d in differences]
        yield table(rows, ["key", "recorded", "here", "where"])


def _row(cell: CellVerdict) -> list[str]:
    accuracies = [
        NOTHING if value is None else f"{100 * value:.2f}" for value in (cell.accuracy_recorded, cell.accuracy_here)
    ]
    remarks = [cell.why] if cell.why else []
    if cell.largest is not None:
        remarks.append(f"differs most: {cell.largest.text()}")
    return [escaped(cell.title), cell.verdict, *accuracies, flipped_text(cell.flipped), escaped("; ".join(remarks))]


def _hashes(found: Certificate) -> Iterator[str]:
    yield "## Hashes (SHA-256)\n"
    yield f"- suite file `{found.suite_file}`: {found.suite_sha256}"
    for side, values in found.dataset_sha256.items():
        yield f"- data, {side}: {', '.join(values) or NOTHING}"
    yield f"- code commit, recorded: {found.environment_recorded.get('commit', NOTHING)}"
    yield f"- code commit, here: {found.environment_here.get('commit', NOTHING)}\n"
    rows = [
        [escaped(cell.title), cell.checkpoint_recorded or NOTHING, cell.checkpoint_here or NOTHING]
        for cell in found.cells
        if cell.kind == "train"
    ]
    yield table(rows, ["weights", "recorded", "here"])


def _environment(found: Certificate) -> Iterator[str]:
    recorded, here = found.environment_recorded, found.environment_here
    keys = list(dict.fromkeys([*here, *recorded]))
    for name, versions in (("Hardware and settings", False), ("Versions", True)):
        rows = [
            [escaped(text) for text in (key, recorded.get(key, NOTHING), here.get(key, NOTHING))]
            for key in keys
            if key.startswith(_NOT_HARDWARE) is versions
        ]
        yield f"## {name}\n"
        yield table(rows, ["key", "recorded", "here"])
