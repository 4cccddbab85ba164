"""What a rule of the audit is, and what it raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from robustbench_cmic.audit.case import AuditedModel

Scope = Literal["rows", "balls", "model"]

ATHALYE = "Athalye, Carlini & Wagner 2018, section 3.1"
CARLINI = "Carlini et al. 2019, On Evaluating Adversarial Robustness"


@dataclass(frozen=True)
class Flag:
    """A raised flag.

    Attributes:
        name: a key of `audit.RULES`.
        cells: ids of the attack cells whose numbers it is about.
        scope: `rows`: only the numbers of these attacks; `balls`: the worst cases of their balls, too; `model`: it is
            about the model whatever the attack, and so about every worst case.
        evidence: the numbers that raised it.
    """

    name: str
    cells: frozenset[str]
    scope: Scope
    evidence: str


class Finding(NamedTuple):
    """A `Flag` that has no name yet."""

    cells: frozenset[str]
    scope: Scope
    evidence: str


@dataclass(frozen=True)
class Rule:
    """One rule of the audit.

    Attributes:
        name: of its flag.
        meaning: a sentence for people; what a raised flag says.
        source: where the rule comes from.
        check: what of a model the flag is about, a pure function.
    """

    name: str
    meaning: str
    source: str
    check: Callable[[AuditedModel], Iterator[Finding]]

    def flags(self, model: AuditedModel) -> list[Flag]:
        """The flags that it raises; about no number at all there is nothing to warn of."""
        return [Flag(self.name, *finding) for finding in self.check(model) if finding.cells]
