"""Random points: where they lie, and which of them is returned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustbench_cmic.attacks.noise import random_points
from robustbench_cmic.attacks.threat import violations
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import convolutional, examples, predicted
from tests.attacks.oracles import inner_images
from tests.attacks.test_apgd import Recorder, drawn


def asked(norm: Norm, samples: int) -> tuple[Tensor, Tensor]:
    """All points tried of 40 images that no point of the ball breaks: (samples, 40, 64) minus the images."""
    model = Recorder(convolutional())
    images = inner_images(80)
    with torch.no_grad():
        leads = model.model(images).topk(2, dim=1).values
    images = images[(leads[:, 0] - leads[:, 1]).argsort(descending=True)[:40]]
    labels = predicted(model.model, images)
    threat = Threat(norm, 0.004)
    found = random_points(model, images, labels, threat, drawn(threat, images), samples)
    assert torch.equal(found, model.asked[-1]), "the last point tried"
    return torch.stack([each - images for each in model.asked]).flatten(2), found


def test_linf_points_fill_the_cube_and_lie_at_its_corners_in_turn() -> None:
    deltas, _ = asked("linf", 20)
    assert len(deltas) == 20
    cube, corners = deltas[::2], deltas[1::2]
    torch.testing.assert_close(corners.abs(), torch.full_like(corners, 0.004), rtol=1e-3, atol=0)
    assert abs(float((corners > 0).float().mean()) - 0.5) < 0.02
    assert abs(float(cube.abs().mean()) - 0.002) < 1e-4
    assert float(cube.abs().max()) <= 0.004 + 1e-7


def test_l2_points_lie_on_the_sphere() -> None:
    deltas, _ = asked("l2", 20)
    lengths = deltas.double().norm(dim=2)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.004), rtol=1e-3, atol=0)
    assert float(deltas.sign().mean((0, 1)).abs().max()) < 0.15


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 1.0)])
def test_the_first_misclassified_point_is_returned(norm: Norm, eps: float) -> None:
    model = Recorder(convolutional())
    images, _ = examples(60)
    labels = predicted(model.model, images)
    threat = Threat(norm, eps)
    noise = drawn(threat, images)
    found = random_points(model, images, labels, threat, noise, 30)
    broken = predicted(model.model, found) != labels
    assert 5 < int(broken.sum()) < 55
    # Asked of an example: everything up to the point that is returned.
    assert len(model.asked[-1]) >= int((~broken).sum())
    sizes = [len(each) for each in model.asked]
    assert sizes == sorted(sizes, reverse=True)
    fewer = random_points(model, images, labels, threat, noise, 10)
    early = predicted(model.model, fewer) != labels
    assert torch.equal(fewer[early], found[early])
    assert not bool(violations(threat, images, found, tolerance=1e-6).any())
    part = torch.arange(0, 60, 2)
    alone = random_points(model, images[part], labels[part], threat, lambda k: noise(k)[part], 30)
    torch.testing.assert_close(alone, found[part])


def test_samples_out_of_range_are_refused() -> None:
    images, labels = examples(2)
    threat = Threat("linf", 0.1)
    with pytest.raises(ValueError, match="samples should be at least 1"):
        random_points(convolutional(), images, labels, threat, drawn(threat, images), 0)
