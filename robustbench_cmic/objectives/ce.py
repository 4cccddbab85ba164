"""Cross entropy, the baseline."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from robustbench_cmic.objectives.base import Objective


class CrossEntropy(Objective):
    """Mean over the batch of -log softmax(z)_y, in nats."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The one term `ce`, which is the `total`."""
        loss = functional.cross_entropy(logits, labels)
        return {"total": loss, "ce": loss}
