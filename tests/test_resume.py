"""What counts as done: sound records that fit data, declaration and checkpoint; nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustbench_cmic.data import load_data
from robustbench_cmic.plan import make_plan
from robustbench_cmic.record import read_json, write_json
from robustbench_cmic.resume import Standing, file_sha256, set_aside, standings
from robustbench_cmic.suite import load_suite


def judged(folder: Path, dataset: str | None = None) -> dict[str, Standing]:
    plan = make_plan(load_suite(folder / "tiny.yaml").suite)
    return standings(plan.cells, folder / "results" / "tiny", dataset)


def states(folder: Path, dataset: str | None = None) -> dict[str, str]:
    return {cell.rsplit(".", 1)[0]: standing.state for cell, standing in judged(folder, dataset).items()}


def edit(folder: Path, pattern: str, **changes: object) -> None:
    (file,) = (folder / "results" / "tiny").glob(pattern)
    write_json(file, read_json(file) | changes)


def test_all_done_with_the_right_data(finished: Path) -> None:
    assert set(states(finished, load_data({"name": "digits"}, finished).sha256).values()) == {"done"}


def test_other_data_makes_everything_unusable(finished: Path) -> None:
    assert set(states(finished, "0" * 64).values()) == {"unusable"}


def test_failed_is_to_be_redone_and_diverged_is_not(copied: Path) -> None:
    edit(copied, "ce.s0.FGSM*", status="failed", reason="the attack crashed")
    edit(copied, "cmic.s0.train*", status="diverged")
    found = states(copied)
    assert found["ce.s0.FGSM.linf.eps0.1"] == "failed"
    assert found["cmic.s0.train"] == "diverged"


def test_attacks_on_another_checkpoint_are_unusable(copied: Path) -> None:
    edit(copied, "ce.s0.train*", checkpoint_sha256="1" * 64)
    found = judged(copied)
    stale = {cell.split(".")[2] for cell, standing in found.items() if standing.state == "unusable"}
    assert stale == {"none", "FGSM", "PGD"}
    assert any("another checkpoint" in standing.why for standing in found.values())


def test_a_failed_retraining_leaves_the_attacks_on_the_old_weights_alone(copied: Path) -> None:
    edit(copied, "ce.s0.train*", status="failed", checkpoint_sha256=None, dataset_sha256=None)
    found = states(copied)
    assert found["ce.s0.train"] == "failed"
    assert found["ce.s0.FGSM.linf.eps0.1"] == "done"


def test_an_attack_is_no_training(copied: Path) -> None:
    folder = copied / "results" / "tiny"
    (training,), (attack,) = folder.glob("ce.s0.train*"), folder.glob("ce.s0.none*")
    payload = json.loads(attack.read_text()) | {"cell": json.loads(training.read_text())["cell"]}
    write_json(training, payload)
    assert states(copied)["ce.s0.train"] == "unusable"


def test_a_record_of_another_experiment_is_unusable(copied: Path) -> None:
    (file,) = (copied / "results" / "tiny").glob("ce.s0.FGSM*")
    payload = json.loads(file.read_text())
    payload["cell"]["declared"]["eps"] = 0.2
    write_json(file, payload)
    assert states(copied)["ce.s0.FGSM.linf.eps0.1"] == "unusable"


@pytest.mark.parametrize("text", ["", "{", "null"])
def test_a_corrupt_record_is_unusable(copied: Path, text: str) -> None:
    (file,) = (copied / "results" / "tiny").glob("ce.s0.FGSM*")
    file.write_text(text)
    assert states(copied)["ce.s0.FGSM.linf.eps0.1"] == "unusable"


def test_setting_aside_never_overwrites(tmp_path: Path) -> None:
    work = tmp_path / "work"
    for content in ("first", "second"):
        file = tmp_path / "a.json"
        file.write_text(content)
        set_aside(file, work)
        assert not file.exists()
    kept = sorted((work / "set-aside").iterdir())
    assert [file.read_text() for file in kept] == ["first", "second"]


def test_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "b") is None
