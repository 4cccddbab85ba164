"""A training step as one CUDA graph: on small batches, launching kernels one by one takes longer than running them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

StepFunction = Callable[..., tuple[Tensor, ...]]

_WARM_UP = 3
"""Steps done the ordinary way first, so that optimiser states, handles and workspaces exist before the capture."""


class GraphedStep:
    """Calls a step; after a few calls, records it once and replays the recording.

    The step must consist of work on the device alone, must read its inputs from its arguments, and must leave
    everything that lasts in tensors that it changes in place. Calls with other shapes (the last batch of an epoch) are
    carried out the ordinary way.

    Args:
        step: takes and returns tensors on one CUDA device.

    The tensors that a call returns are overwritten by the next one.
    """

    def __init__(self, step: StepFunction) -> None:
        self._step = step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Tensor, ...] = ()
        self._calls = 0
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The step's outputs for these inputs."""
        if self._calls == 0:
            self._inputs = [value.clone() for value in inputs]
        if any(value.shape != own.shape for value, own in zip(inputs, self._inputs, strict=True)):
            return self._step(*inputs)
        self._calls += 1
        if self._calls <= _WARM_UP:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                outputs = self._step(*inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
            return outputs
        for own, value in zip(self._inputs, inputs, strict=True):
            own.copy_(value)
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, which pin memory for streamed images, may go on meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outputs = self._step(*self._inputs)
        self._graph.replay()
        return self._outputs
