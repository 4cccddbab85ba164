"""Results are those of the suite that is asked for, and what a newer version made is told from damage, and kept."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic import __version__
from robustbench_cmic.data import load_data
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import PLAN_SCHEMA, Cell, Plan
from robustbench_cmic.records.files import CorruptRecordError, NewerFileError, read_json, write_json
from robustbench_cmic.records.schema import RECORD_SCHEMA
from robustbench_cmic.records.state import cell_states, forced_cells, pending_cells
from robustbench_cmic.records.store import PLAN_FILE, Store, read_record
from robustbench_cmic.report import read_results
from robustbench_cmic.report.folder import claimed
from robustbench_cmic.suite import load_suite, shipped_suites
from robustbench_cmic.suite.data import Digits
from tests.in_process import command_here
from tests.report.folders import cell_of, fill

SUITE = """\
suite: made
dataset: {name: digits}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models: [{id: a, architecture: mlp, objective: {name: ce}}]
attacks:
  - {name: FGSM, eps: 0.1}
  - {name: PGD, eps: [0.1, 0.2], steps: 5}
audit: off
"""


def planned(file: Path, text: str = SUITE, **options: Any) -> Plan:
    file.write_text(text)
    return make_plan(load_suite(file).suite, **options)


def made(tmp_path: Path, *plans: Plan, file: str = "../../made.yaml") -> Path:
    """Results of plans in one folder, whose plan is that of the last; all are done on the data that there is."""
    (tmp_path / "results").mkdir(exist_ok=True)
    for plan in plans:
        folder = fill(tmp_path / "results" / "made", plan.model_copy(update={"file": file}), lambda _: [True, False])
    sha256 = load_data(Digits(name="digits"), tmp_path).sha256
    for each in folder.glob("*.s0.*.json"):
        write_json(each, read_json(each) | {"dataset_sha256": sha256})
    return folder


def rows(folder: Path) -> list[tuple[str, str]]:
    with (folder / "results.csv").open() as file:
        return [(row["attack"], row["flags"]) for row in csv.DictReader(file)]


# --- the suite that is asked for --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs: 1", "epochs: 2", "training.epochs: 1 -> 2 (a)"),
        ("lr: 0.1", "lr: 0.2", "training.optimizer.lr: 0.1 -> 0.2 (a)"),
        ("id: a", "id: b", "models removed: a -> –, and 1 more"),
        ("steps: 5", "steps: 6", "attack.alpha: 0.05 -> 0.041666666666666664 (PGD), and 2 more"),
        ("audit: off", "audit: off\nclaims: {margin: 1}", "claims.margin: 2.0 -> 1.0"),
        ("audit: off", "audit: off\ndescription: mine", "description:  -> mine"),
    ],
)
def test_results_of_another_suite_are_not_reported_as_those_of_a_file(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    folder = made(tmp_path, planned(tmp_path / "made.yaml"))
    planned(tmp_path / "other.yaml", SUITE.replace(old, new))
    for command in ("report", "status"):
        done = command_here(command, "other.yaml", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"results/made holds results of another suite, or of other.yaml as it was before ({said}): `run` this one, "
            "or name the folder to see what is in it: made\n"
        )
    assert not (folder / "results.csv").exists()
    for argument in ("made", "made.yaml"):
        assert command_here("report", argument, cwd=tmp_path).returncode == 0
    shutil.rmtree(folder)
    assert "holds no results" in command_here("report", "other.yaml", cwd=tmp_path).stderr


def test_a_second_suite_of_a_name_is_refused_where_the_first_is_still_there(tmp_path: Path) -> None:
    folder = made(tmp_path, planned(tmp_path / "made.yaml"))
    before = {file: file.read_bytes() for file in folder.iterdir()}
    planned(tmp_path / "other.yaml", SUITE.replace("steps: 5", "steps: 6"))
    said = "holds the results of made.yaml, another suite of the name made: rename one of them (`suite: NAME`)"
    for options in ((), ("--force",), ("--limit", 5)):
        done = command_here("run", "other.yaml", *options, cwd=tmp_path)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert {file: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"} == before
    done = command_here("plan", "other.yaml", cwd=tmp_path)
    assert (done.returncode, "`run` would refuse: " in done.stderr, said in done.stderr) == (0, True, True)
    assert command_here("plan", "other.yaml", "--results", "mine", cwd=tmp_path).stderr == ""


def test_one_suite_of_a_name_may_change_move_and_be_copied(tmp_path: Path) -> None:
    file, other = tmp_path / "made.yaml", tmp_path / "sub" / "other.yaml"
    other.parent.mkdir()
    plan, changed = planned(file), planned(other, SUITE.replace("steps: 5", "steps: 6"))
    folder = made(tmp_path, plan)
    assert claimed(folder, changed, file).file == "../../made.yaml", "the file itself was changed"
    assert claimed(folder, plan, other).file == "../../made.yaml", "a copy asks for the same"
    assert claimed(folder, changed, None).file == "../../made.yaml"
    file.write_text(SUITE.replace("suite: made", "suite: renamed"))
    assert claimed(folder, changed, other).file == "../../sub/other.yaml"
    file.unlink()
    assert claimed(folder, changed, other).file == "../../sub/other.yaml"
    made(tmp_path, plan, file="")
    assert claimed(folder, changed, other).file == "../../sub/other.yaml", "from before files were written down"
    smoke = shipped_suites()["smoke"]
    assert claimed(tmp_path / "none", make_plan(load_suite(smoke).suite), smoke).file == "smoke"
    assert claimed(tmp_path / "none", plan, other).model_copy(update={"file": ""}) == plan


# --- limited rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ("", "", ["none", "FGSM", "PGD", "PGD"]),
        ("  - {name: FGSM, eps: 0.1}\n", "", ["none", "PGD", "PGD"]),
        ("[0.1, 0.2]", "0.2", ["none", "FGSM", "PGD"]),
        ("steps: 5", "steps: 6", ["none", "FGSM"]),
        ("steps: 5", "steps: 5, ascending: true", ["none", "FGSM"]),
        ("name: FGSM", "name: FGSM, id: fast", ["none", "PGD", "PGD"]),
        ("audit: off", "audit: off\nevaluation: {per_class: true}", []),
        ("audit: off", "audit: off\nevaluation: {limit: 50}", ["none", "FGSM", "PGD", "PGD"]),
        ("audit: off", "audit: off\nevaluation: {limit: 10}", []),
    ],
)
def test_limited_rows_are_of_what_the_suite_has(tmp_path: Path, old: str, new: str, left: list[str]) -> None:
    limited = planned(tmp_path / "made.yaml", limit=20)
    plan = planned(tmp_path / "made.yaml", SUITE.replace(old, new))
    folder = made(tmp_path, limited, plan)
    assert command_here("report", "made.yaml", cwd=tmp_path).returncode == 0
    assert [attack for attack, flags in rows(folder) if flags == "limited"] == left
    assert [attack for attack, flags in rows(folder) if flags != "limited"] == [
        cell.attack for cell in plan.of("attack")
    ]


def test_limited_rows_of_a_chain_and_of_transfers_stay(tmp_path: Path) -> None:
    text = SUITE.replace("steps: 5", "steps: 5, ascending: true").replace(
        "audit: off", "  - {name: Transfer, eps: 0.1, steps: 5}\naudit: off"
    )
    limited, plan = (planned(tmp_path / "made.yaml", text, limit=limit) for limit in (20, None))
    folder = made(tmp_path, limited, plan)
    assert {cell.id for cell in read_results(folder).limited} == {cell.id for cell in limited.of("attack")}


# --- newer versions ---------------------------------------------------------------------------------------------------


def alter(folder: Path, cell: Cell, version: str | None = "0.2.0", **changes: Any) -> Path:
    """Make a record one of a newer version: by default of schema 99."""
    file = Store(folder).record(cell.id)
    payload = read_json(file) | (changes or {"schema": 99})
    payload["provenance"] = {"versions": {"robustbench_cmic": version}}
    write_json(file, payload)
    return file


NEWER: list[tuple[dict[str, Any], str | None, str]] = [
    ({"schema": 99}, "0.2.0", f"from version 0.2.0, newer than this one ({__version__}): of schema"),
    ({"schema": "robustbench_cmic/record/99", "x": 1}, "0.2.0", "from version 0.2.0, newer than this one"),
    ({"schema": 99}, None, "from a version newer than this one"),
    ({"surprise": 1, "other": 2}, "0.2.0", "it has keys that this one does not know: surprise, other"),
    ({"surprise": 1}, __version__, "it has keys that this one does not know: surprise"),
]
OLDER: list[tuple[dict[str, Any], str]] = [
    ({"schema": 1}, "0.2.0"),
    ({"schema": "robustbench_cmic/record/2"}, "0.2.0"),
    ({"schema": "robustbench_other/record/99"}, "0.2.0"),
    ({"surprise": 1}, "0.0.9"),
    ({"surprise": 1, "n": "many"}, "0.2.0"),
]


def test_records_of_newer_versions_are_told_from_damaged_ones(tmp_path: Path) -> None:
    plan = planned(tmp_path / "made.yaml")
    folder, cell = made(tmp_path, plan), cell_of(plan, "a", 0, "FGSM")
    original = Store(folder).record(cell.id).read_bytes()
    for changes, version, said in NEWER:
        with pytest.raises(NewerFileError) as raised:
            read_record(alter(folder, cell, version, **changes))
        assert said in str(raised.value)
        Store(folder).record(cell.id).write_bytes(original)
    for changes, version in OLDER:
        with pytest.raises(CorruptRecordError, match=f"not of schema {RECORD_SCHEMA}: ") as error:
            read_record(alter(folder, cell, version, **changes))
        assert not isinstance(error.value, NewerFileError)
        Store(folder).record(cell.id).write_bytes(original)
    alter(folder, cell)
    Store(folder).record(cell.id).write_bytes(Store(folder).record(cell.id).read_bytes().replace(b"0.2.0", b"0.3.0"))
    with pytest.raises(CorruptRecordError, match="checksum"):
        read_record(Store(folder).record(cell.id))


def test_a_newer_record_is_kept_by_every_command(tmp_path: Path) -> None:
    plan = planned(tmp_path / "made.yaml")
    folder, cell = made(tmp_path, plan), cell_of(plan, "a", 0, "FGSM")
    file = alter(folder, cell)
    before = file.read_bytes()
    why = f"its record is from version 0.2.0, newer than this one ({__version__}): of schema robustbench_cmic/record/99"
    done = command_here("plan", "made.yaml", cwd=tmp_path)
    assert f"newer: {why}" in done.stdout
    assert "5 cells: 4 done, 1 newer" in done.stdout
    done = command_here("run", "made.yaml", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "nothing to run" in done.stdout
    assert f"newer: {cell.id}: {why}" in done.stdout
    assert "update robustbench_cmic (--force does it anew)" in done.stdout
    assert file.read_bytes() == before
    done = command_here("report", "made", cwd=tmp_path)
    assert (done.returncode, f"{file.relative_to(tmp_path)}: left out: {why}" in done.stderr) == (1, True)
    assert command_here("plan", "made.yaml", cwd=tmp_path).stdout.endswith("5 cells: 4 done, 1 newer\n")
    forced = command_here("run", "made.yaml", "--dry-run", "--force", "--only", "FGSM", cwd=tmp_path)
    assert "2 cells: 1 to run again, 1 to run" in forced.stdout, "the training, whose weights are gone, for the attack"


def test_what_needs_a_newer_record_waits_for_it(tmp_path: Path) -> None:
    text = SUITE.replace("steps: 5", "steps: 5, ascending: true")
    plan = planned(tmp_path / "made.yaml", text)
    folder = made(tmp_path, plan)
    training, fgsm = cell_of(plan, "a", 0, "train"), cell_of(plan, "a", 0, "FGSM")
    small, large = (cell_of(plan, "a", 0, "PGD", eps) for eps in (0.1, 0.2))
    alter(folder, small)
    Store(folder).record(large.id).unlink()
    states = cell_states(plan.cells, folder)
    assert [states[cell.id].state for cell in (training, fgsm, small, large)] == ["done", "done", "newer", "newer"]
    assert states[large.id].why.startswith(f"it needs {small.id}: its record is from version 0.2.0, newer")
    assert pending_cells(plan.cells, states, Store(folder)) == {}
    assert forced_cells(plan.cells, {large.id, fgsm.id}, states) == [fgsm]
    assert forced_cells(plan.cells, {large.id, small.id}, states) == [small, large]
    alter(folder, training)
    Store(folder).record(fgsm.id).unlink()
    states = cell_states(plan.cells, folder)
    assert {states[cell.id].state for cell in (training, fgsm, small, large)} == {"newer"}


@pytest.mark.parametrize("changes", [{"schema": "robustbench_cmic/plan/3"}, {"surprise": 1}])
def test_a_newer_plan_is_kept_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = made(tmp_path, planned(tmp_path / "made.yaml"))
    write_json(folder / PLAN_FILE, read_json(folder / PLAN_FILE) | changes)
    before = (folder / PLAN_FILE).read_bytes()
    said = f"results/made/plan.json is from a version newer than this one ({__version__}): "
    for arguments in (("report", "made"), ("report", "made.yaml"), ("run", "made.yaml")):
        done = command_here(*arguments, cwd=tmp_path)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert "update robustbench_cmic, or choose another --results" in done.stderr
    assert (folder / PLAN_FILE).read_bytes() == before
    with pytest.raises(NewerFileError):
        claimed(folder, planned(tmp_path / "made.yaml"), None)
    write_json(folder / PLAN_FILE, read_json(folder / PLAN_FILE) | {"schema": "robustbench_cmic/plan/1"})
    assert f"this version reads {PLAN_SCHEMA}" in command_here("report", "made", cwd=tmp_path).stderr
