"""The networks: functions from an image's shape (C, H, W) and a number of classes to a module that returns logits."""

from __future__ import annotations

import math

from torch import nn

Shape = tuple[int, int, int]


def small_cnn(shape: Shape, classes: int) -> nn.Module:
    """Three 3x3 convolutions with batch normalisation (16, 32, 64 channels), average pooling, one linear layer."""
    channels = shape[0]
    return nn.Sequential(
        *_convolution(channels, 16, stride=1),
        *_convolution(16, 32, stride=2),
        *_convolution(32, 64, stride=1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 64, classes),
    )


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    # The bias would be cancelled by the normalisation that follows.
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def mlp(shape: Shape, classes: int) -> nn.Module:
    """Two hidden layers of 256 rectified units."""
    pixels = math.prod(shape)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes)
    )
