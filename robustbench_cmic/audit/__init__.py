"""The audit: which numbers of a results folder are not to be believed, and why. Rules over records; never torch."""

from __future__ import annotations

from robustbench_cmic.audit.case import Flag, Rule
from robustbench_cmic.audit.judge import RULES, Audit, flag_results

__all__ = ["RULES", "Audit", "Flag", "Rule", "flag_results"]
