"""Projected gradient descent, native: L-inf and L2, losses, targets, schedules, restarts. FGSM is its one-step case."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.blocks import AttackCall
from robustbench_cmic.attacks.entry import called_directly
from robustbench_cmic.attacks.losses import LOSSES, AttackLoss, make_loss, top_other_classes
from robustbench_cmic.attacks.model import Expectation, expectation, misclassified
from robustbench_cmic.attacks.threat import check_threat, normalized, project, random_perturbations
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite.attacks import FGSM, PGD, Schedule, Transfer
from robustbench_cmic.suite.fields import Norm, Threat

DrawNoise = Callable[[int], Tensor]
"""Number of a run -> random perturbations of the ball for all images."""
OneRun = Callable[[int, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""Number of a run, positions (M,) of the examples that it attacks, their targets (M,), if it has any -> points to
return (M, C, H, W), and which of them are misclassified, (M,); None: not known."""

Ascent = Callable[[Tensor, Tensor, Tensor | None], "LossGradient"]
"""`loss_and_gradient` but for images, labels and targets."""


def run(call: AttackCall[FGSM | PGD | Transfer]) -> tuple[Tensor, list[Part]]:
    """PGD as a suite's `FGSM`, `PGD` or `Transfer` asks for it."""
    search = call.attack.search
    noise = call.noise if search.random_start else None
    model = expectation(call.model, search.samples)
    return pgd_search(model, call.images, call.labels, search, noise, centroids=call.centroids), []


@called_directly
def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    alpha: float,
    steps: int,
    norm: str = "linf",
    loss: str = "ce",
    random_start: bool = True,
    restarts: int = 1,
    early_stop: bool = False,
    targets: int = 0,
    schedule: Schedule = "constant",
    centroids: Tensor | None = None,
) -> Tensor:
    """PGD (Madry et al. 2018, eq. 2.2): x <- project(x + alpha * step(grad loss)).

    The step is the sign of the gradient for L-inf and the gradient over its length for L2. Random numbers come from
    torch's global generator on the CPU. Entries of a gradient that are not finite count as 0. With
    `random_start=False` and the other defaults the L-inf result equals torchattacks' PGD bit for bit; one step of
    `alpha=eps` is FGSM.

    Args:
        model: returns logits (N, C); in training mode it is put into eval mode meanwhile, and back afterwards.
        images: (N, C, H, W) floats in [0, 1].
        labels: (N,) integers of any type, classes of the model.
        eps: radius of the ball; for `linf` in [0, 1], as the images are.
        alpha: step size.
        steps: gradient steps of one restart.
        norm: `linf` or `l2`.
        loss: `ce`, `margin`, `dlr`, `scaled_ce`, `log_odds` or `cmic`, see `attacks.losses`.
        random_start: start at a random point of the ball instead of at the image.
        restarts: how often to start. Without `early_stop` the last iterate of the first restart that is misclassified
            is returned, or that of the last restart where none is.
        early_stop: drop an example as soon as any iterate is misclassified, and return that iterate.
        targets: 0: away from the label, wherever to. k > 0: every restart is k runs, each towards one of the k classes
            most likely at the image but the label, at most all of them; a run attacks only what the earlier ones left.
            Whatever the target, misclassified as anything is success.
        schedule: of the step size, see `PGD.step_size`.
        centroids: (C, C) float64, for the loss `cmic`: the outputs' means by class, see `losses.class_centroids`.

    Returns:
        (N, C, H, W) images inside ball and box, detached. `torch.inference_mode` is left meanwhile.

    Raises:
        ValueError: a parameter out of range, images outside [0, 1], labels that are not such, `cmic` without centroids,
            `dlr` with fewer than three classes (four with targets), or weights made under `torch.inference_mode`.
    """
    threat = Threat(cast(Norm, norm), eps)
    parameters: dict[str, Any] = {"norm": norm, "eps": [eps], "alpha": alpha, "steps": steps, "restarts": restarts}
    parameters |= {"targets": targets, "schedule": schedule, "loss": loss, "early_stop": early_stop}
    attack = PGD.model_construct(name="PGD", **parameters)
    _check(images, labels, threat, attack, alpha)
    noise = (lambda _: random_perturbations(threat, images.shape).to(images)) if random_start else None
    # torchattacks and most others average the loss over the batch. Signs survive that; the last bit of the gradient
    # does not, hence the same factor here.
    return pgd_search(model, images, labels, attack, noise, 1 / max(1, len(images)), centroids)


def _check(images: Tensor, labels: Tensor, threat: Threat, attack: PGD, alpha: float) -> None:
    if len(images) > 0 and not (float(images.min()) >= 0 and float(images.max()) <= 1):
        raise ValueError("images should be in [0, 1]")
    check_threat(threat)
    if attack.steps < 1 or attack.restarts < 1:
        raise ValueError(f"steps and restarts should be at least 1, not {attack.steps} and {attack.restarts}")
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha should be at least 0 and finite, not {alpha}")
    if attack.loss not in LOSSES:
        raise ValueError(f"loss should be one of {', '.join(LOSSES)}, not {attack.loss!r}")
    if attack.targets < 0:
        raise ValueError(f"targets should be at least 0, not {attack.targets}")
    if attack.schedule not in get_args(Schedule):
        raise ValueError(f"schedule should be one of {', '.join(get_args(Schedule))}, not {attack.schedule!r}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels should be ({len(images)},) integers, one for each image, not {tuple(labels.shape)}")


def pgd_search(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    search: PGD,
    noise: DrawNoise | None,
    weight: float = 1.0,
    centroids: Tensor | None = None,
    raised: AttackLoss | None = None,
) -> Tensor:
    """`pgd` with explicit random starts (None: start at the images) and weight of each example's loss.

    `search` is at one threat, and takes its starts from `noise` alone. Runs are counted through: run k of restart r, of
    t targets each, starts from `noise(r * t + k)`. `raised` stands in the place of the loss that `search` names.
    """
    images = images.detach()
    loss = raised or make_loss(search.loss, centroids)

    def one_run(number: int, active: Tensor, targets: Tensor | None) -> tuple[Tensor, None]:
        starts = (images if noise is None else (images + noise(number)).clamp(0, 1))[active]
        ascent = partial(loss_and_gradient, model, loss=loss, weight=weight)
        return _pgd_run(search, images[active], labels[active], targets, starts, ascent), None

    return run_in_turn(model, images, labels, one_run, targets=search.targets, restarts=search.restarts)


def run_in_turn(
    model: nn.Module, images: Tensor, labels: Tensor, one_run: OneRun, *, targets: int = 0, restarts: int = 1
) -> Tensor:
    """What run after run returns, each on the examples (N, C, H, W) that the earlier ones left.

    A restart is one run, or with k > 0 `targets` one towards each of the k likeliest classes at the image but the
    label, at most all of them.
    """
    result = images.detach().clone()
    if len(images) == 0:
        return result
    classes: Tensor | None = None
    if targets > 0:
        with torch.no_grad():
            classes = top_other_classes(model(images), labels, targets)
    runs = restarts if classes is None else restarts * classes.shape[1]
    active = torch.arange(len(images), device=images.device)
    for number in range(runs):
        towards = None if classes is None else classes[active, number % classes.shape[1]]
        points, broken = one_run(number, active, towards)
        result[active] = points
        if number + 1 == runs:
            break
        active = active[~(misclassified(model, points, labels[active]) if broken is None else broken)]
        if len(active) == 0:
            break
    return result


def _pgd_run(
    search: PGD, images: Tensor, labels: Tensor, targets: Tensor | None, starts: Tensor, ascent: Ascent
) -> Tensor:
    """One run from `starts`: the last points, or the first misclassified ones, (N, C, H, W)."""
    threat = search.threat
    result, current = starts.clone(), starts
    active = torch.arange(len(images), device=images.device)
    for step in range(search.steps):
        gradient, _, broken = ascent(current, labels, targets)
        if search.early_stop and bool(broken.any()):
            result[active[broken]] = current[broken]
            left = ~broken
            active, images, labels, current, gradient = (x[left] for x in (active, images, labels, current, gradient))
            targets = None if targets is None else targets[left]
            if len(active) == 0:
                return result
        current = project(threat, images, current + search.step_size(step) * steepest_ascent(gradient, threat.norm))
    result[active] = current
    return result


class LossGradient(NamedTuple):
    """What one pass forward and one back say of images (N, C, H, W).

    Attributes:
        gradient: (N, C, H, W) of the loss; 0 where it is not finite.
        losses: (N,).
        misclassified: (N,) truth values.
    """

    gradient: Tensor
    losses: Tensor
    misclassified: Tensor


def loss_and_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor | None, loss: AttackLoss, weight: float = 1.0
) -> LossGradient:
    """Loss, gradient and errors at images (N, C, H, W), with labels and targets (N,).

    The gradient is that of `weight` times the loss; steps do not depend on the factor but for rounding. Of an
    `Expectation` losses and gradients are means over its draws, and errors those of the mean logits.
    """
    network, samples = (model.model, model.samples) if isinstance(model, Expectation) else (model, 1)
    gradient, losses, logits = _one_draw(network, images, labels, targets, loss, weight)
    for _ in range(samples - 1):
        draw = _one_draw(network, images, labels, targets, loss, weight)
        gradient, losses, logits = (total + each for total, each in zip((gradient, losses, logits), draw, strict=True))
    if samples > 1:
        gradient, losses = gradient / samples, losses / samples
    return LossGradient(gradient, losses, logits.argmax(1) != labels)


def _one_draw(
    model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor | None, loss: AttackLoss, weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient (N, C, H, W), losses (N,) and logits (N, classes) of one pass."""
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf)
        losses = loss(logits, labels, targets)
        (gradient,) = torch.autograd.grad(losses, leaf, grad_outputs=torch.full_like(losses, weight))
    # One NaN would otherwise turn an image to NaN; 0 leaves that pixel where it is for this step.
    return gradient.nan_to_num(0.0, 0.0, 0.0), losses.detach(), logits.detach()


def steepest_ascent(gradient: Tensor, norm: str) -> Tensor:
    """The unit step of steepest ascent; zero where the gradient is zero."""
    return gradient.sign() if norm == "linf" else normalized(gradient, norm)
