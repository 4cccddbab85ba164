"""What a leaderboard says of its models beside the numbers."""

from __future__ import annotations

import dataclasses
import json

from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.report import read_results
from robustbench_cmic.report.about import what_was_run
from tests.conftest import ROOT

FOLDER = ROOT / "results" / "robust-training"


def test_the_epochs_whose_weights_were_selected_are_told() -> None:
    results = read_results(FOLDER)
    told = dict(what_was_run(results))
    for model in ("plain", "mart", "fgsm-rs"):
        records = [json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"{model}.s?.train.*.json"))]
        epochs = ", ".join(str(record["selected_epoch"]) for record in records)
        assert told[model].endswith(f"; selected by held-out images: epochs {epochs} (seeds 0, 1, 2)")
    (stopped,) = (cell.id for cell in results.plan.of("train") if (cell.model, cell.seed) == ("mart", 1))
    record = results.records[stopped]
    assert isinstance(record, TrainRecord)
    sentence = "stopped after epoch 2, catastrophic overfitting"
    changed = {**results.records, stopped: record.model_copy(update={"stopped": sentence})}
    text = dict(what_was_run(dataclasses.replace(results, records=changed)))["mart"]
    assert "(seeds 0, 2)" in text
    assert text.endswith(f"; seed 1: {sentence}")


def test_nothing_is_said_of_epochs_where_the_last_one_is_kept() -> None:
    assert "held-out" not in " ".join(text for _, text in what_was_run(read_results(ROOT / "results" / "digits")))
