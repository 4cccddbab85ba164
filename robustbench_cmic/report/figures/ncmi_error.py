"""Error over NCMI at the calibrated temperature, a point a network: the law that the paper claims, with its fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_cmic.report.correlation import correlations
from robustbench_cmic.report.figures.drawing import (
    FLAGGED_WORDS,
    Drawing,
    add_key,
    in_order,
    line_of,
    mark_flagged,
    new_figure,
)
from robustbench_cmic.report.metrics import ACCURACY, NCMI_CALIBRATED
from robustbench_cmic.report.pairs import title_of
from robustbench_cmic.report.summary import Summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEWEST = 4
"""Networks that a line is fitted to: with fewer its interval says nothing."""
MOST_NAMES = 16
"""Models that the key names one by one; of more it names the kinds, where there are several."""


@dataclass(frozen=True)
class LineFit:
    """A straight line by least squares.

    Attributes:
        pearson, spearman: correlation of the two, of their ranks.
    """

    slope: float
    intercept: float
    pearson: float
    spearman: float
    n: int
    _residual: float
    _centre: float
    _spread: float

    def interval(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends of the 95 % interval for the line at x: t of n - 2 degrees of freedom, equal normal errors."""
        import numpy as np
        from scipy.special import stdtrit

        width = self._residual * np.sqrt(1 / self.n + (x - self._centre) ** 2 / self._spread)
        half = float(stdtrit(self.n - 2, 0.975)) * width
        line = self.intercept + self.slope * x
        return line - half, line + half


def fit_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> LineFit | None:
    """The line of y over x, both (n,); None of fewer than `FEWEST` points, or where either does not vary."""
    import numpy as np

    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    intercept = float(y.mean() - slope * x.mean())
    residual = float(np.sqrt(((y - intercept - slope * x) ** 2).sum() / (len(x) - 2)))
    return LineFit(slope, intercept, *correlations(x, y), len(x), residual, float(x.mean()), float(dx @ dx))


def networks(summary: Summary) -> dict[str, list[tuple[float, float, bool]]]:
    """By model its networks: NCMI at T, error in %, and whether anything is flagged about its clean outputs."""
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for model in in_order(summary):
        accuracy, ncmi = (summary.clean[model].measures[metric.name] for metric in (ACCURACY, NCMI_CALIBRATED))
        own = [
            (value, 100 * (1 - accuracy.values[seed]), bool(accuracy.flags))
            for seed, value in ncmi.values.items()
            if seed in accuracy.values
        ]
        if own:
            found[model] = own
    return found


def kinds(summary: Summary, models: Sequence[str]) -> dict[str, str]:
    """By model what the key calls it: its name, or of many models architecture and objective."""
    cells = summary.results.trainings
    found = {model: f"{cells[model].architecture}, {title_of(cells[model])}" for model in models}
    grouped = len(models) > MOST_NAMES and 1 < len(set(found.values())) < len(models)
    return found if grouped else {model: model for model in models}


def ncmi_figures(summary: Summary) -> list[Drawing] | str:
    """One figure of all models and seeds on clean examples."""
    import numpy as np

    found = networks(summary)
    if not found:
        return "no clean evaluation holds an NCMI at a temperature"
    named = kinds(summary, list(found))
    # A kind has the looks of as many models as there are kinds.
    looks = dict(zip(dict.fromkeys(named.values()), found, strict=False))
    figure = new_figure(5.2, 3.8, key=[*looks, FLAGGED_WORDS])
    axes = figure.subplots()
    x, y = (np.array([point[i] for own in found.values() for point in own]) for i in (0, 1))
    fit = fit_line(x, y)
    if fit is not None:
        along = np.linspace(x.min(), x.max(), 101)
        axes.fill_between(along, *fit.interval(along), color="#bbbbbb", alpha=0.5, linewidth=0, zorder=0)
        axes.plot(along, fit.intercept + fit.slope * along, color="#333333", linewidth=1, label="_fit", zorder=1)
    for model, own in found.items():
        line = line_of(summary, looks[named[model]], linestyle="none", label=named[model])
        axes.plot([ncmi for ncmi, _, _ in own], [error for _, error, _ in own], **line)
        doubtful = [(ncmi, error) for ncmi, error, flagged in own if flagged]
        mark_flagged(axes, line, [ncmi for ncmi, _ in doubtful], [error for _, error in doubtful])
    axes.set_xlabel(f"{NCMI_CALIBRATED.head}, clean examples")
    axes.set_ylabel("error %")
    said = fit_text(fit, len(x))
    axes.set_title(said.replace("; ", "\n"), fontsize=8)
    add_key(figure, [axes], any(point[2] for own in found.values() for point in own))
    title = f"{summary.results.plan.suite}: error over NCMI at the calibrated temperature"
    ranges = f"NCMI from {x.min():.3g} to {x.max():.3g}, error from {y.min():.1f} to {y.max():.1f} %"
    text = f"A point each for {len(x)} networks of {len(found)} models ({', '.join(looks)}): {ranges}. {said}."
    return [Drawing("ncmi-error", title, text, figure)]


def fit_text(fit: LineFit | None, n: int) -> str:
    """What is to be said of a line over n networks, or of its absence."""
    if fit is None:
        return f"{n} networks; no line is fitted to fewer than {FEWEST}, or where nothing varies"
    correlations = f"Pearson {fit.pearson:.2f}, Spearman {fit.spearman:.2f} over {n} networks"
    return f"{correlations}; line by least squares with its 95 % interval"
