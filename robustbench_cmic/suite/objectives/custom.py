"""Objectives of a user's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict

import robustbench_cmic.suite.fields as fields
from robustbench_cmic.suite.custom import OBJECTIVE, custom_code_sha256, custom_parameters, custom_problems
from robustbench_cmic.suite.objectives.base import Adversary, DeclaredObjective


class CustomObjective(DeclaredObjective):
    """An objective of your own: `name(classes, **parameters)` returns a `robustbench_cmic.objectives.Objective`.

    `name` is `package.module:name` of a class or function. Further keys are its parameters: numbers, words, true/false,
    or lists of these.
    """

    model_config = ConfigDict(extra="allow")

    implementation = "robustbench_cmic.objectives.custom:custom_objective"
    any_features = False
    name: fields.CustomName
    adversary: Adversary | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the objective's own, as written."""
        return dict(self.model_extra or {})

    def declared(self) -> dict[str, Any]:
        """Name, hash of the file, and parameters, those that the suite leaves out at their defaults."""
        declared: dict[str, Any] = {"name": self.name, "code_sha256": custom_code_sha256(self.name)}
        declared["parameters"] = custom_parameters(self.name, OBJECTIVE, self.parameters)
        return declared if self.adversary is None else declared | {"adversary": self.adversary.model_dump()}

    def arguments(self, seed: int) -> dict[str, Any]:
        """What decides a user's own objective."""
        return {"name": self.name, "parameters": self.parameters, "seed": seed}

    def problems(self) -> Iterable[tuple[str, str]]:
        """Code that is not there, cannot be called, or does not take its parameters: one sentence for each key."""
        return custom_problems(self.name, OBJECTIVE, self.parameters)
