"""Images on their way to the device: small sets live there, large ones are streamed by worker processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustbench_cmic.data.base import Images, StreamedImages
from robustbench_cmic.records.locks import exit_with_parent


def unit(images: Tensor) -> Tensor:
    """Images in [0, 1] as float32: 0 ... 255 for uint8, floats as they are."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


class Examples:
    """Some images of a split by their indices (M,), brought to the device slice by slice.

    `examples[start:stop]` is a tensor (stop - start, C, H, W) of float32 in [0, 1].
    """

    def __init__(self, images: Images, indices: npt.NDArray[np.int64], device: str) -> None:
        self.indices = indices
        self._images = images
        self._device = device

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: slice) -> Tensor:
        return self._bring(self.indices[rows])

    def at(self, positions: Sequence[int]) -> Tensor:
        """The images at some positions among the chosen ones."""
        return self._bring(self.indices[np.asarray(positions, np.int64)])

    def _bring(self, indices: npt.NDArray[np.int64]) -> Tensor:
        return unit(torch.from_numpy(self._images[indices]).to(self._device))


class _Rows(Dataset[npt.NDArray[np.generic]]):
    """A split as a DataLoader sees it: whole batches at once."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitems__(self, indices: list[int]) -> npt.NDArray[np.generic]:
        return self.images[np.asarray(indices, np.int64)]


def _exit_with_parent(_: int) -> None:
    exit_with_parent()


class Feed:
    """Gives the images of a split batch by batch, as they are stored (uint8 or float32), on the device.

    Args:
        images: (N, C, H, W). An array lives on the device, where it takes less than half of its memory; files are
            read ahead by worker processes.
        device: where batches go.
        workers: processes that read ahead.
    """

    def __init__(self, images: Images, device: torch.device, workers: int) -> None:
        self._images = images
        self._device = device
        self._workers = workers
        self._resident: Tensor | None = None
        if isinstance(images, np.ndarray) and images.nbytes <= self._room():
            self._resident = torch.from_numpy(images).to(self._device)

    def _room(self) -> float:
        if self._device.type != "cuda":
            return float("inf")  # the array is in this memory already
        return torch.cuda.get_device_properties(self._device).total_memory / 2

    @property
    def indices_on(self) -> torch.device:
        """Where `batches` wants its indices."""
        return self._device if self._resident is not None else torch.device("cpu")

    def batches(self, indices: Iterable[Tensor]) -> Generator[Tensor]:
        """A batch for each tensor of indices (B,), in order; `indices` may be consumed ahead."""
        if self._resident is not None:
            for index in indices:
                yield self._resident.index_select(0, index)
            return
        ahead: dict[str, Any] = {}
        if isinstance(self._images, StreamedImages):  # an array would be copied whole into every process
            # Forked children would inherit threads and the GPU; these are started once for a whole training.
            ahead = {"num_workers": self._workers, "prefetch_factor": 4, "multiprocessing_context": "spawn"}
        loader: DataLoader[Tensor] = DataLoader(
            _Rows(self._images),  # type: ignore[arg-type]
            batch_sampler=(index.tolist() for index in indices),
            collate_fn=torch.from_numpy,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_exit_with_parent,
            generator=torch.Generator(),  # else it draws from the global one, which layers draw from
            **ahead,
        )
        for batch in loader:
            yield batch.to(self._device, non_blocking=True)
