"""What a suite says of attacks of a user's own: code that exists and takes what it is given."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_cmic.suite.attacks import CustomAttack
from robustbench_cmic.suite.custom import ATTACK, call_problems, value_problems
from robustbench_cmic.suite.messages import Location, Problem


def own_code_errors(item: CustomAttack, where: Location) -> Iterator[Problem]:
    """Code that is not there, cannot be called, or does not take its parameters; of each key what is wrong first."""
    problems = dict(value_problems(item.parameters, item.eps)) | dict(call_problems(item.name, ATTACK, item.parameters))
    for key, sentence in problems.items():
        yield Problem(sentence, (*where, key))
