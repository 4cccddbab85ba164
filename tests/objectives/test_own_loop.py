"""docs/own_loop.md: its loop trains with every objective of the package."""

from __future__ import annotations

from typing import Any

import pytest
import torch

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
def test_the_loop_of_the_page_trains_with_every_objective(page: dict[str, Any], name: str) -> None:
    network = page["fit"](build_objective(objective_of({"name": name}), 10), epochs=3)
    images, labels = page["images"][page["test"]], page["labels"][page["test"]]
    with torch.no_grad():
        logits = network(images)
    assert bool(torch.isfinite(logits).all())
    assert float((logits.argmax(1) == labels).double().mean()) > 0.15, "chance is 0.1"
