"""Reports as pages: self-contained HTML files that ask nothing of any network. Made of a board, like every format."""

from robustbench_cmic.report.page.index import index_page
from robustbench_cmic.report.page.suite import suite_page

__all__ = ["index_page", "suite_page"]
