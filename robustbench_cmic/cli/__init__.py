"""The command line: parses, calls one function, turns its answer into an exit code (see `run`)."""

from __future__ import annotations

import signal
import sys
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from robustbench_cmic import __version__
from robustbench_cmic.cli.arguments import fail, tell
from robustbench_cmic.cli.compare import compare
from robustbench_cmic.cli.evaluate import evaluate_
from robustbench_cmic.cli.list import list_, schema
from robustbench_cmic.cli.merge import merge
from robustbench_cmic.cli.plan import plan, validate
from robustbench_cmic.cli.report import audit, report
from robustbench_cmic.cli.reproduce import reproduce
from robustbench_cmic.cli.run import run
from robustbench_cmic.cli.status import status
from robustbench_cmic.cli.usage import in_one_sentence, unknown_command
from robustbench_cmic.records.provenance import installed
from robustbench_cmic.run import INCOMPLETE, INTERRUPTED
from robustbench_cmic.run.console import OutputError, encode_anything, tell_output_errors
from robustbench_cmic.suite.messages import UserError


class _Boundary(TyperGroup):
    """Where every command's errors end: what a user can set right is said in its sentence, without a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:  # typer prints the help
            return super().parse_args(ctx, args)
        try:
            with in_one_sentence():
                return super().parse_args(ctx, args)
        except UserError as error:
            fail(error)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown_command(args[0], self.commands)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with in_one_sentence():
                return super().invoke(ctx)
        except UserError as error:
            fail(error)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


class _Command(TyperCommand):
    """A command that takes no empty text for an answer: it is an unset variable of the shell, and `''` a folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags = {option for each in self.params if getattr(each, "is_flag", False) for option in each.opts}
        for before, word in pairwise(["", *args]):
            name = before if before.startswith("--") and before not in flags else "an argument"
            if word == "" or (word.startswith("--") and word.endswith("=")):
                raise UserError(f"{word[:-1] or name}: is empty; an unset variable of the shell?")
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Boundary,
    name="robustbench-cmic",
    help="Does training with CMIC-DL make classifiers more accurate and more robust than cross entropy?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Entry point of the console script and of `python -m robustbench_cmic`."""
    encode_anything()
    tell_output_errors()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OutputError as error:
        if not error.is_unread:
            tell([error])
        sys.exit(INCOMPLETE)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="With --version: what is installed, and where this package lies.")
    ] = False,
) -> None:
    if verbose and not version:
        fail("--verbose: goes with --version, and says what is installed")
    if version:
        lines = [f"{name} {value}" for name, value in installed().items()] if verbose else [__version__]
        print(*lines, sep="\n")
        raise typer.Exit


app.command(cls=_Command)(run)
app.command(name="evaluate", cls=_Command)(evaluate_)
for command in (status, plan, validate, report, audit, compare, reproduce, merge, schema):
    app.command(cls=_Command)(command)
app.command(name="list", cls=_Command)(list_)
