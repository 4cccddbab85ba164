"""What one model is attacked with where no suite says it: attacks and audit by the name of a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from robustbench_cmic.suite.fields import Norm

Budget = Literal["quick", "standard", "strict"]
_CHEAP: list[dict[str, Any]] = [
    {"name": "FGSM"},
    {"name": "PGD", "id": "PGD-margin", "steps": 20, "loss": "margin", "early_stop": True},
]
_STRONG: list[dict[str, Any]] = [
    {"name": "FGSM"},
    {"name": "PGD", "id": "PGD-ce", "steps": 40, "early_stop": True},
    {"name": "PGD", "id": "PGD-margin", "steps": 40, "loss": "margin", "early_stop": True},
    {"name": "AutoAttack", "ascending": True},
]
BUDGETS: dict[Budget, tuple[list[dict[str, Any]], str]] = {
    "quick": (_CHEAP, "off"),
    "standard": (_STRONG, "standard"),
    "strict": (_STRONG, "strict"),
}
"""By its name the attacks of a budget, as a suite declares them but for norm and eps, and its audit."""


def declared_budget(budget: Budget, norm: Norm, eps: Sequence[float | str]) -> dict[str, Any]:
    """What a suite says of attacks and audit: `attacks` at every eps, and `audit`."""
    attacks, audit = BUDGETS[budget]
    return {"attacks": [attack | {"norm": norm, "eps": list(eps)} for attack in attacks], "audit": audit}
