"""Words for people at a terminal: every one that is printed comes through here.

What a suite, a record, the name of a file or a user's own code says may hold anything. Here it can neither steer the
terminal, nor begin a line of its own, nor flood it; and what a terminal cannot encode is replaced, never a traceback.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from robustbench_cmic.suite.messages import UserError, escaped_controls, printable

if TYPE_CHECKING:
    from rich.console import Console

LONGEST = 1200
"""Characters of one line; a path may have many."""


def encode_anything() -> None:
    r"""From here on this process prints what its terminal cannot encode as Python writes it, `\xe9` for an e acute."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # and not what a caller has put in its place
            stream.reconfigure(errors="backslashreplace")


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
