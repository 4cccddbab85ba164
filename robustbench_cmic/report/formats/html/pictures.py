"""Adversarial examples to look at: of each model a few that its strongest attack at a middle eps found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.pictures import Picture, Pictures, read_pictures
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.frame import Ball, balls, models, size_of
from robustbench_cmic.report.summary import Summary

EXAMPLES = 4


@dataclass(frozen=True)
class Shown:
    """Some adversarial examples of a model.

    Attributes:
        attack, size: which attack found them, in which ball.
        accuracy: what that attack leaves, as a fraction.
    """

    model: str
    seed: int
    attack: str
    size: str
    accuracy: float
    pictures: Pictures

    @property
    def examples(self) -> Sequence[Picture]:
        """The first few."""
        return self.pictures.examples[:EXAMPLES]

    def said(self, before: bool, example: Picture) -> str:
        """`7 (99.8 %)`: what an image was taken for."""
        number = example.before if before else example.after
        confidence = example.confidence_before if before else example.confidence_after
        return f"{self.pictures.name(number)} ({100 * confidence:.1f} %)"


def gallery(board: Summary, folder: Path) -> list[Shown]:
    """For each model with pictures the strongest attack in the ball next to the middle that has any.

    Args:
        board: a suite's results, judged.
        folder: the suite's results folder.
    """
    found = (_of_model(board, folder, model) for model in models(board.results))
    return [shown for shown in found if shown is not None]


def _of_model(board: Summary, folder: Path, model: str) -> Shown | None:
    cells = [cell for cell in board.results.plan.of("attack") if cell.model == model]
    first = min((cell.seed for cell in cells), default=0)
    attacked = balls(board.results)
    for norm in dict.fromkeys(norm for norm, _ in attacked):
        for ball in _from_the_middle([ball for ball in attacked if ball[0] == norm]):
            there = [cell for cell in cells if (cell.norm, cell.eps, cell.seed) == (norm, ball[1], first)]
            for accuracy, record in sorted(_measured(board, there), key=lambda pair: pair[0]):
                pictures = read_pictures(folder, record.cell.id)
                if pictures is not None and pictures.examples and _belong(pictures, record):
                    return Shown(model, first, record.cell.attack, size_of(ball), accuracy, pictures)
    return None


def _from_the_middle(inside: list[Ball]) -> list[Ball]:
    """The balls of a norm, the middle one first; of a pair in the middle the smaller."""
    middle = (len(inside) - 1) // 2
    return [inside[place] for place in sorted(range(len(inside)), key=lambda place: (abs(place - middle), place))]


def _belong(pictures: Pictures, record: AttackRecord) -> bool:
    """Whether pictures show what a record measured: this attack on these weights and data, in this ball."""
    cell = record.cell
    shown = (pictures.suite, pictures.model, pictures.seed, pictures.attack, pictures.norm, pictures.eps)
    hashes = (pictures.dataset_sha256, pictures.checkpoint_sha256)
    return shown == (record.suite, cell.model, cell.seed, cell.attack, cell.norm, cell.eps) and hashes == (
        record.dataset_sha256,
        record.checkpoint_sha256,
    )


def _measured(board: Summary, cells: list[Cell]) -> list[tuple[float, AttackRecord]]:
    records = (record for cell in cells if (record := board.results.attack(cell)) is not None)
    return [(record.accuracy, record) for record in records if record.accuracy is not None]
