"""Tables of numbers: a user's own `.csv` or `.parquet`, read by pandas, and those that scikit-learn ships.

A row becomes an "image" of (1, 1, features) in [0, 1], so that attacks, harness and audit take it as they take images.
Each feature is standardised by the training rows' mean and standard deviation, clipped at `box` of these, and shifted
and scaled by one common factor: [-box, box] becomes [0, 1]. An eps of e is thus 2 box e standard deviations, in every
feature, and no attack leaves the box.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustbench_cmic.data.base import Data, DataError, Labels, Moments, Split
from robustbench_cmic.data.subset import deal, hold_out
from robustbench_cmic.records.schema import Features
from robustbench_cmic.suite.data import DataTable, ScikitTable
from robustbench_cmic.suite.files import read_regular
from robustbench_cmic.suite.messages import os_error_reason, printable

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_cmic.data import Say

_VERSION = "standardised by the training rows, clipped, scaled to [0, 1]; version 1"
_SHARE_THAT_VARIES = 0.01
_MOST_CLASSES = 10_000
_LARGEST_WHOLE = 2**53
"""Above it floats leave whole numbers out, and two classes might be one."""
_FILES = {"breast_cancer": "breast_cancer.csv", "wine": "wine_data.csv", "iris": "iris.csv"}
Values = npt.NDArray[np.float64]


def load_scikit_table(dataset: ScikitTable, _: Path, __: int | None, say: Say, *___: Any) -> Data:
    """A table of scikit-learn's, its columns named by their order; see `ScikitTable`."""
    # The files, not sklearn.datasets, whose import takes seconds: a run that finds all done should not wait.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("scikit-learn is not installed: pip install scikit-learn")
    folder = Path(spec.origin).parent / "datasets" / "data"
    if dataset.name == "digits_table":
        with gzip.open(folder / "digits.csv.gz", "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float64)
        class_names = [str(digit) for digit in range(10)]
    else:
        path = folder / _FILES[dataset.name]
        class_names = path.read_text(encoding="utf-8").partition("\n")[0].split(",")[2:]
        table = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float64)
    values, labels = table[:, :-1], table[:, -1].astype(np.int64)
    names = [f"x{column}" for column in range(values.shape[1])]
    # Ten pixels of the digits are black but in a few, which may all be among those tested on.
    varied = (values != np.median(values, 0)).mean(0) >= _SHARE_THAT_VARIES
    names = [name for name, varies in zip(names, varied, strict=True) if varies]
    return _data(dataset.name, dataset, names, values[:, varied], labels, class_names, None, say)


def load_table(dataset: DataTable, folder: Path, _: int | None, say: Say, *__: Any) -> Data:
    """The file `path`, see `DataTable`.

    Raises:
        DataError: it is not there, cannot be read, or holds what is no table of numbers; the message names the column.
    """
    if (absence := dataset.absence(folder)) is not None:
        raise DataError(f"{dataset.path}: {absence}")
    path = dataset.find(folder)
    frame = _read(path)
    own = [dataset.label_column, *([] if dataset.split is None else [dataset.split]), *dataset.drop]
    for name in own:
        if name not in frame.columns:
            raise DataError(f"{path}: has no column '{name}'; {_columns(frame)}")
    labels, class_names = _labels(path, frame[dataset.label_column])
    tested = None if dataset.split is None else _tested(path, frame[dataset.split])
    features = [name for name in frame.columns if name not in own]
    if not features:
        raise DataError(f"{path}: has no column left for features beside {', '.join(dict.fromkeys(own))}")
    if unnamed := next((name for name in features if name.startswith("Unnamed: ")), None):
        what = f"a column without a name, '{unnamed}' for pandas (numbers of rows?)"
        raise DataError(f"{path}: has {what}: name it, or leave it out with `drop: ['{unnamed}']`")
    values = np.column_stack([_numbers(path, frame[name]) for name in features])
    return _data(str(path), dataset, features, values, labels, class_names, tested, say)


def _read(path: Path) -> pd.DataFrame:
    """The file as it is, its columns named by text."""
    import pandas as pd

    try:
        content = read_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {os_error_reason(error)}") from None
    if not content.strip():
        raise DataError(f"{path}: is empty; it should hold a line of names, and a row for each example")
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(io.BytesIO(content))
        else:
            frame = pd.read_csv(io.BytesIO(content), low_memory=False)
            # With more values than names pandas would take the first for an index; without a header it refuses.
            _check_names(path, pd.read_csv(io.BytesIO(content), header=None, nrows=2, dtype=str).iloc[0])
    except ImportError:
        hint = "needs pyarrow, which is not installed: pip install 'robustbench_cmic[table]', or store a .csv"
        raise DataError(f"{path}: to read parquet {hint}") from None
    except MemoryError:
        raise DataError(f"{path}: does not fit in memory") from None
    except (ValueError, OSError, LookupError, TypeError, NotImplementedError) as error:  # of pandas, and of Arrow
        reason = printable(" ".join(str(error).split()), 200)
        raise DataError(f"{path}: is no whole {path.suffix.lower()} file: {reason}") from None
    frame.columns = frame.columns.map(str)
    _check_names(path, frame.columns.to_series())
    if len(frame) == 0:
        raise DataError(f"{path}: has names of columns, and no row")
    return frame


def _check_names(path: Path, names: pd.Series[Any]) -> None:
    """Two columns of one name: a label that is there twice would be a feature, too."""
    if (twice := names[names.notna() & names.duplicated()]).size:
        raise DataError(f"{path}: has two columns '{printable(str(twice.iloc[0]))}'; names should be unique")


def _columns(frame: pd.DataFrame) -> str:
    names = [printable(name, 60) for name in frame.columns]
    if len(names) == 1:
        return f"all it has is '{names[0]}': are its values set apart by commas?"
    return f"its columns: {', '.join(names[:20])}{f', and {len(names) - 20} more' if len(names) > 20 else ''}"


def _line(path: Path, row: int) -> str:
    """Where a row stands, as people count: of a .csv its line, if no value spans several."""
    return f"in line {row + 2}" if path.suffix.lower() == ".csv" else f"in row {row + 1}"


def _labels(path: Path, column: pd.Series[Any]) -> tuple[Labels, list[str]]:
    """(N,) class by class 0, 1, ..., numbers in their order and words in theirs, and what the classes are called."""
    import pandas as pd

    name = column.name
    if (missing := column.isna().to_numpy()).any():
        raise DataError(
            f"{path}: the label '{name}' is missing {_line(path, int(missing.argmax()))}: leave the row out"
        )
    if pd.api.types.is_float_dtype(column) and not (column % 1 == 0).all():
        raise DataError(
            f"{path}: the label '{name}' has values such as {column[column % 1 != 0].iloc[0]:g}, not classes"
        )
    if pd.api.types.is_float_dtype(column) and (column.abs() > _LARGEST_WHOLE).any():
        large = column[column.abs() > _LARGEST_WHOLE].iloc[0]
        raise DataError(f"{path}: the label '{name}' is {large:g}; numbers of classes should be below 2**53")
    values = column.astype(int) if pd.api.types.is_float_dtype(column) else column
    if not (pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)):
        values = values.astype(object).map(str)  # `astype(str)` would decode bytes
    codes, classes = pd.factorize(values, sort=True)
    class_names = [str(each) for each in classes]
    counts = np.bincount(codes)
    if len(counts) < 2:
        raise DataError(f"{path}: the label '{name}' is {class_names[0]} in every row; there should be two classes")
    if (counts < 2).any():
        rare = printable(class_names[int(counts.argmin())], 60)
        once = f"the class '{rare}' of '{name}' has one example, which cannot be both learned and tested"
        raise DataError(f"{path}: {once}" + (" (is this column a class?)" if (counts < 2).mean() > 0.5 else ""))
    if len(counts) > _MOST_CLASSES:
        raise DataError(
            f"{path}: the label '{name}' has {len(counts)} values; more than {_MOST_CLASSES} are no classes"
        )
    return codes.astype(np.int64), class_names


def _tested(path: Path, column: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """(N,) whether a row is tested on, from a column of `train` and `test`."""
    words = column.astype(object).where(column.notna(), "nothing").astype(str)
    wrong = ~words.isin(["train", "test"]).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        found = printable(words.iloc[row], 60)
        raise DataError(
            f"{path}: '{column.name}' should say train or test in every row, not {found} {_line(path, row)}"
        )
    if words.nunique() < 2:
        raise DataError(f"{path}: '{column.name}' says {words.iloc[0]} in every row; some should say the other")
    return (words == "test").to_numpy()


def _numbers(path: Path, column: pd.Series[Any]) -> Values:
    """(N,) one feature as finite numbers; yes and no are 1 and 0."""
    import pandas as pd

    name = printable(str(column.name), 60)
    if (missing := column.isna().to_numpy()).any():
        row, count = int(missing.argmax()), int(missing.sum())
        also = f" and {count - 1} more" if count > 1 else ""
        raise DataError(
            f"{path}: '{name}' has no value {_line(path, row)}{also}: fill them in, or drop the column or rows"
        )
    if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
        # Decimals, and whole numbers of more than 64 bits, are numbers to people.
        numbers = pd.to_numeric(column.astype(object).map(str), errors="coerce")
        if numbers.isna().any():
            row = int(numbers.isna().to_numpy().argmax())
            found = printable(str(column.iloc[row]), 60)
            hint = f"store numbers, or leave it out with `drop: [{name}]`"
            raise DataError(f"{path}: '{name}' holds no numbers ('{found}' {_line(path, row)}): {hint}")
        column = numbers
    if pd.api.types.is_complex_dtype(column):
        raise DataError(f"{path}: '{name}' holds complex numbers: store real ones")
    values = column.to_numpy(np.float64)
    if not (finite := np.abs(values) < 1e150).all():  # squares of larger ones overflow
        row = int((~finite).argmax())
        raise DataError(
            f"{path}: '{name}' is {values[row]:g} {_line(path, row)}: numbers should be finite, below 1e150"
        )
    return values


def _data(
    what: str,
    dataset: ScikitTable | DataTable,
    names: list[str],
    values: Values,
    labels: Labels,
    class_names: list[str],
    tested: npt.NDArray[np.bool_] | None,
    say: Say,
) -> Data:
    """Both parts of a table, of `values` (N, F) and `labels` (N,); the fingerprint is that of all folds alike.

    Raises:
        DataError: a column does not vary, or a class has no row to learn from, in the whole or in any fold.
    """
    _check_varied(what, names, values, "all rows")
    parts = _parts(what, dataset, labels, tested)
    for number, part in enumerate(parts):
        train = "the training rows" + (f" of fold {number}" if len(parts) > 1 else "")
        _check_varied(what, names, values[~part], train)
        if len(lacking := np.setdiff1d(labels, labels[~part])):
            raise DataError(f"{what}: the class '{class_names[lacking[0]]}' has no example among {train}")
    test = parts[dataset.fold if len(parts) > 1 else 0]
    mean, std = values[~test].mean(0), values[~test].std(0)
    standard = (values - mean) / std
    clipped = int((np.abs(standard) > dataset.box).sum())
    if clipped:
        far = f"{clipped} of {standard.size} values are more than {dataset.box:g} standard deviations from the mean"
        say(f"{what}: {far}, and set there (`box`)")
    scaled = (dataset.box + standard.clip(-dataset.box, dataset.box)) / (2 * dataset.box)
    images = scaled.astype(np.float32).clip(0, 1)[:, None, None]
    return Data(
        Split(images[~test], labels[~test]),
        Split(images[test], labels[test]),
        len(class_names),
        known_sha256=_sha256(names, values, labels, tested),
        # Not measured: the network's first layer gives it back the standardised features.
        known_moments=Moments((0.5,), (1 / (2 * dataset.box),)),
        class_names=class_names,
        features=Features(names=names, mean=mean.tolist(), std=std.tolist(), box=dataset.box, clipped=clipped),
    )


def _check_varied(what: str, names: list[str], values: Values, rows: str) -> None:
    constant = values.min(0) == values.max(0)
    if constant.any():
        column = int(constant.argmax())
        name, value = printable(names[column], 60), values[0, column]
        raise DataError(f"{what}: '{name}' is {value:g} in {rows}: leave it out with `drop: [{name}]`")
    flat = ~(values.std(0) > 0)  # squares below 1e-308 are 0
    if flat.any():
        name = printable(names[int(flat.argmax())], 60)
        raise DataError(f"{what}: '{name}' varies too little in {rows} to be divided by it: store it in a larger unit")


def _parts(
    what: str, dataset: ScikitTable | DataTable, labels: Labels, tested: npt.NDArray[np.bool_] | None
) -> list[npt.NDArray[np.bool_]]:
    """For each fold, or for the one division there is, (N,) which rows are tested on."""
    if tested is not None:
        return [tested]
    rows = len(labels)
    if dataset.folds is None:
        part = np.zeros(rows, bool)
        part[hold_out(labels, dataset.tested(rows))[1]] = True
        return [part]
    if dataset.folds > rows:
        raise DataError(f"{what}: has {rows} rows, too few for {dataset.folds} folds")
    dealt = deal(labels, dataset.folds)
    return [dealt == fold for fold in range(dataset.folds)]


def _sha256(names: list[str], values: Values, labels: Labels, tested: npt.NDArray[np.bool_] | None) -> str:
    """SHA-256 (hex) over what was read: columns, numbers, labels, and a column that divides the rows."""
    digest = hashlib.sha256(f"{_VERSION}\0{values.shape}\0".encode())
    digest.update("\0".join(names).encode(errors="surrogatepass"))
    for array in (values, labels, *([] if tested is None else [tested])):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
