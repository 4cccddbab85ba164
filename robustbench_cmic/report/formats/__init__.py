"""Report formats: one format, one file, and a template where it is text for people."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str, **options: Any) -> Environment:
    """What renders the files in the folder `templates` of a package."""
    return Environment(
        loader=PackageLoader(package), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
