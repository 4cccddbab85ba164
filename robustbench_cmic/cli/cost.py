"""`plan --cost`: what the cells of a suite take."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import get_args

from robustbench_cmic.data import default_data_folder
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Kind, title
from robustbench_cmic.plan.schedule import critical_path, simulated
from robustbench_cmic.plan.select import select
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.records.state import blocked_cells, foreseen
from robustbench_cmic.records.store import Store
from robustbench_cmic.run.console import show_text
from robustbench_cmic.run.cost import CellCost, Flops, Rates, cell_costs, network_key
from robustbench_cmic.run.options import Options, resolve_device
from robustbench_cmic.run.watch.estimate import duration
from robustbench_cmic.suite import Suite
from robustbench_cmic.suite.fields import parse_number
from robustbench_cmic.suite.messages import UserError, printable
from robustbench_cmic.suite.models import Model, model_of
from robustbench_cmic.suite.training import Training

_BASES = {"recorded": "", "records": "~", "rate": "?", "": ""}


def show_cost(suite: Suite, options: Options, rates: Sequence[str]) -> None:
    """Print what each cell takes, and the sums: examples through the network, operations, and time.

    What is to run is what `plan` says, too, see `foreseen`.

    Args:
        suite: whose plan it is.
        options: which cells, where results and data lie, and on which device a step is measured.
        rates: of the command line, see `given_rates`; none: measured, where no record tells.

    Raises:
        UserError: the data cannot be read, so that nobody knows what goes through the network; or what `select`, the
            building of a model and `resolve_device` raise.
    """
    given = given_rates(rates)
    plan = make_plan(suite, options.limit)
    cells, asked = select(plan, options.seeds, options.only, options.shard)
    store = Store.of_suite(plan.suite, options.results, options.work)
    states, pending = foreseen(cells, asked, store, force=options.force, outputs=suite.outputs is not None)
    blocked = blocked_cells(cells, states)
    cells = [cell for cell in cells if cell.id not in blocked]
    records = {cell.id: record for cell in cells if (record := states[cell.id].record) and states[cell.id].is_final}
    networks = _Networks(suite, options, resolve_device(options.device))
    rates_of = networks.rates if given is None else lambda _: given
    costs = cell_costs(
        cells, records, networks.flops, networks.classes, rates_of, prefer_rates=given is not None, again=pending
    )
    show_text("\n\n".join(_text(costs, pending, records.values(), networks.measured)))


def given_rates(texts: Sequence[str]) -> Rates | None:
    """Operations a second as the command line says: `1e14` of all cells, or `train=1.4e14` and `attack=1e14`.

    Raises:
        UserError: it is something else.
    """
    found: dict[str, float] = {}
    for text in texts:
        kind, given, number = text.rpartition("=")
        try:
            rate = parse_number(number)
        except ValueError:
            rate = 0.0
        if rate <= 0 or (given and kind not in Rates._fields):
            raise UserError(f"--rate: should be operations a second such as 1e14, or train=1.4e14, not '{text}'")
        kinds = (kind,) if given else Rates._fields  # a rate alone is of both
        if twice := next((each for each in kinds if each in found), None):
            raise UserError(f"--rate: '{text}' gives the rate of '{twice}' again; give one of all cells, or one a kind")
        found |= dict.fromkeys(kinds, rate)
    return Rates(*(found.get(field) for field in Rates._fields)) if found else None


class _Networks:
    """The networks of a suite: built and measured once each, where they are asked about."""

    def __init__(self, suite: Suite, options: Options, device: str) -> None:
        # Imported where it is needed: torch takes seconds, and a plan alone does without.
        from robustbench_cmic.run import given, measure

        facts = given.image_facts(suite.dataset, (options.data or default_data_folder()).absolute())
        if facts is None:
            raise UserError(f"--cost: the data of {suite.dataset.label} cannot be read, so that its size is not known")
        self._measure, (self._shape, self.classes) = measure, facts
        self._device = device
        self._flops: dict[str, Flops] = {}
        self._rates: dict[str, Rates] = {}
        self.measured = ""

    def flops(self, cell: Cell) -> Flops:
        """Operations of an example."""
        key = network_key(cell)
        if key not in self._flops:
            model = self._measure.built_model(_model(cell), self._shape, self.classes)
            self._flops[key] = self._measure.example_flops(model, self._shape)
        return self._flops[key]

    def rates(self, cell: Cell) -> Rates:
        """Operations a second, measured here."""
        key = network_key(cell)
        if key not in self._rates:
            self.measured = self._device
            declared = cell.network_declared["training"]
            training = None if declared is None else Training.model_validate(declared)
            values = _model(cell), training, self._shape, self.classes, self.measured
            self._rates[key] = self._measure.measured_rates(*values)
        return self._rates[key]


def _model(cell: Cell) -> Model:
    return model_of(cell.network_declared["model"])


def _text(
    costs: Sequence[CellCost], pending: Mapping[str, str], records: Collection[AnyRecord], measured: str
) -> list[str]:
    """The tables, and how to read them; `pending` as `pending_cells` gives it."""
    from tabulate import tabulate

    table = functools.partial(tabulate, disable_numparse=True)
    rows = [[printable(title(cost.cell)), _state(cost.cell, pending), *_row([cost])] for cost in costs]
    columns = ["forward", "backward", "TFLOP", "at most", "time"]
    texts = [table(rows, ["cell", "state", *columns])]
    kinds = [*_sums(costs, get_args(Kind), lambda cost: cost.cell.kind)]
    models = [*_sums(costs, dict.fromkeys(cost.cell.model for cost in costs), lambda cost: cost.cell.model)]
    left = [cost for cost in costs if cost.cell.id in pending]
    whole = [["all", f"{len(costs)}", *_row(costs)], ["to run", f"{len(left)}", *_row(left)]]
    texts.append(table([*kinds, *models, *whole], ["", "cells", *columns]))
    if left and all(cost.seconds is not None for cost in left):
        texts.append(_schedule(left))
    texts.append("\n".join(_notes(costs, records, measured)))
    return texts


def _state(cell: Cell, pending: Mapping[str, str]) -> str:
    if cell.id not in pending:
        return "done"
    return "to run again" if pending[cell.id] else "to run"


def _sums(costs: Sequence[CellCost], names: Iterable[str], name_of: Callable[[CellCost], str]) -> Iterable[list[str]]:
    """A row for each name that a cell has."""
    for name in names:
        if own := [cost for cost in costs if name_of(cost) == name]:
            yield [printable(name), f"{len(own)}", *_row(own)]


def _row(costs: Sequence[CellCost]) -> list[str]:
    """Forward, backward, operations expected and at most, and time of all of them together."""
    forwards, backwards = (
        sum(getattr(cost.passes.expected, name) for cost in costs) for name in ("forwards", "backwards")
    )
    known = [cost.most for cost in costs if cost.most is not None]
    most = f"{sum(known) / 1e12:,.4g}" if len(known) == len(costs) else ""
    times = [cost.seconds for cost in costs if cost.seconds is not None]
    bases = "".join(dict.fromkeys(_BASES[cost.basis] for cost in costs))
    time = f"{bases}{duration(sum(times))}" if len(times) == len(costs) else ""
    return [f"{forwards:,.0f}", f"{backwards:,.0f}", f"{sum(cost.flops for cost in costs) / 1e12:,.4g}", most, time]


def _schedule(left: Sequence[CellCost]) -> str:
    """What is to run, on several workers."""
    cells, seconds = [cost.cell for cost in left], {cost.cell.id: cost.seconds or 0.0 for cost in left}
    times = ", ".join(f"{count}: {duration(simulated(cells, seconds, count))}" for count in (1, 2, 4, 8))
    chain = sum(seconds[cell.id] for cell in critical_path(cells, seconds))
    return f"to run, by cells at a time that do not slow each other down: {times}; never less than {duration(chain)}"


def _notes(costs: Sequence[CellCost], records: Collection[AnyRecord], measured: str) -> Iterable[str]:
    """What columns and marks mean, as far as they are there."""
    bases = {cost.basis for cost in costs}
    yield "forward, backward: examples through the network, as recorded, else as expected"
    yield "at most: TFLOP if no attack stopped early (AutoAttack on examples that survive all its parts)"
    if any(cost.most is None for cost in costs):
        yield "no 'at most': audits, and attacks of other people, which nobody can count beforehand; theirs are guesses"
    if bases & {"recorded", "records"}:
        devices = sorted({str(record.provenance.get("device", "?")) for record in records})
        yield f"times are from records made on {', '.join(devices)}"
    if any(record.timing.resumed_after_epoch is not None for record in records):
        yield "of a training that was killed and resumed, the last part alone was timed: its time is estimated, too"
    if "records" in bases:
        yield f"{_BASES['records']} estimated from records of cells like it, or from its own where it is to run again"
    if "rate" in bases:
        source = f"of one step, measured on {measured}" if measured else "that was given"
        yield f"{_BASES['rate']} TFLOP over the rate {source}"
