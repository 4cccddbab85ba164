"""The versions behind results as constraints of pip and uv: to install what the numbers were made with."""

from __future__ import annotations

import re
from collections import Counter

from robustbench_cmic.records.provenance import PACKAGES
from robustbench_cmic.report.folder import ReportError
from robustbench_cmic.report.results import Results

_VERSION = re.compile(r"[0-9A-Za-z.!+_-]{1,64}")
Versions = tuple[tuple[str, str], ...]
"""Names and versions of what one or more records were made with, in the order of `PACKAGES`, Python first."""


def constraints_text(results: Results) -> str:
    """A constraints file of the packages that records name; this package and Python stand in comments.

    Where records were made with several sets of versions, the set of most records holds; the others are comments.

    Raises:
        ReportError: no record says what it was made with.
    """
    found = Counter(versions for record in results.records.values() if (versions := _versions(record.provenance)))
    if not found:
        raise ReportError(f"{results.folder} holds no record that says which versions it was made with")
    (first, count), *others = found.most_common()
    lines = [f"# What {count} of {found.total()} records of {results.plan.suite} were made with.", *_lines(first)]
    if others:
        lines.append("# The records disagree: the lines above hold for most of them. The others were made with:")
    for versions, count in others:
        differing = tuple(pair for pair in versions if pair not in first)
        listed = ", ".join(" ".join(pair) for pair in differing) or "some versions that they do not tell"
        lines.append(f"# {count} {'record' if count == 1 else 'records'}: {listed}")
    return "\n".join(lines) + "\n"


def _versions(provenance: dict[str, object]) -> Versions:
    told = provenance.get("versions")
    if not isinstance(told, dict):
        return ()
    # Records may come from anywhere: what is no version would be a line of its own.
    sound = {name: text for name, text in told.items() if isinstance(text, str) and _VERSION.fullmatch(text)}
    return tuple((name, sound[name]) for name in ("python", *PACKAGES) if name in sound)


def _lines(versions: Versions) -> list[str]:
    comments = [f"# {name} {version}" for name, version in versions if name in ("python", PACKAGES[0])]
    return [*comments, *(f"{name}=={version}" for name, version in versions if name in PACKAGES[1:])]
