"""Data sets that a suite may name, and which of their examples are evaluated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    StringConstraints,
    TypeAdapter,
    model_serializer,
    model_validator,
)

from robustbench_cmic.suite.fields import Count, Number, Strict, classes_by_name, describe


class DeclaredDataset(Strict):
    """What all data sets have in common: how results call them, how large they are, and what loads them.

    Attributes:
        implementation: `package.module:name`; called with the data set as declared, the data folder, the bytes that
            decoded images may take (None: half of the machine's memory), whom to tell of long work, and whether what
            it keeps of its own is to be made anew, it returns a `robustbench_cmic.data.base.Data`.
        published: name -> examples to train on and to test on.
        shapes: name -> shape of an image, (C, H, W).
        tabular: examples are rows of features, (1, 1, features), and no images.
        usual: key -> the value that no cell declares.
        holdout: this share of the training examples, of each class its own, is not learned from and takes the place of
            the test examples, which are not looked at: for choosing settings.
    """

    implementation: ClassVar[str]
    published: ClassVar[dict[str, tuple[int, int]]] = {}
    shapes: ClassVar[dict[str, tuple[int, int, int]]] = {}
    tabular: ClassVar[bool] = False
    usual: ClassVar[dict[str, Any]] = {"holdout": None}
    name: str
    holdout: Annotated[Number, Field(gt=0, le=0.5)] | None = None
    _suite_folder: Path | None = PrivateAttr(None)

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Cells do not declare what is as it was before there was the key; a class has one serializer at most."""
        written: dict[str, Any] = handler(self)
        return {key: value for key, value in written.items() if key not in self.usual or value != self.usual[key]}

    def beside(self, folder: Path | None) -> Self:
        """The same data set of a suite whose file lies in `folder`; which that is, no cell declares."""
        other = self.model_copy()
        other._suite_folder = folder
        return other

    def of_seed(self, seed: int) -> Self:  # noqa: ARG002
        """The same data as models of a seed get it: of folds, each seed tests on another."""
        return self

    @property
    def suite_folder(self) -> Path | None:
        """Where the suite's file lies; None where that is not known."""
        return self._suite_folder

    @property
    def label(self) -> str:
        """What results call it; with a `holdout`, that."""
        return self._called if self.holdout is None else f"{self._called} (holdout {self.holdout:g})"

    @property
    def _called(self) -> str:
        return self.name

    def absence(self, data: Path) -> str | None:  # noqa: ARG002
        """Why a user's own files are not found, the data folder being `data`; None where they are, or are no such."""
        return None

    @property
    def images_to_train_on(self) -> int | None:
        """How many there are; None of a user's own, which nobody has counted before they are read."""
        return self.sizes[0] if self.name in self.published else None

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of its images; None of arrays, which nobody has opened."""
        return self.shapes.get(self.name)

    @property
    def sizes(self) -> tuple[int, int]:
        """Examples to train on and to test on; of a user's own, which a plan does not open, a guess."""
        return self.without_holdout(*self.published.get(self.name, (10_000, 2_000)))

    def without_holdout(self, train: int, test: int) -> tuple[int, int]:
        """Examples that are learned from and judged on, of so many to train on and to test on."""
        return (train, test) if self.holdout is None else (train - self.held_out(train), self.held_out(train))

    def held_out(self, train: int) -> int:
        """How many of so many training examples take the place of the test examples: one at least."""
        return 0 if self.holdout is None else max(1, round(self.holdout * train))


class Digits(DeclaredDataset):
    """The 1,797 handwritten digits that scikit-learn ships."""

    implementation = "robustbench_cmic.data.digits:load_digits"

    published = {"digits": (1_198, 599)}
    shapes = {"digits": (1, 8, 8)}
    name: Literal["digits"]


class TorchvisionDataset(DeclaredDataset):
    """A data set of torchvision, in the data folder or downloaded to it."""

    implementation = "robustbench_cmic.data.named:load_named"
    published = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "svhn": (73_257, 26_032)}
    published |= dict.fromkeys(("mnist", "fashion_mnist"), (60_000, 10_000))
    shapes = dict.fromkeys(("cifar10", "cifar100", "svhn"), (3, 32, 32))
    shapes |= dict.fromkeys(("mnist", "fashion_mnist"), (1, 28, 28))
    name: Literal["cifar10", "cifar100", "mnist", "fashion_mnist", "svhn"]


class _OwnFiles(DeclaredDataset):
    path: Annotated[str, StringConstraints(min_length=1, max_length=2000)]

    @property
    def _called(self) -> str:
        return f"{self.name}:{self.path}"

    def find(self, data: Path) -> Path:
        """`path`, absolute, or beside the suite, or else in the data folder, whether it is there or not."""
        places = [folder / self.path for folder in (self.suite_folder, data) if folder is not None]
        # `os`, since a name too long is not there either, where Path raises.
        return next((place for place in places if os.path.exists(place)), places[-1])  # noqa: PTH110

    def absence(self, data: Path) -> str | None:
        if os.path.lexists(self.find(data)):
            return None
        if Path(self.path).is_absolute():
            return "there is no such file or folder"
        beside = "" if self.suite_folder is None else f"beside the suite ({self.suite_folder}), nor "
        return f"there is no such file or folder {beside}in the data folder ({data})"


class Arrays(_OwnFiles):
    """A `.npz` of x_train, y_train, x_test and y_test; `path` is absolute, beside the suite or in the data folder."""

    implementation = "robustbench_cmic.data.arrays:load_arrays"
    name: Literal["arrays"]


class ImageFolder(_OwnFiles):
    """Image files in train/<class>/ and test/<class>/ (or val/<class>/) under `path`.

    `path` is absolute, beside the suite or in the data folder.
    `size` is the height and width in pixels to which the central square of every image is resized.
    `train: false`: nothing is trained; train/<class>/ is not read, and need not be there.
    """

    implementation = "robustbench_cmic.data.imagefolder:load_imagefolder"
    usual = {"holdout": None, "train": True}
    name: Literal["imagefolder"]
    size: Annotated[int, Field(ge=8, le=4096)]
    train: bool = True

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Always in colour."""
        return 3, self.size, self.size


_Column = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class _Tabular(DeclaredDataset):
    """Rows of features; `test` and `folds` say which are tested on, by default `test: 0.2`.

    `test` is the share of the rows, of each class its own, drawn once and for all. With `folds: k` the rows are dealt
    into k parts of equal size; models of a seed are tested on part seed mod k and learn from all else. `box` is how
    many standard deviations features may be away from their means: [-box, box] becomes [0, 1].
    """

    tabular = True
    test: Annotated[Number, Field(gt=0, le=0.5)] | None = None
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    box: Annotated[Number, Field(ge=1, le=100)] = 5.0
    _fold: int = PrivateAttr(0)

    @model_validator(mode="after")
    def _tested_one_way(self) -> Self:
        ways = [f"`{key}`" for key in ("test", "split", "folds") if getattr(self, key, None) is not None]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} both say which rows are tested on: keep one")
        return self

    @property
    def share(self) -> float:
        """Of the rows that are tested on, where neither folds nor a column say which."""
        return 0.2 if self.test is None else self.test

    @property
    def fold(self) -> int:
        """Which of the folds is tested on, see `of_seed`."""
        return self._fold

    def of_seed(self, seed: int) -> Self:
        other = self.model_copy()
        other._fold = seed % self.folds if self.folds is not None else 0
        return other

    def tested(self, rows: int) -> int:
        """How many of so many rows are tested on, where no column says it."""
        return max(1, round(self.share * rows)) if self.folds is None else rows // self.folds


class ScikitTable(_Tabular):
    """A table that scikit-learn ships; `digits_table` is its digits, a feature a pixel but for ten that hardly vary."""

    implementation = "robustbench_cmic.data.table:load_scikit_table"
    rows: ClassVar[dict[str, int]] = {"breast_cancer": 569, "wine": 178, "iris": 150, "digits_table": 1797}
    shapes = {"breast_cancer": (1, 1, 30), "wine": (1, 1, 13), "iris": (1, 1, 4), "digits_table": (1, 1, 54)}
    name: Literal["breast_cancer", "wine", "iris", "digits_table"]

    @property
    def images_to_train_on(self) -> int:
        """Rows that are learned from."""
        return self.sizes[0]

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows that are learned from and tested on."""
        rows = self.rows[self.name]
        return self.without_holdout(rows - self.tested(rows), self.tested(rows))


class DataTable(_Tabular, _OwnFiles):
    """A `.csv` or `.parquet` of numbers, a row an example, with a column `label`; the rest are features.

    `path` is absolute, beside the suite or in the data folder. `split` names a column that says `train` or `test`;
    columns of `drop` are left out.
    """

    implementation = "robustbench_cmic.data.table:load_table"
    name: Literal["table"]
    label_column: Annotated[_Column, Field(alias="label")]
    split: _Column | None = None
    drop: Annotated[list[_Column], Field(max_length=10_000)] = []

    @model_validator(mode="after")
    def _of_a_kind_that_is_known(self) -> Self:
        if not self.path.lower().endswith((".csv", ".parquet")):
            raise ValueError(f"`path` should end in .csv or .parquet, not {describe(self.path)}")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # its list has no hash


AnyDataset = Annotated[
    Digits | TorchvisionDataset | Arrays | ImageFolder | ScikitTable | DataTable, Field(discriminator="name")
]
DATASETS: dict[str, type[DeclaredDataset]] = classes_by_name(AnyDataset)
dataset_of: Callable[[Mapping[str, Any]], AnyDataset] = TypeAdapter(AnyDataset).validate_python
"""The data set that a training declares."""


class Evaluation(Strict):
    """Which examples are attacked: `limit` of them, drawn once and for all; by default all.

    `per_class` takes as many of every class (up to one).
    """

    split: Literal["train", "test"] = "test"
    limit: Count | None = None
    per_class: bool = False


def evaluation_of(declared: Mapping[str, Any]) -> Evaluation:
    """The examples that an attack declares; what else is declared with them only tells plans apart."""
    return Evaluation.model_validate({key: declared[key] for key in Evaluation.model_fields if key in declared})
