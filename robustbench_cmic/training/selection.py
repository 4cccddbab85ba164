"""Which epoch's weights a training keeps: accuracy on training images that it does not learn from, or before a fall."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustbench_cmic.attacks.model import frozen
from robustbench_cmic.data.base import Split
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.objectives import Adversary
from robustbench_cmic.training.adversary import find_adversarial
from robustbench_cmic.training.checkpoint import TrainingRun


class HeldOut:
    """Held-out images, on which a model is judged between epochs, in float32 as all verdicts are.

    Args:
        images: M of them, as they are: no augmentation.
        labels: (M,) on the device of the model.
        batch_size: images judged at once.
        seed: decides where an adversary starts: at the same points after every epoch, so that only weights differ.
    """

    def __init__(self, images: Examples, labels: Tensor, batch_size: int, seed: int) -> None:
        self._images = images
        self._labels = labels
        self._batch_size = batch_size
        self._seed = seed

    def accuracy(self, model: nn.Module, adversary: Adversary | None) -> float:
        """The fraction that the model classifies correctly in eval mode, of images that the adversary has changed.

        Without an adversary, of clean images. The model is left as it was, and so are the global generators.
        """
        correct = 0
        # Layers that draw random numbers in eval mode, too, get the same ones in a resumed training.
        with seeded(derive_seed("held out", self._seed)):
            for start in range(0, len(self._labels), self._batch_size):
                rows = slice(start, start + self._batch_size)
                images, labels = self._images[rows], self._labels[rows]
                if adversary is not None:
                    begin = derive_seed("held out", self._seed, start)
                    images = find_adversarial(adversary, model, images, labels, begin)
                with frozen(model), torch.no_grad():
                    correct += int((model(images).argmax(1) == labels).sum())
        return correct / len(self._labels)


class Judges:
    """What is measured of a training between its epochs, and decides which weights it keeps.

    Args:
        training: whose curve the numbers enter.
        split: all of its images.
        held: rows that are held out, maybe none: judged under the adversary's `judge`.
        batch: rows of a batch that is learned from, the same in each epoch: for the check for catastrophic overfitting.
        batch_size: images judged at once.
        seed: of the training.
    """

    def __init__(
        self,
        training: TrainingRun,
        split: Split,
        held: NDArray[np.int64],
        batch: NDArray[np.int64],
        batch_size: int,
        seed: int,
    ) -> None:
        device = next(training.model.parameters()).device

        def judged(rows: NDArray[np.int64]) -> HeldOut:
            labels = torch.from_numpy(split.labels[rows]).to(device)
            return HeldOut(Examples(split.images, rows, str(device)), labels, batch_size, seed)

        adversary = training.adversary
        self._training = training
        self._judge = None if adversary is None else adversary.judge
        self._held_out = judged(held) if len(held) > 0 else None
        self._check = None if adversary is None else adversary.overfitting_check
        self._batch = None if self._check is None else judged(batch)

    def note(self) -> None:
        """Enter what the latest epoch's model is worth."""
        if self._held_out is not None:
            self._training.note_held_out(self._held_out.accuracy(self._training.model, self._judge))
        if self._batch is not None:
            self._training.note_checked(self._batch.accuracy(self._training.model, self._check))
