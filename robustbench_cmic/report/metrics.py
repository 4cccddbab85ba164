"""The numbers of results.csv and of calibration, each declared once: every table takes its name, title and format."""

from __future__ import annotations

from typing import NamedTuple


def percent(fraction: float) -> float:
    """In percent, to be told with one digit: 0.1155 is 11.6 wherever it stands, in whatever order it was summed."""
    return round(100 * fraction, 9)


class Metric(NamedTuple):
    """A measured column.

    Attributes:
        name: of the column in results.csv, or else in models.csv, and in frames.
        title: what tables for people call it; empty where none has a column for it.
        unit: of what people read; `%` of a stored fraction.
        form: how people read it, as a format string.
        path: where the record of a successful attack holds it, if at all.
        spent: what the attack cost, not what it left.
        of_models: told of every model on clean examples.
        leads: stands before those that do not in tables for people.
    """

    name: str
    title: str
    unit: str
    form: str
    path: str
    spent: bool = False
    of_models: bool = False
    leads: bool = False

    @property
    def scale(self) -> int:
        """What people read, over what is stored."""
        return 100 if self.unit == "%" else 1

    def text(self, value: float) -> str:
        """One value as people read it, without its unit."""
        return self.form.format(percent(value) if self.unit == "%" else value)

    @property
    def short_head(self) -> str:
        """`accuracy %`, `CMI`: the head of a column whose caption gives the other units."""
        return f"{self.title} %" if self.unit == "%" else self.title

    @property
    def head(self) -> str:
        """`accuracy %`, `CMI (nats)`."""
        return f"{self.title} ({self.unit})" if self.unit not in ("", "%") else self.short_head


METRICS = (
    Metric("n", "n", "", "{:d}", "n", leads=True),
    Metric("accuracy", "accuracy", "%", "{:.1f}", "accuracy", of_models=True, leads=True),
    Metric("ci_low", "95 % interval", "", "{:.1f}", "ci_low", leads=True),
    Metric("ci_high", "", "", "{:.1f}", "ci_high", leads=True),
    Metric("cmi", "CMI", "nats", "{:.3g}", "information.cmi", of_models=True),
    Metric("separation", "separation", "nats", "{:.3g}", "information.separation", of_models=True),
    Metric("ncmi", "NCMI", "", "{:.3g}", "information.ncmi", of_models=True, leads=True),
    Metric("forwards", "forwards", "", "{:d}", "forwards", spent=True),
    Metric("backwards", "backwards", "", "{:d}", "backwards", spent=True),
    Metric("seconds", "seconds", "", "{:.3g}", "timing.seconds", spent=True),
)
CALIBRATION = (
    Metric("temperature", "T", "", "{:.3g}", "calibration.temperature"),
    Metric("cmi_calibrated", "", "nats", "{:.3g}", "calibration.calibrated.cmi"),
    Metric("separation_calibrated", "", "nats", "{:.3g}", "calibration.calibrated.separation"),
    Metric("ncmi_calibrated", "NCMI at T", "", "{:.3g}", "calibration.calibrated.ncmi"),
    Metric("nll", "NLL", "nats", "{:.3g}", "calibration.nll"),
    Metric("ece", "ECE", "%", "{:.1f}", "calibration.ece"),
    Metric("brier", "Brier score", "", "{:.3g}", "calibration.brier"),
    Metric("nll_calibrated", "NLL at T", "nats", "{:.3g}", "calibration.calibrated.nll"),
    Metric("ece_calibrated", "", "%", "{:.1f}", "calibration.calibrated.ece"),
    Metric("brier_calibrated", "", "", "{:.3g}", "calibration.calibrated.brier"),
)
"""What records of clean evaluations hold beside the columns of results.csv; those with a title have a table."""
ACCURACY, NCMI = (metric for name in ("accuracy", "ncmi") for metric in METRICS if metric.name == name)
NCMI_CALIBRATED = next(metric for metric in CALIBRATION if metric.name == "ncmi_calibrated")
FOR_PEOPLE = sorted((metric for metric in METRICS if metric.title), key=lambda metric: not metric.leads)
"""Those that have a column in tables for people, in their order."""
OF_MODELS = tuple(metric for metric in FOR_PEOPLE if metric.of_models)

MEASURED = tuple(metric.name for metric in METRICS if not metric.spent)
SPENT = tuple(metric.name for metric in METRICS if metric.spent)
DECLARED = ("suite", "dataset", "model", "architecture", "objective", "seed", "attack", "norm", "eps")
COLUMNS = (*DECLARED, *MEASURED, "status", "flags", *SPENT, "cell")
"""Of results.csv: a contract, with their order."""
