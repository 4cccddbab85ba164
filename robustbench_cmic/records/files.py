"""Files that are written atomically, with a checksum over their content, and read with it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustbench_cmic import __version__
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.suite.files import open_regular, read_regular
from robustbench_cmic.suite.messages import UserError, os_error_reason


class CorruptRecordError(UserError):
    """A file that is no whole, unaltered record; the message says why."""


class NewerFileError(CorruptRecordError):
    """A whole file that a newer version has written: nothing is wrong with it, and it is not to be overwritten.

    The message says from which: `from version 0.2.0, newer than this one (0.1.0): ...`.
    """


def checksum(payload: dict[str, Any]) -> str:
    """SHA-256 over a JSON object without its `sha256` key."""
    return hashlib.sha256(canonical_json({k: v for k, v in payload.items() if k != "sha256"}).encode()).hexdigest()


def write_json(path: Path, payload: dict[str, Any]) -> None:
    """Write a JSON object with its checksum, so that a reader finds the old file or the whole new one."""
    text = json.dumps({**payload, "sha256": checksum(payload)}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def unwritten(error: OSError, place: Path) -> str:
    """What could not be written and why, for people; `place` where the error names no file, a rename's target first."""
    return f"{error.filename2 or error.filename or place}: {os_error_reason(error)}"


def write_atomically(path: Path, content: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the folder.

    Raises:
        OSError: nothing was changed then, and no temporary file is left.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                # mkstemp gives 0600; results are for others to read.
                os.fchmod(file.fileno(), 0o644)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        # A full disk is noticed on a file handle, which has no name.
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        CorruptRecordError: not whole, altered, or no JSON object.
        FileNotFoundError: there is no such file.
    """
    try:
        payload = json.loads(read_regular(path).decode())
    except (ValueError, RecursionError):
        raise CorruptRecordError("not whole JSON") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptRecordError(f"cannot be read: {os_error_reason(error)}") from None
    if not isinstance(payload, dict):
        raise CorruptRecordError("no JSON object")
    try:
        if payload.pop("sha256", None) != checksum(payload):
            raise CorruptRecordError("its checksum does not fit its content")
    except ValueError:
        raise CorruptRecordError("it holds NaN or infinity") from None
    except RecursionError:
        raise CorruptRecordError("it is nested too deeply") from None
    return payload


def newer_file(payload: dict[str, Any], schema: str, error: ValidationError) -> NewerFileError | None:
    """What to raise for a file with a right checksum that is not of a schema, where a newer version has written it.

    It is of a later number of this schema, or of this number with keys that are not known here, for optional keys are
    added without another number. None where the file is neither.
    """
    name, _, number = schema.rpartition("/")
    theirs, version = payload.get("schema"), _written_by(payload)
    found = re.fullmatch(rf"(?:{re.escape(name)}/)?(\d{{1,9}})", str(theirs))
    if found is not None and int(found[1]) > int(number):
        why = f"of schema {name}/{found[1]}, and this one reads {schema}"
    elif theirs == schema and all(each["type"] == "extra_forbidden" for each in error.errors()):
        if version is not None and _numbers(version) < _numbers(__version__):
            return None
        keys = dict.fromkeys(str(each["loc"][-1]) for each in error.errors())
        why = f"it has keys that this one does not know: {', '.join(keys)}"
    else:
        return None
    origin = "a version" if version is None else f"version {version},"
    return NewerFileError(f"from {origin} newer than this one ({__version__}): {why}")


def _written_by(payload: dict[str, Any]) -> str | None:
    """The version of this package that a record names; None where it names none."""
    place: Any = payload
    for key in ("provenance", "versions", "robustbench_cmic"):
        place = place.get(key) if isinstance(place, dict) else None
    return place if isinstance(place, str) and re.fullmatch(r"[0-9A-Za-z.+!-]{1,40}", place) else None


def _numbers(version: str) -> list[int]:
    """What versions are compared by: `0.1.0.dev3` is [0, 1, 0]."""
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def file_sha256(path: Path) -> str | None:
    """SHA-256 (hex) of a file; None where there is none that can be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
