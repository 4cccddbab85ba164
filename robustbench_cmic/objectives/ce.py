"""Cross entropy, the baseline."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from robustbench_cmic.objectives.base import Objective, check_arguments
from robustbench_cmic.suite.objectives.logits import CrossEntropyObjective


class CrossEntropy(Objective):
    """Mean over the batch of -log softmax(z)_y, in nats.

    Args:
        classes: C.
        label_smoothing: share of the target that is spread over all classes, in [0, 1].

    Raises:
        ValueError: a value that no suite may give.
    """

    def __init__(self, classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_arguments(CrossEntropyObjective, classes, {"name": "ce", "label_smoothing": label_smoothing})
        self.classes = classes
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The one term `ce`, which is the `total`."""
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return {"total": loss, "ce": loss}
