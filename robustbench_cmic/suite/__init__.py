"""A suite: the YAML file that pairs models with attacks, read strictly.

`load_suite` reports every error of a file at once, each with its line and key. Nothing here imports torch, but for the
objectives and attacks of a user's own that a suite names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustbench_cmic.suite.checks import errors, expanded_pairs, warnings, well_formed
from robustbench_cmic.suite.matrix import ExpandedModels, expand_models
from robustbench_cmic.suite.messages import Problem, SuiteError, line_of, os_error_reason, problems_of, suggestion
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.reader import Document, read_document
from robustbench_cmic.suite.schema import Suite

__all__ = ["LoadedSuite", "Problem", "Suite", "SuiteError", "find_suite", "load_suite", "shipped_suites"]


@dataclass(frozen=True)
class LoadedSuite:
    """A valid suite, the file it came from with the hash of what was read, and what in it is suspicious."""

    suite: Suite
    path: Path
    sha256: str
    warnings: list[Problem]


def load_suite(path: Path) -> LoadedSuite:
    """Read and check a suite file.

    Raises:
        SuiteError: with every problem found.
    """
    document = read_document(path)
    if not isinstance(document.data, dict):
        message = "a suite is a mapping that begins with the line `suite: NAME`, not a list or a single value"
        raise SuiteError(path, [Problem(message, line=1)])
    raw: dict[str, Any] = dict(document.data)
    expanded = expand_models(raw.get("models"))
    if isinstance(raw.get("models"), list):
        raw["models"] = expanded.entries

    problems: list[Problem] = []
    suite: Suite | None = None
    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, raw, Suite)
    problems += errors(well_formed(raw), expanded)
    if document.problems or expanded.problems or problems or suite is None:
        raise SuiteError(path, [*document.problems, *_located(problems, document, expanded)])
    models = [_with_weights(model, path.parent) for model in suite.models]
    absent = list(_absent_weights(models, suite.seeds))
    if absent:
        raise SuiteError(path, _located(absent, document, expanded))
    pairs = [[first, second] for _, first, second in expanded_pairs(raw, expanded)]
    suite = suite.model_copy(update={"pairs": pairs, "models": models})
    return LoadedSuite(suite, path, document.sha256, _located(warnings(suite), document, expanded))


def _with_weights(model: Model, folder: Path) -> Model:
    """The model with the path of its weights made absolute: what a suite names lies beside the suite."""
    if model.weights is None:
        return model
    return model.model_copy(update={"weights": str((folder / model.weights).absolute())})


def _absent_weights(models: list[Model], seeds: list[int]) -> Iterable[Problem]:
    for index, model in enumerate(models):
        for seed in seeds if model.weights is not None else []:
            file = model.weights_file(seed)
            if not file.is_file():
                yield Problem(f"there is no file {file}", ("models", index, "weights"))


def _located(found: Iterable[Problem], document: Document, expanded: ExpandedModels) -> list[Problem]:
    """What was found in the expanded suite, and the matrices' own problems, at their places in the file.

    Each is said once, although a matrix may repeat it.
    """
    located: dict[Problem, None] = {}
    moved = [replace(problem, location=expanded.locate(problem.location)) for problem in found]
    for problem in [*expanded.problems, *moved]:
        location = problem.location
        while location not in document.lines and location and isinstance(location[-1], int):
            location = location[:-1]  # `eps: 8` is read as a list of one value, but written without one
        line = problem.line or line_of(location, document.lines)
        located[Problem(problem.message, location, line)] = None
    return list(located)


def shipped_suites() -> dict[str, Path]:
    """Name -> file of the suites that come with the package."""
    package = Path(__file__).resolve().parents[1]
    installed, checkout = package / "suites", package.parent / "suites"
    folder = installed if installed.is_dir() else checkout
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_suite(name: str) -> Path:
    """The file that the command line's SUITE means: a path, or the name of a shipped suite.

    Raises:
        SuiteError: there is no such file and no such suite.
    """
    path = Path(name)
    shipped = shipped_suites()
    try:
        if path.is_file():
            return path
        folder = path.is_dir()
    except OSError as error:  # a name too long for the file system, say
        raise SuiteError(name, [Problem(f"no suite: {os_error_reason(error)}")]) from None
    if name in shipped:
        return shipped[name]
    what = "it is a folder" if folder else "there is no such file"
    hint = suggestion(path.stem, shipped, listing="suites that come along")
    raise SuiteError(name, [Problem(f"{what}, and no suite of this name comes along; {hint}")])
