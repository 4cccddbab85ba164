"""Adversarial examples to look at: of each model a few that its strongest attack at a middle eps found."""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

from robustbench_cmic.records.pictures import Pictures, read_pictures
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.suite.fields import Threat

GALLERY_SIZE = 4
_OF_CELL = attrgetter("model", "seed", "attack", "norm", "eps")
_OF_RECORD = attrgetter("suite", "dataset_sha256", "checkpoint_sha256")


class GalleryEntry(NamedTuple):
    """The first few adversarial examples of a model.

    Attributes:
        size: the threat at which an attack found them, in words.
        accuracy: what that attack leaves, as a fraction.
    """

    pictures: Pictures
    size: str
    accuracy: float


def gallery(summary: Summary) -> list[GalleryEntry]:
    """For each model with pictures the strongest attack at the eps next to the middle that has any."""
    return [entry for model in summary.results.models if (entry := _of_model(summary, model)) is not None]


def _of_model(summary: Summary, model: str) -> GalleryEntry | None:
    results = summary.results
    attacked = [cell for cell in results.plan.of("attack") if cell.model == model]
    seed = min((cell.seed for cell in attacked), default=0)
    for norm in dict.fromkeys(threat.norm for threat in results.threats):
        for threat in _from_the_middle([threat for threat in results.threats if threat.norm == norm]):
            cells = [cell for cell in attacked if (cell.threat, cell.seed) == (threat, seed)]
            records = [record for cell in cells if (record := results.attack(cell.id)) is not None]
            for record in sorted(records, key=lambda record: record.accuracy or 0.0):
                pictures = read_pictures(results.folder, record.cell.id)
                if pictures is not None and pictures.examples and _belong(pictures, record):
                    few = pictures.model_copy(update={"examples": pictures.examples[:GALLERY_SIZE]})
                    return GalleryEntry(few, str(threat), record.accuracy or 0.0)
    return None


def _from_the_middle(threats: list[Threat]) -> list[Threat]:
    """The threats of a norm, the middle one first; of a pair in the middle the smaller."""
    middle = (len(threats) - 1) // 2
    return [threats[place] for place in sorted(range(len(threats)), key=lambda place: (abs(place - middle), place))]


def _belong(pictures: Pictures, record: AttackRecord) -> bool:
    """Whether pictures show what a record measured: this attack on these weights and data, in this ball."""
    return _OF_CELL(pictures) == _OF_CELL(record.cell) and _OF_RECORD(pictures) == _OF_RECORD(record)
