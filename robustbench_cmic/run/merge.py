"""Results of one suite from several folders, such as those of `run --shard`, brought into one; nothing is computed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.files import file_sha256, unwritten, write_json
from robustbench_cmic.records.locks import exclusive, is_held
from robustbench_cmic.records.provenance import processor_text
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.records.state import cell_states
from robustbench_cmic.records.store import PLAN_FILE, Store, product_sha256
from robustbench_cmic.report import Results, folders_of, of_own_making, read_results, write_report
from robustbench_cmic.report.folder import is_equal, plan_changes
from robustbench_cmic.suite import shipped_suites
from robustbench_cmic.suite.messages import UserError

_ABANDONED = 60.0  # seconds after which a folder that nobody has locked is nobody's


@dataclass(frozen=True)
class Merger:
    """The parts of one suite's results, which fit together, and where they go.

    Attributes:
        parts: each part's results and where its files lie.
        target: where the files of the whole are to lie.
        chosen: by cell the part whose record is taken, and the record.
        shared: how many cells have a result in several parts, which are then equal.
    """

    parts: list[tuple[Results, Store]]
    target: Store
    chosen: dict[str, tuple[Store, AnyRecord]]
    shared: int

    @property
    def plan(self) -> Plan:
        """Of all parts; the suite's file as seen from the target."""
        plan = self.parts[0][0].plan
        if plan.file and plan.file not in shipped_suites():
            file = (self.parts[0][1].results / plan.file).resolve()
            plan = plan.model_copy(update={"file": os.path.relpath(file, self.target.results.resolve())})
        return plan

    @property
    def cells(self) -> list[Cell]:
        """Of the plan, and those that a command line limited."""
        limited = {cell.id: cell for results, _ in self.parts for cell in results.limited}
        return [*self.plan.cells, *limited.values()]


def merge_results(folders: Sequence[Path], into: Path, work: Path | None = None) -> list[tuple[str, bool]]:
    """Bring the suites in some results folders together in another.

    Nothing is written unless all suites fit together; each is there whole or not at all. Weights and whatever else
    lies in the parts' own work folders comes along.

    Args:
        folders: of suites, such as `part-1`, or of one suite, such as `part-1/digits`.
        into: where results of suites lie, as `run --results`.
        work: where work folders of suites lie, as `run --work`.

    Returns:
        For each suite what became of it, as a sentence, and whether every cell is done.

    Raises:
        UserError: a folder holds no results or is in use, plans or data differ, a record is damaged or of another
            version, two results of one cell contradict each other, or the target holds the suite already.
    """
    suites: dict[str, list[Path]] = {}
    for folder in folders:
        of_suites = [folder] if (folder / PLAN_FILE).exists() else folders_of(folder)
        if not of_suites:
            raise UserError(f"{folder} holds no results of any suite")
        for each in of_suites:
            parts = suites.setdefault(each.resolve().name, [])
            if all(each.resolve() != part.resolve() for part in parts):  # patterns of a shell may name one twice
                parts.append(each)
    mergers = [_merger(parts, Store.of_suite(name, into, work)) for name, parts in suites.items()]
    return [_write(merger) for merger in mergers]


def _merger(folders: Sequence[Path], target: Store) -> Merger:
    """Read the parts of a suite and check that they fit together."""
    places = [Path(os.path.realpath(place)) for place in (target.results, target.work)]
    for place, own, other in zip((target.results, target.work), places, reversed(places), strict=True):
        if os.path.lexists(place):  # a link to nothing, too
            raise UserError(f"{place} is there already: merge into a new folder (--into)")
        if other in own.parents:
            raise UserError(f"{place} lies in {other}: results and work folders go beside each other (--into, --work)")
    parts: list[tuple[Results, Store]] = []
    for folder in folders:
        store = Store(folder)
        if store.is_in_use():
            raise UserError(f"a run is using {folder}: wait for it")
        with of_own_making(folder):
            parts.append((read_results(folder), store))
    first = parts[0][0]
    for results, _ in parts:
        if results.problems:
            why = results.problems[0].replace(": left out: ", ": ")
            raise UserError(f"{why}; run that part again, or leave its folder out")
        if not is_equal(results.plan, first.plan):
            changes = plan_changes(first.plan, results.plan)
            raise UserError(f"{first.folder} and {results.folder} hold results of different plans ({changes})")
    _check_data([results for results, _ in parts])
    chosen: dict[str, tuple[Store, AnyRecord]] = {}
    shared = set()
    for results, store in parts:
        for cell, record in results.records.items():
            if cell in chosen and "failed" not in (chosen[cell][1].status, record.status):
                _check_equal(*chosen[cell], store, record)
                shared.add(cell)
            elif cell not in chosen or chosen[cell][1].status == "failed":
                chosen[cell] = store, record
    return Merger(parts, target, chosen, len(shared))


def _check_data(parts: Sequence[Results]) -> None:
    made: dict[str, Path] = {}
    for results in parts:
        for record in results.records.values():
            if record.dataset_sha256 is not None:
                made.setdefault(record.dataset_sha256, results.folder)
    if len(made) > 1:
        (one, first), (other, second), *_ = made.items()
        where = f"{first} and {second}" if first != second else str(first)
        raise UserError(f"{where}: the data set's fingerprint differs ({one[:12]}… and {other[:12]}…)")


def _check_equal(store: Store, record: AnyRecord, other_store: Store, other: AnyRecord) -> None:
    one, two = _outcome(record), _outcome(other)
    differing = [key for key in one if one[key] != two.get(key)]
    if differing:
        made = [processor_text(each.provenance) or "an unknown processor" for each in (record, other)]
        raise UserError(
            f"{store.record(record.cell.id)} and {other_store.record(record.cell.id)} contradict each other "
            f"({differing[0]} differs; made on {made[0]} and on {made[1]}): leave one of the folders out, and `run` "
            "what is missing then"
        )


def _outcome(record: AnyRecord) -> dict[str, Any]:
    """A record without what differs between equal runs."""
    payload = record.model_dump(mode="json", exclude={"provenance", "timing"})
    for part in payload.get("parts", []):
        del part["seconds"]
    return payload


def _write(merger: Merger) -> tuple[str, bool]:
    """Write what was chosen, beside its place first; returns a sentence, and whether every cell is done."""
    target, plan = merger.target, merger.plan
    try:
        together = target.results.resolve() == target.work.resolve()
        with _fresh(target.results) as results, contextlib.ExitStack() as stack:
            work = results if together else stack.enter_context(_fresh(target.work))
            store = Store(results, work)
            store.pictures_folder.mkdir()
            write_json(store.plan, plan.model_dump(mode="json"))
            for cell in merger.cells:
                _bring(merger, cell, store)
            if not any(store.pictures_folder.iterdir()):
                store.pictures_folder.rmdir()
            states = cell_states(merger.cells, results)
            for cell in merger.cells:
                if states[cell.id].state == "unusable":
                    raise UserError(f"{cell.id}: {states[cell.id].why}: leave the folder that it is from out")
            write_report(results)
            if not together:
                work.rename(target.work)
            results.rename(target.results)
    except OSError as error:
        raise UserError(f"cannot write {unwritten(error, target.results)}") from None
    counts = Counter(states[cell.id].state for cell in plan.cells)
    text = ", ".join(f"{count} {state}" for state, count in counts.items())
    twice = f"; {merger.shared} in several of them, and equal" if merger.shared else ""
    origins = {record.provenance.get("code_sha256") for _, record in merger.chosen.values()}
    versions = f"; made by {len(origins)} versions of the code" if len(origins) > 1 else ""
    folders = f"{len(merger.parts)} folder{'s' if len(merger.parts) > 1 else ''}"
    sentence = f"{plan.suite}: {len(plan.cells)} cells from {folders}: {text}{twice}{versions}"
    return sentence, set(counts) == {"done"}


@contextlib.contextmanager
def _fresh(place: Path) -> Iterator[Path]:
    """A new folder of a place's name, beside it, that is gone in the end unless it was moved."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(".merge.*.tmp"):  # of one that was killed; a new one may not be locked yet
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED and not is_held(left):
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".merge.", suffix=".tmp", dir=place.parent) as around:
        folder = Path(around, place.name)
        folder.mkdir()
        with exclusive(Path(around)):
            yield folder


def _bring(merger: Merger, cell: Cell, target: Store) -> None:
    """Copy what the parts have of a cell. Weights and adversarial examples only where they are the recorded ones."""
    if cell.id in merger.chosen:
        source, record = merger.chosen[cell.id]
        for one in ("record", "pictures"):
            if (file := getattr(source, one)(cell.id)).is_file():
                shutil.copy(file, getattr(target, one)(cell.id))
        if record.status != "failed":
            expected = product_sha256(record)
            stores = [store for _, store in merger.parts]
            found = (file for store in stores if file_sha256(file := store.product(cell)) == expected is not None)
            if (product := next(found, None)) is not None:
                shutil.copy(product, target.product(cell))
            return
    states = (store.resume_state(cell.id) for _, store in merger.parts)
    if (state := next((file for file in states if file.is_file()), None)) is not None:
        shutil.copy(state, target.resume_state(cell.id))
