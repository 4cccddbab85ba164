"""`list` and `schema`: what suites may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import fail, writing
from robustbench_cmic.records.files import write_atomically


def list_() -> None:
    """List what suites may name: suites that come along, data sets, architectures, objectives, attacks."""
    from robustbench_cmic.suite import shipped_suites
    from robustbench_cmic.suite.attacks import NATIVE_ATTACKS
    from robustbench_cmic.suite.data import DATASETS
    from robustbench_cmic.suite.models import ARCHITECTURES
    from robustbench_cmic.suite.objectives import OBJECTIVES
    from robustbench_cmic.suite.torchattacks import attack_modules

    kinds = {
        "suites": list(shipped_suites()),
        "datasets": list(DATASETS),
        "architectures": list(ARCHITECTURES),
        "objectives": list(OBJECTIVES),
        "attacks": list(NATIVE_ATTACKS),
        "attacks of torchattacks": [name for name in attack_modules() if name not in NATIVE_ATTACKS],
    }
    for kind, names in kinds.items():
        print(f"{kind}: {', '.join(names)}")


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
    if output.exists() and not output.is_file():
        fail(f"--output {output}: is no regular file, which alone can be replaced")
    with writing(output):
        write_atomically(output, text.encode())
