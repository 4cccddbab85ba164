"""The binarization test: a model is altered so that an adversarial example is in the ball; does the attack find it?

Zimmermann, Brendel, Tramer & Carlini 2022, "Increasing Confidence in Adversarial Robustness Evaluations": around each
image points of the ball are drawn, and one that is to be told from them. On features of the model a linear readout with
two classes is fitted that does, with its decision boundary right before that point. The image is of the first class,
the point of the second: an adversarial example, by construction.

The features are the logits that the model returns, so that nothing of it is left out: what its last layer receives need
not be what decides (a pass whose result is multiplied by 0 looks the same to a hook). Logits are few. Of random points
more than there are dimensions none lies far enough outside the others for chance not to find its place again. The
hidden point is therefore one that random points are not like: a step towards another image, or of the same sign over
whole patches, which moves logits several times as far as noise of the same size does.
"""

from __future__ import annotations

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

INNER_POINTS = (64, 192)
"""Inner points, the image itself among them: half of them random points of the ball, half of its boundary, so that what
tells the adversarial one from them is not that it lies at the boundary. Among so many, until as many random points as
that find no adversarial one: the easiest test that chance does not pass is the one to ask.
"""
CANDIDATES = 32
"""Points of which the one is hidden that lies farthest from the inner ones; half of them lead to other images, half are
changed by patches.
"""
CLOSENESS = 0.8
"""Where between the inner points and the hidden one the decision boundary lies; 0.999 in the paper, whose attacks take
many more steps. Chosen among 0.5, 0.7, 0.8 and 0.9 on networks on digits, 0.8 and 0.9 without a clear winner: if it is
higher, attacks on networks trained against PGD in large balls miss more; if lower, chance finds more.
"""


def binarization_test(model: nn.Module, images: Tensor, classes: int, check: PlannedCheck, seed: int) -> ActiveTest:
    """Build such a model for each image and attack all of them at once.

    The model returns logits (N, classes), in eval mode; the images are (N, C, H, W) in [0, 1], no two alike.
    """
    about = check.model_dump(exclude={"check"}) | {"tried": len(images)}
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
    """The model, then on its logits for each image a linear readout of its own.

    Which image a row belongs to is told by the nearest one: a row lies in the ball of its own.

    Attributes:
        separable: (N,) truth values: the readout tells a hidden point from the inner ones.
    """

    def __init__(self, model: nn.Module, images: Tensor, classes: int) -> None:
        super().__init__()
        self.model = CountedModel(model, classes)
        self._images = images
        self.separable = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self._weights = torch.zeros(len(images), classes, dtype=torch.float64, device=images.device)
        self._thresholds = self._weights.new_zeros(len(images))

    def _features(self, images: Tensor) -> Tensor:
        """(N, classes) float64; 0 for classes that a model masks with -infinity."""
        logits: Tensor = self.model(images).double()
        return logits.masked_fill(logits.isneginf(), 0.0)

    def fit(self, index: int, inner: Tensor, candidates: Tensor, lead: float) -> None:
        """Fit the readout of the image at `index` to tell one of the candidates from the inner points.

        Both are (M, C, H, W), the first of the inner points is the image. `lead` is that of the model's first logit
        over its second; the new one gets the same, so that an attack that fails on widely separated logits fails here,
        too.
        """
        with torch.no_grad():
            values = self._features(torch.cat([inner, candidates]))
        features, hidden = values[: len(inner)], values[len(inner) :]
        weights = hidden - features.mean(0)
        weights = weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-300)
        scores = features @ weights.T
        nearest, reached = scores.amax(0), (hidden * weights).sum(1)
        # As a part of how widely the inner points are spread: what chance does not bridge.
        best = int(((reached - nearest) / scores.std(0).clamp(min=1e-300)).argmax())
        threshold = nearest[best] + CLOSENESS * (reached[best] - nearest[best])
        gap = threshold - scores[0, best]
        separable = bool(gap.isfinite()) and bool(reached[best] - nearest[best] > 1e-9 * scores[:, best].abs().max())
        scale = lead / gap if separable and bool(gap > 0) else torch.zeros_like(gap)
        self.separable[index] = separable
        self._weights[index] = weights[best] * scale
        self._thresholds[index] = threshold * scale

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2) logits."""
        distances = [(images.detach() - image).abs().flatten(1).amax(1) for image in self._images]
        owner = torch.stack(distances, dim=1).argmin(1)
        score = (self._features(images) * self._weights[owner]).sum(1) - self._thresholds[owner]
        return torch.stack([torch.zeros_like(score), score], dim=1).float()


def _binarize(model: nn.Module, images: Tensor, classes: int, threat: Threat) -> tuple[BinarizedModel, Tensor]:
    """The altered model, and (N,) for which images random points are adversarial all the same: no test of an attack."""
    binarized = BinarizedModel(model, images, classes)
    with torch.no_grad():
        top = CountedModel(model, classes)(images).topk(2, dim=1).values
    by_chance = torch.zeros_like(binarized.separable)
    for index, image in enumerate(images):
        lead = max(float(top[index, 0] - top[index, 1]), 1e-3)
        others = images[torch.randperm(len(images))[: CANDIDATES // 2]]
        for count in INNER_POINTS:
            within = random_perturbations(threat, torch.Size((count // 2, *image.shape))).to(images)
            within[0] = 0
            inner = torch.cat([(image + within).clamp(0, 1), _boundary_points(image, count // 2, threat)])
            hidden = _at_boundary(image, torch.cat([others - image, _patches(image)]), threat)
            binarized.fit(index, inner, hidden, lead)
            with torch.no_grad():
                logits = binarized(_boundary_points(image, count, threat))
            by_chance[index] = binarized.separable[index] & (logits[:, 1] > logits[:, 0]).any()
            if bool(binarized.separable[index] & ~by_chance[index]):
                break
    return binarized, by_chance


def _patches(image: Tensor) -> Tensor:
    """Random directions that are equal within each of 2x2 or 4x4 patches of the image, (CANDIDATES // 2, C, H, W)."""
    directions = []
    for number in range(CANDIDATES // 2):
        coarse = torch.randn(1, image.shape[0], *([2 + 2 * (number % 2)] * 2))
        directions.append(nn.functional.interpolate(coarse, size=image.shape[1:], mode="nearest"))
    return torch.cat(directions).to(image)


def _boundary_points(image: Tensor, count: int, threat: Threat) -> Tensor:
    """(count, C, H, W) random points at the boundary of the ball: corners for L-inf, the sphere for L2; in the box."""
    return _at_boundary(image, torch.randn(count, *image.shape).to(image), threat)


def _at_boundary(image: Tensor, directions: Tensor, threat: Threat) -> Tensor:
    """The points (N, C, H, W) of the ball that lie farthest in the directions (N, C, H, W)."""
    unit = directions.sign() if threat.norm == "linf" else normalized(directions, "l2")
    return (image + threat.eps * unit).clamp(0, 1)
