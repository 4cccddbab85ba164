"""What the audit of a model costs: examples through the network, forward and backward, by part of the audit.

    python benchmarks/audit.py [suites/digits.yaml]

The first model of the suite is trained with its first seed; its attacks are not run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from about import machine, table
from torch import nn

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.run.job import run_cell
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.run.options import Options, make_settings
from robustbench_cmic.suite import load_suite

PARTS = ("outputs", "reference", "gradient-free", "confirm", "other-loss", "longer", "noise", "huge", "binarization")


class Counting:
    """Counts examples through a model, under the part of the audit that is going on."""

    def __init__(self) -> None:
        self.part = "outputs"
        self.forwards: Counter[str] = Counter()
        self.backwards: Counter[str] = Counter()

    def hook(self, _: nn.Module, __: Any, logits: torch.Tensor) -> None:
        """After a forward pass."""
        self.forwards[self.part] += len(logits)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.backwards.update({self.part: len(gradient)}))  # type: ignore[no-untyped-call]

    def begin(self, text: str) -> None:
        """What a job says of its progress, such as `audit: longer PGD`: what comes next."""
        self.part = next((part for part in PARTS if f"audit: {part}" in text), self.part)


def count(file: Path, data: Path | None) -> Counting:
    """Train and audit the first model of a suite with its first seed."""
    suite, counting, trained = load_suite(file).suite, Counting(), Job.trained_model

    def hooked(job: Job, *arguments: Any) -> Any:
        model, sha256 = trained(job, *arguments)
        model.register_forward_hook(counting.hook)
        return model, sha256

    plan = make_plan(suite)
    training = plan.of("train")[0]
    audit = next(cell for cell in plan.of("audit") if cell.needs == training.id)
    with tempfile.TemporaryDirectory() as temporary:
        settings = make_settings(suite, Options(results=Path(temporary) / "results", data=data))
        settings.store.results.mkdir(parents=True)
        settings.store.work.mkdir(parents=True)
        run_cell(training, settings, lambda _: None)
        with mock.patch.multiple(Job, trained_model=hooked, progress=lambda *said: counting.begin(said[3])):
            run_cell(audit, settings, lambda _: None)
    return counting


def main() -> None:
    """Print a row for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, nargs="?", default=Path("suites/digits.yaml"))
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = count(arguments.suite, arguments.data)
    rows = [[part, f"{found.forwards[part]:,}", f"{found.backwards[part]:,}"] for part in PARTS if found.forwards[part]]
    rows.append(["all", f"{found.forwards.total():,}", f"{found.backwards.total():,}"])
    print(table(rows, ["part of the audit", "forward", "backward"]))
    print(f"\n{machine('cpu')}")


if __name__ == "__main__":
    main()
