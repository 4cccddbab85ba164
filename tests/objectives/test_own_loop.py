"""docs/own_loop.md and docs/extending.md: their loops train with every objective of the package."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from robustbench_cmic.objectives import build_objective
from robustbench_cmic.suite.objectives import OBJECTIVES, objective_of
from tests.test_docs_python import snippets


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page defines: its data, and the function `fit`."""
    text = snippets("own_loop.md")
    names: dict[str, Any] = {}
    data = text[text.index("import torch") : text.index("torch.manual_seed")]
    loop = text[text.index("def fit(") : text.index("for rival in")]
    exec(f"from robustbench_cmic.objectives import Objective\n{data}\n{loop}", names)
    return names


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loop_of_extending_trains_with_every_objective(page: dict[str, Any], name: str) -> None:
    text = snippets("extending.md")
    names: dict[str, Any] = {"torch": torch}
    exec(text[(start := text.index("def train(network")) : text.index("\n# ", start)], names)
    torch.manual_seed(0)
    rows = [slice(start, min(start + 64, 1198)) for start in range(0, 1198, 64)]
    batches = [(page["images"][each], page["labels"][each]) for each in rows]
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    objective = build_objective(objective_of({"name": name}), 10)
    names["train"](network, objective, batches, 6)
    with torch.no_grad():
        right = network(page["images"][page["test"]]).argmax(1) == page["labels"][page["test"]]
    assert float(right.double().mean()) > 0.5, "chance is 0.1"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loop_of_the_page_trains_with_every_objective(page: dict[str, Any], name: str) -> None:
    network = page["fit"](build_objective(objective_of({"name": name}), 10), epochs=3)
    images, labels = page["images"][page["test"]], page["labels"][page["test"]]
    with torch.no_grad():
        logits = network(images)
    assert bool(torch.isfinite(logits).all())
    assert float((logits.argmax(1) == labels).double().mean()) > 0.15, "chance is 0.1"
