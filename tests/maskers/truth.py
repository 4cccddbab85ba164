"""The true robust accuracy of the models of the zoo, or what comes nearest to it: what survives strong attacks on what
each of them hides.

Broken defences are attacked as they are laid open, honest models as they are: PGD on the margin with 100 steps and 5
restarts, and AutoAttack. What these attacks return is judged by the model's own decision, one image at a time, in eval
mode and without gradients: no batch, cache or gradient mode can change it. Of the two-class linear model the truth is
known.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import Data
from robustbench_cmic.data.subset import choose
from robustbench_cmic.models.build import build_model
from robustbench_cmic.models.weights import load_weights
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.records.store import Store
from robustbench_cmic.report import Results
from robustbench_cmic.suite.data import Evaluation, dataset_of, evaluation_of
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.models import model_of
from robustbench_cmic.suite.schema import attack_of
from tests.maskers.base import Plain

_PGD = {"name": "PGD", "steps": 100, "restarts": 5, "random_start": True, "targets": 0, "schedule": "linear"}
STRONG: tuple[dict[str, Any], ...] = (
    _PGD | {"loss": "margin", "early_stop": False},  # to the end: what lies far behind a boundary transfers
    _PGD | {"loss": "dlr", "early_stop": True},
    {"name": "AutoAttack", "steps": 100, "targets": 9, "queries": 1000},
)
"""Random search has least to do on a model that is laid open: a fifth of AutoAttack's queries."""
Points = list[Tensor]
"""For each strong attack images (N, C, H, W) in the ball, clean where it was not tried."""
Truths = dict[tuple[str, Threat], float]
"""(id of a training, ball) -> true robust accuracy, a fraction."""


class LaidOpen(nn.Module):
    """A broken defence behind its normalisation, as somebody attacks it who knows it."""

    def __init__(self, classifier: nn.Sequential) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> (N, classes)."""
        normalized, masker = self.classifier[0](images), self.classifier[1]
        assert isinstance(masker, Plain)
        return masker.laid_open(normalized)


def truths(results: Results, file: Path) -> Truths:
    """Of every model that was trained, in every ball of its suite; what is known already is read from `file`."""
    known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    found: Truths = {}
    shared: dict[tuple[str, Threat], Points] = {}
    limit = _evaluation(results).limit
    for training in results.plan.of("train"):
        record = results.records.get(training.id)
        if not isinstance(record, TrainRecord) or record.checkpoint_sha256 is None:
            continue
        for threat in results.threats:
            key = f"{training.id} {threat.norm} {threat.eps:g} {limit}"
            if key not in known:
                model, data = _trained(results, training, record.checkpoint_sha256)
                images, labels = _evaluated(results, data)
                points = None
                # One network behind many maskers is attacked once.
                if getattr(type(model[1]), "laid_open", None) is Plain.laid_open:
                    place = record.checkpoint_sha256, threat
                    if place not in shared:
                        shared[place] = strong_points(LaidOpen(model), images, labels, threat, data.classes)
                    points = shared[place]
                known[key] = true_accuracy(model, images, labels, threat, data.classes, points)
                file.write_text(json.dumps(known, indent=1))
            found[training.id, threat] = known[key]
    return found


def true_accuracy(
    model: nn.Sequential, images: Tensor, labels: Tensor, threat: Threat, classes: int, points: Points | None = None
) -> float:
    """The share of images (N, C, H, W) that a model classifies correctly, and that no point of the ball is known to
    change; `points` are those of strong attacks, where they are known.
    """
    network = model[1]
    if classes == 2 and _is_linear(network):
        return closed_form(model, images, labels, threat.eps)
    if points is None:
        attacked = LaidOpen(model) if isinstance(network, Plain) else model
        points = strong_points(attacked, images, labels, threat, classes)
    survives = decisions(model, images) == labels
    for tried in points:
        survives &= decisions(model, tried) == labels
    return float(survives.double().mean())


def strong_points(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, classes: int) -> Points:
    """What strong attacks return for images (N, C, H, W), each tried on what is left of the ones before.

    A broken defence, laid open, is taken for broken where its own decision is.
    """
    decider = model.classifier if isinstance(model, LaidOpen) else model
    left, points = (decisions(decider, images) == labels).nonzero()[:, 0], []
    for declared in STRONG:
        if len(left) == 0 or (declared.get("loss") == "dlr" and classes < 4):
            continue
        size = {"alpha": threat.eps / 4} if declared["name"] == "PGD" else {}
        attack = attack_of(declared | size, threat)
        verdict = evaluate_attack(
            model, images[left], labels[left], classes=classes, attack=attack, seed=7, keep_images=True
        )
        assert verdict.images is not None
        points.append(images.index_copy(0, left, verdict.images))
        left = left[decisions(decider, verdict.images) == labels[left]]
    return points


def decisions(model: nn.Module, images: Tensor) -> Tensor:
    """(N,) classes, of each image (C, H, W) by itself."""
    model.eval()
    with torch.no_grad():
        return torch.tensor([int(model(image[None]).argmax()) for image in images])


def closed_form(model: nn.Sequential, images: Tensor, labels: Tensor, eps: float) -> float:
    """Of a linear model of two classes: every pixel moves by eps, or up to the edge of the box, against the label."""
    model.eval()
    with torch.no_grad():
        zero = torch.zeros_like(images[:1]).double()
        pixels = torch.eye(zero.numel(), dtype=torch.float64).reshape(-1, *images.shape[1:])
        exact = model.double()
        bias = exact(zero)[0, 1] - exact(zero)[0, 0]
        weight = exact(pixels)[:, 1] - exact(pixels)[:, 0] - bias
        model.float()
    flat, sign = images.double().flatten(1), (2 * labels - 1).double()[:, None]
    worst = (flat - eps * (weight * sign).sign()).clamp(0, 1)
    return float((((worst @ weight + bias) > 0) == labels.bool()).double().mean())


def _is_linear(network: nn.Module) -> bool:
    return isinstance(network, nn.Sequential) and [type(layer) for layer in network] == [nn.Flatten, nn.Linear]


def _trained(results: Results, training: Cell, sha256: str) -> tuple[nn.Sequential, Data]:
    """A model as the suite's cells have it, and its data."""
    declared = training.declared
    data = load_data(dataset_of(declared["dataset"]), _folder(results))
    network = model_of(declared["model"])
    model = build_model(network, data.image_shape, data.classes, data.moments, training.seed)
    store = Store(results.folder)
    model.load_state_dict(load_weights(store.weights(training.id), sha256))
    return model.eval(), data


def _folder(results: Results) -> Path:
    """Where the suites of a run lie, and the data of their own."""
    return results.folder.parents[1]


def _evaluated(results: Results, data: Data) -> tuple[Tensor, Tensor]:
    """Images and labels that the suite evaluates."""
    evaluation = _evaluation(results)
    split = data.split(evaluation.split)
    chosen = choose(split.labels, evaluation.limit, evaluation.per_class)
    return torch.from_numpy(split.images[chosen]), torch.from_numpy(split.labels[chosen])


def _evaluation(results: Results) -> Evaluation:
    return evaluation_of(results.plan.of("attack")[0].declared["evaluation"])
