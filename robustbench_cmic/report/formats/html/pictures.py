"""Adversarial examples to look at: of each model a few that its strongest attack at a middle eps found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_cmic.records.pictures import Picture, Pictures, read_pictures
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.suite.fields import Threat

GALLERY_SIZE = 4


@dataclass(frozen=True)
class GalleryEntry:
    """Some adversarial examples of a model.

    Attributes:
        attack, size: which attack found them, at which threat.
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
        return self.pictures.examples[:GALLERY_SIZE]

    def text(self, before: bool, example: Picture) -> str:
        """`7 (99.8 %)`: what an image was taken for."""
        number = example.before if before else example.after
        confidence = example.confidence_before if before else example.confidence_after
        return f"{self.pictures.name(number)} ({100 * confidence:.1f} %)"


def gallery(summary: Summary) -> list[GalleryEntry]:
    """For each model with pictures the strongest attack at the eps next to the middle that has any."""
    of_models = (_of_model(summary, model) for model in summary.results.models)
    return [entry for entry in of_models if entry is not None]


def _of_model(summary: Summary, model: str) -> GalleryEntry | None:
    results = summary.results
    attacked = [cell for cell in results.plan.of("attack") if cell.model == model]
    seed = min((cell.seed for cell in attacked), default=0)
    for norm in dict.fromkeys(threat.norm for threat in results.threats):
        for threat in _from_the_middle([threat for threat in results.threats if threat.norm == norm]):
            cells = [cell for cell in attacked if (cell.norm, cell.eps, cell.seed) == (*threat, seed)]
            records = [record for cell in cells if (record := results.attack(cell)) is not None]
            for record in sorted(records, key=lambda record: record.accuracy or 0.0):
                pictures = read_pictures(results.folder, record.cell.id)
                if pictures is not None and pictures.examples and _belong(pictures, record):
                    return GalleryEntry(model, seed, record.cell.attack, str(threat), record.accuracy or 0.0, pictures)
    return None


def _from_the_middle(threats: list[Threat]) -> list[Threat]:
    """The threats of a norm, the middle one first; of a pair in the middle the smaller."""
    middle = (len(threats) - 1) // 2
    return [threats[place] for place in sorted(range(len(threats)), key=lambda place: (abs(place - middle), place))]


def _belong(pictures: Pictures, record: AttackRecord) -> bool:
    """Whether pictures show what a record measured: this attack on these weights and data, in this ball."""
    cell = record.cell
    names = (pictures.suite, pictures.model, pictures.seed, pictures.attack, pictures.norm, pictures.eps)
    hashes = (pictures.dataset_sha256, pictures.checkpoint_sha256)
    return names == (record.suite, cell.model, cell.seed, cell.attack, cell.norm, cell.eps) and hashes == (
        record.dataset_sha256,
        record.checkpoint_sha256,
    )
