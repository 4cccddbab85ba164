"""The memory layout of models and images: an optimisation of this package's, and never a matter of others' code.

Convolutions are faster with the channels last in memory, on CPUs and GPUs alike; but there `view` cannot join channels
and pixels. Networks that are known to run with it get it. Code of a user's own, networks and attacks, sees every tensor
laid out as torch makes it, the last dimension first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.models.architectures import Shape
from robustbench_cmic.suite.models import ARCHITECTURES


def row_major(values: Tensor) -> Tensor:
    """The same values with the strides of a new tensor; those that are laid out so already are not copied.

    `contiguous` would leave the strides of images with one channel as they are, which say "channels last" as well.
    """
    return values.flatten().view(values.shape)


def lay_out(model: nn.Sequential, architecture: str, shape: Shape) -> nn.Sequential:
    """The classifier in the layout in which it runs fastest, changed in place; a user's own sees row-major images."""
    if ":" in architecture:
        model[1].register_forward_pre_hook(_row_major_images)
        return model
    model = model.to(memory_format=torch.channels_last)
    if architecture not in ARCHITECTURES and not _runs(model, shape):  # timm's are many
        model = model.to(memory_format=torch.contiguous_format)
        model[1].register_forward_pre_hook(_row_major_images)
    return model


def _row_major_images(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(row_major(value) if isinstance(value, Tensor) else value for value in inputs)


def _runs(model: nn.Sequential, shape: Shape) -> bool:
    """Whether two grey images go through it in its layout, in eval mode."""
    mode, device = model.training, model.get_buffer("0.mean").device
    images = torch.full((2, *shape), 0.5, device=device).to(memory_format=torch.channels_last)
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(images)
    except RuntimeError:
        return False
    finally:
        model.train(mode)
    return True
