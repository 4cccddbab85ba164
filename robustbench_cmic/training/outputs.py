"""Logits of a few test images after some of the epochs, which a training's record keeps for pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from robustbench_cmic.attacks.model import frozen
from robustbench_cmic.data.base import Data
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.data.subset import choose, subset_sha256
from robustbench_cmic.records.packing import pack_logits
from robustbench_cmic.records.schema import KeptOutputs
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.training import DeclaredOutputs
from robustbench_cmic.training.checkpoint import TrainingRun

_AT_ONCE = 256
_LOWEST = float(np.finfo(np.float16).min)


class OutputKeeper:
    """Notes what a model answers between epochs; the model and the global generators are left as they were.

    Args:
        declared: how many images of how many classes, and after how many epochs.
        data: its test split has the images.
        epochs: of the whole training.
        device: of the model.
    """

    def __init__(self, declared: DeclaredOutputs, data: Data, epochs: int, device: str) -> None:
        self.epochs = spaced(declared.epochs, 1, epochs)
        self.classes = spaced(declared.classes, 0, data.classes - 1)
        labels = data.test.labels
        members = [np.flatnonzero(labels == label) for label in self.classes]
        chosen = [own[choose(labels[own], declared.per_class)] for own in members]
        self._counts = [len(own) for own in chosen]
        self._images = Examples(data.test.images, np.concatenate(chosen), device)
        self._names = [] if data.class_names is None else [data.class_names[label] for label in self.classes]

    def note(self, training: TrainingRun, epoch: int | None = None) -> None:
        """Enter the logits of the model as it is, as those of an epoch; without one, of the latest, if it is asked for.

        They are float16: less the greatest of their example they are finest where the softmax is greatest, and what is
        further below than float16 reaches, -infinity included, is nothing to a softmax.
        """
        if epoch is None:
            epoch = len(training.curve)
            if epoch not in self.epochs:
                return
        model, starts = training.model, range(0, len(self._images), _AT_ONCE)
        with seeded(derive_seed("outputs")), frozen(model), torch.no_grad():
            found = [model(self._images[start : start + _AT_ONCE]).float() for start in starts]
        logits = torch.cat(found)[:, self.classes]
        below = (logits - logits.amax(1, keepdim=True)).nan_to_num(nan=0.0).clamp_min(_LOWEST)
        training.outputs[epoch] = below.half().cpu()

    def record(self, training: TrainingRun) -> KeptOutputs:
        """What a record holds of all that was noted."""
        epochs = sorted(training.outputs)
        noted: list[npt.NDArray[np.float16]] = [training.outputs[epoch].numpy() for epoch in epochs]
        return KeptOutputs(
            classes=self.classes,
            names=self._names,
            counts=self._counts,
            examples_sha256=subset_sha256(self._images.indices),
            epochs=epochs,
            logits=pack_logits(np.stack(noted)) if noted else "",
        )


def spaced(count: int, first: int, last: int) -> list[int]:
    """So many whole numbers, evenly spaced from `first` to `last`, both included; all where there are no more.

    >>> spaced(3, 1, 20)
    [1, 10, 20]
    >>> spaced(5, 0, 2)
    [0, 1, 2]
    """
    count = min(count, last - first + 1)
    return [first + (last - first) * place // max(1, count - 1) for place in range(count)]
