"""Suites judged on held-out training examples: which these are, and that the test examples are in no split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import Data, DataError, Index, Split, StreamedImages
from robustbench_cmic.data.digits import load_digits
from robustbench_cmic.data.holdout import judged_on_training_examples
from robustbench_cmic.data.subset import hold_out
from robustbench_cmic.suite import SuiteError, load_suite
from robustbench_cmic.suite.data import dataset_of

SUITE = """\
suite: x
dataset: DATASET
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models: [{id: a, architecture: mlp, objective: {name: ce}}]
"""


def seen(images: Any) -> set[bytes]:
    return {np.ascontiguousarray(image).tobytes() for image in images[:]}


def test_held_out_training_images_take_the_place_of_the_test_images() -> None:
    declared = dataset_of({"name": "digits", "holdout": 0.2})
    found, whole = load_data(declared, Path("/nowhere")), load_digits()
    kept, held = hold_out(whole.train.labels, 240)
    np.testing.assert_array_equal(found.train.images, whole.train.images[kept])
    np.testing.assert_array_equal(found.test.images, whole.train.images[held])
    np.testing.assert_array_equal(found.test.labels, whole.train.labels[held])
    assert declared.sizes == (len(kept), len(held)) == (958, 240)
    assert not (seen(found.train.images) | seen(found.test.images)) & seen(whole.test.images)
    assert found.sha256 != whole.sha256
    assert found.moments == whole.moments


def test_shares_of_other_sizes_are_other_data() -> None:
    one, two = (load_data(dataset_of({"name": "digits", "holdout": share}), Path("/nowhere")) for share in (0.1, 0.2))
    assert one.sha256 != two.sha256


def test_rows_of_a_fold_are_held_out_of_what_it_learns_from() -> None:
    declared = dataset_of({"name": "wine", "folds": 5, "holdout": 0.25}).of_seed(1)
    whole = load_data(dataset_of({"name": "wine", "folds": 5}).of_seed(1), Path("/nowhere"))
    found = load_data(declared, Path("/nowhere"))
    assert (len(found.train.labels), len(found.test.labels)) == declared.sizes
    assert sum(declared.sizes) == len(whole.train.labels)
    assert not seen(found.test.images) & seen(whole.test.images)
    assert found.features == whole.features


class Streamed(StreamedImages):
    """Of which each image is its own number."""

    shape = (40, 1, 1, 1)

    def __getitem__(self, index: Index) -> Any:
        return np.arange(40, dtype=np.uint8)[index].reshape(-1, 1, 1, 1)


def test_streamed_images_stay_streamed() -> None:
    labels = np.arange(40) % 4
    data = Data(Split(Streamed(), labels), Split(Streamed(), labels), 4)
    found = judged_on_training_examples(data, 10)
    kept, held = hold_out(labels, 10)
    assert isinstance(found.test.images, StreamedImages)
    assert found.test.images[np.array([3, 1])].ravel().tolist() == held[[3, 1]].tolist()
    assert found.train.images[2:5].ravel().tolist() == kept[2:5].tolist()
    assert (len(found.train.images), len(found.test.images)) == (30, 10)


def test_a_class_that_is_held_out_whole_is_told() -> None:
    labels = np.array([0] + [1] * 9)
    images = np.zeros((10, 1, 2, 2), np.uint8)
    data = Data(Split(images, labels), Split(images, labels), 2, class_names=["dog", "cat"])
    with pytest.raises(DataError, match="`holdout` leaves no training image of the class dog: hold out a smaller"):
        judged_on_training_examples(data, 5)
    with pytest.raises(DataError, match="`holdout` takes 9 of 10 training images: two should be left at least"):
        judged_on_training_examples(data, 9)


def test_a_suite_without_a_holdout_declares_none() -> None:
    assert dataset_of({"name": "digits"}).model_dump() == {"name": "digits"}
    assert dataset_of({"name": "digits", "holdout": 0.5}).label == "digits (holdout 0.5)"
    folder = {"name": "imagefolder", "path": "mine", "size": 8}
    assert dataset_of(folder).model_dump() == folder
    assert dataset_of(folder | {"holdout": 0.5}).model_dump() == folder | {"holdout": 0.5}


def test_without_training_images_there_is_nothing_to_hold_out(tmp_path: Path) -> None:
    text = SUITE.replace("DATASET", "{name: imagefolder, path: mine, size: 32, train: false, holdout: 0.1}")
    text = text.replace(
        "id: a, architecture: mlp, objective: {name: ce}", "id: a, architecture: resnet18, pretrained: true"
    )
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SuiteError) as error:
        load_suite(tmp_path / "x.yaml")
    assert [(problem.location, problem.message) for problem in error.value.problems] == [
        (("dataset", "holdout"), "has no training images to hold out, for the data set has `train: false`")
    ]


@pytest.mark.parametrize(
    ("share", "words"),
    [
        ("0.6", "should be at most 0.5"),
        ("0", "should be greater than 0"),
        ("many", "should be a number such as 0.1 or 8/255"),
    ],
)
def test_shares_that_leave_nothing_are_refused(tmp_path: Path, share: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(SUITE.replace("DATASET", f"{{name: digits, holdout: {share}}}"))
    with pytest.raises(SuiteError) as error:
        load_suite(tmp_path / "x.yaml")
    assert [problem.message.startswith(words) for problem in error.value.problems] == [True], error.value
