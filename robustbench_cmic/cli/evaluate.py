"""`evaluate`: one trained model is attacked and audited, without a suite having been written before."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer
import yaml

import robustbench_cmic.cli.arguments as arguments
from robustbench_cmic.cli.run import BatchSizeOption, JobsOption, run
from robustbench_cmic.records.files import CorruptRecordError, write_atomically
from robustbench_cmic.records.store import read_record
from robustbench_cmic.run.console import show_text
from robustbench_cmic.suite import SuiteError, load_suite
from robustbench_cmic.suite.budgets import BUDGETS, declared_budget
from robustbench_cmic.suite.fields import Norm, parse_number
from robustbench_cmic.suite.messages import Problem

WRITTEN = "# written by: robustbench-cmic evaluate\n"

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="An architecture of `list` or timm, or your own: my_model:build.")
]
DatasetOption = Annotated[
    str, typer.Option(metavar="NAME|FILE|DIR", help="A name of `list`, a .npz, a .csv or .parquet, a folder of images.")
]
NormalizationOption = Annotated[
    str | None,
    typer.Option(
        metavar="none|MEAN/STD",
        help="In front of it: none, or such as 0.5,0.5,0.5/0.2,0.2,0.2; by default that of the training images.",
    ),
]
SizeOption = Annotated[
    int | None, typer.Option(parser=arguments.whole_number, metavar="N", help="Of images of a folder, in pixels.")
]
BudgetOption = Annotated[
    str, typer.Option(metavar="|".join(BUDGETS), help="quick: no AutoAttack, no audit; strict: a larger audit.")
]
ExamplesOption = Annotated[
    int | None,
    typer.Option(parser=arguments.whole_number, metavar="N", help="Of the test set, as many of every class; or all."),
]


def evaluate_(
    model: ModelArgument,
    dataset: DatasetOption,
    eps: Annotated[list[str], typer.Option(metavar="EPS", help="A radius such as 8/255; repeatable.")],
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Its weights, .pth or .safetensors.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="timm's weights.")] = False,
    normalization: NormalizationOption = None,
    size: SizeOption = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The classes of a table.")] = None,
    norm: Annotated[str, typer.Option(metavar="linf|l2")] = "linf",
    budget: BudgetOption = "standard",
    examples: ExamplesOption = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the suite that is written.")] = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="Where that and its results go.")] = Path("evaluations"),
    data: arguments.DataOption = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: JobsOption = None,
    batch_size: BatchSizeOption = None,
    quiet: arguments.QuietOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the suite and write nothing.")] = False,
) -> None:
    """Attack and audit one trained model: writes a suite for it, and runs that."""
    suite = {
        "suite": _name(name, model, dataset),
        "description": f"{model} on {dataset}, budget {budget}",
        "dataset": _dataset(dataset, size, label),
        "models": [_model(model, weights, pretrained, normalization, Path(dataset).is_dir())],
        **_attacked(budget, norm, eps),
    }
    if examples is not None:
        suite["evaluation"] = {"limit": examples, "per_class": True}
    text = WRITTEN + yaml.safe_dump(suite, sort_keys=False, width=120)
    sys.path.append(str(Path.cwd()))  # where one's own model lies, and not beside the suite
    _check(text)
    if dry_run:
        show_text(text)
        return
    path = results / f"{suite['suite']}.yaml"
    _write(path, text)
    run(str(path), results=results, data=data, device=device, jobs=jobs, batch_size=batch_size, quiet=quiet)


def _attacked(budget: str, norm: str, eps: Sequence[str]) -> dict[str, Any]:
    if norm not in ("linf", "l2"):
        arguments.fail(f"--norm: should be linf or l2, not {norm!r}")
    if budget not in BUDGETS:
        arguments.fail(f"--budget: should be {', '.join(BUDGETS)}, not {budget!r}")
    radii = [radius.strip() for text in eps for radius in text.split(",")]
    return declared_budget(budget, cast(Norm, norm), radii)


def _model(
    architecture: str, weights: Path | None, pretrained: bool, normalization: str | None, is_folder: bool
) -> dict[str, Any]:
    """What a suite says of a model whose weights are given; `is_folder`: of images, of which none are to train on."""
    if (weights is None) != pretrained:
        arguments.fail("--weights FILE or --pretrained: one of them says which weights are evaluated")
    if normalization is None and is_folder:
        arguments.fail("--normalization: there are no training images; none, or means and deviations such as 0.5/0.2")
    declared: dict[str, Any] = {"id": "model", "architecture": architecture}
    declared |= {"pretrained": True} if weights is None else {"weights": str(weights.absolute())}
    if normalization is not None:
        declared["normalization"] = normalization if normalization == "none" else _moments(normalization)
    return declared


def _moments(text: str) -> dict[str, list[float]]:
    """`0.5,0.4/0.2,0.3`: mean and standard deviation, a number a channel."""
    try:
        mean, std = ([parse_number(number) for number in part.split(",")] for part in text.split("/"))
    except ValueError:
        arguments.fail(f"--normalization: should be none or numbers such as 0.5,0.5,0.5/0.2,0.2,0.2, not {text!r}")
    return {"mean": mean, "std": std}


def _name(name: str | None, model: str, dataset: str) -> str:
    """What is given, or `resnet18-cifar10`, `my_model-build-mine`: of letters that a suite's name may have."""
    if name is not None:
        arguments.check_suite_name("--name", name)
        return name
    words = re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"{model}-{Path(dataset).stem}").strip("-.+_")
    return words[:60]


def _dataset(text: str, size: int | None, label: str | None) -> dict[str, Any]:
    """What a suite says of the data: a name, or a file or folder, by what it is called."""
    path = Path(text)
    suffix = path.suffix.lower()
    if size is not None and not path.is_dir():
        arguments.fail(f"--size: is of a folder of images, and {text} is none")
    if label is not None and suffix not in (".csv", ".parquet"):
        arguments.fail(f"--label: is of a table, .csv or .parquet, and {text} is none")
    if suffix == ".npz":
        return {"name": "arrays", "path": str(path.absolute())}
    if suffix in (".csv", ".parquet"):
        if label is None:
            arguments.fail(f"--label: which column of {text} holds the classes?")
        return {"name": "table", "path": str(path.absolute()), "label": label}
    if path.is_dir():
        if size is None:
            arguments.fail(f"--size: to how many pixels are the images in {text} resized, such as 224?")
        return {"name": "imagefolder", "path": str(path.absolute()), "size": size, "train": False}
    return {"name": text}


def _check(text: str) -> None:
    """What is wrong with a suite, told once, before anything is written."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "evaluate.yaml"
        file.write_text(text)
        try:
            load_suite(file)
        except SuiteError as error:
            told: dict[str, Problem] = {}  # what is wrong with every attack alike is told once
            for problem in error.problems:
                told.setdefault(problem.message, replace(problem, line=None))
            raise SuiteError("evaluate", told.values()) from None


def _write(path: Path, text: str) -> None:
    """The file of a suite; one of the name that says something else is left alone, if it is a user's or has results."""
    with arguments.writing(path):
        before = path.read_bytes() if path.exists() else text.encode()
        own = before.startswith(WRITTEN.encode()) and not _has_results(path.with_suffix(""))
        if before != text.encode() and not own:
            arguments.fail(f"{path}: is there already, and of another evaluation; give this one a --name")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())


def _has_results(folder: Path) -> bool:
    """Any evaluation has come to its end, or something lies there that cannot be read."""
    try:
        records = [read_record(file) for file in folder.glob("*.s*.json")]
    except CorruptRecordError:
        return True
    return any(record.kind == "attack" and record.status == "ok" for record in records)
