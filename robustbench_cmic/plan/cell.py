"""Cells, the smallest things that are done, stored and resumed, and the plan that holds them: plain data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from robustbench_cmic.suite.claims import Claims
from robustbench_cmic.suite.fields import Frozen, Threat, format_eps

Kind = Literal["train", "attack", "audit"]
PLAN_SCHEMA: Literal["robustbench_cmic/plan/2"] = "robustbench_cmic/plan/2"


class Cell(Frozen):
    """One training (model x seed), one attack at one eps on one trained model, or the audit of one trained model.

    Its id ends in a hash over everything declared that decides its result, so that equal ids mean equal experiments and
    a changed suite never picks up an old result.

    Attributes:
        id: readable prefix and hash; also the name of the record's file.
        kind: `train`, `attack` (the clean evaluation is the attack `none` at eps 0) or `audit`.
        attack: label of the attack; empty for a training and for an audit.
        norm: of the ball; empty where there is no ball.
        eps: radius of the ball, in units of images in [0, 1].
        needs: the training that an attack attacks and an audit audits; None for a training.
        source: the training whose adversarial examples are transferred; of a training the one whose weights it begins
            with; None for all others.
        after: the same attack at the next smaller eps, whose adversarial examples are taken over; None where every
            example is attacked.
        declared: everything that decides the result, as plain data.
    """

    id: str
    kind: Kind
    model: str
    architecture: str
    objective: str
    seed: int
    attack: str = ""
    norm: Literal["", "linf", "l2"] = ""
    eps: float = 0.0
    needs: str | None = None
    source: str | None = None
    after: str | None = None
    declared: dict[str, Any]

    @property
    def threat(self) -> Threat:
        """The ball; `CLEAN` where there is none."""
        return Threat(self.norm, self.eps)

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The cells that have to be done before this one."""
        return tuple(other for other in (self.needs, self.source, self.after) if other is not None)

    @property
    def network_declared(self) -> dict[str, Any]:
        """What decides the network: data, model, objective, training; of an attack or audit, of the one it is on."""
        declared: dict[str, Any] = self.declared.get("train", self.declared)
        return declared

    def dependent(self, kind: Kind, prefix: Sequence[str], declared: dict[str, Any], **fields: Any) -> Cell:
        """A cell that needs this training; its id goes on with `prefix` after model and seed."""
        own_id = cell_id([self.model, f"s{self.seed}", *prefix], declared)
        fields = {"source": None} | fields | {"id": own_id, "kind": kind, "needs": self.id, "declared": declared}
        return self.model_copy(update=fields)


def runs_custom_code(cell: Cell) -> bool:
    """It trains with a user's own objective, or runs a user's own attack."""
    part: dict[str, Any] = cell.declared.get("objective" if cell.kind == "train" else "attack") or {}
    return part.get("code_sha256") is not None


class Plan(Frozen):
    """A suite's cells in order, and what a report needs to know of the suite; stored beside the records.

    Attributes:
        claims: how the report judges; a file that does not say has the default.
        file: where the suite's file lies from the folder of the plan; of a suite that comes along its name; empty where
            that is not known.
        file_name: what that file calls the suite, where the command line gave it another name; else empty.
        changes: what the command line changed of the file, such as `training.epochs=2`.
        settings: of a suite that is judged on held-out training examples, by an id of the file the models that it
            stands for, one of which is to be chosen.
    """

    schema_: Literal["robustbench_cmic/plan/2"] = Field(PLAN_SCHEMA, alias="schema")
    suite: str
    description: str
    dataset: str
    pairs: list[tuple[str, str]]
    claims: Claims = Claims()
    file: str = ""
    file_name: str = ""
    changes: list[str] = []
    settings: dict[str, list[str]] = {}
    cells: list[Cell]

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The plan of a suite as its file says holds nothing of changes, and that of one to judge by no settings."""
        written: dict[str, Any] = handler(self)
        return {
            key: value for key, value in written.items() if value or key not in ("file_name", "changes", "settings")
        }

    def of(self, kind: Kind) -> list[Cell]:
        """The cells of one kind, in order."""
        return [cell for cell in self.cells if cell.kind == kind]

    def with_dependencies(self, cells: Iterable[str]) -> set[str]:
        """The ids of some cells, and of all that these depend on."""
        keep = set(cells)
        for cell in reversed(self.cells):  # what a cell depends on comes before it
            if cell.id in keep:
                keep.update(cell.dependencies)
        return keep


def canonical_json(value: Any) -> str:
    """One text for equal plain data: sorted keys, no spaces, floats as Python writes them.

    Raises:
        ValueError: NaN or infinity, which JSON does not know.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def cell_id(prefix: Sequence[str], declared: dict[str, Any]) -> str:
    """Readable prefix, then twelve hex digits of the hash over what is declared."""
    digest = hashlib.sha256(canonical_json(declared).encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9_.+-]", "_", ".".join(prefix))
    return f"{readable}.{digest}"


def title(cell: Cell) -> str:
    """A cell in words: `cnn-ce seed 0: train`, `cnn-ce seed 0: PGD linf eps 0.1`."""
    what = "clean" if cell.attack == "none" else cell.attack or cell.kind
    ball = f" {cell.norm} eps {format_eps(cell.eps)}" if cell.norm else ""
    return f"{cell.model} seed {cell.seed}: {what}{ball}"
