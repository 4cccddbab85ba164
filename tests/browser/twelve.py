"""A board of twelve models without a pair, more than there are colours."""

from __future__ import annotations

from pathlib import Path

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.report import Summary
from tests.report.folders import fill, planned, read

MODELS = [f"m{place:02}" for place in range(12)]
_MODEL = "  - {id: ID, architecture: mlp, objective: {name: ce}}\n"
SUITE = f"""\
suite: twelve
dataset: {{name: digits}}
training: {{epochs: 1, batch_size: 8, optimizer: {{name: sgd, lr: 0.1}}}}
models:
{"".join(_MODEL.replace("ID", model) for model in MODELS)}seeds: [0, 1]
attacks:
  - {{name: FGSM, eps: [0.1, 0.2]}}
  - {{name: FGSM, id: FGSM-margin, loss: margin, eps: [0.1, 0.2]}}
  - {{name: PGD, eps: [0.1, 0.2]}}
"""


def twelve(tmp_path: Path) -> Summary:
    """Each model is right on another number of examples."""

    def outcome(cell: Cell) -> list[bool]:
        lost = 0 if cell.attack == "none" else 20 + round(100 * cell.eps)
        return [place >= lost + 2 * MODELS.index(cell.model) for place in range(80)]

    return read(fill(tmp_path / "made", planned(tmp_path, SUITE), outcome))
