"""The binarization test: a model is altered so that an adversarial example is in the ball; does the attack find it?

Zimmermann, Brendel, Tramer & Carlini 2022, "Increasing Confidence in Adversarial Robustness Evaluations": around each
image points of the ball are drawn, one of them at its boundary. On the features of the model a new linear layer with
two classes is fitted that tells that one from all others, with its decision boundary right before it. The image is of
the first class, the boundary point of the second: an adversarial example, by construction. Everything before the
features is the model's own, whatever it does to gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.model import AttackError, CountedModel, frozen
from robustbench_cmic.attacks.threat import normalized, random_perturbations
from robustbench_cmic.plan.audit import PlannedCheck
from robustbench_cmic.records.schema import ActiveTest
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.schema import attack_of
from robustbench_cmic.suite.signatures import one_line

INNER_POINTS = (64, 96, 128, 192)
"""Inner points, the image itself among them: half of them random points of the ball, half of its boundary, so that what
tells the adversarial one from them is not that it lies at the boundary. Among so many, until as many random points as
that find no adversarial one: the easiest test that chance does not pass is the one to ask.
"""
CLOSENESS = 0.9
"""Where between the inner points and the boundary point the decision boundary lies.

The paper's 0.999 leaves a region so small that PGD misses some of them on plain networks, too (30 of 40 at 0.1 on
digits); at 0.9 it finds nearly all, and as many random points as built the test still find none.
"""


def binarization_test(model: nn.Module, images: Tensor, classes: int, check: PlannedCheck, seed: int) -> ActiveTest:
    """Build such a model for each image and attack all of them at once.

    The model returns logits (N, classes), in eval mode; the images are (N, C, H, W) in [0, 1], no two alike.
    """
    about = check.model_dump(exclude={"check"})
    if len(images) == 0:
        return ActiveTest(**about)
    attack = attack_of(check.attack, check.threat)
    if attack is not None and attack.raised_loss == "dlr":  # with two classes there is no third logit to divide by
        attack = attack.varied(loss="margin")
    try:
        # The words decide which points are drawn.
        with frozen(model), seeded(derive_seed("active test", seed)):
            binarized, by_chance = _binarize(model, images, classes, check.threat)
        tested = images[binarized.separable & ~by_chance]
        if len(tested) == 0:
            return ActiveTest(**about, by_chance=int(by_chance.sum()))
        labels = torch.zeros(len(tested), dtype=torch.int64, device=images.device)
        evaluation = evaluate_attack(binarized, tested, labels, classes=2, attack=attack, seed=seed)
    except Exception as error:  # whatever a model's own code raises
        return ActiveTest(**about, error=str(error)[:300] if isinstance(error, AttackError) else one_line(error))
    found = int((~evaluation.correct).sum())
    return ActiveTest(**about, tested=len(tested), by_chance=int(by_chance.sum()), found=found)


class BinarizedModel(nn.Module):
    """The model up to its features, then for each image a linear layer of its own.

    Which image a row belongs to is told by the nearest one: a row lies in the ball of its own.

    Attributes:
        separable: (N,) truth values: the layer tells the boundary point from the inner ones.
    """

    def __init__(self, model: nn.Module, features: Callable[[Tensor], Tensor], images: Tensor) -> None:
        super().__init__()
        self.model = model
        self._features = features
        self._images = images
        self.separable = torch.ones(len(images), dtype=torch.bool, device=images.device)
        self._weights = torch.empty(0)
        self._thresholds = torch.empty(0)

    def fit(self, index: int, points: Tensor, lead: float) -> None:
        """Fit the layer of the image at `index` to points (M, C, H, W): itself, inner points, last the boundary point.

        `lead` is that of the model's first logit over its second; the new one gets the same, so that an attack that
        fails on widely separated logits fails here, too.
        """
        with torch.no_grad():
            features = self._features(points).double()
        centred = features - features.mean(0)
        # Ridge regression in its dual form: as many unknowns as points, however many features.
        kernel = centred @ centred.T
        ridge = 1e-6 * kernel.diagonal().mean() + 1e-300
        target = torch.full_like(kernel[0], -1.0)
        target[-1] = 1.0
        identity = torch.eye(len(points)).to(kernel)
        weight = centred.T @ torch.linalg.solve(kernel + ridge * identity, target)
        scores = features @ weight
        inner, boundary = scores[:-1].max(), scores[-1]
        threshold = inner + CLOSENESS * (boundary - inner)
        gap = threshold - scores[0]
        separable = bool(torch.isfinite(weight).all()) and bool(boundary - inner > 1e-9 * scores.abs().max())
        scale = lead / gap if separable and bool(gap > 0) else torch.zeros_like(gap)
        self.separable[index] = separable
        if len(self._weights) == 0:
            self._weights = weight.new_zeros(len(self._images), len(weight))
            self._thresholds = weight.new_zeros(len(self._images))
        self._weights[index] = weight * scale
        self._thresholds[index] = threshold * scale

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2) logits."""
        distances = [(images.detach() - image).abs().flatten(1).amax(1) for image in self._images]
        owner = torch.stack(distances, dim=1).argmin(1)
        features = self._features(images)
        score = (features.double() * self._weights[owner]).sum(1) - self._thresholds[owner]
        return torch.stack([torch.zeros_like(score), score], dim=1).float()


def _binarize(model: nn.Module, images: Tensor, classes: int, threat: Threat) -> tuple[BinarizedModel, Tensor]:
    """The altered model, and (N,) for which images random points are adversarial all the same: no test of an attack."""
    binarized = BinarizedModel(model, _feature_function(model, images[:1], classes), images)
    with torch.no_grad():
        top = CountedModel(model, classes)(images).topk(2, dim=1).values
    by_chance = torch.zeros_like(binarized.separable)
    for index, image in enumerate(images):
        lead = max(float(top[index, 0] - top[index, 1]), 1e-3)
        for count in INNER_POINTS:
            within = random_perturbations(threat, torch.Size((count // 2, *image.shape))).to(images)
            within[0] = 0
            boundary = _boundary_points(image, count // 2 + 1, threat)
            binarized.fit(index, torch.cat([(image + within).clamp(0, 1), boundary]), lead)
            with torch.no_grad():
                logits = binarized(_boundary_points(image, count, threat))
            by_chance[index] = binarized.separable[index] & (logits[:, 1] > logits[:, 0]).any()
            if bool(binarized.separable[index] & ~by_chance[index]):
                break
    return binarized, by_chance


def _boundary_points(image: Tensor, count: int, threat: Threat) -> Tensor:
    """(count, C, H, W) random points at the boundary of the ball: corners for L-inf, the sphere for L2; in the box."""
    direction = torch.randn(count, *image.shape)
    unit = direction.sign() if threat.norm == "linf" else normalized(direction, "l2")
    return (image + threat.eps * unit.to(image)).clamp(0, 1)


def _feature_function(model: nn.Module, image: Tensor, classes: int) -> Callable[[Tensor], Tensor]:
    """Images -> (N, D): what the linear layer receives that gives the logits; else the logits.

    Where the output of none is the logits as they are, it is the last with an output for each class.
    """
    heads: list[tuple[nn.Linear, Tensor]] = []
    with torch.no_grad(), ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.out_features == classes:
                hooks.enter_context(module.register_forward_hook(lambda module, _, out: heads.append((module, out))))
        logits = model(image.repeat(2, 1, 1, 1))
    if not heads:
        return lambda images: torch.flatten(model(images), 1)

    head = next((module for module, output in reversed(heads) if torch.equal(output, logits)), heads[-1][0])

    def features(images: Tensor) -> Tensor:
        inputs: list[Tensor] = []
        with head.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0])):
            model(images)
        return inputs[-1].flatten(1)

    return features
