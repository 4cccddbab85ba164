"""What only images allow, where a suite's data is a table: told before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.data import DataTable, DeclaredDataset, ScikitTable
from robustbench_cmic.suite.messages import Problem
from robustbench_cmic.suite.schema import Suite

ON_ROWS = "mlp"
"""The architecture that takes rows of features; a user's own may."""
ON_IMAGES = {
    "DIFGSM": "resizes images",
    "PIFGSM": "spreads steps over neighbouring pixels",
    "PIFGSMPP": "spreads steps over neighbouring pixels",
    "Pixle": "exchanges pixels",
    "TIFGSM": "blurs gradients over neighbouring pixels",
}
"""Classes of torchattacks that mean nothing on features, and why."""


def table_errors(
    raw: Mapping[str, Any], dataset: DeclaredDataset | None, models: list[Any], attacks: Mapping[int, Attack]
) -> Iterator[Problem]:
    """Augmentation, architectures and attacks of images, where the data is a table.

    Args:
        raw: the suite, of which nothing need be well formed.
        dataset: its data set; None where that is not well formed.
        models: its models as plain data, expanded.
        attacks: those that are well formed, by position.
    """
    if dataset is None or not dataset.tabular:
        return
    own = [(("models", index), entry) for index, entry in enumerate(models) if isinstance(entry, dict)]
    for where, part in [((), raw), *own]:
        training = part.get("training")
        augmentation = training.get("augmentation") if isinstance(training, dict) else None
        for key, value in augmentation.items() if isinstance(augmentation, dict) else ():
            if value:
                message = f"changes images, and {dataset.label} is a table: leave it out"
                yield Problem(message, (*where, "training", "augmentation", key))
    for index, entry in enumerate(models):
        name = entry.get("architecture") if isinstance(entry, dict) else None
        if isinstance(name, str) and name != ON_ROWS and ":" not in name:
            message = f"{name} takes images, and {dataset.label} is a table: take {ON_ROWS}, or your own"
            yield Problem(message, ("models", index, "architecture"))
    for index, attack in attacks.items():
        if attack.name in ON_IMAGES:
            message = f"{attack.name} {ON_IMAGES[attack.name]}, and {dataset.label} is a table: leave it out"
            yield Problem(message, ("attacks", index, "name"))


def fold_warnings(suite: Suite) -> Iterator[Problem]:
    """Folds that no seed tests on, and folds that several do."""
    dataset = suite.dataset
    if not isinstance(dataset, ScikitTable | DataTable) or dataset.folds is None:
        return
    taken = [seed % dataset.folds for seed in suite.seeds]
    if len(set(taken)) < dataset.folds:
        what = f"test on {len(set(taken))} of {dataset.folds} folds: seed mod {dataset.folds} says which"
        hint = f"[{', '.join(map(str, range(dataset.folds)))}] would test on all"
        yield Problem(f"{what}; {hint}", ("seeds",))
    elif len(set(taken)) < len(taken):
        message = f"test on a fold more than once: seed mod {dataset.folds} says which; they are not independent"
        yield Problem(message, ("seeds",))
