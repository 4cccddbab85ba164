"""Architectures of this package in several widths and depths: their numbers of weights, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from robustbench_cmic.models.build import build_model
from robustbench_cmic.suite.models import model_of

MOMENTS = ([0.5], [0.5])


def weights(architecture: str, **size: int) -> int:
    declared: dict[str, Any] = {"architecture": architecture, **size}
    model = build_model(model_of(declared), (1, 8, 8), 10, MOMENTS, seed=0)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("architecture", "usual", "other", "expected"),
    [
        # Linear layers with biases.
        ("mlp", {"width": 256, "depth": 2}, {"width": 8, "depth": 3}, 65 * 8 + 2 * 9 * 8 + 9 * 10),
        # 3x3 convolutions without biases, two weights a channel of their normalisation, four quarters into the last.
        ("small_cnn", {"width": 16}, {"width": 4}, 9 * (4 + 4 * 8 + 8 * 16) + 2 * (4 + 8 + 16) + 65 * 10),
        # 5x5 convolutions, then 2x2 places of 8 channels into 128 units.
        ("lenet", {"width": 32}, {"width": 4}, 26 * 4 + (25 * 4 + 1) * 8 + 33 * 128 + 129 * 10),
    ],
)
def test_sizes_by_hand_and_the_usual_ones(
    architecture: str, usual: dict[str, int], other: dict[str, int], expected: int
) -> None:
    assert weights(architecture, **other) == expected
    assert weights(architecture) == weights(architecture, **usual)


def test_a_deeper_residual_network_has_blocks_of_equal_shape_more() -> None:
    block = {channels: 2 * (9 * channels**2 + 2 * channels) for channels in (4, 8, 16)}
    assert weights("small_resnet", width=4, depth=3) == weights("small_resnet", width=4) + 2 * sum(block.values())
    assert weights("small_resnet") == weights("small_resnet", width=16, depth=1)
