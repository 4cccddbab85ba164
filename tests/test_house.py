"""The state of the house: what may import torch, sizes of files, cycles, what the wheel carries, what people type."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robustbench_cmic.data import load_data
from robustbench_cmic.data.digits import TRAIN_EXAMPLES
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.records.state import cell_states
from robustbench_cmic.report import write_report
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.data import Digits
from tests.conftest import ROOT

PACKAGE = ROOT / "robustbench_cmic"
FILES = sorted(PACKAGE.rglob("*.py"))


ORDER = (
    "suite, statistics, seeding < plan, information < records, objectives < data, models < attacks < training, audit"
)
ORDER += " < report < run < cli"
FLOOR = {name: floor for floor, names in enumerate(ORDER.split(" < ")) for name in names.split(", ")}

TORCH = ["information/*", "objectives/*", "models/*", "attacks/*", "training/*", "seeding.py", "audit/probes/*"]
TORCH += [
    "run/evaluate*.py",
    "run/given.py",
    "run/trained_model.py",
    "run/measure.py",
    "run/job.py",
    "run/jobs/*",
    "run/executors/worker.py",
    "data/feed.py",
]
LATE = {"run/options.py", "run/watch/tensorboard.py"}
"""They import torch within a function: where a GPU is asked for or likely, or TensorBoard is."""


def is_computing(file: Path) -> bool:
    return any(file.relative_to(PACKAGE).match(pattern) for pattern in TORCH)


def imports(file: Path, everywhere: bool = True) -> list[str]:
    """The modules that a file imports; `everywhere`: also within functions."""
    tree = ast.parse(file.read_text())
    modules: list[str] = []
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            modules += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return modules


def test_a_package_imports_only_what_stands_before_it() -> None:
    tops = {file: file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES}
    assert set(tops.values()) - set(FLOOR) == {"__init__", "__main__"}
    upward = [
        f"{file.relative_to(PACKAGE)} imports {module}"
        for file, top in tops.items()
        for module in imports(file)
        if module.startswith("robustbench_cmic.") and top in FLOOR
        for other in [module.split(".")[1]]
        if other in FLOOR and other != top and FLOOR[other] >= FLOOR[top]
    ]
    assert upward == []


def test_torch_is_imported_where_things_are_computed_and_nowhere_else() -> None:
    elsewhere = {str(file.relative_to(PACKAGE)) for file in FILES if not is_computing(file)}
    importing = {path for path in elsewhere if "torch" in imports(PACKAGE / path)}
    assert importing <= LATE
    assert not [path for path in importing if "torch" in imports(PACKAGE / path, everywhere=False)]


def test_what_is_left_and_right_of_computing_does_not_load_torch() -> None:
    files = [file.relative_to(ROOT) for file in FILES if not is_computing(file) and file.name != "__main__.py"]
    modules = [".".join(file.with_suffix("").parts) for file in files]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_top_of_the_package_is_seen_at_a_glance() -> None:
    entries = [path.name for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed")]
    assert len(entries) <= 17, sorted(entries)


def test_no_file_over_300_lines_and_no_function_over_60() -> None:
    assert [file for file in FILES if len(file.read_text().splitlines()) > 300] == []
    functions = [(file.name, node) for file in FILES for node in ast.walk(ast.parse(file.read_text()))]
    assert len(functions) > 10_000
    long = [
        (file, node.name)
        for file, node in functions
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert long == []


SHARED_NAMES = {
    "main": "what a process begins with: of the package, of the command line, of a worker",
    "run": "of an attack: what its class names as `implementation`; of the command line: the command",
}
"""Names that several files define on purpose."""


def public_names(file: Path) -> set[str]:
    """Functions, classes and constants at the top of a file that begin with a letter."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_twice() -> None:
    places: dict[str, list[str]] = {}
    for file in FILES:
        for name in public_names(file):
            places.setdefault(name, []).append(str(file.relative_to(PACKAGE)))
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert {name: files for name, files in twice.items() if name not in SHARED_NAMES} == {}
    assert twice.keys() == SHARED_NAMES.keys(), "what is shared no longer leaves the list"


def imported(file: Path) -> set[Path]:
    """Files of the package that a file imports when it is itself imported."""
    places: set[Path] = set()
    for node in ast.parse(file.read_text()).body:
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [(f"{node.module}.{alias.name}", node.module or "") for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [(alias.name, alias.name) for alias in node.names]
        for name, module in names:  # a module of a package, or else a name of a module
            places |= _files(name) or _files(module)
    return places


def _files(module: str) -> set[Path]:
    path = ROOT.joinpath(*module.split("."))
    return {path.with_suffix(".py"), path / "__init__.py"} & set(FILES)


def test_no_import_cycle() -> None:
    graph = {file: imported(file) for file in FILES}
    assert graph[PACKAGE / "run" / "runner.py"] > {PACKAGE / "plan" / "build.py", PACKAGE / "records" / "state.py"}
    settled: set[Path] = set()
    while len(settled) < len(graph):
        free = {file for file in graph if file not in settled and graph[file] <= settled}
        assert free, f"cycle among {sorted(str(f) for f in graph if f not in settled)}"
        settled |= free


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn import datasets

    bunch = datasets.load_digits()
    data = load_data(Digits(name="digits"), ROOT)
    assert isinstance(data.train.images, np.ndarray)
    assert isinstance(data.test.images, np.ndarray)
    assert (data.train.images * 16 == bunch.images[:TRAIN_EXAMPLES, None]).all()
    assert (data.test.images * 16 == bunch.images[TRAIN_EXAMPLES:, None]).all()
    assert (data.train.labels == bunch.target[:TRAIN_EXAMPLES]).all()
    assert (data.test.labels == bunch.target[TRAIN_EXAMPLES:]).all()
    assert (data.train.images.min(), data.train.images.max()) == (0.0, 1.0)


TABLES = ("plan.json", "results.csv", "models.csv", "leaderboard.md")
COMMITTED = sorted(path.name for path in (ROOT / "results").iterdir() if path.is_dir())


IN_PARTS = {"cifar100"}
"""Suites whose results grow model by model, a few minutes of a GPU at a time."""


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_results_are_of_the_committed_suite_and_whole(tmp_path: Path, name: str) -> None:
    """Every planned cell of a trained model has a sound record, and the tables are those that the records give."""
    folder = tmp_path / name
    shutil.copytree(ROOT / "results" / name, folder)
    plan = make_plan(load_suite(ROOT / "suites" / f"{name}.yaml").suite)
    standings = cell_states(plan.cells, folder)
    states: dict[tuple[str, int], set[str]] = {}
    for cell in plan.cells:
        if cell.kind == "train" or standings[cell.needs or ""].state != "diverged":  # what diverged is not attacked
            states.setdefault((cell.model, cell.seed), set()).add(standings[cell.id].state)
    # What failed on a borrowed card stays failed until there is another one; the board says so.
    whole: list[set[str]] = [{"done"}, {"diverged"}, *([{"missing"}, {"done", "failed"}] if name in IN_PARTS else [])]
    assert all(own in whole for own in states.values()), states
    assert {"done"} in states.values()
    before = {name: (folder / name).read_bytes() for name in TABLES}
    results = write_report(folder).results
    assert results.plan == plan.model_copy(update={"file": name}), "with the file, as a run writes it"
    assert results.problems == []
    assert {name: (folder / name).read_bytes() for name in before} == before
    dirty = [record.cell.id for record in results.records.values() if record.provenance["dirty"] is not False]
    assert dirty == [], "committed evidence comes from committed code"
