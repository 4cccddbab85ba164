"""The transfer matrix: what adversarial examples of each model leave of every other."""

from __future__ import annotations

import math

from robustbench_cmic.report.figures.drawing import Drawing, heat, new_figure, write_in
from robustbench_cmic.report.metrics import ACCURACY
from robustbench_cmic.report.summary import SeedValues, Summary
from robustbench_cmic.report.tables import NOTHING
from robustbench_cmic.suite.fields import Threat


def transfer_figures(summary: Summary) -> list[Drawing] | str:
    """One figure for each attack that transfers and each threat."""
    asked = transfers_asked(summary)
    return [_matrix(summary, label, threat) for label, threat in asked] or "the suite has no attack Transfer"


def transfers_asked(summary: Summary) -> list[tuple[str, Threat]]:
    """Label and threat of each attack that transfers, in the suite's order."""
    transfers = [cell for cell in summary.results.plan.of("attack") if cell.source is not None]
    return list(dict.fromkeys((cell.attack.partition(":")[0], cell.threat) for cell in transfers))


def transfer_numbers(summary: Summary, label: str, threat: Threat) -> list[list[SeedValues]]:
    """Accuracy by source (rows) and target (columns), both in the suite's order of models."""
    models = summary.results.models
    return [[summary.values(target, f"{label}:{source}", threat) for target in models] for source in models]


def transfer_text(number: SeedValues) -> str:
    """What stands in a cell: the mean over seeds in percent, † where it is flagged, a dash where there is none."""
    return NOTHING if number.mean is None else ACCURACY.text(number.mean) + (" †" if number.flags else "")


def _matrix(summary: Summary, label: str, threat: Threat) -> Drawing:
    """Rows: whose examples; columns: which model they are tried on; mean accuracy over seeds."""
    models = summary.results.models
    numbers = transfer_numbers(summary, label, threat)
    values = [[math.nan if number.mean is None else 100 * number.mean for number in row] for row in numbers]
    side = max(3.2, 0.7 * len(models))
    figure = new_figure(side + 2.2, side + 1.0)
    axes = figure.subplots()
    image = heat(axes, values, 0, 100)
    said = []
    for row, source in enumerate(models):
        for column, target in enumerate(models):
            number = numbers[row][column]
            text = transfer_text(number)
            write_in(axes, row, column, text, number.mean)
            said.append(f"{source} on {target}: {text}.")
    axes.set_xticks(range(len(models)), models, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(models)), models)
    axes.set_title(f"{label}, {threat}")
    axes.set_xlabel("tried on")
    axes.set_ylabel("adversarial examples of")
    figure.colorbar(image, ax=axes, label=ACCURACY.head)
    title = f"{summary.results.plan.suite}: {label}, {threat}"
    head = "Accuracy in % of each model on adversarial examples of each, mean over seeds; hatched where there is none;"
    text = " ".join([f"{head} † flagged.", *said])
    return Drawing(f"transfer-{label}-{threat.norm}-{threat.eps:.5g}", title, text, figure)
