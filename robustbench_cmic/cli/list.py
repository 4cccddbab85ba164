"""What suites may say: `list`, `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import fail
from robustbench_cmic.records.files import write_atomically


def list_() -> None:
    """List what suites may name: suites that come along, data sets, architectures, objectives, attacks."""
    from robustbench_cmic.cli.plan import name_table

    print(name_table())


def schema(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to a file instead of the terminal.")
    ] = None,
) -> None:
    """Print the JSON Schema of suite files, for editors."""
    from robustbench_cmic.suite.schema import suite_json_schema

    text = suite_json_schema()
    if output is None:
        print(text, end="")
        return
    try:
        write_atomically(output, text.encode())
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror or error}")
