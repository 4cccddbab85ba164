"""What is wrong with how a command is called, in one sentence each, in place of the parser's block of usage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import typer

from robustbench_cmic.suite.messages import UserError, suggestion

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of click, or of the copy of it that newer versions of typer hold."""


@contextlib.contextmanager
def in_one_sentence() -> Iterator[None]:
    """Where a command line is parsed; raises UserError in place of the parser's own errors."""
    try:
        yield
    except _UsageError as error:
        raise UserError(_sentence(error)) from None


def unknown_command(word: str, commands: Iterable[str]) -> UserError:
    """What to raise for a word that is no command."""
    return UserError(f"{word}: there is no such command; {suggestion(word, commands, 'there are')}")


def _sentence(error: Any) -> str:
    context, kind, message = error.ctx, type(error).__name__, error.message
    command = "robustbench-cmic" if context is None or context.parent is None else context.info_name
    parameter = getattr(error, "param", None)
    if kind == "NoSuchOption":
        known = [name for each in context.command.params for name in each.opts if name.startswith("-")] + ["--help"]
        return f"{error.option_name}: {command} has no such option; {suggestion(error.option_name, known, 'it has')}"
    if kind == "BadOptionUsage":
        lacks = "requires" in message
        return f"{error.option_name}: {'should have a value behind it' if lacks else 'takes no value'}"
    if kind == "MissingParameter" and parameter is not None:
        return f"{command}: {_name(parameter)} is missing: {parameter.help}"
    if parameter is not None:
        return f"{_name(parameter)}: {message.removeprefix('Value error, ').removesuffix('.')}"
    return f"{command}: {message[:1].lower()}{message[1:].removesuffix('.')}; see `{command} --help`"


def _name(parameter: Any) -> str:
    """`--limit`, `SUITE`."""
    longest = max(parameter.opts, key=len)
    return str(longest) if longest.startswith("-") else str(parameter.metavar or parameter.name).upper()
