"""Flags: what they are called, what they mean, where the rule behind each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rule:
    """One rule of the audit.

    Attributes:
        meaning: a sentence for people; what a raised flag says.
        source: where the rule comes from.
    """

    meaning: str
    source: str


@dataclass(frozen=True)
class Flag:
    """A raised flag.

    Attributes:
        name: a key of `RULES`.
        cells: ids of the attack cells whose numbers it is about.
        scope: `rows`: only the numbers of these attacks; `balls`: the worst cases of their balls, too; `model`: it is
            about the model whatever the attack, and so about every worst case.
        evidence: the numbers that raised it.
    """

    name: str
    cells: frozenset[str]
    scope: Literal["rows", "balls", "model"]
    evidence: str


_ATHALYE = "Athalye, Carlini & Wagner 2018, section 3.1"
_CARLINI = "Carlini et al. 2019, On Evaluating Adversarial Robustness"

RULES: dict[str, Rule] = {
    "random-forward": Rule(
        "The same image gives other outputs each time: attacks that do not average over the randomness aim at noise.",
        f"{_ATHALYE} (stochastic gradients)",
    ),
    "batch-dependent": Rule(
        "An image's output depends on the other images of its batch: there is no classifier of one image to attack.",
        f"{_CARLINI}, section 5",
    ),
    "training-mode": Rule(
        "Layers stay in training mode when the model is told to evaluate: what is attacked is not what is deployed.",
        f"{_CARLINI}, section 5",
    ),
    "probabilities": Rule(
        "The model returns probabilities, not logits: a loss takes their softmax again, and its gradient fades.",
        "Carlini & Wagner 2017, section VIII-A",
    ),
    "bounded-outputs": Rule(
        "Many images share one and the same largest output: a squashing function has flattened the outputs, "
        "and their gradient.",
        f"{_ATHALYE} (vanishing gradients)",
    ),
    "saturated": Rule(
        "The softmax of many images is exactly 1 in float32: cross entropy has lost the part of its gradient that "
        "belongs to the true class, and attacks on it step in a wrong direction.",
        "Carlini & Wagner 2016, Defensive Distillation is Not Robust; Yu & Xu 2023",
    ),
    "zero-gradients": Rule(
        "The loss has no gradient in the image: no attack that follows it can move.",
        f"{_ATHALYE} (shattered and vanishing gradients)",
    ),
    "misleading-gradients": Rule(
        "A small step along the gradient of the margin does not raise the margin: the gradient is not that of the "
        "model.",
        f"{_ATHALYE} (shattered gradients); {_CARLINI}, section 4.4",
    ),
    "one-step-beats-iterated": Rule(
        "One step of an attack breaks more than many steps do: the iterated attack is misled.",
        f"{_ATHALYE} (one-step attacks perform better than iterative attacks)",
    ),
    "black-box-beats-white-box": Rule(
        "Noise, another model's examples, random search or an attack of unknown kind break what attacks with full "
        "knowledge leave: the gradients hide what is there.",
        f"{_ATHALYE} (black-box attacks are better than white-box attacks)",
    ),
    "margin-beats-cross-entropy": Rule(
        "The same attack on the margin between logits breaks clearly more than on cross entropy: the number is one of "
        "the loss, not of the model.",
        "Gowal et al. 2019; Croce & Hein 2020, section 4",
    ),
    "not-monotone": Rule(
        "A larger ball holds every smaller one, yet the attack breaks fewer examples in it.",
        f"{_CARLINI}, section 4.6",
    ),
    "survives-everything": Rule(
        "Examples survive in a ball that holds every image there is, where each can be turned into any other.",
        f"{_ATHALYE} (unbounded attacks do not reach 100 % success)",
    ),
    "not-converged": Rule(
        "Twice the steps and a further start break clearly more: the attack was stopped too early.",
        f"{_CARLINI}, section 4.7",
    ),
    "active-test-failed": Rule(
        "The model was altered so that an adversarial example certainly is in the ball; the attack did not find it.",
        "Zimmermann et al. 2022",
    ),
    "active-test-inconclusive": Rule(
        "Around too few images an adversarial example could be hidden that chance does not find: nobody knows whether "
        "the attack finds what is there.",
        "Zimmermann et al. 2022, on the success rate of random points",
    ),
    "invalid-examples": Rule(
        "The attack left ball or box; its examples were projected back, and may be weaker than what it found.",
        f"{_CARLINI}, section 4.8",
    ),
    "attacked-as-trained": Rule(
        "The attack is the one that the model was trained against: the number shows training, not robustness.",
        f"{_CARLINI}, section 3.2",
    ),
    "beaten-by-reference": Rule(
        "The audit's own attack, the same for all models, breaks clearly more than all attacks of the suite together.",
        "Croce & Hein 2020: a worst case over weak attacks is none",
    ),
    "few-examples": Rule(
        "Fewer than 100 examples: an interval of ten points to either side at best.",
        f"{_CARLINI}, section 4.9",
    ),
    "no-strong-attack": Rule(
        "No unflagged attack with many steps on another loss than cross entropy was run in this ball: the worst case "
        "is one of weak attacks.",
        "Croce & Hein 2020",
    ),
    "audit-failed": Rule("The audit of the model, or a part of it, crashed: a crash proves nothing.", "this project"),
    "not-audited": Rule("The audit of the model has not been run.", "this project"),
}
