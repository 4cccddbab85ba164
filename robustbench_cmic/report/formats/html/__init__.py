"""Reports as pages: self-contained HTML files that ask nothing of any network."""

from __future__ import annotations

from robustbench_cmic.report.formats.html.index import index_page
from robustbench_cmic.report.formats.html.suite import suite_page

__all__ = ["index_page", "suite_page"]
