"""What a method of robust training and robust CMI add to a step's loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_cmic.objectives.robust import RobustCmi, mart_terms, trades_terms
from robustbench_cmic.seeding import derive_seed
from robustbench_cmic.suite.objectives import Adversary
from robustbench_cmic.training.adversary import find_for_robust_cmi

Terms = dict[str, Tensor]


class RobustAdditions:
    """The terms beside an objective's, and the centroids of robust CMI.

    Every image is given to the network in training mode once for each loss that it enters: clean and changed ones in
    passes of their own, as in the authors' codes, so that running statistics move once in each.

    Args:
        adversary: of the training.
        term: of its robust CMI, if it has one.
        network: as steps see it.
        seed: of the training.
    """

    def __init__(self, adversary: Adversary, term: RobustCmi | None, network: nn.Module, seed: int) -> None:
        self._adversary = adversary
        self._term = term
        self._network = network
        self._seed = seed
        self._second: Tensor | None = None  # detached logits of the step's second adversarial images

    def add(
        self, terms: Terms, logits: Tensor, labels: Tensor, clean: Tensor, found: Tensor, at: tuple[int, int]
    ) -> tuple[Terms, Tensor]:
        """The objective's terms and those of the method, and the logits at what was found.

        Args:
            terms: of the objective.
            logits: that it saw: at clean images where the method learns from them, else at those found.
            labels: (N,).
            clean: images (N, C, H, W).
            found: what the adversary made of them.
            at: epoch and step.
        """
        weight, changed = self._adversary.weight, logits
        if self._adversary.method == "trades" and weight is not None:
            changed = self._network(found)
            terms = _joined(terms, trades_terms(logits, changed, weight))
        elif self._adversary.method == "mart" and weight is not None:
            terms = _joined(terms, mart_terms(self._network(clean), logits, labels, weight))
        if self._term is not None:
            seed = derive_seed("second adversary", self._seed, *at)
            images = find_for_robust_cmi(self._adversary, self._term, self._network, clean, labels, seed)
            second = self._network(images)
            terms = _joined(terms, self._term.added(second, labels))
            self._second = second.detach()
        return terms, changed

    @torch.no_grad()
    def update(self, labels: Tensor) -> None:
        """After the step on the weights: the centroids of robust CMI move."""
        if self._term is not None and self._second is not None:
            self._term.update(self._second, labels)


def _joined(terms: Terms, more: Terms) -> Terms:
    return terms | more | {"total": terms["total"] + more["total"]}
