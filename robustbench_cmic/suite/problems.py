"""What is wrong with a suite file, as sentences: where (file, line, key), what, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

Location = tuple[str | int, ...]
"""The way to a value in a suite file: keys and list positions, as in `("models", 1, "id")`."""


@dataclass(frozen=True)
class Problem:
    """One error or warning of a suite file.

    Attributes:
        message: what is wrong and what would be right.
        location: the key it is about; empty for the file as a whole.
        line: one-based line in the file, where there is one.
    """

    message: str
    location: Location = ()
    line: int | None = None

    def text(self, file: str) -> str:
        """`suites/x.yaml:12: models[1].objective.lamda: unknown key; did you mean 'lambda'?`."""
        where = f"{file}:{self.line}" if self.line is not None else file
        parts = [where, dotted(self.location), self.message] if self.location else [where, self.message]
        return ": ".join(map(_printable, parts))


class SuiteError(Exception):
    """A suite that cannot be run; `problems` holds every reason found, in the order of the file."""

    def __init__(self, file: Path | str, problems: Iterable[Problem]) -> None:
        self.file = str(file)
        self.problems = sorted(problems, key=lambda problem: problem.line or 0)
        super().__init__("\n".join(problem.text(self.file) for problem in self.problems))


def _printable(text: str) -> str:
    """A suite's own words must neither steer the terminal nor flood it."""
    plain = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return plain if len(plain) <= 400 else f"{plain[:397]}..."


def dotted(location: Location) -> str:
    """`models[1].objective.lambda` for `("models", 1, "objective", "lambda")`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggestion(word: str, known: Iterable[str], listing: str = "known here") -> str:
    """`did you mean 'lambda'?`, or all known words where none is near."""
    words = list(dict.fromkeys(known))
    folded = {candidate.casefold(): candidate for candidate in words}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{folded[near[0]]}'?"
    return f"{listing}: {', '.join(words)}" if words else f"{listing}: none"


def line_of(location: Location, lines: Mapping[Location, int]) -> int | None:
    """Line of a location, or of the nearest place around it that is in the file."""
    for end in range(len(location), -1, -1):
        if location[:end] in lines:
            return lines[location[:end]]
    return None
