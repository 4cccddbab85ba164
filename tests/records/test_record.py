"""Records: what is written is what is read; anything else is refused with the reason."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import CorruptRecordError, read_json, write_atomically, write_json
from robustbench_cmic.records.packing import count_correct, pack_outcomes, unpack_outcomes
from robustbench_cmic.records.schema import AttackRecord, Timing
from robustbench_cmic.records.store import Store, failed_record, read_record, write_record
from robustbench_cmic.statistics import wilson_interval

CELL = Cell(
    id="m.s0.FGSM.0123", kind="attack", model="m", architecture="mlp", objective="ce", seed=0, attack="FGSM",
    norm="linf", eps=0.1, needs="m.s0.train.4567", declared={"evaluation": {"split": "test"}},
)  # fmt: skip


INFORMATION = {"cmi": 0.5, "separation": 2.0, "ncmi": 0.25, "class_cmi": [0.5], "class_separation": [2.0]}


def record(**changes: object) -> AttackRecord:
    fields = {
        "suite": "s", "cell": CELL, "status": "ok", "provenance": {}, "timing": Timing(started="now", seconds=1.0),
        "n": 5, "accuracy": 0.6, "outcomes": pack_outcomes([True, False, True, False, True]),
        "ci_low": wilson_interval(3, 5)[0], "ci_high": wilson_interval(3, 5)[1], "information": INFORMATION,
    }  # fmt: skip
    return AttackRecord.model_validate(fields | changes)


@given(st.lists(st.booleans(), max_size=300))
def test_outcomes_come_back(correct: list[bool]) -> None:
    packed = pack_outcomes(correct)
    assert unpack_outcomes(packed, len(correct)).tolist() == correct
    assert count_correct(packed, len(correct)) == sum(correct)


def test_outcomes_of_ten_thousand_examples_are_small() -> None:
    correct = [random.Random(0).random() < 0.5 for _ in range(10_000)]
    assert len(pack_outcomes(correct)) == 1668


@pytest.mark.parametrize(("text", "n"), [("????", 5), ("qA==", 17), ("qA==", 0), ("qQ==", 5), ("", 1)])
def test_wrong_outcomes_are_refused(text: str, n: int) -> None:
    with pytest.raises(CorruptRecordError, match=f"not {n} packed bits"):
        unpack_outcomes(text, n)


def test_comes_back(tmp_path: Path) -> None:
    written = record()
    write_record(tmp_path, written)
    assert read_record(Store(tmp_path).record(CELL.id)) == written
    assert [file.name for file in tmp_path.iterdir()] == ["m.s0.FGSM.0123.json"]


def test_failed_records_say_why(tmp_path: Path) -> None:
    failed = failed_record("s", CELL, "the attack crashed", {}, Timing(started="now", seconds=0.0))
    write_record(tmp_path, failed)
    again = read_record(Store(tmp_path).record(CELL.id))
    assert (again.status, again.reason) == ("failed", "the attack crashed")


def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    write_record(tmp_path, record())
    file = Store(tmp_path).record(CELL.id)
    content = file.read_bytes()
    for position in range(0, len(content) - 1, 7):
        file.write_bytes(content[:position])
        with pytest.raises(CorruptRecordError):
            read_record(file)
        changed = bytearray(content)
        changed[position] ^= 1
        file.write_bytes(changed)
        try:
            harmless = json.loads(changed) == json.loads(content)  # white space, say
        except ValueError:
            harmless = False
        if not harmless:
            with pytest.raises(CorruptRecordError):
                read_record(file)


def test_another_schema_name_or_content_is_refused(tmp_path: Path) -> None:
    file = Store(tmp_path).record(CELL.id)
    payload = record().model_dump(mode="json")
    for change, message in (
        ({"schema": "robustbench_cmic/record/0"}, "not of schema"),
        ({"accuracy": "high"}, "accuracy"),
        ({"surprise": 1}, "surprise"),
        ({"outcomes": "AAAA"}, "not 5 packed bits"),
        ({"outcomes": pack_outcomes([True] * 5)}, "does not follow from its outcomes"),
        ({"accuracy": 0.8}, "does not follow from its outcomes"),
        ({"ci_low": 0.5}, "does not follow from its outcomes"),
        ({"information": INFORMATION | {"ncmi": 0.2}}, "NCMI is not CMI / separation"),
        ({"information": None}, "no measurement"),
        ({"n": None}, "no measurement"),
    ):
        write_json(file, payload | change)
        with pytest.raises(CorruptRecordError, match=message):
            read_record(file)
    write_json(tmp_path / "other.json", payload)
    with pytest.raises(CorruptRecordError, match="under another name"):
        read_record(tmp_path / "other.json")
    file.write_text("[1, 2]")
    with pytest.raises(CorruptRecordError, match="no JSON object"):
        read_json(file)
    file.write_text("[" * 100_000)
    with pytest.raises(CorruptRecordError, match="not whole JSON"):
        read_json(file)
    file.write_text('{"a": NaN}')
    with pytest.raises(CorruptRecordError, match="NaN"):
        read_json(file)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
