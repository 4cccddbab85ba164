"""Cells -> records: the main path, its jobs, executors, and what is shown meanwhile."""

DONE, INCOMPLETE, USAGE, DIFFERENT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all done; some cell has no result; suite or command line wrong; results differ; may be gone on with."""
