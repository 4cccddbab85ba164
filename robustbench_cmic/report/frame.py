"""One tidy table of a results folder, a row a cell: what every format, and a notebook, is made of.

pandas is imported where a table is made: what only reads a folder (`status`, the start of `run`) does without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cmic.audit import Audit, Flag, flag_results
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.packing import unpack_outcomes
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.records.store import PLAN_FILE
from robustbench_cmic.report.folder import ReportError
from robustbench_cmic.report.metrics import CALIBRATION, COLUMNS, DECLARED, MEASURED, METRICS, SPENT
from robustbench_cmic.report.results import NOT_RUN, Results, folders_of, named_folder, of_own_making, read_results
from robustbench_cmic.suite.fields import Threat

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

WORST = "worst case"
EXTRA = ("limited", "counted", "worst_case_flags", "audit_outcomes", "outcomes")
"""What frames hold besides the columns of results.csv and calibration."""
_PLAIN = (*DECLARED, "cell", "status", "seconds", *MEASURED, *(name for name in SPENT if name != "seconds"), "flags")
_PARTS = ("model", "objective", "training", "attack")
Key = tuple[str, str, Threat]
"""A number over seeds: model, label of the attack or `worst case`, threat."""
Group = dict[int, Any]
"""Its rows by seed, as named tuples: columns are attributes."""


def load_results(path: str | Path) -> pd.DataFrame:
    """The results of a suite, or of every suite in a folder, as one table.

    Args:
        path: a suite's results folder such as `results/digits`, or a folder of such folders.

    Returns:
        One row for each attack at one eps on one trained model, the clean evaluation (attack `none`) too, in the
        suite's order, then evaluations limited by `--limit`. Columns: those of results.csv (accuracies and intervals
        are fractions, information is in nats); those of models.csv about calibration, which clean evaluations have;
        `outcomes`, a truth value an example, True where it is classified
        correctly, None where there is no result; `limited`; `counted`, whether the worst case rests on the row;
        `worst_case_flags`, what the audit raises about the worst case at the row's threat; `audit_outcomes`, as
        `outcomes`, which examples survive the audit's own attacks at this threat (those that it did not take do), None
        where there were none; and what the suite
        declares, such as `model.stem`, `objective.lambda`, `training.epochs`, `attack.steps`. A cell that was not
        run yet is there with status `not run`.

    Raises:
        ReportError: nothing there can be read; the message says why.

    Warns:
        UserWarning: a record was left out, with the reason.
    """
    import pandas as pd

    path = named_folder(path)
    folders = [path] if (path / PLAN_FILE).exists() else folders_of(path)
    if not folders:
        raise ReportError(f"{path} holds no results: there is no {PLAN_FILE} in it or in its folders; `run` a suite")
    evaluations: list[tuple[Cell, dict[str, Any]]] = []
    for folder in folders:
        with of_own_making(folder):
            results = read_results(folder)
            evaluations += _rows(results, flag_results(results.plan, results.records))
        for problem in results.problems:
            warnings.warn(problem, stacklevel=2)
    return pd.concat([_typed(evaluations), _parameters(cell for cell, _ in evaluations)], axis=1)


def worst_case(frame: pd.DataFrame) -> pd.DataFrame:
    """The worst case over attacks, example by example: the mean of the minimum, not the minimum of the means.

    An example survives at a threat if it survives every attack that was planned there or at a smaller eps of the
    norm, which holds the same adversarial example, and the audit's own attacks in these balls, which are made on a part
    of the examples. Transfers from a model that diverged are not counted.

    Args:
        frame: rows of `load_results`; every row of the models and threats asked for, with the outcomes.

    Returns:
        One row for each suite, model, seed, norm and eps: `n`, `accuracy` (fraction that survives), `flags` (what the
        audit raises about this worst case) and `outcomes`. Accuracy is missing and outcomes are None where an attack
        has no result: a worst case over fewer attacks would look better than it is.

    Raises:
        ReportError: the frame lacks a column that this needs.
    """
    import pandas as pd

    absent = [name for name in (*DECLARED, *EXTRA) if name not in frame]
    if absent:
        raise ReportError(f"the frame lacks {', '.join(absent)}: a worst case is made of rows of load_results")
    attacked = frame[(frame["norm"] != "") & ~frame["limited"]]
    radii = {key: sorted(set(group["eps"])) for key, group in attacked.groupby(["suite", "norm"], sort=False)}
    rows = []
    for (suite, model, seed, norm), group in attacked.groupby(["suite", "model", "seed", "norm"], sort=False):
        for eps in radii[suite, norm]:
            inside = group[group["counted"] & (group["eps"] <= eps)]
            audited = inside.drop_duplicates("eps")["audit_outcomes"]
            alive = survivors([*inside["outcomes"], *(own for own in audited if own is not None)])
            flags = next(iter(group.loc[group["eps"] == eps, "worst_case_flags"]), "")
            n, accuracy = (None, None) if alive is None else (len(alive), alive.mean())
            rows.append((suite, model, seed, norm, eps, n, accuracy, flags, alive))
    columns = ["suite", "model", "seed", "norm", "eps", "n", "accuracy", "flags", "outcomes"]
    return pd.DataFrame(rows, columns=columns).astype({"n": "Int64", "accuracy": float})


def survivors(outcomes: Iterable[NDArray[np.bool_] | None]) -> NDArray[np.bool_] | None:
    """(n,) truth values of the examples that survive every attack; None where one has no result, and without any."""
    alive = None
    for own in outcomes:
        if own is None or (alive is not None and own.shape != alive.shape):
            return None
        alive = own if alive is None else alive & own
    return alive


def marginal_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """The fraction of examples that an attack alone breaks, of all attacks at its threat.

    Clean errors are nobody's. A seed is left out where an attack has no result, or there is only one.

    Args:
        frame: as for `worst_case`, of one suite.

    Returns:
        Columns model, seed, norm, eps, attack, share.
    """
    import numpy as np
    import pandas as pd

    keys = ["model", "seed", "norm", "eps"]
    rows = []
    for key, group in frame.loc[frame["counted"], [*keys, "attack", "outcomes"]].groupby(keys, sort=False):
        if len(group) > 1 and survivors(group["outcomes"]) is not None:
            broken = ~np.stack(list(group["outcomes"]))
            shares = (broken & (broken.sum(0) == 1)).sum(1) / broken.shape[1]
            rows += [(*key, attack, share) for attack, share in zip(group["attack"], shares, strict=True)]
    return pd.DataFrame(rows, columns=[*keys, "attack", "share"])


def results_frame(results: Results, audit: Audit) -> pd.DataFrame:
    """The rows of `load_results` of one suite, without what the suite declares."""
    return _typed(_rows(results, audit))


def _typed(evaluations: Iterable[tuple[Cell, dict[str, Any]]]) -> pd.DataFrame:
    """Rows as a table: whole numbers stay whole where some are missing, whatever pandas would infer."""
    import pandas as pd

    types = {metric.name: "Int64" if metric.form == "{:d}" else "float64" for metric in (*METRICS, *CALIBRATION)}
    rows = [row for _, row in evaluations]
    columns = [*COLUMNS, *(metric.name for metric in CALIBRATION), *EXTRA]
    return pd.DataFrame(rows, columns=columns).astype(types | {"limited": "bool", "counted": "bool"})


def _rows(results: Results, audit: Audit) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Each evaluation, and its row."""
    for cell in results.plan.of("attack"):
        row, source = _row(results, cell), results.records.get(cell.source or "")
        of_worst_case = audit.of_worst_case(cell.needs or "", cell.threat)
        counted = bool(cell.norm) and (source is None or source.status != "diverged")
        row |= {"flags": _joined(audit.of_cell(cell)), "worst_case_flags": _joined(of_worst_case)}
        row["audit_outcomes"] = audit.survivors.get((cell.needs or "", cell.threat))
        yield cell, row | {"limited": False, "counted": counted}
    for cell in results.limited:
        row = _row(results, cell)
        if row["status"] != NOT_RUN:
            row |= {"flags": "limited", "worst_case_flags": "", "audit_outcomes": None}
            yield cell, row | {"limited": True, "counted": False}


def _joined(*flags: Iterable[Flag]) -> str:
    return ";".join(dict.fromkeys(flag.name for flag in chain(*flags)))


def _row(results: Results, cell: Cell) -> dict[str, Any]:
    status, said_by = results.status(cell)
    record = results.records.get(said_by)
    if record is not None and said_by != cell.id and cell.attack == "none":
        status = record.status  # the clean row carries its training's fate; the attacks on it were never begun
    row: dict[str, Any] = {"suite": results.plan.suite, "dataset": results.plan.dataset, "outcomes": None}
    row |= {name: getattr(cell, name) for name in DECLARED[2:]} | {"status": status, "cell": said_by}
    if not isinstance(record, AttackRecord):
        return row
    row["seconds"] = record.timing.seconds
    if record.information is not None and record.outcomes is not None and record.n:
        row |= {metric.name: _held(record, metric.path) for metric in (*METRICS, *CALIBRATION)}
        row["outcomes"] = unpack_outcomes(record.outcomes, record.n)
    return row


def _held(record: AttackRecord, path: str) -> Any:
    """What a record holds at a path of dotted names; None where a part of it is None."""
    value: Any = record
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


def _parameters(cells: Iterable[Cell], dtype: type[object] | None = None) -> pd.DataFrame:
    """What the suite declares of each, by dotted names: of models first, of attacks last."""
    import pandas as pd

    rows = [declared_parameters(cell) for cell in cells]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = sorted(names, key=lambda name: _PARTS.index(name.partition(".")[0]))
    return pd.DataFrame(rows, columns=columns, dtype=dtype)


def declared_parameters(cell: Cell) -> dict[str, Any]:
    """What the suite declares of a training or an evaluation, by dotted names; without what is null."""
    declared = cell.network_declared
    parts = {name: declared.get(name) for name in _PARTS} | {"attack": cell.declared.get("attack")}
    return _dotted(parts, "")


def _dotted(declared: dict[str, Any], prefix: str) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for key, value in declared.items():
        if isinstance(value, dict):
            # The parameters of a user's own code are called as those of others.
            columns |= _dotted(value, prefix if key == "parameters" else f"{prefix}{key}.")
        elif value is not None and key != "code_sha256":
            columns[f"{prefix}{key}"] = value
    return columns


def group_rows(frame: pd.DataFrame) -> dict[Key, Group]:
    """The rows of each number of a suite, worst cases too; limited evaluations are left out."""
    groups: dict[Key, Group] = {}
    for table in (frame[~frame["limited"]], worst_case(frame).assign(attack=WORST)):
        row: Any  # a named tuple, whose fields are columns
        for row in table.itertuples(index=False):
            groups.setdefault((row.model, row.attack, Threat(row.norm, row.eps)), {})[row.seed] = row
    return groups


def flag_names(*groups: Group) -> tuple[str, ...]:
    """Names of the flags of some rows, sorted."""
    rows = (row for group in groups for row in group.values())
    return tuple(sorted({name for row in rows for name in row.flags.split(";") if name}))


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of results.csv as plain data, without what was not measured; an undefined NCMI is an empty text."""
    rows = frame.loc[frame["status"] != NOT_RUN, list(_PLAIN)].astype(object)
    rows.loc[rows["n"].notna() & rows["ncmi"].isna(), "ncmi"] = ""
    plain: Any = (row.dropna().to_dict() for _, row in rows.iterrows())  # whose keys are columns
    return list(plain)


def models_frame(results: Results, frame: pd.DataFrame, audit: Audit) -> pd.DataFrame:
    """The rows of models.csv: one for each model and seed, every value as it was declared or measured.

    Returns:
        Columns: suite, dataset, model, architecture, objective, seed; the declared parameters; `status`, `n`,
        `accuracy` (fraction), `cmi`, `separation` (nats), `ncmi` and calibration on clean examples; `worst_linf_0.1`
        and the like, the worst case at each threat (fraction); `flags`, of all that was raised about the model and
        attacks on it.
    """
    import pandas as pd

    trainings = results.plan.of("train")
    models = [(cell.model, cell.seed) for cell in trainings]
    clean = frame[(frame["attack"] == "none") & ~frame["limited"]].set_index(["model", "seed"], drop=False)
    clean = clean.loc[models].reset_index(drop=True)
    worst = worst_case(frame).set_index(["norm", "eps", "model", "seed"])["accuracy"]
    told = (*(metric for metric in METRICS if metric.of_models), *CALIBRATION)
    measured = clean[["status", "n", *(metric.name for metric in told)]].copy()
    for threat in results.threats:
        measured[f"worst_{threat.norm}_{threat.eps}"] = [worst.get((*threat, *model)) for model in models]
    measured["flags"] = [
        _joined(audit.flags.get(cell.id, []), *(audit.of_worst_case(cell.id, threat) for threat in results.threats))
        for cell in trainings
    ]
    return pd.concat([clean[list(DECLARED[:6])], _parameters(trainings, object), measured], axis=1)
