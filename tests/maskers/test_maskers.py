"""The audit on broken and on honest models, through the real command line: a fast part of `tests.maskers.table`."""

from __future__ import annotations

import pytest

from robustbench_cmic.report import Results, summarize
from robustbench_cmic.suite.fields import Threat
from tests.maskers import table
from tests.maskers.nets import (
    BatchNormInTrainMode,
    Detached,
    LogitsTimes10000,
    NegatedGradients,
    NoisyInputs,
    SoftmaxAsLogits,
)
from tests.maskers.table import honest_suite, raised, run_both, wrong

CHOSEN = {
    LogitsTimes10000: "saturated",
    SoftmaxAsLogits: "probabilities",
    NoisyInputs: "random-forward",
    BatchNormInTrainMode: "batch-dependent",
    Detached: "zero-gradients",
    NegatedGradients: "misleading-gradients",
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results]:
    """One seed, one radius, one honest model, some maskers around it."""
    honest = honest_suite()
    honest |= {"models": honest["models"][:1], "seeds": [0], "evaluation": {"limit": 120, "per_class": True}}
    honest["attacks"] = [attack | {"eps": [0.1]} for attack in honest["attacks"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "MASKERS", tuple(CHOSEN))
        return run_both(honest, tmp_path_factory.mktemp("maskers"))


def test_every_masker_is_flagged_and_the_honest_model_is_not(both: tuple[Results, Results]) -> None:
    assert wrong(*both) == []
    assert raised(both[0]) == {"plain": {0: set()}}


@pytest.mark.parametrize(("masker", "flag"), list(CHOSEN.items()))
def test_the_flag_says_what_is_wrong(both: tuple[Results, Results], masker: type, flag: str) -> None:
    assert flag in raised(both[1])[masker.__name__][0]


def test_a_flagged_model_has_no_rank(both: tuple[Results, Results]) -> None:
    ranks = {entry.model: entry.rank for entry in summarize(both[1]).standings[Threat("linf", 0.1)]}
    assert ranks["NoisyInputs"] is ranks["NegatedGradients"] is None
