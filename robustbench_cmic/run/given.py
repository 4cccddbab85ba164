"""Given weights before anything runs: whether they can be read, and fit the architectures that are to hold them."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from robustbench_cmic.data import load_data
from robustbench_cmic.data.listing import list_images
from robustbench_cmic.data.named import SOURCES
from robustbench_cmic.models.architectures import Shape
from robustbench_cmic.models.build import build_model
from robustbench_cmic.models.given import fit_weights, read_given_weights
from robustbench_cmic.objectives import Objective, head_owner
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.suite import Suite
from robustbench_cmic.suite.data import DeclaredDataset, ImageFolder, TorchvisionDataset
from robustbench_cmic.suite.messages import Problem, UserError
from robustbench_cmic.suite.models import Model


def weights_problems(suite: Suite, facts: tuple[Shape, int] | None) -> list[Problem]:
    """What is wrong with each file of given weights, as the cell that loads it would say.

    Architectures are built for that, a user's own, too. Without the `facts` that `image_facts` tells, the files are
    only read.
    """
    built: dict[str, nn.Sequential | str] = {}
    problems = []
    for index, model in enumerate(suite.models):
        for file in dict.fromkeys(model.weights_file(seed) for seed in suite.seeds if model.file_key):
            problem, key = _problem(model, file, facts, built)
            if problem:
                problems.append(Problem(problem, ("models", index, key)))
            if key == "architecture":  # with which no file can be tried
                break
    return problems


def _problem(
    model: Model, file: Path, facts: tuple[Shape, int] | None, built: dict[str, nn.Sequential | str]
) -> tuple[str, str]:
    """A sentence, empty where nothing is wrong, and the key of the model that it is about."""
    try:
        weights = read_given_weights(file, key=model.weights_key)
        if facts is None:
            return "", ""
        # A training may begin with the weights of another objective's, and not with those of a head.
        owner = head_owner(model.objective, facts[1], 0, weights) if model.given else None
        network = _built(model, facts, owner, built)
        if isinstance(network, str):
            return network, "architecture"
        fit_weights(network, weights, file.name, normalized=model.normalization is not None)
    except UserError as error:
        return str(error), model.file_key
    return "", ""


def _built(
    model: Model, facts: tuple[Shape, int], owner: Objective | None, built: dict[str, nn.Sequential | str]
) -> nn.Sequential | str:
    """The model with some weights, or why it cannot be built; of equal models one."""
    shape, classes = facts
    head = model.objective.declared() if owner is not None and model.objective is not None else None
    declared = canonical_json([model.declared(), head])
    if declared not in built:
        moments = [0.5] * shape[0], [0.25] * shape[0]  # those of the images play no part in what fits
        try:
            built[declared] = build_model(model, shape, classes, moments, seed=0, objective=owner)
        except UserError as error:
            built[declared] = str(error)
        except SystemExit as error:  # a user's own code may do anything
            built[declared] = f"{model.architecture} ends the program: {error!r}"
    return built[declared]


def image_facts(dataset: DeclaredDataset, folder: Path) -> tuple[Shape, int] | None:
    """Shape (C, H, W) of an image and number of classes; None where the data is not there, or not right.

    `folder` is where data lies that is not beside the suite.
    """
    if isinstance(dataset, TorchvisionDataset):
        return dataset.shapes[dataset.name], len(SOURCES[dataset.name].class_names)
    try:
        if isinstance(dataset, ImageFolder):
            return dataset.image_shape, len(list_images(dataset.find(folder), dataset.train).classes)
        data = load_data(dataset, folder)
    except (UserError, OSError):
        return None  # of data a run speaks
    return data.image_shape, data.classes
