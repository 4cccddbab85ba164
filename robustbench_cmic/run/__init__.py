"""Cells -> records: the runner, the jobs that it carries out, and the executors that run them."""
