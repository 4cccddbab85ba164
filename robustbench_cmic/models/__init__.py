"""Architectures by name. This module does not import torch, so that suites can be checked without it."""

from __future__ import annotations

ARCHITECTURES = {
    "small_cnn": "robustbench_cmic.models.architectures:small_cnn",
    "small_resnet": "robustbench_cmic.models.architectures:small_resnet",
    "mlp": "robustbench_cmic.models.architectures:mlp",
}
"""Name -> the function that builds it from the shape of an image and the number of classes."""
