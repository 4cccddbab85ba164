"""`merge`: results that were made in parts, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import WorkOption
from robustbench_cmic.run import DONE, INCOMPLETE
from robustbench_cmic.run.console import show


def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Results folders, such as those of `run --shard`.", show_default=False),
    ],
    into: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the results of the whole go; they must not be there already.")
    ],
    work: WorkOption = None,
) -> None:
    """Bring results of one suite that were made in parts together, and write the report.

    Plans, data and records are checked; what contradicts itself is refused, and nothing is written then. Exit 1 where
    cells have no result.
    """
    from robustbench_cmic.run.merge import merge_results

    merged = merge_results(parts, into, work)
    show(*(sentence for sentence, _ in merged))
    raise typer.Exit(DONE if all(done for _, done in merged) else INCOMPLETE)
