"""Objectives that a suite may name, and training against an adversary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Tag, TypeAdapter

import robustbench_cmic.suite.fields as fields
from robustbench_cmic.suite.objectives.base import METHODS, Adversary, DeclaredObjective, DeclaredRobustCmi
from robustbench_cmic.suite.objectives.cmic import PRESETS, CmicObjective
from robustbench_cmic.suite.objectives.custom import CustomObjective
from robustbench_cmic.suite.objectives.features import (
    CenterObjective,
    CosFaceObjective,
    LargeMarginGaussianObjective,
    NcmiObjective,
    OplObjective,
)
from robustbench_cmic.suite.objectives.logits import (
    CmiOverGammaObjective,
    CrossEntropyObjective,
    FocalObjective,
    LabelSmoothingObjective,
    SquentropyObjective,
)

__all__ = [
    "METHODS",
    "OBJECTIVES",
    "PRESETS",
    "Adversary",
    "AnyObjective",
    "CmicObjective",
    "CustomObjective",
    "DeclaredObjective",
    "DeclaredRobustCmi",
    "objective_of",
]


def _objective_kind(value: Any) -> str | None:
    if not isinstance(value, dict | BaseModel):
        return next(iter(OBJECTIVES))  # any: what they all say first is that it should be a mapping
    tag = fields.tag_of(value)
    return None if tag is None else str(tag)


AnyObjective = Annotated[
    Annotated[CrossEntropyObjective, Tag("ce")]
    | Annotated[CmicObjective, Tag("cmic")]
    | Annotated[LabelSmoothingObjective, Tag("label_smoothing")]
    | Annotated[FocalObjective, Tag("focal")]
    | Annotated[SquentropyObjective, Tag("squentropy")]
    | Annotated[CenterObjective, Tag("center")]
    | Annotated[OplObjective, Tag("opl")]
    | Annotated[LargeMarginGaussianObjective, Tag("lgm")]
    | Annotated[CosFaceObjective, Tag("cosface")]
    | Annotated[NcmiObjective, Tag("ncmi_alone")]
    | Annotated[CmiOverGammaObjective, Tag("cmi_over_gamma")]
    | Annotated[CustomObjective, Tag(fields.CUSTOM_TAG)],
    Discriminator(_objective_kind),
]
OBJECTIVES: dict[str, type[DeclaredObjective]] = fields.classes_by_name(AnyObjective)
_ADAPTER: TypeAdapter[AnyObjective] = TypeAdapter(AnyObjective)


def objective_of(declared: Mapping[str, Any]) -> AnyObjective:
    """The objective that a cell declares, see `DeclaredObjective.declared`."""
    keys = {key: value for key, value in declared.items() if key not in ("code_sha256", "parameters")}
    # A parameter that cannot be written in a suite was left at its default, and is so again.
    parameters = {k: v for k, v in declared.get("parameters", {}).items() if k not in CustomObjective.model_fields}
    return _ADAPTER.validate_python(parameters | keys)
