"""The NCMI law: how far the error of networks follows from their NCMI, and from simpler numbers.

Yang et al. (arXiv 2309.09123) report a Pearson correlation of 0.9929 between NCMI and error over networks pretrained on
ImageNet. Here it is computed over the networks of a suite on clean examples, for NCMI as it comes and at the calibrated
temperature, and for two rivals that need no pairs of examples: NLL and 1 - mean confidence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from robustbench_cmic.plan.cell import Cell, canonical_json
from robustbench_cmic.records.packing import unpack_outcomes, unpack_replicates
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.correlation import Interval, Paired, correlations, percentile_interval
from robustbench_cmic.report.pairs import title_of
from robustbench_cmic.report.results import Results
from robustbench_cmic.suite.models import ARCHITECTURES

if TYPE_CHECKING:
    from robustbench_cmic.report.correlation import Numbers

FEWEST_MODELS = 8
"""With fewer models nothing is said of a law; nor is there an interval over networks of fewer."""
FEWEST_OF_PART = 4
"""Models of a family, or objectives of a network, that a correlation is given for."""
RESAMPLES_OF_NETWORKS = 1000


class Predictor(NamedTuple):
    """A number of a network that may tell its error.

    Attributes:
        path, replicates: where the record of a clean evaluation holds it, and its bootstrap over images.
        from_one: what is stored is 1 less it.
    """

    title: str
    path: str
    replicates: str
    from_one: bool = False


NCMI_AT_T, NLL_AT_T, DOUBT_AT_T = "NCMI at T", "NLL at T", "1 − confidence at T"
PREDICTORS = (
    Predictor("NCMI", "information.ncmi", "ncmi_replicates"),
    Predictor(NCMI_AT_T, "calibration.calibrated.ncmi", "calibration.calibrated.ncmi_replicates"),
    Predictor("NLL", "calibration.nll", "calibration.nll_replicates"),
    Predictor(NLL_AT_T, "calibration.calibrated.nll", "calibration.calibrated.nll_replicates"),
    Predictor("1 − confidence", "calibration.confidence", "calibration.confidence_replicates", True),
    Predictor(DOUBT_AT_T, "calibration.calibrated.confidence", "calibration.calibrated.confidence_replicates", True),
)


class Network(NamedTuple):
    """A trained network with its clean evaluation."""

    cell: Cell
    record: AttackRecord

    @property
    def design(self) -> str:
        """Equal for networks that differ in objective and seed alone."""
        return canonical_json([self.cell.declared["train"][part] for part in ("model", "training")])

    @property
    def objective(self) -> str:
        """Equal for networks trained with the same objective."""
        return canonical_json(self.cell.declared["train"]["objective"])


class LawLine(NamedTuple):
    """A predictor over a scope.

    Attributes:
        models, networks: how many have it.
        pearson, spearman: None where either number does not vary.
        both, of_networks, of_images: 95 % of Pearson, of the bootstrap over networks and images at once, and over
            either alone; None where there is none.
        spearman_both: as `both`, of Spearman.
    """

    predictor: str
    models: int
    networks: int
    pearson: float | None
    both: Interval | None
    of_networks: Interval | None
    of_images: Interval | None
    spearman: float | None
    spearman_both: Interval | None


@dataclass(frozen=True)
class LawScope:
    """Networks over which the correlations are taken.

    Attributes:
        kind: `networks` of one objective, a `family` of them, `objectives` of one network, or `all`.
        title: for people.
        name: the objective, the family, or the architecture of the one network.
        error_replicates: by cell the error on each sample of images; none where networks were evaluated on others each.
    """

    kind: str
    title: str
    name: str
    networks: Sequence[Network]
    error_replicates: dict[str, Numbers]

    @cached_property
    def lines(self) -> list[LawLine]:
        """Every predictor that at least `FEWEST_OF_PART` models have."""
        return [line for predictor in PREDICTORS if (line := self._line(predictor)) is not None]

    def line(self, title: str) -> LawLine | None:
        """Of one predictor."""
        return next((line for line in self.lines if line.predictor == title), None)

    def _line(self, predictor: Predictor) -> LawLine | None:
        networks = [own for own in self.networks if _value(own, predictor) is not None]
        models = len({own.cell.model for own in networks})
        if models < FEWEST_OF_PART:
            return None
        paired = self._paired(networks, predictor)
        pearson, spearman = (None if math.isnan(value) else value for value in correlations(paired.x, paired.y))
        whole = models >= FEWEST_MODELS

        def interval(of_networks: bool, of_images: bool, ranks: bool = False) -> Interval | None:
            if of_networks and not whole:
                return None
            drawn = paired.replicates(of_networks, of_images, RESAMPLES_OF_NETWORKS, ranks)
            return None if drawn is None else percentile_interval(drawn)

        intervals = interval(True, True), interval(True, False), interval(False, True)
        of_ranks = interval(True, True, ranks=True)
        return LawLine(predictor.title, models, len(networks), pearson, *intervals, spearman, of_ranks)

    def difference(self, first: str, second: str) -> tuple[float, Interval | None] | None:
        """Pearson of one predictor less that of another, over the networks that have both.

        With 95 % of the bootstrap, in the same samples for both: of networks and images, or of networks alone where
        records do not hold samples of images.
        """
        predictors = [next(own for own in PREDICTORS if own.title == title) for title in (first, second)]
        networks = [own for own in self.networks if all(_value(own, each) is not None for each in predictors)]
        models = len({own.cell.model for own in networks})
        if models < FEWEST_OF_PART:
            return None
        left, right = (self._paired(networks, predictor) for predictor in predictors)
        found = correlations(left.x, left.y)[0] - correlations(right.x, right.y)[0]
        if math.isnan(found):
            return None
        for images in (True, False) if models >= FEWEST_MODELS else ():
            ours, theirs = (own.replicates(True, images, RESAMPLES_OF_NETWORKS) for own in (left, right))
            if ours is not None and theirs is not None and len(ours) == len(theirs):
                return found, percentile_interval(ours - theirs)
        return found, None

    def _paired(self, networks: Sequence[Network], predictor: Predictor) -> Paired:
        import numpy as np

        values = np.array([_value(own, predictor) for own in networks], float)
        errors = np.array([1 - (own.record.accuracy or 0.0) for own in networks])
        replicated = [_replicates(own, predictor) for own in networks]
        of_errors = [self.error_replicates.get(own.cell.id) for own in networks]
        known = all(own is not None for own in (*replicated, *of_errors))
        alike = known and len({len(own) for own in (*replicated, *of_errors) if own is not None}) == 1
        x = np.array(replicated, float).T if alike else None
        y = np.array(of_errors, float).T if alike else None
        if x is not None and predictor.from_one:
            x = 1 - x
        return Paired(values, errors, [own.cell.model for own in networks], x, y)


def law_scopes(results: Results) -> list[LawScope]:
    """Over what the law is looked at: networks of one objective, their families, objectives of one network, and all.

    None of a suite with fewer than `FEWEST_MODELS` models that have an NCMI.
    """
    networks = list(_networks(results))
    if len({own.cell.model for own in networks}) < FEWEST_MODELS:
        return []
    replicated = _error_replicates(networks)
    scopes = [
        LawScope(kind, title, name, own, replicated)
        for kind, title, name, own in _parts(results, networks)
        if len({network.cell.model for network in own}) >= FEWEST_OF_PART
    ]
    told = {frozenset(network.cell.id for network in scope.networks) for scope in scopes}
    if frozenset(network.cell.id for network in networks) not in told:
        scopes.append(LawScope("all", "networks, whatever their objective", "", networks, replicated))
    return scopes


def _parts(results: Results, networks: Sequence[Network]) -> Iterator[tuple[str, str, str, list[Network]]]:
    """(kind, title, name, networks) of parts of a suite, however small."""
    by_objective = _grouped(networks, [own.objective for own in networks])
    of_one = max(by_objective.values(), key=lambda own: len({network.design for network in own}))
    if len({own.design for own in of_one}) > 1:
        training = results.trainings[of_one[0].cell.model]
        given = training.declared["objective"] is None
        name = "given weights" if given else title_of(training)
        yield "networks", "networks with given weights" if given else f"networks trained with {name}", name, of_one
        families = _grouped(of_one, [family_of(own.cell.architecture) for own in of_one])
        for name, own in families.items() if len(families) > 1 else ():
            yield "family", f"networks of the family {name}", name, own
    by_design = _grouped(networks, [own.design for own in networks])
    of_design = max(by_design.values(), key=lambda own: len({network.objective for network in own}))
    if (objectives := len({own.objective for own in of_design})) > 1:
        name = of_design[0].cell.architecture
        yield (
            "objectives",
            f"networks that differ in their objective alone ({objectives} objectives, {name})",
            name,
            of_design,
        )


def _grouped(networks: Sequence[Network], keys: Sequence[str]) -> dict[str, list[Network]]:
    groups: dict[str, list[Network]] = {}
    for network, key in zip(networks, keys, strict=True):
        groups.setdefault(key, []).append(network)
    return groups


def family_of(architecture: str) -> str:
    """What architectures of one kind have in common: the letters that their name begins with.

    >>> [family_of(name) for name in ("resnet50", "vit_tiny_patch16_224", "small_cnn", "my_code.nets:wide")]
    ['resnet', 'vit', 'small_cnn', 'my_code.nets:wide']
    """
    if architecture in ARCHITECTURES or ":" in architecture:
        return architecture
    found = re.match("[A-Za-z]+", architecture)
    return architecture if found is None else found[0]


def _networks(results: Results) -> Iterator[Network]:
    for cell in results.plan.of("attack"):
        record = results.attack(cell.id) if cell.attack == "none" else None
        if record is not None and record.information is not None and record.information.ncmi is not None:
            yield Network(cell, record)


def _error_replicates(networks: Sequence[Network]) -> dict[str, Numbers]:
    """By cell the error on each bootstrap sample of images that NCMI's replicates are of; none where images differ."""
    import numpy as np

    from robustbench_cmic.seeding import resample_weights

    records = [own.record for own in networks]
    samples = {len(unpack_replicates(record.ncmi_replicates)) for record in records if record.ncmi_replicates}
    if len({(record.examples_sha256, record.n) for record in records}) != 1 or len(samples) != 1:
        return {}
    n = records[0].n or 0
    # In float32 sums of whole numbers are exact below 2^24, and many times as fast as those of integers.
    wrong = 1 - np.stack([unpack_outcomes(record.outcomes or "", n) for record in records], 1).astype(np.float32)
    weights, counts = resample_weights(n, samples.pop()), []
    while drawn := list(islice(weights, 64)):
        counts.append(np.stack(drawn).astype(np.float32) @ wrong)
    errors = np.concatenate(counts).astype(float) / n
    return {own.cell.id: errors[:, place] for place, own in enumerate(networks)}


def _held(network: Network, path: str) -> object:
    value: object = network.record
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


def _value(network: Network, predictor: Predictor) -> float | None:
    value = _held(network, predictor.path)
    if not isinstance(value, float | int):
        return None
    return 1 - value if predictor.from_one else float(value)


def _replicates(network: Network, predictor: Predictor) -> list[float] | None:
    text = _held(network, predictor.replicates)
    return unpack_replicates(text) if isinstance(text, str) else None
