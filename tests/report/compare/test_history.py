"""The history of reproductions and its picture."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from robustbench_cmic.records.files import CorruptRecordError, read_json, write_json
from robustbench_cmic.report.compare.certificate import CellVerdict, Certificate, Flips, counts_of
from robustbench_cmic.report.compare.history import (
    HISTORY_COLUMNS,
    append_row,
    history_row,
    read_history,
    trend_svg,
)


def certificate(**changes: object) -> Certificate:
    flips = [Flips(check="", lost=[4, 9], gained=[1], p=1.0), Flips(check="x", lost=[4], gained=[], p=1.0)]
    cells = [
        CellVerdict(cell="a", title="a", kind="attack", verdict="bit-identical"),
        CellVerdict(
            cell="b", title="b", kind="attack", verdict="drifted", flips=flips, accuracy_recorded=0.5,
            accuracy_here=0.48,
        ),
        CellVerdict(
            cell="c", title="c", kind="attack", verdict="within interval", accuracy_recorded=0.5, accuracy_here=0.51
        ),
    ]  # fmt: skip
    fields: dict[str, object] = {
        "suite": "made", "sentence": "made: so", "verdict": "drifted", "exit_code": 3,
        "started": "2026-01-02T03:04:05+00:00", "seconds": 61.4, "suite_file": "made.yaml", "suite_sha256": "0" * 64,
        "against": "old", "results": "new", "fraction": 1.0, "recorded": 3, "counts": counts_of(cells), "inputs": [],
        "environment": [], "environment_recorded": {},
        "environment_here": {
            "commit": "f" * 40, "versions.torch": "2.15.0", "device": "NVIDIA A100, 80GB", "processor": "EPYC",
            "instructions": "AVX512",
        },
        "dataset_sha256": {"recorded": [], "here": []}, "cells": cells,
    }  # fmt: skip
    return Certificate.model_validate(fields | changes)


def test_a_line_a_run_under_one_header(tmp_path: Path) -> None:
    for day in ("02", "03"):
        append_row(tmp_path, history_row(certificate(started=f"2026-01-{day}T03:04:05+00:00")))
    with (tmp_path / "nightly.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == list(HISTORY_COLUMNS)
    assert [line[0][8:10] for line in lines[1:]] == ["02", "03"]
    assert dict(zip(HISTORY_COLUMNS, lines[1], strict=True)) == {
        "date": "2026-01-02T03:04:05+00:00", "commit": "f" * 40, "torch": "2.15.0", "device": "NVIDIA A100, 80GB",
        "processor": "EPYC, AVX512", "cells": "3", "bit_identical": "1", "same_predictions": "0",
        "within_interval": "1", "drifted": "1", "missing": "0", "failed": "0", "flipped_examples": "3",
        "largest_change_points": "-2.000", "seconds": "61", "verdict": "drifted",
    }  # fmt: skip


def damaged(**changes: str) -> str:
    """A history whose only line has other values."""
    line = history_row(certificate()).model_dump() | changes
    return ",".join(HISTORY_COLUMNS) + "\n" + ",".join(f'"{line[name]}"' for name in HISTORY_COLUMNS) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "date,torch\n",
        ",".join(HISTORY_COLUMNS) + "\n1,2\n",
        damaged(drifted="9" * 400),
        damaged(cells="-1"),
        damaged(seconds="1e3"),
        damaged(largest_change_points="nan"),
        damaged(largest_change_points="1e999"),
        damaged(commit="x" * 200_000),
        damaged(torch="2\x002"),
        damaged(device="a\nb"),
        damaged(date="$x$"),
        damaged(verdict="drif"),
        damaged()[:-2],
    ],
)
def test_another_file_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "nightly.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match="is no history of reproductions"):
        append_row(tmp_path, history_row(certificate()))
    assert file.read_text() == text


def test_a_whole_history_is_read_and_no_other_line_added(tmp_path: Path) -> None:
    file = tmp_path / "nightly.csv"
    file.write_text(damaged())
    assert read_history(tmp_path) == [history_row(certificate())]
    with pytest.raises(ValueError, match="the new line is none of a history: device holds control characters"):
        append_row(tmp_path, history_row(certificate(environment_here={"device": "a\x1b[31m"})))
    assert file.read_text() == damaged()
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is no history of reproductions: 'utf-8' codec"):
        read_history(tmp_path)


def test_the_picture_is_the_same_bytes_and_says_what_it_shows(tmp_path: Path) -> None:
    rows = [append_row(tmp_path, history_row(certificate())) for _ in range(3)][-1]
    assert rows == read_history(tmp_path)
    drawn = trend_svg("made", rows)
    assert drawn == trend_svg("made", rows)
    assert not re.search(r"<dc:date>|Matplotlib", drawn)
    picture = ElementTree.fromstring(drawn)
    assert picture[0].tag.endswith("}title")
    assert picture[0].text == "Nightly reproductions of made"
    texts = [element.text for element in picture.iter() if element.tag.endswith("}text")]
    assert {"2026-01-02", "bit-identical", "drifted"} <= set(texts)
    assert drawn != trend_svg("made", rows[:2])


def test_an_altered_certificate_is_not_believed(tmp_path: Path) -> None:
    written = certificate()
    file = tmp_path / "certificate.json"
    write_json(file, written.model_dump(mode="json"))
    assert Certificate.model_validate(read_json(file)) == written
    file.write_text(file.read_text().replace('"exit_code": 3', '"exit_code": 0'))
    with pytest.raises(CorruptRecordError, match="checksum"):
        read_json(file)
