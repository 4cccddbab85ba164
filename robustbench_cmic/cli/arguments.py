"""What commands share: their arguments, and how a wrong one ends."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from robustbench_cmic.data import default_data_folder
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.select import Shard
from robustbench_cmic.records.files import unwritten
from robustbench_cmic.report.folder import check_plan
from robustbench_cmic.run import USAGE
from robustbench_cmic.run.console import show
from robustbench_cmic.suite import LoadedSuite, find_suite, load_suite
from robustbench_cmic.suite.fields import is_name, parse_number
from robustbench_cmic.suite.toy import toy as toy_size


def whole_number(text: str) -> int:
    """A number of things, at least 1; raises BadParameter."""
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text, re.ASCII):
        raise typer.BadParameter(f"should be a whole number such as 1 or 100, not '{text}'")
    return int(text)


def number_to(largest: float, example: str) -> Callable[[str], float]:
    """What reads a number from 0 to `largest`; raises BadParameter."""

    def parsed(text: str) -> float:
        try:
            number = parse_number(text)
        except ValueError:
            number = -1.0
        if not 0 <= number <= largest:
            raise typer.BadParameter(f"should be a number from 0 to {largest:.0f} such as {example}, not '{text}'")
        return number

    return parsed


SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="A suite file, or the name of one that comes along.")
]
ResultsOption = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where results of suites lie.")]
WorkOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where checkpoints lie; by default beside the results, DIR.work.")
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        envvar="ROBUSTBENCH_DATA",
        metavar="DIR",
        help="Where data lies and is downloaded to; by default in your cache folder.",
    ),
]
SeedsOption = Annotated[str, typer.Option(metavar="0,1", help="Only these seeds of the suite.")]
OnlyOption = Annotated[
    list[str], typer.Option(metavar="NAME", help="Only this model, attack or cell (* and ? allowed); repeatable.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Only the I-th of N parts of the trainings, with all that hangs on them."),
]
ToyOption = Annotated[
    bool, typer.Option("--toy", help="Cut everything down to seconds, in a folder of its own: see that it runs.")
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the suite, such as training.epochs=2 or models.ID.objective.lambda=0.5; repeatable. "
        "The suite has a name of its own then.",
    ),
]
AsOption = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Give the suite, changed or not, this name for its results.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="For scripts: print the files that were written and errors, nothing else.")
]
LimitOption = Annotated[
    int | None,
    typer.Option(parser=whole_number, metavar="N", help="Evaluate on N examples only; marked, never ranked."),
]

TimeoutOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Stop a cell that takes longer, as failed: 90 (seconds), 10m, 2h.")
]
LONGEST_TIME = 1e9
"""Seconds."""


def fail(message: object) -> NoReturn:
    """Say what is wrong and exit 2."""
    show(message, error=True)
    raise typer.Exit(USAGE)


def tell(messages: Iterable[object]) -> None:
    """Print what a user should know beside the results, a line each."""
    show(*messages, error=True)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Where something is written to a place; exit 2 where it cannot be."""
    try:
        yield
    except OSError as error:
        fail(f"cannot write {unwritten(error, place)}")


def data_folder(data: Path | None) -> Path:
    """What `--data` says, or the folder that is meant without it."""
    return data or default_data_folder()


def check_suite_name(option: str, name: str) -> None:
    """Exit 2 where an option gives a suite a name that none may have."""
    if not is_name(name):
        fail(f"{option}: should be letters, digits, '_', '.', '+', '-', the first a letter or digit, not {name!r}")


def load(
    name: str,
    at_toy_size: bool = False,
    data: Path | None = None,
    settings: Sequence[str] = (),
    name_as: str | None = None,
    quiet: bool = False,
) -> LoadedSuite:
    """The suite as `--set` and `--as` change it, its warnings told unless quiet; raises SuiteError with every problem.

    With a data folder, it is also told where the suite's own data cannot be found.
    """
    if name_as is not None:
        check_suite_name("--as", name_as)
    path = find_suite(name)
    # What a suite names lies beside it; behind everything else, so that it hides no library.
    sys.path.append(str(path.parent.absolute()))
    loaded = load_suite(path, data, settings, name_as)
    tell(f"warning: {problem.text(str(loaded.path))}" for problem in loaded.warnings if not quiet)
    return replace(loaded, suite=toy_size(loaded.suite)) if at_toy_size else loaded


def results_folder(suite: str, results: Path, settings: Sequence[str] = (), name_as: str | None = None) -> Path:
    """The results folder of a suite, by its name or by the suite's file, whose results it has to hold then.

    With anything of `--set` and `--as`, it is that of the file so changed.

    Raises:
        ReportError: it holds those of another suite, or of the file as it was before.
    """
    folder = results / suite
    if not settings and name_as is None and os.path.isdir(folder):  # noqa: PTH112 - a name too long is no folder either, where Path raises
        return folder
    loaded = load(suite, settings=settings, name_as=name_as)
    folder = results / loaded.suite.suite
    check_plan(folder, make_plan(loaded.suite), loaded.path)
    return folder


def parsed_seeds(text: str) -> list[int]:
    """The numbers of `--seeds`, none where it is left out; exit 2 where they are none, or the same twice."""
    parts = text.split(",") if text else []
    if not all(re.fullmatch(r"\s*[0-9]{1,20}\s*", part, re.ASCII) for part in parts):
        fail(f"--seeds: should be whole numbers such as 0,1,2, not '{text}'")
    seeds = [int(part) for part in parts]
    if len(set(seeds)) < len(seeds):
        twice = next(seed for place, seed in enumerate(seeds) if seed in seeds[:place])
        fail(f"--seeds: {twice} is named twice in '{text}'; once is enough")
    return seeds


def parsed_shard(text: str | None) -> Shard | None:
    """The part of `--shard`, such as `2/4`; exit 2 where it is none."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        fail(f"--shard: should be a part of the trainings such as 2/4, from 1/4 to 4/4, not '{text}'")
    return Shard(int(found[1]), int(found[2]))


def parsed_time(text: str | None) -> float | None:
    """The seconds of `--timeout`: a number, or one with `s`, `m`, `h` or `d`; exit 2 where it is no time above 0."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smhd]?)\s*", text, re.ASCII)
    seconds = 0.0 if found is None else float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
    if not 0 < seconds <= LONGEST_TIME:
        fail(f"--timeout: should be a time above 0 such as 90 (seconds), 10m or 2h, not '{text}'")
    return seconds
