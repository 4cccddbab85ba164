"""What a suite file may say: strict pydantic models, one for each part; `checks.py` says whether names are known."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, WithJsonSchema

from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.attacks import NATIVE_ATTACKS, NativeAttack
from robustbench_cmic.suite.claims import Claims
from robustbench_cmic.suite.custom import CustomAttack
from robustbench_cmic.suite.data import AnyDataset, Evaluation
from robustbench_cmic.suite.fields import CUSTOM_TAG, Name, Seed, Strict, Text, Threat, tag_of
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.torchattacks import TorchattacksAttack
from robustbench_cmic.suite.training import DeclaredOutputs, Training


def _attack_kind(value: Any) -> str:
    tag = tag_of(value)
    return "native" if tag in list(NATIVE_ATTACKS) else CUSTOM_TAG if tag == CUSTOM_TAG else "library"


AnyAttack = Annotated[
    Annotated[NativeAttack, Tag("native")]
    | Annotated[CustomAttack, Tag(CUSTOM_TAG)]
    | Annotated[TorchattacksAttack, Tag("library")],
    Discriminator(_attack_kind),
]
CLEAN_EVALUATION: dict[str, Any] = {"name": "none"}
"""What the evaluation of unchanged images declares as its attack."""


def attack_of(declared: dict[str, Any], threat: Threat) -> Attack | None:
    """The attack that a cell declares, at the cell's threat; None for the clean evaluation."""
    if declared == CLEAN_EVALUATION:
        return None
    kind = CustomAttack if ":" in declared["name"] else NATIVE_ATTACKS.get(declared["name"], TorchattacksAttack)
    return kind.from_declared(declared, threat)


class Suite(Strict):
    """A whole suite file, matrices expanded; `audit` checks models and attacks for masked gradients.

    `claims` is of reports: no cell depends on it.
    """

    suite: Name
    description: Text = ""
    dataset: AnyDataset
    training: Training | None = None
    models: Annotated[list[Model], Field(min_length=1)]
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = [0]
    attacks: list[AnyAttack] = []
    evaluation: Evaluation = Evaluation()
    audit: Literal["strict", "standard", "off"] = "standard"
    claims: Claims = Claims()
    _file_name: str = PrivateAttr("")
    _changes: tuple[str, ...] = PrivateAttr(())
    _families: tuple[tuple[str, tuple[str, ...]], ...] = PrivateAttr(())

    @property
    def file_name(self) -> str:
        """What the file calls it, where the command line gave it another name; else empty."""
        return self._file_name

    @property
    def changes(self) -> tuple[str, ...]:
        """What the command line changed of the file: `training.epochs=2`."""
        return self._changes

    @property
    def outputs(self) -> DeclaredOutputs | None:
        """What records of its trainings keep for pictures."""
        return None if self.training is None else self.training.outputs

    @property
    def adversarial(self) -> bool:
        """A model of it is trained against an adversary."""
        return any(model.adversary is not None for model in self.models)

    @property
    def families(self) -> dict[str, list[str]]:
        """By the ids of the file the models that they stand for: of a matrix one for each combination."""
        return {name: list(models) for name, models in self._families}

    def of_families(self, families: Mapping[str, Iterable[str]]) -> Suite:
        """The same suite that knows what the ids of its file stand for."""
        suite = self.model_copy()
        suite._families = tuple((name, tuple(models)) for name, models in families.items())
        return suite

    def changed(self, name: str, changes: Iterable[str]) -> Suite:
        """The same suite under the name that the command line's changes give it."""
        suite = self.model_copy(update={"suite": name})
        suite._file_name, suite._changes = "" if name == self.suite else self.suite, tuple(changes)
        return suite


_MATRIX = {
    "type": "object",
    "description": "One model for every combination of values, such as {objective.lambda: [0.1, 0.7]}.",
    "additionalProperties": {"type": "array", "minItems": 1},
    "minProperties": 1,
}


_CHANGED_TRAINING = {
    "type": "object",
    "description": "Keys of the suite's `training` that differ for this model, such as {epochs: 5}.",
    "minProperties": 1,
}


class _ModelEntry(Model):
    """One model to train; with `matrix`, one for every combination of the listed values."""

    training: Annotated[Training | None, WithJsonSchema(_CHANGED_TRAINING)] = None
    matrix: Annotated[dict[str, list[Any]] | None, WithJsonSchema(_MATRIX)] = None


class _SuiteFile(Suite):
    """A suite: models that are trained alike but for their objective, and the attacks on them."""

    models: Annotated[list[_ModelEntry], Field(min_length=1)]  # type: ignore[assignment]


def suite_json_schema() -> str:
    """The schema as JSON text that ends in a newline."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_SuiteFile.model_json_schema()}
    schema["title"] = "robustbench_cmic suite"
    return json.dumps(schema, indent=2) + "\n"
