"""Correlations of two numbers over networks, and their bootstrap over networks and over images, in numpy.

A bootstrap sample of networks is written as weights: how often each was drawn. With weights w (whole numbers), means
m_x = sum w x / sum w and the mid-ranks R of the sample in which network i stands w_i times,

    Pearson  = sum w (x - m_x)(y - m_y) / sqrt(sum w (x - m_x)^2  sum w (y - m_y)^2)
    Spearman = Pearson of R_x and R_y,    R_x(i) = sum over x_j < x_i of w_j + (1 + sum over x_j = x_i of w_j) / 2

which are those of the sample written out. Samples of images come from records: replicate k of every network is measured
on the same sample of the same images, see `information.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

Interval = tuple[float, float]


def weighted_pearson(x: Numbers, y: Numbers, weights: Numbers) -> Numbers:
    """Pearson's correlation of each row: (K, n) each, or (1, n) -> (K,); NaN where either does not vary."""
    import numpy as np

    total = weights.sum(1, keepdims=True)
    dx, dy = (values - (weights * values).sum(1, keepdims=True) / total for values in (x, y))
    spread = (weights * dx**2).sum(1) * (weights * dy**2).sum(1)
    # What is constant but for rounding does not vary.
    vanishing = [((weights > 0) * abs(d)).max(1) <= 1e-12 * abs(v).max(1) for d, v in ((dx, x), (dy, y))]
    found = (weights * dx * dy).sum(1) / np.sqrt(np.where(spread > 0, spread, np.nan))
    return np.where(vanishing[0] | vanishing[1], np.nan, found.clip(-1, 1))


def weighted_ranks(values: Numbers, weights: Numbers) -> Numbers:
    """The mid-rank of each value in its row, each standing as often as its weight says: (K, n), or (1, n) -> (K, n)."""
    import numpy as np

    values, weights = np.broadcast_arrays(values, weights)
    order = values.argsort(1, kind="stable")
    ordered, drawn = (np.take_along_axis(own, order, 1) for own in (values, weights))
    until = drawn.cumsum(1)
    columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    new = np.ones(values.shape, bool)  # where a value differs from the one before
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    last = np.ones(values.shape, bool)
    last[:, :-1] = new[:, 1:]
    first = np.maximum.accumulate(np.where(new, columns, 0), 1)
    final = np.minimum.accumulate(np.where(last, columns, values.shape[1])[:, ::-1], 1)[:, ::-1]
    before = np.take_along_axis(until - drawn, first, 1)
    middle = (before + np.take_along_axis(until, final, 1) + 1) / 2
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, middle, 1)
    return ranks


def weighted_spearman(x: Numbers, y: Numbers, weights: Numbers) -> Numbers:
    """Spearman's correlation of each row, as `weighted_pearson` of the ranks."""
    return weighted_pearson(weighted_ranks(x, weights), weighted_ranks(y, weights), weights)


def correlations(x: Numbers, y: Numbers) -> tuple[float, float]:
    """Pearson's and Spearman's correlation of (n,) numbers each; NaN where either does not vary."""
    import numpy as np

    first, second = x[None], y[None]
    ones = np.ones(first.shape)
    return float(weighted_pearson(first, second, ones)[0]), float(weighted_spearman(first, second, ones)[0])


def draws_of_models(models: Sequence[str], resamples: int) -> Numbers:
    """How often each network stands in each bootstrap sample of models: (resamples, networks).

    Models are drawn with replacement, as many as there are, each with all its seeds: seeds of one model resemble each
    other, and drawn one by one they would pass for more networks than there are.

    Args:
        models: the model of each network.
        resamples: number of samples, the same for equal arguments.
    """
    import numpy as np

    names = {name: place for place, name in enumerate(dict.fromkeys(models))}
    # The stream of RandomState is the same in every version of numpy (NEP 19).
    drawn = np.random.RandomState(0).randint(len(names), size=(resamples, len(names)))
    counts = np.stack([(drawn == place).sum(1) for place in range(len(names))], 1).astype(float)
    return counts[:, [names[model] for model in models]]


@dataclass(frozen=True)
class Paired:
    """Two numbers of each of n networks, and bootstrap replicates of both over images.

    Attributes:
        x, y: (n,), as measured on all images.
        models: of each network.
        x_replicates, y_replicates: (K, n), row k of the same sample of images; None where that is not known.
    """

    x: Numbers
    y: Numbers
    models: Sequence[str]
    x_replicates: Numbers | None
    y_replicates: Numbers | None

    def replicates(self, networks: bool, images: bool, resamples: int, ranks: bool = False) -> Numbers | None:
        """Pearson's correlation, or of `ranks` Spearman's, (K,), of samples of networks, of images, or of both at once.

        Replicates over images are put around what was measured: resampled images repeat, which alone lowers CMI. K is
        `resamples`; with images it is that of the records, or less, where a replicate is not finite for some network.
        None where samples of images are asked for, and there are none.
        """
        import numpy as np

        x, y = self.x[None], self.y[None]
        kept = np.ones(resamples, bool)
        if images:
            if self.x_replicates is None or self.y_replicates is None:
                return None
            resamples = len(self.x_replicates)
            kept = np.all(np.isfinite(np.hstack([self.x_replicates, self.y_replicates])), axis=1)
            if not kept.any():
                return None
            x, y = (
                own[kept] - own[kept].mean(0) + value
                for own, value in ((self.x_replicates, self.x), (self.y_replicates, self.y))
            )
        weights = draws_of_models(self.models, resamples)[kept] if networks else np.ones_like(x)
        return weighted_spearman(x, y, weights) if ranks else weighted_pearson(x, y, weights)


def percentile_interval(replicates: Numbers) -> Interval | None:
    """The middle 95 % of replicates; None unless nine tenths of them are defined."""
    import numpy as np

    defined = replicates[np.isfinite(replicates)]
    if len(defined) < 0.9 * max(1, len(replicates)):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)
