"""The networks: functions from an image's shape (C, H, W) and a number of classes to a module that returns logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


def small_cnn(shape: Shape, classes: int) -> nn.Module:
    """Three 3x3 convolutions with batch normalisation (16, 32, 64 channels), average pooling, one linear layer."""
    channels = shape[0]
    return nn.Sequential(
        *_convolution(channels, 16, stride=1),
        *_convolution(16, 32, stride=2),
        *_convolution(32, 64, stride=1),
        _quarters((shape[1] + 1) // 2, (shape[2] + 1) // 2),
        nn.Flatten(),
        nn.Linear(4 * 64, classes),
    )


def _quarters(height: int, width: int) -> nn.Module:
    """The mean over each quarter of the image. Where quarters are equal, by the layer with a deterministic gradient."""
    if height % 2 == 0 and width % 2 == 0:
        return nn.AvgPool2d((height // 2, width // 2))
    return nn.AdaptiveAvgPool2d(2)


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    # The bias would be cancelled by the normalisation that follows.
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def small_resnet(shape: Shape, classes: int) -> nn.Module:
    """A residual network of eight layers for a CPU (He et al. 2016, section 4.2, with one block a stage).

    The first convolution has stride 2, then come blocks of 16, 32 and 64 channels, pooling and one linear layer: 84,000
    weights, 3 million multiplications for a 32x32 image.
    """
    return nn.Sequential(
        *_convolution(shape[0], 16, stride=2),
        _Residual(16, 16, stride=1),
        _Residual(16, 32, stride=2),
        _Residual(32, 64, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


class _Residual(nn.Module):
    """Two 3x3 convolutions around which the input is led, through a 1x1 convolution where its shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        second = _convolution(outputs, outputs, stride=1)[:2]
        self.branch = nn.Sequential(*_convolution(inputs, outputs, stride), *second)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return torch.relu(self.branch(images) + self.shortcut(images))


def mlp(shape: Shape, classes: int) -> nn.Module:
    """Two hidden layers of 256 rectified units."""
    pixels = math.prod(shape)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes)
    )


def lenet(shape: Shape, classes: int) -> nn.Module:
    """Two 5x5 convolutions of 32 and 64 channels with max pooling, a hidden layer of 1,024 units, one linear layer.

    The MNIST network of Madry et al. 2018 (section 4; their `mnist_challenge`), initialised as torch does: 3,274,634
    weights for an image of 28x28x1 and 10 classes. Max pooling leaves out a last odd row or column.

    Raises:
        ValueError: images of fewer than 4 pixels a side, of which two poolings leave nothing.
    """
    channels, height, width = shape
    if min(height, width) < 4:
        raise ValueError("lenet needs images of at least 4x4 pixels")
    return nn.Sequential(
        *_pooled_convolution(channels, 32),
        *_pooled_convolution(32, 64),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 1024),
        nn.ReLU(),
        nn.Linear(1024, classes),
    )


def _pooled_convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
