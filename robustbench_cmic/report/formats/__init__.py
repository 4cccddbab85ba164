"""Report formats: one format, one file, and a template where it is text for people."""

from __future__ import annotations

from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from robustbench_cmic.report import about, against, class_batches, costs, grid, robust_information, settings, tables
from robustbench_cmic.report.finding import finding
from robustbench_cmic.report.law_text import law_finding, law_tables
from robustbench_cmic.report.lead import lead, rivals_finding
from robustbench_cmic.suite.fields import NORM_NAMES


def renderer(package: str, **options: Any) -> Environment:
    """What renders the files in the folder `templates` of a package; all have the same tables, prose as Markdown."""
    environment = partial(Environment, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    macros = environment(loader=PackageLoader(__name__)).get_template("prose.md.j2").module

    def prose(macro: str, *arguments: object) -> str:
        # Called from a page a macro would mark its text as safe; called from here it does not.
        return str(getattr(macros, macro)(*arguments))

    pages = environment(loader=PackageLoader(package), **options)
    pages.globals |= {"about": about, "against": against, "class_batches": class_batches, "costs": costs}
    pages.globals |= {"grids": grid, "settings": settings, "tables": tables}
    pages.globals |= {"law_finding": law_finding, "law_tables": law_tables, "lead": lead}
    pages.globals["rivals_finding"] = rivals_finding
    pages.globals |= {"robust_information": robust_information.robust_information}
    pages.globals |= {"finding": finding, "norm_names": NORM_NAMES, "prose": prose}
    return pages
