"""`python -m robustbench_cmic` and the console script: the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an interrupt before it can answer ends like any other."""
    try:
        from robustbench_cmic.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
