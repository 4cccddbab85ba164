"""The JSON Schema of suite files, for completion and checking in editors; generated from `schema.py`."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from robustbench_cmic.suite.schema import Model, Suite

_MATRIX = {
    "type": "object",
    "description": "One model for every combination of values, such as {objective.lambda: [0.1, 0.7]}.",
    "additionalProperties": {"type": "array", "minItems": 1},
    "minProperties": 1,
}


class _ModelEntry(Model):
    """One model to train; with `matrix`, one for every combination of the listed values."""

    matrix: Annotated[dict[str, list[Any]] | None, WithJsonSchema(_MATRIX)] = None


class _SuiteFile(Suite):
    """A suite: models that are trained alike but for their objective, and the attacks on them."""

    models: Annotated[list[_ModelEntry], Field(min_length=1)]  # type: ignore[assignment]


def suite_json_schema() -> str:
    """The schema as JSON text that ends in a newline."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_SuiteFile.model_json_schema()}
    schema["title"] = "robustbench_cmic suite"
    return json.dumps(schema, indent=2) + "\n"
