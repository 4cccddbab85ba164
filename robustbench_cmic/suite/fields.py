"""What the parts of a suite's schema have in common: strictness, and kinds of values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from robustbench_cmic.suite.numbers import Number

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=64)]
"""A word that is safe as a file name: letters, digits, `_`, `.`, `+`, `-`."""

Text = Annotated[str, StringConstraints(max_length=2000)]
OWN_NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
OWN_TAG = "package.module:name"
"""What messages call code of a user's own."""
# The pattern is for editors: `own_code` says in words what is wrong with a name.
OwnName = Annotated[Text, WithJsonSchema({"type": "string", "pattern": f"^{OWN_NAME}$"})]

Norm = Literal["linf", "l2"]
Loss = Literal["ce", "margin", "dlr", "scaled_ce", "log_odds", "cmic"]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
UnitInterval = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Strict(BaseModel):
    """Unknown keys and wrong types are errors; nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)
