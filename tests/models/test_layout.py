"""The layout of a model: the fast one where it works, and never where code of others would meet it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.models.build import Normalize
from robustbench_cmic.models.layout import lay_out, row_major

SHAPE = (3, 6, 4)


class Flat(nn.Module):
    """A convolution and a flattening, by `view` or by `flatten`; remembers the strides of what came in."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.layer = nn.Linear(96, 5)
        self.view = view
        self.seen: tuple[int, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images.stride()
        features = self.convolution(images)
        logits: Tensor = self.layer(features.view(len(images), -1) if self.view else features.flatten(1))
        return logits


def classifier(view: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Normalize([0.5] * 3, [0.5] * 3), Flat(view))


@pytest.mark.parametrize("architecture", ["resnet18", "net:build"])
@pytest.mark.parametrize("view", [True, False])
def test_a_model_runs_whatever_it_does_with_its_features(architecture: str, view: bool) -> None:
    model = copy.deepcopy(lay_out(classifier(view), architecture, SHAPE))
    assert model.training
    images = torch.rand(3, 6, 4, 3).permute(0, 3, 1, 2).requires_grad_()
    torch.testing.assert_close(model(images), classifier(False)(images))
    model(images).sum().backward()
    flat = model[1]
    assert isinstance(flat, Flat)
    fast = architecture == "resnet18" and not view
    assert flat.convolution.weight.is_contiguous(memory_format=torch.channels_last) == fast
    assert (flat.seen == torch.empty(3, *SHAPE).stride()) == (not fast)
    assert model.state_dict().keys() == classifier(view).state_dict().keys()


def test_row_major_looks_at_strides_and_copies_only_what_it_must() -> None:
    grey = torch.rand(2, 6, 4, 1).permute(0, 3, 1, 2).contiguous()
    for images in (grey, torch.rand(2, 3, 6, 4), torch.rand(2, 6, 4, 3).permute(0, 3, 1, 2), torch.rand(0, 3, 2, 2)):
        plain = row_major(images)
        assert torch.equal(plain, images)
        assert plain.stride() == torch.empty(images.shape).stride()
        assert (plain.data_ptr() == images.data_ptr()) == images.is_contiguous()
