"""Words for people at a terminal: every one that is printed comes through here.

What a suite, a record, the name of a file or a user's own code says may hold anything. Here it can neither steer the
terminal, nor begin a line of its own, nor flood it; and what a terminal cannot encode is replaced, never a traceback.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from robustbench_cmic.suite.messages import UserError, escaped_controls, os_error_reason, printable

if TYPE_CHECKING:
    from rich.console import Console

LONGEST = 1200
"""Characters of one line; a path may have many."""


_ASCII = {"±": "+-", "†": "*", "–": "-", "×": "x", "…": "...", "≤": "<=", "≥": ">="}
"""What we print ourselves, for terminals that know no more than ASCII."""


def _readable(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    error.end = error.start + 1
    character = error.object[error.start]
    return (_ASCII[character], error.end) if character in _ASCII else codecs.backslashreplace_errors(error)


def encode_anything() -> None:
    r"""From here on this process prints in ASCII what its terminal cannot encode: `+-` for ±, `\xe9` for an e acute."""
    codecs.register_error("readable", _readable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # and not what a caller has put in its place
            stream.reconfigure(errors="readable")


class OutputError(Exception):
    """Standard output takes no more; the message says why. No OSError, which is taken for a folder's.

    Attributes:
        is_unread: who read it has gone, which may be on purpose, as with `| head`.
    """

    def __init__(self, error: OSError) -> None:
        self.is_unread = error.errno == errno.EPIPE
        super().__init__(f"stdout: cannot be written to: {os_error_reason(error)}")


class _Output(io.FileIO):
    """A stream whose errors are told from those of files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - takes all that is still printed, as Python ends
                os.dup2(nowhere.fileno(), self.fileno())
            raise OutputError(error) from None


def tell_output_errors() -> None:
    """From here on this process raises OutputError where standard output cannot be written to."""
    old = sys.stdout
    if not isinstance(old, io.TextIOWrapper):
        return
    raw = _Output(old.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        raw if old.write_through else io.BufferedWriter(raw),
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=old.line_buffering,
        write_through=old.write_through,
    )


def fit_lines(message: object) -> list[str]:
    """A message as it may be printed: one line, but for a `UserError` that has several."""
    lines = message.args if isinstance(message, UserError) else (message,)
    return [printable(str(line), LONGEST) for line in lines]


def show(*messages: object, error: bool = False) -> None:
    """Print messages, each on a line of its own; `error`: to stderr."""
    for message in messages:
        print(*fit_lines(message), sep="\n", file=sys.stderr if error else sys.stdout)


def show_text(text: str) -> None:
    """Print a text of many lines, tables among them, in which line breaks are our own."""
    print(*map(escaped_controls, text.removesuffix("\n").split("\n")), sep="\n", flush=True)


def sayer(console: Console, **layout: Any) -> Callable[[str], None]:
    """What prints a message, on one line, above the bars of a console; `layout` is for `Console.print`."""

    def say(message: str) -> None:
        console.print(*fit_lines(message), sep="\n", markup=False, emoji=False, highlight=False, **layout)

    return say
