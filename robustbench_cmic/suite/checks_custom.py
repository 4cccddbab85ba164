"""What a suite says of objectives and attacks of a user's own: code that exists and takes what it is given."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_cmic.suite.attacks import CustomAttack
from robustbench_cmic.suite.custom import ATTACK, OBJECTIVE, call_problems, value_problems
from robustbench_cmic.suite.messages import Location, Problem
from robustbench_cmic.suite.objectives import CustomObjective


def own_code_errors(item: CustomObjective | CustomAttack, where: Location) -> Iterator[Problem]:
    """Code that is not there, cannot be called, or does not take its parameters; of each key what is wrong first."""
    call, radii = (ATTACK, item.eps) if isinstance(item, CustomAttack) else (OBJECTIVE, [])
    problems = dict(value_problems(item.parameters, radii)) | dict(call_problems(item.name, call, item.parameters))
    for key, sentence in problems.items():
        yield Problem(sentence, (*where, key))
