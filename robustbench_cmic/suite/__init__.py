"""A suite: the YAML file that pairs models with attacks, read strictly. Nothing here imports torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustbench_cmic.suite.checks import errors, expanded_pairs, warnings
from robustbench_cmic.suite.files import open_regular
from robustbench_cmic.suite.matrix import ExpandedModels, expand_models
from robustbench_cmic.suite.messages import Problem, SuiteError, os_error_reason, problems_of, suggestion
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.override import blaming, changed_name, naming, override
from robustbench_cmic.suite.reader import Document, read_document
from robustbench_cmic.suite.schema import Suite

__all__ = ["LoadedSuite", "Problem", "Suite", "SuiteError", "find_suite", "load_suite", "shipped_suites"]


@dataclass(frozen=True)
class LoadedSuite:
    """A valid suite.

    Attributes:
        path: the file it came from.
        sha256: of what was read.
        warnings: what in it is suspicious.
        located: gives problems that are found later, at places of `suite`, their places and lines in the file.
    """

    suite: Suite
    path: Path
    sha256: str
    warnings: list[Problem]
    located: Callable[[Iterable[Problem]], list[Problem]]

    @contextlib.contextmanager
    def locating(self) -> Iterator[None]:
        """Around what finds problems at places of `suite`: a SuiteError has them at their places in the file."""
        try:
            yield
        except SuiteError as error:
            raise SuiteError(self.path, self.located(error.problems)) from None


def load_suite(
    path: Path, data: Path | None = None, settings: Sequence[str] = (), name: str | None = None
) -> LoadedSuite:
    """Read and check a suite file.

    Args:
        path: of the file.
        data: folder of data; a warning says where the suite's own data is neither there nor beside the file.
        settings: values to change before anything is checked, see `override`.
        name: of the suite in place of its own, or of that which the changes give it.

    Raises:
        SuiteError: with every problem found, each with its line and key.
        UserError: a setting that does not fit the file, or a name that is none.
    """
    document = read_document(path)
    document.data, overrides = override(document.data, settings)
    if not isinstance(document.data, dict):
        message = "a suite is a mapping that begins with the line `suite: NAME`, not a list or a single value"
        raise SuiteError(path, [Problem(message, line=1)])
    raw: dict[str, Any] = dict(document.data)
    expanded = expand_models(raw.get("models"))
    expanded.with_own_trainings(raw.get("training"))
    if isinstance(raw.get("models"), list):
        raw["models"] = expanded.entries

    problems: list[Problem] = []
    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, raw, Suite)
    problems += errors(raw, expanded)
    if document.problems or expanded.problems or problems:
        located = _located(problems, document, expanded)
        raise SuiteError(path, blaming([*document.problems, *located], overrides))
    models = [_beside(path, model) for model in suite.models]
    absent = [
        Problem(why, ("models", index, model.file_key))
        for index, model in enumerate(models)
        for file in (model.weights_file(seed) for seed in suite.seeds if model.file_key)
        if (why := _absence(file))
    ]
    if absent:
        raise SuiteError(path, blaming(_located(absent, document, expanded), overrides))
    pairs = [[first, second] for _, first, second in expanded_pairs(raw, expanded)]
    dataset = suite.dataset.beside(path.parent.absolute())
    suite = suite.model_copy(update={"pairs": pairs, "models": models, "dataset": dataset})
    suite = suite.of_families(expanded.families)
    if overrides or name is not None:
        suite = suite.changed(name or changed_name(suite.suite, overrides), [own.text for own in overrides])

    def place(problems: Iterable[Problem]) -> list[Problem]:
        return naming(_located(problems, document, expanded), overrides)

    found = list(warnings(suite))
    if data is not None and (absence := dataset.absence(data.absolute())) is not None:
        found.append(Problem(f"{absence}: `run` will need it", ("dataset", "path")))
    return LoadedSuite(suite, path, document.sha256, place(found), place)


def _absence(file: Path) -> str:
    """Why a file cannot be read, for people; empty where it can."""
    try:
        open_regular(file).close()
    except FileNotFoundError:
        return f"there is no file {file}"
    except OSError as error:
        return f"cannot read {file}: {os_error_reason(error)}"
    return ""


def _beside(path: Path, model: Model) -> Model:
    """The model with the path of its weights made absolute: what a suite names lies beside the suite."""
    if not model.file_key:
        return model
    named: str = getattr(model, model.file_key)
    return model.model_copy(update={model.file_key: str((path.parent / named).absolute())})


def _located(problems: Iterable[Problem], document: Document, expanded: ExpandedModels) -> list[Problem]:
    """Problems of the expanded suite, and the matrices' own, at their places in the file, each once."""
    located: dict[Problem, None] = {}
    moved = [replace(problem, location=expanded.locate(problem.location)) for problem in problems]
    for problem in [*expanded.problems, *moved]:
        location = problem.location
        while location not in document.lines and location and isinstance(location[-1], int):
            location = location[:-1]  # `eps: 8` is read as a list of one value, but written without one
        around = (location[:end] for end in range(len(location), -1, -1))
        line = next((document.lines[place] for place in around if place in document.lines), None)
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
        if not path.is_dir() and (path.exists() or path.is_symlink()):
            open_regular(path).close()  # says what it is
        what = "it is a folder" if path.is_dir() else "there is no such file"
    except OSError as error:  # a name too long for the file system, say
        raise SuiteError(name, [Problem(f"no suite: {os_error_reason(error)}")]) from None
    if name in shipped:
        return shipped[name]
    hint = suggestion(path.stem, shipped, listing="suites that come along")
    raise SuiteError(name, [Problem(f"{what}, and no suite of this name comes along; {hint}")])
