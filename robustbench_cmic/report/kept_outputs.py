"""Information in eval mode over a training, from the outputs that its record keeps of some test images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from robustbench_cmic.records.packing import unpack_logits
from robustbench_cmic.records.schema import KeptOutputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class KeptEpoch(NamedTuple):
    """What a network's outputs say after an epoch; see `Information` for the measures.

    Attributes:
        cmi: in nats.
        separation: in nats.
        ncmi: None where the separation is 0.
        accuracy: in [0, 1].
    """

    epoch: int
    cmi: float
    separation: float
    ncmi: float | None
    accuracy: float


def kept_logits(outputs: KeptOutputs) -> NDArray[np.float64]:
    """(E, N, K): of N images the logits of K classes, after E epochs."""
    return unpack_logits(outputs.logits, (len(outputs.epochs), sum(outputs.counts), len(outputs.classes)))


def softmax_rows(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of logits, both (N, C)."""
    import numpy as np

    return np.asarray(np.exp(_log_softmax(logits)))


def kept_epochs(outputs: KeptOutputs) -> list[KeptEpoch]:
    """The measures after every epoch that is kept; none where only some of the classes are.

    Kept classes are evenly spaced from the first to the last: without a gap they are all.
    """
    import numpy as np

    if outputs.classes != list(range(len(outputs.classes))):
        return []
    labels = np.repeat(np.arange(len(outputs.counts)), outputs.counts)
    return [
        _measured(epoch, logits, labels) for epoch, logits in zip(outputs.epochs, kept_logits(outputs), strict=True)
    ]


def _measured(epoch: int, logits: NDArray[np.float64], labels: NDArray[np.int64]) -> KeptEpoch:
    """CMI and separation of `robustbench_cmic.information`, without torch; all sums by class as there."""
    import numpy as np

    log_p = _log_softmax(logits)
    p = np.exp(log_p)
    finite = np.where(p > 0, log_p, 0.0)
    own = [labels == k for k in range(logits.shape[1])]
    sums, log_sums = (np.array([values[each].sum(0) for each in own]) for values in (p, log_p))  # (C, C): of a class
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 log 0 = 0
        log_q = np.where(sums > 0, np.log(sums / sums.sum(1, keepdims=True)), 0.0)
        cross = np.where(sums[:, None] > 0, sums[:, None] * log_sums[None], 0.0).sum(2)  # of a class with a class
    cmi = max(0.0, float((p * finite).sum() - (sums * log_q).sum())) / len(labels)
    separation = float(-(cross.sum() - np.trace(cross))) / len(labels) ** 2
    return KeptEpoch(
        epoch=epoch,
        cmi=cmi,
        separation=separation,
        ncmi=cmi / separation if 0 < separation < math.inf else None,
        accuracy=float((logits.argmax(1) == labels).mean()),
    )


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
