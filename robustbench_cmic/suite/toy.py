"""A suite cut down to toy size, to see that everything runs before hours are spent on it."""

from __future__ import annotations

from robustbench_cmic.suite import Suite
from robustbench_cmic.suite.training import Training

SUFFIX, MARK = "-toy", "(TOY SIZE: "
"""What toy size adds to a suite's name and to its description."""
BATCHES = 2
EXAMPLES = 16


def toy(suite: Suite) -> Suite:
    """The same models, objectives and attacks; one epoch of two batches, at most 16 test examples.

    It has another name, so that its results lie in a folder of their own and are never taken for the suite's.
    """
    evaluation = suite.evaluation
    examples = min(EXAMPLES, evaluation.limit or EXAMPLES)
    return suite.model_copy(
        update={
            "suite": f"{suite.suite}{SUFFIX}",
            "description": f"{suite.description} {MARK}shows that it runs; its numbers mean nothing)",
            "training": _short(suite.training),
            "models": [model.model_copy(update={"training": _short(model.training)}) for model in suite.models],
            "evaluation": evaluation.model_copy(update={"limit": examples, "per_class": True}),
        }
    )


def _short(training: Training | None) -> Training | None:
    """One epoch of two batches."""
    if training is None:
        return None
    images = BATCHES * training.batch_size
    changes = {"epochs": 1, "limit": min(images, training.limit or images)}
    return training.model_copy(update=changes | ({"held_out": 0.25} if training.held_out else {}))
