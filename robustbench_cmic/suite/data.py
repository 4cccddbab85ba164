"""Data sets that a suite may name, and which of their examples are evaluated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, StringConstraints, TypeAdapter

from robustbench_cmic.suite.fields import Count, Strict, classes_by_name


class DeclaredDataset(Strict):
    """What all data sets have in common: how results call them, how large they are, and what loads them.

    Attributes:
        implementation: `package.module:name`; called with the data set as declared, the data folder, the bytes that
            decoded images may take (None: half of the machine's memory), whom to tell of long work, and whether what
            it keeps of its own is to be made anew, it returns a `robustbench_cmic.data.base.Data`.
        published: name -> examples to train on and to test on.
        shapes: name -> shape of an image, (C, H, W).
    """

    implementation: ClassVar[str]
    published: ClassVar[dict[str, tuple[int, int]]] = {}
    shapes: ClassVar[dict[str, tuple[int, int, int]]] = {}
    name: str
    _suite_folder: Path | None = PrivateAttr(None)

    def beside(self, folder: Path | None) -> Self:
        """The same data set of a suite whose file lies in `folder`; which that is, no cell declares."""
        other = self.model_copy()
        other._suite_folder = folder
        return other

    @property
    def suite_folder(self) -> Path | None:
        """Where the suite's file lies; None where that is not known."""
        return self._suite_folder

    @property
    def label(self) -> str:
        """What results call it."""
        return self.name

    def absence(self, data: Path) -> str | None:  # noqa: ARG002
        """Why a user's own files are not found, the data folder being `data`; None where they are, or are no such."""
        return None

    @property
    def images_to_train_on(self) -> int | None:
        """How many there are; None of a user's own, which nobody has counted before they are read."""
        return self.published.get(self.name, (None,))[0]

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of its images; None of arrays, which nobody has opened."""
        return self.shapes.get(self.name)

    @property
    def sizes(self) -> tuple[int, int]:
        """Examples to train on and to test on; of a user's own, which a plan does not open, a guess."""
        return self.published.get(self.name, (10_000, 2_000))


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
    def label(self) -> str:
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
    """

    implementation = "robustbench_cmic.data.imagefolder:load_imagefolder"
    name: Literal["imagefolder"]
    size: Annotated[int, Field(ge=8, le=4096)]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Always in colour."""
        return 3, self.size, self.size


AnyDataset = Annotated[Digits | TorchvisionDataset | Arrays | ImageFolder, Field(discriminator="name")]
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
