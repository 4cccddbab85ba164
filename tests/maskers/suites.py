"""The suites of the zoo: honest models on digits, two classes of digits, and broken defences around the plain model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from robustbench_cmic.data.base import Split
from robustbench_cmic.models.architectures import small_cnn
from robustbench_cmic.models.weights import save_weights
from robustbench_cmic.report import Results, read_results
from robustbench_cmic.seeding import seeded
from tests.maskers.base import Plain, digits
from tests.maskers.honest import NearestNeighbour

ROOT = Path(__file__).resolve().parents[2]
TWO = 3, 8
"""The digits of the two-class data; of all pairs they look most alike."""
PLAIN = "plain"
AUTOATTACK = "AutoAttack"
Suite = dict[str, Any]
Found = dict[str, Results]
"""Results by the name of their suite: `honest`, `two`, `maskers`."""


def honest_suite() -> Suite:
    """The suite of honest models, as data."""
    suite: Suite = yaml.safe_load((Path(__file__).parent / "honest.yaml").read_text())
    return suite


def two_class_suite(honest: Suite) -> Suite:
    """The same attacks on a linear model of two classes, whose robust accuracy has a closed form.

    PGD-T has other classes to aim at, and PGD-cmic centroids: with two classes they are the attack on the margin.
    """
    model = {"id": "two-class-linear", "architecture": "tests.maskers.honest:linear", "objective": {"name": "ce"}}
    attacks = [attack for attack in honest["attacks"] if attack.get("id") not in ("PGD-T", "PGD-cmic")]
    data = {"name": "arrays", "path": "two.npz"}
    return honest | {"suite": "two", "dataset": data, "models": [model], "attacks": attacks}


def masker_suite(honest: Suite, folder: Path, maskers: Sequence[type[Plain]]) -> Suite:
    """The same attacks on every masker, with the weights of the plain model: `folder/plain-s{seed}.safetensors`."""
    models = [
        {
            "id": masker.__name__,
            "architecture": f"{masker.__module__}:{masker.__name__}",
            "weights": f"{folder}/{PLAIN}-s{{seed}}.safetensors",
        }
        for masker in maskers
    ]
    kept = {key: value for key, value in honest.items() if key not in ("training", "models")}
    return kept | {"suite": "maskers", "models": models}


def with_autoattack(honest: Suite) -> Suite:
    """The suite with AutoAttack in the largest ball."""
    radius = max(honest["attacks"][0]["eps"])
    return honest | {"attacks": [*honest["attacks"], {"name": AUTOATTACK, "eps": [radius]}]}


def quick(honest: Suite) -> Suite:
    """The largest ball alone, and no attack that takes long: to see fast what a change of the audit does."""
    radius = max(honest["attacks"][0]["eps"])
    short = [attack for attack in honest["attacks"] if attack.get("id") not in ("PGD-T", "PGD-cmic")]
    return honest | {"attacks": [attack | {"eps": [radius]} for attack in short]}


def only(suite: Suite, names: Collection[str]) -> Suite:
    """The models of these names, and the plain one; all where no name is given."""
    kept = [model for model in suite["models"] if not names or model["id"] in {PLAIN, *names}]
    return suite | {"models": kept}


def run_all(honest: Suite, folder: Path, maskers: Sequence[type[Plain]], names: Collection[str] = ()) -> Found:
    """Run the suites one after the other in a folder, or go on with them; `names`: of these models, and the plain one.

    Raises:
        RuntimeError: the command line says that a suite cannot be run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _make_weights(honest["seeds"], folder)
    found = {"honest": _run(only(honest, names), folder)}
    for cell in found["honest"].plan.of("train"):
        if cell.model == PLAIN:
            weights = folder / "results.work" / "honest" / f"{cell.id}.safetensors"
            shutil.copy(weights, folder / f"{PLAIN}-s{cell.seed}.safetensors")
    two = only(two_class_suite(honest), names)
    if two["models"]:
        _make_two_classes(folder / two["dataset"]["path"])
        found["two"] = _run(two, folder)
    chosen = [masker for masker in maskers if not names or masker.__name__ in names]
    if chosen:
        found["maskers"] = _run(masker_suite(honest, folder, chosen), folder)
    return found


def _make_weights(seeds: Sequence[int], folder: Path) -> None:
    """The weights that nobody trains."""
    data = digits()
    for seed in seeds:
        with seeded(seed):
            random, nearest = small_cnn(data.image_shape, 10), NearestNeighbour(data.image_shape, 10)
        save_weights(folder / f"random-s{seed}.safetensors", random.state_dict())
        save_weights(folder / f"nearest-neighbour-s{seed}.safetensors", nearest.state_dict())


def _make_two_classes(file: Path) -> None:
    """The images of two digits, labelled 0 and 1."""
    (x_train, y_train), (x_test, y_test) = (_of_two(split) for split in (digits().train, digits().test))
    np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _of_two(split: Split) -> tuple[Any, Any]:
    kept = np.flatnonzero(np.isin(split.labels, TWO))
    return split.images[kept], (split.labels[kept] == TWO[1]).astype(np.int64)


def _run(suite: Suite, folder: Path) -> Results:
    file = folder / f"{suite['suite']}.yaml"
    file.write_text(yaml.safe_dump(suite))
    command = [sys.executable, "-m", "robustbench_cmic", "run", str(file), "--results", str(folder / "results")]
    # Exit code 1: attacks that crash for want of a gradient fail their cells, as they should.
    if subprocess.run(command, cwd=ROOT).returncode not in (0, 1):
        raise RuntimeError(f"`{' '.join(command)}` failed")
    return read_results(folder / "results" / suite["suite"])
