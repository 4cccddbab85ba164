"""Tables: what a row becomes, which rows are tested on, and what is refused, with its place, before anything runs."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import Data, DataError
from robustbench_cmic.data.subset import deal
from robustbench_cmic.suite.data import dataset_of
from tests.conftest import Cli
from tests.in_process import command_here

Edit = Callable[[pd.DataFrame], pd.DataFrame | None]


def frame() -> pd.DataFrame:
    """Sixty rows of two features and three classes of words."""
    generator = np.random.default_rng(0)
    species = np.repeat(["ant", "bee", "cat"], [30, 20, 10])
    return pd.DataFrame({"length": generator.normal(50, 9, 60), "legs": generator.integers(0, 9, 60), "kind": species})


def load(folder: Path, seed: int = 0, **declared: Any) -> Data:
    dataset = dataset_of({"name": "table", "path": "t.csv", "label": "kind", **declared})
    return load_data(dataset.of_seed(seed), folder)


def images(data: Data) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    assert isinstance(data.train.images, np.ndarray)
    assert isinstance(data.test.images, np.ndarray)
    return data.train.images, data.test.images


def test_features_are_standardised_by_the_training_rows_clipped_and_scaled_alike(tmp_path: Path) -> None:
    own = frame()
    own["part"] = ["test", "train", "train"] * 20
    own.loc[0, "length"] = 1e6  # far out, and among those tested on
    own.to_csv(tmp_path / "t.csv", index=False)
    data = load(tmp_path, split="part", box=3)
    values, train = own[["length", "legs"]].to_numpy(float), (own["part"] == "train").to_numpy()
    standard = (values - values[train].mean(0)) / values[train].std(0)
    expected = (np.clip(standard, -3, 3) + 3) / 6
    for rows, found in zip((train, ~train), images(data), strict=True):
        assert found.shape == (rows.sum(), 1, 1, 2)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[:, 0, 0], expected[rows], atol=1e-6)
    assert images(data)[1][0, 0, 0, 0] == 1.0
    assert data.class_names == ["ant", "bee", "cat"]
    assert (data.test.labels == np.repeat([0, 1, 2], [30, 20, 10])[~train]).all()
    assert data.moments == ((0.5,), (1 / 6,)), "which gives the network the standardised features"
    assert data.features is not None
    assert data.features.names == ["length", "legs"]
    assert data.features.clipped == (np.abs(standard) > 3).sum() >= 1
    np.testing.assert_allclose(data.features.mean, values[train].mean(0))


def test_folds_are_equal_disjoint_and_of_every_class_alike() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [31, 20, 11]))
    dealt = deal(labels, 5)
    assert np.bincount(dealt[dealt >= 0]).tolist() == [12] * 5
    assert (dealt < 0).sum() == 62 % 5
    shares = np.array([np.bincount(labels[dealt == fold], minlength=3) for fold in range(5)])
    assert (np.ptp(shares, axis=0) <= 1).all()
    assert (deal(labels, 5) == dealt).all()


def test_five_seeds_are_five_folds_of_one_fingerprint(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    folds = [load(tmp_path, seed, folds=5) for seed in range(6)]
    assert len({data.sha256 for data in folds}) == 1
    tested: list[np.ndarray[Any, Any]] = []
    for data in folds[:5]:
        assert data.features is not None
        raw = (images(data)[1][:, 0, 0] * 10 - 5) * data.features.std + data.features.mean
        tested += list(raw.round(2))
    own = frame()[["length", "legs"]].to_numpy().round(2)
    assert sorted(map(tuple, np.array(tested).tolist())) == sorted(map(tuple, own.tolist())), "each row once"
    assert (images(folds[5])[1] == images(folds[0])[1]).all()
    share = load(tmp_path, 3)
    assert np.bincount(share.test.labels).tolist() == [6, 4, 2], "of each class a fifth"
    assert (images(share)[1] == images(load(tmp_path, 4))[1]).all(), "the same for every seed"


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "iris"])
def test_tables_of_scikit_learn_are_its_own(name: str) -> None:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    dataset = dataset_of({"name": name, "test": 0.25})
    data = load_data(dataset, Path())
    assert data.image_shape == dataset.image_shape
    assert tuple(map(len, images(data))) == dataset.sizes
    assert data.class_names == list(bunch.target_names)
    assert data.features is not None
    every, labels = np.concatenate(images(data))[:, 0, 0], np.concatenate([data.train.labels, data.test.labels])
    raw = (every * 10 - 5) * data.features.std + data.features.mean
    limits = np.array(data.features.mean) + np.array(data.features.std) * np.array([[-5], [5]])
    rows = zip(bunch.data.clip(*limits).round(3).tolist(), bunch.target.tolist(), strict=True)
    expected = np.array(sorted([*map(float, row), label] for row, label in rows))
    found = np.array(sorted([*row, label] for row, label in zip(raw.round(3).tolist(), labels.tolist(), strict=True)))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-3)


def test_digits_as_a_table_vary_in_every_fold() -> None:
    dataset = dataset_of({"name": "digits_table", "folds": 10})
    assert {load_data(dataset.of_seed(seed), Path()).image_shape for seed in range(3)} == {(1, 1, 54)}


def changed(**columns: Any) -> Edit:
    return lambda own: own.assign(**columns)


def at(row: int, name: str, value: Any) -> Edit:
    return lambda own: own.assign(**{name: own[name].astype(object).where(own.index != row, value)})


REFUSED: dict[str, tuple[Edit, dict[str, Any], str]] = {
    "missing": (at(3, "length", None), {}, "'length' has no value in line 5: fill them in"),
    "missing label": (at(3, "kind", None), {}, "the label 'kind' is missing in line 5: leave the row out"),
    "text": (changed(town="Rome"), {}, "'town' holds no numbers ('Rome' in line 2): store numbers, or"),
    "a word among numbers": (at(5, "legs", "six"), {}, "'legs' holds no numbers ('six' in line 7)"),
    "infinite": (at(2, "length", "inf"), {}, "'length' is inf in line 4: numbers should be finite"),
    "constant": (changed(wings=2), {}, "'wings' is 2 in all rows: leave it out with `drop: [wings]`"),
    "constant in training": (
        changed(odd=[1, *[0] * 59], part=["test", "train"] * 30),
        {"split": "part"},
        "'odd' is 0 in the training rows: leave it out",
    ),
    "constant in a fold": (changed(odd=[1, *[0] * 59]), {"folds": 5}, "'odd' is 0 in the training rows of fold"),
    "no such label": (lambda own: own, {"label": "Kind"}, "has no column 'Kind'; its columns: length, legs, kind"),
    "no such column": (lambda own: own, {"drop": ["id"]}, "has no column 'id'"),
    "numbers of rows": (
        lambda own: own.assign(**{"Unnamed: 0": range(60)}),
        {},
        "has a column without a name, 'Unnamed: 0' for pandas (numbers of rows?): name it, or leave it out with `drop:",
    ),
    "squares that underflow": (
        lambda own: own.assign(length=own["length"] * 1e-180),
        {},
        "'length' varies too little in all rows to be divided by it: store it in a larger unit",
    ),
    "classes that floats cannot tell apart": (
        changed(kind=[1e300, 2e300] * 30),
        {},
        "the label 'kind' is 1e+300; numbers of classes should be below 2**53",
    ),
    "one example": (at(0, "kind", "dog"), {}, "the class 'dog' of 'kind' has one example"),
    "one class": (changed(kind="ant"), {}, "the label 'kind' is ant in every row"),
    "no classes": (changed(kind=np.linspace(0, 1, 60)), {}, "the label 'kind' has values such as"),
    "no part": (
        changed(part=["train", "dev"] * 30),
        {"split": "part"},
        "'part' should say train or test in every row, not dev in line 3",
    ),
    "all learned": (changed(part="train"), {"split": "part"}, "'part' says train in every row"),
    "a class that is only tested on": (
        lambda own: own.assign(part=np.where(own["kind"] == "cat", "test", "train")),
        {"split": "part"},
        "the class 'cat' has no example among the training rows",
    ),
    "no features": (lambda own: own, {"drop": ["length", "legs"]}, "has no column left for features"),
    "too few rows": (lambda own: own, {"folds": 61}, "has 60 rows, too few for 61 folds"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_table_of_numbers_is_refused_with_its_place(tmp_path: Path, what: str) -> None:
    edit, declared, message = REFUSED[what]
    edited = edit(frame())
    assert edited is not None
    edited.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError) as raised:
        load(tmp_path, **declared)
    assert f"{tmp_path}/t.csv: {message}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"length,legs,kind\n", "has names of columns, and no row"),
        (b"\xff\xfe\x00\x01" * 50, "is no whole .csv file"),
        (b"a,b,kind\n1,2,x\n1,2,3,4,y\n", "is no whole .csv file"),
        (b"a,kind\n1,2,x\n2,3,y\n", "Expected 2 fields in line 2, saw 3"),
        (b"a,kind,kind\n1,x,x\n2,y,y\n", "has two columns 'kind'"),
        (b",a,kind\n0,1,x\n1,2,y\n2,3,x\n3,4,y\n", "has a column without a name"),
        (b"a;kind\n1;x\n", "has no column 'kind'; all it has is 'a;kind': are its values set apart by commas?"),
    ],
)
def test_files_that_cannot_be_read_as_a_table(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.csv: ") as raised:
        load(tmp_path)
    assert message in str(raised.value)


def test_parquet_is_read_as_the_csv_is_or_says_what_it_needs(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    if importlib.util.find_spec("pyarrow") is None:
        (tmp_path / "t.parquet").write_bytes(b"PAR1")
        with pytest.raises(DataError, match=r"needs pyarrow, which is not installed: pip install 'robustbench_cmic\[t"):
            load(tmp_path, path="t.parquet")
        return
    frame().to_parquet(tmp_path / "t.parquet")
    assert load(tmp_path, path="t.parquet").sha256 == load(tmp_path).sha256
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"is no whole \.parquet file"):
        load(tmp_path, path="t.parquet")


def test_whole_numbers_of_more_than_64_bits_are_numbers(tmp_path: Path) -> None:
    own = frame()
    own.assign(length=own["length"].round(3)).to_csv(tmp_path / "t.csv", index=False)
    small = load(tmp_path)
    own.assign(length=[int(value) * 10**27 for value in (own["length"].round(3) * 1000).round()]).to_csv(
        tmp_path / "t.csv", index=False
    )
    large, expected = (np.asarray(data.train.images) for data in (load(tmp_path), small))
    np.testing.assert_allclose(large, expected, atol=1e-6)


def test_bytes_as_classes_are_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame().assign(kind=[b"\xff", b"\x00"] * 30).to_parquet(tmp_path / "t.parquet")
    assert load(tmp_path, path="t.parquet").class_names == [r"b'\x00'", r"b'\xff'"]


SUITE = """\
suite: rows
dataset: {name: table, path: t.csv, label: kind, folds: 2}
training: {epochs: 1, batch_size: 16, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: a, architecture: mlp, objective: {name: ce}}
  - {id: b, architecture: mlp, objective: {name: cmic}}
pairs: [[a, b]]
seeds: [0, 1]
attacks:
  - {name: PGD, eps: 1/10, steps: 2}
  - {name: PGD, id: PGD-L2, norm: l2, eps: 1/10, steps: 2}
audit: off
"""


def test_a_run_on_folds_records_features_and_one_fingerprint_and_a_second_has_nothing_to_do(
    tmp_path: Path, cli_here: Cli
) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "rows.yaml").write_text(SUITE)
    done = cli_here("run", "rows.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "results/rows").glob("*.s*.json"))]
    assert len({record["dataset_sha256"] for record in records}) == 1
    trained = {record["cell"]["seed"]: record for record in records if record["kind"] == "train"}
    assert trained[0]["features"]["names"] == ["length", "legs"]
    assert trained[0]["features"]["mean"] != trained[1]["features"]["mean"]
    assert trained[0]["image_shape"] == [1, 1, 2]
    assert not list((tmp_path / "results/rows").rglob("*pictures*"))
    board = (tmp_path / "results/rows/leaderboard.md").read_text()
    assert "percentages of the 30 test examples of each fold," in " ".join(board.split())
    assert "each seed is tested on another fold; an eps of 1 is " in board
    again = cli_here("run", "rows.yaml")
    assert "all 16 cells are done already" in again.stdout, again.stdout
    frame().assign(length=range(60)).to_csv(tmp_path / "t.csv", index=False)
    other = cli_here("run", "rows.yaml", "--only", "a")
    assert "it was made with other data" in other.stdout + other.stderr


def test_what_only_images_have_is_refused_by_validate(tmp_path: Path, cli_here: Cli) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    text = SUITE.replace("lr: 0.1}}", "lr: 0.1}, augmentation: {crop: 2, flip: true}}").replace(
        "architecture: mlp, objective: {name: ce}", "architecture: small_cnn, objective: {name: ce}"
    )
    (tmp_path / "rows.yaml").write_text(text.replace("audit", "  - {name: DIFGSM, eps: 1/10}\naudit"))
    said = cli_here("validate", "rows.yaml")
    assert said.returncode == 2
    for sentence in (
        "training.augmentation.crop: changes images, and table:t.csv is a table: leave it out",
        "training.augmentation.flip: changes images",
        "small_cnn takes images, and table:t.csv is a table: take mlp, or your own",
        "DIFGSM resizes images, and table:t.csv is a table: leave it out",
    ):
        assert sentence in said.stderr + said.stdout, said.stderr
    assert "Traceback" not in said.stderr


def test_validate_says_that_folds_are_too_small_for_the_audit(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    note = "rows.yaml: note: 30 test rows: below 100 the audit flags every number under attack (few-examples)\n"
    for text, told in ((SUITE.replace("audit: off\n", ""), note), (SUITE, "")):
        (tmp_path / "rows.yaml").write_text(text)
        done = command_here("validate", "rows.yaml", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, told), done.stderr


def test_validate_and_run_say_what_is_wrong_with_a_table_and_write_nothing(tmp_path: Path, cli_here: Cli) -> None:
    frame().assign(wings=2).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "rows.yaml").write_text(SUITE.replace("seeds: [0, 1]", "seeds: [0]"))
    for command in ("validate", "run"):
        said = cli_here(command, "rows.yaml")
        assert said.returncode == 2
        assert "'wings' is 2 in all rows: leave it out with `drop: [wings]`" in said.stderr
        assert "seeds: test on 1 of 2 folds: seed mod 2 says which; [0, 1] would test on all" in said.stderr
    assert not list((tmp_path / "results").rglob("*.s0.*")) if (tmp_path / "results").exists() else True


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("path: t.txt, label: y", "`path` should end in .csv or .parquet, not 't.txt'"),
        ("path: t.csv", "this key is missing"),
        (
            "path: t.csv, label: y, folds: 5, test: 0.2",
            "`test` and `folds` both say which rows are tested on: keep one",
        ),
        ("path: t.csv, label: y, test: 0.7", "should be at most 0.5"),
        ("path: t.csv, label: y, box: 0.5", "should be at least 1"),
    ],
)
def test_declarations_that_cannot_be(keys: str, sentence: str, tmp_path: Path) -> None:
    from robustbench_cmic.suite import SuiteError, load_suite

    (tmp_path / "rows.yaml").write_text(SUITE.replace("path: t.csv, label: kind, folds: 2", keys))
    with pytest.raises(SuiteError) as raised:
        load_suite(tmp_path / "rows.yaml")
    assert sentence in str(raised.value)
