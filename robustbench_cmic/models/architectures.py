"""The networks: functions from an image's shape (C, H, W) and a number of classes to a module that returns logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


def small_cnn(shape: Shape, classes: int, width: int = 16) -> nn.Module:
    """Three 3x3 convolutions with batch normalisation, average pooling, one linear layer.

    They have `width`, twice and four times as many channels.
    """
    channels = shape[0]
    return nn.Sequential(
        *_convolution(channels, width, stride=1),
        *_convolution(width, 2 * width, stride=2),
        *_convolution(2 * width, 4 * width, stride=1),
        _quarters((shape[1] + 1) // 2, (shape[2] + 1) // 2),
        nn.Flatten(),
        nn.Linear(4 * 4 * width, classes),
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


def small_resnet(shape: Shape, classes: int, width: int = 16, depth: int = 1) -> nn.Module:
    """A residual network of eight layers for a CPU (He et al. 2016, section 4.2, with one block a stage).

    The first convolution has stride 2, then come three stages of `depth` blocks with `width`, twice and four times as
    many channels, pooling and one linear layer: with 16 and 1 84,000 weights, 3 million multiplications for a 32x32
    image.
    """
    return nn.Sequential(
        *_convolution(shape[0], width, stride=2),
        *_stage(width, width, 1, depth),
        *_stage(width, 2 * width, 2, depth),
        *_stage(2 * width, 4 * width, 2, depth),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def _stage(inputs: int, outputs: int, stride: int, depth: int) -> list[nn.Module]:
    """Blocks, the first of which changes the shape."""
    return [_Residual(inputs, outputs, stride), *(_Residual(outputs, outputs, 1) for _ in range(depth - 1))]


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


def mlp(shape: Shape, classes: int, width: int = 256, depth: int = 2) -> nn.Module:
    """`depth` hidden layers of `width` rectified units."""
    sizes = [math.prod(shape), *[width] * depth]
    hidden = [layer for i in range(depth) for layer in (nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, classes))


def lenet(shape: Shape, classes: int, width: int = 32) -> nn.Module:
    """Two 5x5 convolutions with max pooling, a hidden layer, one linear layer.

    The convolutions have `width` and twice as many channels, the hidden layer has 32 times as many units.

    With a width of 32 it is the MNIST network of Madry et al. 2018 (section 4; their `mnist_challenge`), initialised as
    torch does: 3,274,634 weights for an image of 28x28x1 and 10 classes. Max pooling leaves out a last odd row or
    column.

    Raises:
        ValueError: images of fewer than 4 pixels a side, of which two poolings leave nothing.
    """
    channels, rows, columns = shape
    if min(rows, columns) < 4:
        raise ValueError("lenet needs images of at least 4x4 pixels")
    return nn.Sequential(
        *_pooled_convolution(channels, width),
        *_pooled_convolution(width, 2 * width),
        nn.Flatten(),
        nn.Linear(2 * width * (rows // 4) * (columns // 4), 32 * width),
        nn.ReLU(),
        nn.Linear(32 * width, classes),
    )


def _pooled_convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
