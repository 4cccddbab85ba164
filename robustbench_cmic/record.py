"""Records: what a finished cell leaves behind, as typed, versioned JSON that carries its own checksum.

Everything needed to judge and repeat a number is in its record, the outcome of every example included, so that
tables, intervals and tests are pure functions of records. Nothing here imports torch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustbench_cmic.cell import Cell, canonical_json
from robustbench_cmic.record_schema import ADAPTER, KINDS, SCHEMA, AnyRecord, AttackRecord, AuditRecord, Timing
from robustbench_cmic.resampling import unpack_replicates
from robustbench_cmic.statistics import wilson_interval


class CorruptRecordError(Exception):
    """A file that is no whole, unaltered record; the message says why."""


def failed_record(suite: str, cell: Cell, reason: str, provenance: dict[str, Any], timing: Timing) -> AnyRecord:
    """The record of a cell that ended without a result."""
    return KINDS[cell.kind](
        suite=suite, cell=cell, status="failed", reason=reason, provenance=provenance, timing=timing
    )


def pack_outcomes(correct: Sequence[bool]) -> str:
    """Truth values -> base64 of packed bits, most significant first: about N / 6 characters."""
    bits = "".join("1" if value else "0" for value in correct)
    size = (len(bits) + 7) // 8
    return base64.b64encode(int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")).decode("ascii")


def outcome_bits(text: str, n: int) -> int:
    """The n outcomes that `pack_outcomes` packed, as the bits of one integer: `&` and `bit_count` do the rest.

    Raises:
        CorruptRecordError: not n outcomes.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    padding = 8 * len(raw) - n
    bits = int.from_bytes(raw, "big")
    if not 0 <= padding < 8 or bits & ((1 << padding) - 1):
        raise CorruptRecordError(f"the outcomes are not {n} packed bits")
    return bits >> padding


def checksum(payload: dict[str, Any]) -> str:
    """SHA-256 over a JSON object without its `sha256` key."""
    return hashlib.sha256(canonical_json({k: v for k, v in payload.items() if k != "sha256"}).encode()).hexdigest()


def write_json(path: Path, payload: dict[str, Any]) -> None:
    """Write a JSON object with its checksum, so that a reader finds the old file or the whole new one."""
    text = json.dumps({**payload, "sha256": checksum(payload)}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def unwritten(error: OSError, place: Path) -> str:
    """What could not be written and why, for people; `place` where the error names no file, a rename's target first."""
    return f"{error.filename2 or error.filename or place}: {error.strerror or error}"


def write_atomically(path: Path, content: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the folder.

    Raises:
        OSError: nothing was changed then, and no temporary file is left.
    """
    try:
        _replace(path, content)
    except OSError as error:
        # A full disk is noticed on a file handle, which has no name.
        raise OSError(error.errno, error.strerror, str(path)) from None


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # mkstemp gives 0600; results are for others to read.
            os.fchmod(file.fileno(), 0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        CorruptRecordError: not whole, altered, or no JSON object.
        FileNotFoundError: there is no such file.
    """
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise CorruptRecordError("not whole JSON") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptRecordError(f"cannot be read: {error.strerror}") from None
    if not isinstance(payload, dict):
        raise CorruptRecordError("no JSON object")
    try:
        if payload.get("sha256") != checksum(payload):
            raise CorruptRecordError("its checksum does not fit its content")
    except ValueError:
        raise CorruptRecordError("it holds NaN or infinity") from None
    except RecursionError:
        raise CorruptRecordError("it is nested too deeply") from None
    del payload["sha256"]
    return payload


def record_path(folder: Path, cell: str) -> Path:
    """Where the record of a cell lies in a suite's results folder."""
    return folder / f"{cell}.json"


def write_record(folder: Path, record: AnyRecord) -> None:
    """Write a record into a suite's results folder, atomically."""
    write_json(record_path(folder, record.cell.id), record.model_dump(mode="json"))


def read_record(path: Path) -> AnyRecord:
    """Read and check a record.

    Raises:
        CorruptRecordError: not whole, altered, of another schema, under another cell's name, or with numbers that
            do not follow from its outcomes.
        FileNotFoundError: there is no such record.
    """
    payload = read_json(path)
    try:
        record = ADAPTER.validate_python(payload)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the record"
        raise CorruptRecordError(f"not of schema {SCHEMA}: {where}: {first['msg']}") from None
    if record.kind != record.cell.kind:
        raise CorruptRecordError(f"it is of kind {record.kind}, its cell of kind {record.cell.kind}")
    if path != record_path(path.parent, record.cell.id):
        raise CorruptRecordError(f"it is the record of {record.cell.id}, under another name")
    if isinstance(record, AttackRecord) and record.status == "ok":
        _check_numbers(record)
    if isinstance(record, AuditRecord):
        _check_probe(record)
    return record


def _check_numbers(record: AttackRecord) -> None:
    """A checksum shows that a record is as it was written; that its numbers follow from its outcomes shows more."""
    n, information = record.n, record.information
    if not n or information is None:
        raise CorruptRecordError("it holds no measurement although its status is ok")
    correct = outcome_bits(record.outcomes or "", n).bit_count()
    if (record.accuracy, record.ci_low, record.ci_high) != (correct / n, *wilson_interval(correct, n)):
        raise CorruptRecordError("its accuracy or interval does not follow from its outcomes")
    if information.ncmi != (information.cmi / information.separation if information.separation > 0 else None):
        raise CorruptRecordError("its NCMI is not CMI / separation")
    try:
        unpack_replicates(record.ncmi_replicates or "")
    except ValueError as error:
        raise CorruptRecordError(f"its bootstrap of NCMI cannot be read: {error}") from None


def _check_probe(record: AuditRecord) -> None:
    """Outcomes for all of the audit's examples, which are places among the evaluated ones."""
    if any(place < 0 for place in record.positions) or record.positions != sorted(set(record.positions)):
        raise CorruptRecordError("its positions are not ascending places")
    for check in record.checks:
        if check.outcomes is not None:
            outcome_bits(check.outcomes, len(record.positions))
