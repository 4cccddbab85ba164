"""Adversarial examples to look at: a few of every attack, beside the records. No result rests on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from robustbench_cmic.records.files import CorruptRecordError, read_json, write_json
from robustbench_cmic.records.store import Store
from robustbench_cmic.suite.fields import Frozen, Norm

Png = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$")]
"""A PNG of 8 bits a channel, grayscale or RGB, in base64: fit for `data:image/png;base64,...`."""
Fraction = Annotated[float, Field(ge=0, le=1)]
_Index = Annotated[int, Field(ge=0)]


class Picture(Frozen):
    """One example that was classified correctly when clean and is not after the attack.

    Attributes:
        perturbation: the images' difference, scaled for sight: 0 is mid-gray; in an L-inf ball black and white are its
            two edges, in an L2 ball plus and minus the largest component.
    """

    index: _Index  # in the split that was evaluated
    label: _Index  # the true class; also what the clean image was taken for
    before: _Index  # what the clean image was taken for
    after: _Index  # what the adversarial image was taken for
    confidence_before: Fraction  # the largest softmax probability
    confidence_after: Fraction
    clean: Png  # the images; of those above 64 pixels a side, small copies
    adversarial: Png
    perturbation: Png


class Pictures(Frozen):
    """The first examples, by index, that an attack broke; what else is here is the cell's, or of its record."""

    schema_: Literal["robustbench_cmic/pictures/1"] = Field("robustbench_cmic/pictures/1", alias="schema")
    suite: str
    cell: str
    model: str
    seed: int
    attack: str
    norm: Norm
    eps: float
    dataset_sha256: str
    checkpoint_sha256: str
    class_names: list[str] | None = None  # by class, where the data set has names
    examples: list[Picture]

    @model_validator(mode="after")
    def _classes_have_names(self) -> Pictures:
        classes = [number for example in self.examples for number in (example.label, example.before, example.after)]
        if self.class_names is not None and max(classes, default=-1) >= len(self.class_names):
            raise ValueError("a class has no name")
        return self

    def name(self, number: int) -> str:
        """What a class is called: its name, or else its number."""
        return str(number) if self.class_names is None else self.class_names[number]


def write_pictures(folder: Path, pictures: Pictures) -> None:
    """Write pictures into a suite's results folder; raises what `write_atomically` raises."""
    file = Store(folder).pictures(pictures.cell)
    file.parent.mkdir(exist_ok=True)
    write_json(file, pictures.model_dump(mode="json"))


def read_pictures(folder: Path, cell: str) -> Pictures | None:
    """The pictures of a cell, by its id, in a suite's results folder; None where there are none that are whole."""
    try:
        pictures = Pictures.model_validate(read_json(Store(folder).pictures(cell)))
    except (FileNotFoundError, CorruptRecordError, ValidationError):
        return None
    return pictures if pictures.cell == cell else None
