"""What the cells of a plan take: passes, operations and time, from what is declared and from what is recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from robustbench_cmic.plan.cell import Cell, canonical_json
from robustbench_cmic.plan.passes import CellPasses, cell_passes
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, TrainRecord
from robustbench_cmic.suite.attack_base import Passes


class Flops(NamedTuple):
    """Floating-point operations of an example.

    Attributes:
        forward: of a pass forward.
        gradient: of one back to the image alone.
        learned: of one back to the weights.
    """

    forward: float
    gradient: float
    learned: float

    def of(self, passes: Passes) -> float:
        """Of so many passes."""
        return self.forward * passes.forwards + self.gradient * passes.gradients + self.learned * passes.learned


class Rates(NamedTuple):
    """Operations a second, of trainings and of attacks; None where that is not known."""

    train: float | None
    attack: float | None


@dataclass(frozen=True)
class CellCost:
    """What a cell takes.

    Attributes:
        passes: as recorded, else as cells like it took, else as declared, with guesses.
        flops, most: operations of `passes.expected` and `passes.most`.
        seconds: as recorded, or estimated; None where nothing tells.
        basis: of the seconds: `recorded`, `records`, `rate`, or empty.
    """

    cell: Cell
    passes: CellPasses
    flops: float
    most: float | None
    seconds: float | None
    basis: str


def cell_costs(
    cells: Sequence[Cell],
    records: Mapping[str, AnyRecord],
    flops_of: Callable[[Cell], Flops],
    classes: int,
    rates_of: Callable[[Cell], Rates],
    prefer_rates: bool = False,
    again: Container[str] = (),
) -> list[CellCost]:
    """The costs of cells, in order.

    Time is taken from the record. Where it has none, or the cell is to run again, it is estimated: from its own
    record, else from those of cells like it, in proportion to what is declared, else from the operations and a rate;
    with `prefer_rates` from these first, where the kind of cell has one.

    Args:
        cells: of one suite.
        records: of those that were done, by id.
        flops_of: operations of an example of a cell's network.
        classes: of the data.
        rates_of: operations a second of a cell's network; asked only where it is needed.
        prefer_rates: over records, where time is estimated.
        again: ids of cells that are to run again, whatever is recorded of them.
    """
    declared = {cell.id: cell_passes(cell, classes) for cell in cells}
    weight = {cell.id: flops_of(cell).of(declared[cell.id].expected) for cell in cells}
    known = _Known(cells, records, weight)
    costs = []
    for cell in cells:
        expected, most = declared[cell.id]
        flops, record = flops_of(cell), records.get(cell.id)
        passes = CellPasses(_recorded(cell, record) or known.passes(cell) or expected, most)
        operations = flops.of(passes.expected)
        took = _seconds(record)
        seconds, basis = took, "recorded"
        if took is None or cell.id in again:
            alike = known.seconds(cell, weight[cell.id]) if took is None else took
            seconds, basis = alike, "" if alike is None else "records"
            if operations and (prefer_rates or alike is None):
                rates = rates_of(cell)
                rate = rates.train if cell.kind == "train" else rates.attack
                seconds, basis = (seconds, basis) if rate is None else (operations / rate, "rate")
        limit = None if most is None else flops.of(most)
        costs.append(CellCost(cell, passes, operations, limit, seconds, basis))
    return costs


class _Known:
    """What records tell of other cells."""

    def __init__(self, cells: Sequence[Cell], records: Mapping[str, AnyRecord], weight: Mapping[str, float]) -> None:
        self._seconds: dict[tuple[object, ...], list[tuple[float, float]]] = defaultdict(list)
        self._passes: dict[tuple[object, ...], list[Passes]] = defaultdict(list)
        for cell in cells:
            record = records.get(cell.id)
            if record is None or not _is_whole(record):
                continue
            seconds = _seconds(record)
            for key in _alike(cell):
                if weight[cell.id] and seconds is not None:
                    self._seconds[key].append((seconds, weight[cell.id]))
                if (found := _recorded(cell, record)) is not None:
                    self._passes[key].append(found)

    def seconds(self, cell: Cell, weight: float) -> float | None:
        """In proportion to what is declared, of the cells that are most like it."""
        for key in _alike(cell):
            if found := self._seconds[key]:
                return weight * sum(seconds for seconds, _ in found) / sum(own for _, own in found)
        return None

    def passes(self, cell: Cell) -> Passes | None:
        """The mean of the same attack in the same ball, on the same model if there is one."""
        for key in _alike(cell)[:2]:
            if found := self._passes[key]:
                return sum(found, Passes()).times(1 / len(found))
        return None


def _alike(cell: Cell) -> list[tuple[object, ...]]:
    """What cells may have in common, the most telling first."""
    what = (cell.kind, cell.attack, *cell.threat)
    return [(cell.model, *what), what, (cell.kind, cell.attack), (cell.kind,)]


def _seconds(record: AnyRecord | None) -> float | None:
    """What a cell took; None where nobody knows: of a training that was taken up again only the last part is timed."""
    return None if record is None or record.timing.resumed_after_epoch is not None else record.timing.seconds


def _is_whole(record: AnyRecord) -> bool:
    """All that is declared was done: a training that diverged or stopped early says nothing of what others take."""
    return record.status == "ok" and not (isinstance(record, TrainRecord) and record.stopped)


def _recorded(cell: Cell, record: AnyRecord | None) -> Passes | None:
    """Examples through the network of an attack and its judge; None where no record counts them."""
    if not isinstance(record, AttackRecord) or record.forwards is None or record.backwards is None:
        return None
    judged = (record.n or 0) * (1 if cell.attack == "none" else 2)
    return Passes(record.forwards + judged, record.backwards)


def network_key(cell: Cell) -> str:
    """Equal for cells whose networks are of one kind."""
    return canonical_json(cell.network_declared["model"])
