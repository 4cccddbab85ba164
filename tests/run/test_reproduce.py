"""`reproduce` on the command line: what was not touched comes out again, and what was touched is named."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from robustbench_cmic.cli.reproduce import load_as_recorded
from robustbench_cmic.data import load_data
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.records.files import read_json, write_json
from robustbench_cmic.records.store import Store
from robustbench_cmic.report import read_results
from robustbench_cmic.report.compare.certificate import Certificate
from robustbench_cmic.report.compare.history import HISTORY_COLUMNS, add_to_history
from robustbench_cmic.run.reproduce import certify, plan_reproduction
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.data import Digits
from tests.conftest import TINY_SUITE, Cli, command
from tests.in_process import command_here
from tests.report.compare.editing import edit, flip
from tests.report.compare.test_history import certificate

Done = subprocess.CompletedProcess[str]


def reproduced(cli_here: Cli, folder: Path, *options: object, suite: str = "tiny.yaml") -> tuple[Done, Certificate]:
    """Run the command into `folder/again` and read its certificate."""
    done = cli_here("reproduce", suite, "--results", "again", "--jobs", 1, *options, cwd=folder)
    return done, certificate_in(folder / "again")


def certificate_in(folder: Path) -> Certificate:
    return Certificate.model_validate(read_json(folder / "certificate.json"))


def last_line(done: Done) -> str:
    return done.stdout.splitlines()[-1]


def verdicts(found: Certificate) -> dict[str, str]:
    return {cell.title: cell.verdict for cell in found.cells}


def test_an_untouched_result_comes_out_bit_identical(copied: Path, cli: Cli) -> None:
    """On another version of torch, too, as far as the record says: that is named, and the verdicts decide."""
    folder = copied / "results" / "tiny"
    for file in folder.glob("c*.json"):
        record = read_json(file)
        record["provenance"]["versions"]["torch"] = "2.9.1"
        write_json(file, record)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    done = cli("reproduce", "tiny.yaml", "--jobs", 1, cwd=copied)
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_line(done) == "tiny: 8 of 8 cells bit-identical"
    (fresh,) = (copied / "reproductions" / "tiny").glob("*Z")
    found = certificate_in(fresh)
    assert set(verdicts(found).values()) == {"bit-identical"}
    assert [d.key for d in found.environment] == ["versions.torch"]
    assert found.environment[0].old == "2.9.1"
    text = (fresh / "certificate.md").read_text()
    assert re.search(r"^\| versions\.torch +\| 2\.9\.1 +\| \d", text, re.MULTILINE)
    assert all(cell.checkpoint_recorded in text for cell in found.cells if cell.checkpoint_recorded)
    assert {file: file.read_bytes() for file in before} == before, "the recorded results stay as they are"
    assert len((folder / "nightly.csv").read_text().splitlines()) == 2
    assert (folder / "nightly.svg").is_file()
    report = cli("report", "tiny", cwd=copied)
    assert (report.returncode, report.stderr) == (0, "")
    again = cli("reproduce", "tiny.yaml", "--results", fresh, cwd=copied)
    assert again.returncode == 2
    assert "is not empty, and no interrupted run of this reproduction" in again.stderr


def test_a_flipped_recorded_outcome_is_named(copied: Path, cli_here: Cli) -> None:
    folder = copied / "results" / "tiny"
    flip(folder, "cmic.s0.FGSM*", [17])
    correct = [place for place, value in enumerate(flip(folder, "ce.s0.PGD*", [])) if value]
    flip(folder, "ce.s0.PGD*", correct[:60])
    done, found = reproduced(cli_here, copied, "--no-history")
    assert done.returncode == 3
    first = ", ".join(map(str, correct[:10]))
    assert last_line(done) == (
        f"tiny: DRIFTED: 1 of 8 cells (first: ce seed 0: PGD linf eps 0.1, 60 flipped: {first}, …)"
    )
    assert verdicts(found)["cmic seed 0: FGSM linf eps 0.1"] == "within interval"
    flipped = {cell.title: cell.flipped for cell in found.cells if cell.flips}
    assert flipped == {"ce seed 0: PGD linf eps 0.1": correct[:60], "cmic seed 0: FGSM linf eps 0.1": [17]}
    assert found.counts["bit-identical"] == 6
    assert "1 flipped: 17" in (copied / "again" / "certificate.md").read_text()
    assert not (folder / "nightly.csv").exists()


def test_a_sample_is_told_and_certified_elsewhere(copied: Path, cli_here: Cli) -> None:
    done = cli_here("reproduce", "tiny.yaml", "--fraction", 0.1, "--output", "certified/tiny", "--jobs", 1, cwd=copied)
    assert done.returncode == 0, done.stdout + done.stderr
    found = certificate_in(copied / "certified" / "tiny")
    assert found.fraction == 0.1
    assert 2 <= len(found.cells) <= 3, "one of six evaluations, its training, and the clean evaluation"
    assert last_line(done) == (
        f"tiny: {len(found.cells)} of {len(found.cells)} cells bit-identical (a sample of 8 recorded cells)"
    )


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ([], None),
        (["training.epochs=1", "attacks.PGD.steps=2"], None),
        (["training.optimizer.lr=1e-3"], "mine"),
        (["training.optimizer.lr=1e-3"], "tiny"),
        ([], "mine"),
    ],
)
def test_what_set_and_as_changed_is_changed_again(tiny: Path, settings: list[str], name: str | None) -> None:
    plan = make_plan(load_suite(tiny, settings=settings, name=name).suite)
    assert make_plan(load_as_recorded(str(tiny), plan).suite) == plan


def test_a_folder_made_with_set_is_reproduced_from_its_plan(tiny: Path) -> None:
    suite = load_suite(tiny, settings=["training.epochs=1"]).suite
    store = Store(tiny.parent / "results" / suite.suite)
    store.results.mkdir(parents=True)
    write_json(store.plan, make_plan(suite).model_dump(mode="json"))
    done = command_here("reproduce", tiny, "--against", store.results, "--results", "again", cwd=tiny.parent)
    assert f"{suite.suite}: none of its cells is recorded: nothing to run" in done.stdout
    assert "not the recorded experiment" not in done.stderr


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    """A finished run of a suite on arrays, with given weights beside a trained model."""
    folder = tmp_path_factory.mktemp("given")
    data = load_data(Digits(name="digits"), folder)
    arrays: dict[str, Any] = {
        "x_train": data.train.images, "y_train": data.train.labels,
        "x_test": data.test.images, "y_test": data.test.labels,
    }  # fmt: skip
    np.savez(folder / "mine.npz", **arrays)
    (weights,) = (finished / "results.work" / "tiny").glob("ce.s0.train*.safetensors")
    shutil.copy(weights, folder / "theirs.safetensors")
    (folder / "given.yaml").write_text(
        "suite: given\n"
        "dataset: {name: arrays, path: mine.npz}\n"
        "models: [{id: theirs, architecture: mlp, weights: theirs.safetensors}]\n"
        "attacks: [{name: FGSM, eps: 0.1}]\n"
        "audit: off\n"
    )
    done = subprocess.run(
        command("run", "given.yaml", "--data", ".", "--jobs", 1), cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_one_changed_weight_is_another_experiment(given: Path, tmp_path: Path, cli_here: Cli) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(given, folder)
    weights = load_file(folder / "theirs.safetensors")
    name = max(weights, key=lambda key: weights[key].size)
    weights[name].flat[0] += 0.01
    save_file(weights, folder / "theirs.safetensors")
    done, found = reproduced(cli_here, folder, "--data", ".", suite="given.yaml")
    assert done.returncode == 3
    (difference,) = found.inputs
    assert (difference.key, difference.where) == ("weights.sha256", ["theirs"])
    told = f"not the recorded experiment: weights.sha256: {difference.old[:12]}… -> {difference.new[:12]}… (theirs)"
    assert told in done.stderr
    assert last_line(done) == f"given: NOT A REPRODUCTION: {told}"
    assert "bit-identical" not in verdicts(found).values()
    assert ",different inputs\n" in (folder / "results" / "given" / "nightly.csv").read_text()


def test_one_flipped_label_is_other_data(given: Path, tmp_path: Path, cli_here: Cli) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(given, folder)
    with np.load(folder / "mine.npz") as file:
        arrays: dict[str, Any] = dict(file)
    correct = flip(folder / "results" / "given", "*.FGSM.*", [])
    place = correct.index(True)
    arrays["y_test"][place] = (arrays["y_test"][place] + 1) % 10
    np.savez(folder / "mine.npz", **arrays)
    done, found = reproduced(cli_here, folder, "--data", ".", suite="given.yaml")
    assert done.returncode == 3
    (difference,) = found.inputs
    assert difference.key == "dataset_sha256"
    assert [difference.old] == found.dataset_sha256["recorded"]
    assert [difference.new] == found.dataset_sha256["here"]
    assert f"dataset_sha256: {difference.old[:12]}… -> {difference.new[:12]}…" in last_line(done)
    assert [cell.flipped for cell in found.cells if cell.kind == "attack"] == [[place], [place]]


def test_other_seeds_and_settings_are_another_experiment(copied: Path, cli_here: Cli) -> None:
    (copied / "tiny.yaml").write_text(TINY_SUITE.replace("pairs:", "seeds: [1]\npairs:"))
    done, found = reproduced(cli_here, copied)
    assert done.returncode == 3
    assert "none of its cells is recorded: nothing to run" in done.stdout
    assert [difference.text() for difference in found.inputs] == ["seeds removed: 0 -> –", "seeds added: – -> 1"]
    assert found.counts["missing"] == len(found.cells) == 16
    assert {cell.why for cell in found.cells} == {"not in the recorded suite", "not in the suite any more"}
    (copied / "tiny.yaml").write_text(TINY_SUITE.replace("steps: 3", "steps: 2"))
    again = cli_here("reproduce", "tiny.yaml", "--jobs", 1, "--fraction", 0.1, cwd=copied)
    assert again.returncode == 3
    assert "not the recorded experiment: attack.steps: 3 -> 2 (PGD)\n" in again.stderr
    assert "NOT A REPRODUCTION: not the recorded experiment: attack." in last_line(again)


def test_what_was_not_recorded_is_missing(copied: Path, cli_here: Cli) -> None:
    folder = copied / "results" / "tiny"
    for pattern in ("c*.s0.FGSM*", "c*.s0.PGD*", "cmic.s0.none*"):
        for file in folder.glob(pattern):
            file.unlink()
    edit(folder, "ce.s0.none*", status="failed", reason="no memory")
    next(folder.glob("cmic.s0.train*")).write_text("{")
    done, found = reproduced(cli_here, copied)
    assert done.returncode == 1
    assert last_line(done).startswith("tiny: INCOMPLETE: 7 missing of 8 cells (first: ce seed 0: clean, recorded as")
    assert {cell.why for cell in found.cells} == {
        "", "not recorded", "recorded as failed: no memory", "not usable: its record is corrupt: not whole JSON",
    }  # fmt: skip


def test_interrupted_it_certifies_nothing_and_goes_on(finished: Path, tmp_path: Path, cli_here: Cli) -> None:
    """A training of 3,000 epochs that is not recorded as such: what is tried is the way there, not the verdict."""
    shutil.copytree(finished / "results", tmp_path / "results")
    (tmp_path / "tiny.yaml").write_text(TINY_SUITE.replace("epochs: 2", "epochs: 3000"))
    arguments = ("reproduce", "tiny.yaml", "--results", "again", "--jobs", "1", "--fraction", "0.1")
    process = subprocess.Popen(
        command(*arguments), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 90
    while not list(tmp_path.glob("again.work/tiny/*.state.safetensors")):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing is certified; to go on: reproduce tiny.yaml --results again, other options as before" in output
    assert not (tmp_path / "again" / "certificate.json").exists()
    assert not (tmp_path / "results" / "tiny" / "nightly.csv").exists()
    other = cli_here("reproduce", "tiny.yaml", "--results", "again", "--fraction", 1)
    assert other.returncode == 2, "another sample is another reproduction"
    state = next(tmp_path.glob("again.work/tiny/*.state.safetensors"))
    resumed = subprocess.Popen(command(*arguments), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert resumed.stdout is not None
        assert re.search(r"cells to run", resumed.stdout.readline())
        assert state.exists()
    finally:
        resumed.send_signal(signal.SIGINT)
        resumed.communicate(timeout=60)


def test_what_lies_in_the_work_folder_of_a_fresh_run_is_not_taken_over(copied: Path, cli_here: Cli) -> None:
    shutil.copytree(copied / "results.work", copied / "again.work")
    before = set(copied.rglob("*"))
    done = cli_here("reproduce", "tiny.yaml", "--results", "again", cwd=copied)
    assert done.returncode == 2
    assert done.stderr == (
        f"{copied / 'again.work'} is there, and of no interrupted run of this reproduction: "
        "remove it, or choose other --results\n"
    )
    assert set(copied.rglob("*")) == before, "nothing is written"


def test_a_suite_is_certified_as_it_was_read(copied: Path) -> None:
    loaded = load_suite(copied / "tiny.yaml")
    recorded = copied / "results" / "tiny"
    reproduction = plan_reproduction(loaded, read_results(recorded), 1)
    (copied / "tiny.yaml").unlink()
    found = certify(reproduction, copied / "results", datetime.datetime.now(datetime.UTC))
    assert found.suite_sha256 == hashlib.sha256(TINY_SUITE.encode()).hexdigest()


def test_another_margin_is_the_same_experiment(copied: Path) -> None:
    (copied / "tiny.yaml").write_text(f"{TINY_SUITE}claims: {{margin: 1}}\n")
    reproduction = plan_reproduction(load_suite(copied / "tiny.yaml"), read_results(copied / "results" / "tiny"), 1)
    assert (reproduction.inputs, reproduction.missing) == ([], [])


def test_a_damaged_history_changes_nothing_in_what_was_certified(copied: Path, cli_here: Cli) -> None:
    folder = copied / "results" / "tiny"
    (folder / "nightly.csv").write_text(
        ",".join(HISTORY_COLUMNS) + "\n" + ",".join(["9" * 400] * len(HISTORY_COLUMNS)) + "\n"
    )
    before = (folder / "nightly.csv").read_bytes()
    done, found = reproduced(cli_here, copied, "--fraction", 0.1)
    assert (done.returncode, found.exit_code) == (0, 0)
    assert done.stderr == (
        f"{Path('results') / 'tiny' / 'nightly.csv'} is left as it was: "
        "it is no history of reproductions: in line 2, cells is no count\n"
    )
    assert (folder / "nightly.csv").read_bytes() == before
    assert not (folder / "nightly.svg").exists()


def test_a_picture_that_cannot_be_drawn_is_told_by_itself(tmp_path: Path) -> None:
    (tmp_path / "nightly.svg").mkdir()
    (error,) = add_to_history(certificate(), tmp_path)
    assert error.startswith(f"{tmp_path / 'nightly.svg'} is not drawn: ")
    assert len(error.splitlines()) == 1
    assert len((tmp_path / "nightly.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fraction", "0"), "--fraction: should be above 0 and at most 1, not 0"),
        (("--fraction", "1.5"), "--fraction"),
        (("--against", "nothing"), "nothing holds no results"),
        (("--device", "tpu"), "--device tpu: there is no such device here"),
        (("--results", "results"), "results is not empty, and no interrupted run of this reproduction"),
        (("--output", "tiny.yaml"), "cannot write to tiny.yaml"),
        (("--results", "/proc/none"), "cannot write to /proc/none"),
    ],
)
def test_mistakes_get_one_clear_sentence_and_exit_2(
    copied: Path, cli_here: Cli, arguments: tuple[str, ...], message: str
) -> None:
    before = set(copied.rglob("*"))
    done = cli_here("reproduce", "tiny.yaml", *arguments, cwd=copied)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert set(copied.rglob("*")) == before, "nothing is written"
