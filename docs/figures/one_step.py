"""The figure of the README: one step on cross entropy, the same step on the margin, and the worst case.

    python docs/figures/one_step.py

reads the committed results and writes `one-step.svg` beside this file.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustbench_cmic.report import Summary, read_results, summarize
from robustbench_cmic.suite.fields import Threat, parse_number

RESULTS = Path(__file__).resolve().parents[2] / "results"
PANELS = (
    ("digits-10", "0.1", "cnn", "Digits, small CNN"),
    ("cifar100", "4/255", "resnet18", "CIFAR-100, ResNet-18"),
)
"""Suite, L-inf radius, what its models begin with, title."""
ARMS = (("ce", "CE", "#4477aa", ""), ("cmic-printed", "CMIC-DL, printed", "#ee6677", "//"),
        ("cmic-authors", "CMIC-DL, authors", "#ccbb44", ".."))  # fmt: skip
"""Suffix of the model's id, label, colour (Paul Tol's bright scheme), hatch: also told apart in grey."""
ATTACKS = (("FGSM", "one step on\ncross entropy"), ("FGSM-margin", "the same step\non the margin"),
           ("", "worst case of\nall attacks"))  # fmt: skip
WIDTH = 0.26


def bars(summary: Summary, model: str, threat: Threat) -> list[tuple[list[float], bool]]:
    """Of a model in a ball under each attack of `ATTACKS`: per cents, one a seed, and whether any is flagged."""
    entry = next(entry for entry in summary.standings[threat] if entry.model == model)
    numbers = [entry.attacks[attack] if attack else entry.worst for attack, _ in ATTACKS]
    return [([100 * value for value in number.values.values()], bool(number.flags)) for number in numbers]


def text_of(values: list[float], flagged: bool, seeds: int) -> str:
    """What stands over a bar: the mean, † where it is flagged, * where seeds are missing."""
    return f"{sum(values) / len(values):.1f}{' †' if flagged else ''}{' *' if len(values) < seeds else ''}"


def panel(axes: Axes, suite: str, eps: str, network: str, title: str) -> None:
    """Bars of the mean over seeds, whiskers from the least seed to the greatest."""
    summary, threat = summarize(read_results(RESULTS / suite)), Threat("linf", parse_number(eps))
    shown = [bars(summary, f"{network}-{suffix}", threat) for suffix, *_ in ARMS]
    counts = {len(values) for arm in shown for values, _ in arm}
    seeds = max(counts)
    fewer = f" (* {', '.join(map(str, sorted(counts - {seeds})))} of them)" if len(counts) > 1 else ""
    for place, (arm, (_, label, colour, hatch)) in enumerate(zip(shown, ARMS, strict=True)):
        for group, (values, flagged) in enumerate(arm):
            at = group + (place - 1) * WIDTH
            axes.bar(at, sum(values) / len(values), WIDTH, color=colour, hatch=hatch, edgecolor="white",
                     label=label if group == 0 else None)  # fmt: skip
            if len(values) > 1:
                axes.vlines(at, min(values), max(values), color="#333333", linewidth=1)
            axes.annotate(text_of(values, flagged, seeds), (at, max(values)), (0, 2), textcoords="offset points",
                          ha="center", fontsize=8)  # fmt: skip
    axes.set_xticks(range(len(ATTACKS)), [text for _, text in ATTACKS], fontsize=8)
    axes.set_title(f"{title}, L-inf {eps}, {seeds} seeds{fewer}", fontsize=9)
    axes.set_ylabel("accuracy under attack, %", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Write the figure."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "one-step", "font.family": "sans-serif"})
    figure = Figure(figsize=(9.2, 3.1), layout="constrained")
    for axes, (suite, eps, network, title) in zip(figure.subplots(1, 2), PANELS, strict=True):
        panel(axes, suite, eps, network, title)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(Path(__file__).with_name("one-step.svg"), facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
