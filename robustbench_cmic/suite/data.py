"""Data sets that a suite may name, and which of their examples are evaluated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from robustbench_cmic.suite.fields import Count, Strict

FilePath = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class NamedDataset(Strict):
    """A data set that is known by name; all but `digits` lie in the data folder or are downloaded to it."""

    name: Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "svhn"]

    @property
    def label(self) -> str:
        """What results call it."""
        return self.name


class Arrays(Strict):
    """A `.npz` of x_train, y_train, x_test and y_test; `path` is absolute or in the data folder."""

    name: Literal["arrays"]
    path: FilePath

    @property
    def label(self) -> str:
        """What results call it."""
        return f"{self.name}:{self.path}"


class ImageFolder(Strict):
    """Image files in train/<class>/ and test/<class>/ (or val/<class>/) under `path`.

    Attributes:
        path: absolute, or in the data folder.
        size: height and width in pixels to which the central square of every image is resized.
    """

    name: Literal["imagefolder"]
    path: FilePath
    size: Annotated[int, Field(ge=8, le=4096)]

    @property
    def label(self) -> str:
        """What results call it."""
        return f"{self.name}:{self.path}"


Dataset = Annotated[NamedDataset | Arrays | ImageFolder, Field(discriminator="name")]


class Evaluation(Strict):
    """Which examples are attacked.

    Attributes:
        split: of the data set.
        limit: how many examples, drawn once and for all; None: all.
        per_class: as many of every class (up to one).
    """

    split: Literal["train", "test"] = "test"
    limit: Count | None = None
    per_class: bool = False
