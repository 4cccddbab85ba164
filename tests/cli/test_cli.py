"""The real command line, on real data, as its users meet it."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from robustbench_cmic import __version__
from robustbench_cmic.records.files import write_json
from robustbench_cmic.suite.schema import suite_json_schema
from tests.conftest import ROOT, TINY_SUITE, Cli, command, contents
from tests.in_process import command_here


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


# --- the main path -------------------------------------------------------------------------------------------------


def test_a_run_leaves_records_rows_and_a_leaderboard(finished: Path) -> None:
    folder = finished / "results" / "tiny"
    found = rows(folder)
    assert len(found) == 6
    for row in found:
        record = json.loads((folder / f"{row['cell']}.json").read_text())
        assert (row["status"], row["n"], row["dataset"]) == ("ok", "599", "digits")
        assert float(row["ci_low"]) < float(row["accuracy"]) < float(row["ci_high"])
        assert float(row["ncmi"]) == pytest.approx(float(row["cmi"]) / float(row["separation"]))
        assert record["schema"] == "robustbench_cmic/record/3"
        assert len(record["dataset_sha256"]) == len(record["checkpoint_sha256"]) == 64
        assert record["provenance"]["threads"] == 1
        assert record["provenance"]["versions"]["torch"]
        assert record["provenance"]["instructions"] == torch.backends.cpu.get_cpu_capability()
    by_attack = {(row["model"], row["attack"]): float(row["accuracy"]) for row in found}
    assert by_attack["ce", "none"] > 0.7
    assert by_attack["ce", "none"] > by_attack["ce", "FGSM"] >= by_attack["ce", "PGD"]
    pgd = next(row for row in found if row["attack"] == "PGD")
    assert (pgd["forwards"], pgd["backwards"]) == ("1797", "1797")
    board = (folder / "leaderboard.md").read_text()
    assert "## `ce` against `cmic`" in board
    assert re.search(rf"^- processor: .+, {torch.backends.cpu.get_cpu_capability()}$", board, re.MULTILINE)
    training = json.loads(next(folder.glob("cmic.s0.train*")).read_text())
    assert [epoch["epoch"] for epoch in training["curve"]] == [1, 2]
    assert not list((finished / "results.work" / "tiny").glob("*.state.safetensors"))


def test_a_second_run_does_nothing_and_says_so(copied: Path, cli: Cli) -> None:
    before = contents(copied / "results" / "tiny")
    weights = {file: file.stat().st_mtime_ns for file in (copied / "results.work" / "tiny").glob("*.safetensors")}
    assert len(weights) == 2
    done = cli("run", "tiny.yaml", cwd=copied)
    assert done.returncode == 0, done.stderr
    assert "all 8 cells are done already: nothing to run" in done.stdout
    assert contents(copied / "results" / "tiny") == before
    assert {file: file.stat().st_mtime_ns for file in weights} == weights


@pytest.mark.parametrize("options", [("--jobs", 1, "--batch-size", 37), ("--jobs", 2, "--batch-size", 599)])
def test_jobs_and_batch_sizes_change_no_result(
    finished: Path, tiny: Path, cli: Cli, options: tuple[object, ...]
) -> None:
    done = cli("run", tiny, *options, cwd=tiny.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = tiny.parent / "results" / "tiny", finished / "results" / "tiny"
    assert contents(ours) == contents(theirs)
    pictures = {file.name: file.read_bytes() for file in (theirs / "pictures").iterdir()}
    assert len(pictures) == 4
    assert {file.name: file.read_bytes() for file in (ours / "pictures").iterdir()} == pictures


def test_smoke_suite_by_name_from_any_folder(tmp_path: Path, cli: Cli) -> None:
    done = cli("run", "smoke", "--results", "mine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[10/10]" in done.stdout
    assert re.search(r"about \d+ s left", done.stdout)
    assert len(rows(tmp_path / "mine" / "smoke")) == 6
    assert (tmp_path / "mine.work" / "smoke").is_dir()
    assert not (tmp_path / "results").exists()


def test_toy_size_runs_everything_in_a_folder_of_its_own(copied: Path, cli_here: Cli) -> None:
    before = contents(copied / "results" / "tiny")
    done = cli_here("run", "tiny.yaml", "--toy", cwd=copied)
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(copied / "results" / "tiny") == before
    assert {row["n"] for row in rows(copied / "results" / "tiny-toy")} == {"16"}
    trained = [r for r in contents(copied / "results" / "tiny-toy").values() if r.get("kind") == "train"]
    assert [len(record["curve"]) for record in trained] == [1, 1]
    assert "TOY SIZE" in (copied / "results" / "tiny-toy" / "leaderboard.md").read_text()
    assert "8 cells: 8 done" in cli_here("plan", "tiny.yaml", "--toy", cwd=copied).stdout


def test_killed_at_any_moment_it_ends_with_the_same_records(finished: Path, tmp_path: Path, cli: Cli) -> None:
    """`kill -9` at random moments from the start to the end, each on a fresh folder, then the same command again."""
    expected = contents(finished / "results" / "tiny")
    moments = random.Random(0)

    def fresh(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(finished / "tiny.yaml", folder)
        return folder

    # From the moment before the first run began to the last file that it wrote.
    written = [file.stat().st_mtime for file in finished.rglob("*")]
    whole = max(written) - min(written)

    def kill_and_mend(folder: Path, after: float) -> bool:
        process = subprocess.Popen(command("run", "tiny.yaml", "--jobs", 1), cwd=folder, stdout=subprocess.DEVNULL)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        done = cli("run", "tiny.yaml", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert contents(folder / "results" / "tiny") == expected
        assert not list(folder.rglob("*.tmp"))
        return killed

    with ThreadPoolExecutor(2) as pool:
        folders = [fresh(str(attempt)) for attempt in range(3)]
        killed = list(pool.map(kill_and_mend, folders, [(place + moments.random()) / 3 * whole for place in range(3)]))
    assert any(killed)


def wait_for(condition: object, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


LONG_SUITE = TINY_SUITE.replace("epochs: 2", "epochs: 3000").replace("suite: tiny", "suite: long")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_goes_on_from_its_last_epoch(tmp_path: Path, cli: Cli, sent: signal.Signals) -> None:
    (tmp_path / "long.yaml").write_text(LONG_SUITE)
    process = subprocess.Popen(
        command("run", "long.yaml"), cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    work = tmp_path / "results.work" / "long"
    wait_for(lambda: len(list(work.glob("*.state.safetensors"))) == 2)
    # To the whole process group, as a terminal's Ctrl-C goes.
    os.killpg(process.pid, sent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in output
    assert (tmp_path / "results" / "long" / "leaderboard.md").is_file()
    assert len(list(work.glob("*.state.safetensors"))) == 2
    assert "to run" in cli("plan", "long.yaml").stdout


def test_forced_cells_and_only_they_run_again(copied: Path, cli_here: Cli) -> None:
    folder = copied / "results" / "tiny"
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*.s0.*.json")}
    done = cli_here("run", "tiny.yaml", "--force", "--only", "FGSM", cwd=copied)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 4 cells to run" in done.stdout
    changed = {file.name.split(".")[2] for file, moment in before.items() if file.stat().st_mtime_ns != moment}
    assert changed == {"FGSM"}


def test_only_and_seeds_select(tiny: Path, cli_here: Cli) -> None:
    tiny.write_text(TINY_SUITE.replace("pairs:", "seeds: [0, 1]\npairs:"))
    done = cli_here("run", tiny, "--only", "ce.s1.none*", "--seeds", "1", cwd=tiny.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = rows(tiny.parent / "results" / "tiny")
    assert (row["model"], row["seed"], row["attack"]) == ("ce", "1", "none")
    assert "**Incomplete:** of 16 cells 14 not run, 2 ok." in (tiny.parent / "results/tiny/leaderboard.md").read_text()


def test_limited_runs_are_marked_and_leave_the_ranked_results_alone(copied: Path, cli_here: Cli) -> None:
    folder = copied / "results" / "tiny"
    ranked = rows(folder)
    done = cli_here("run", "tiny.yaml", "--limit", 20, cwd=copied)
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(folder)
    assert found[: len(ranked)] == ranked
    assert {(row["n"], row["flags"]) for row in found[len(ranked) :]} == {("20", "limited")}
    assert len(found) == 12


def test_a_diverged_training_is_told_and_the_rest_is_done(tiny: Path, cli_here: Cli) -> None:
    text = TINY_SUITE.replace("objective: {name: cmic}", "objective: {name: cmic, lambda: 1e30}")
    tiny.write_text(text)
    done = cli_here("run", tiny, cwd=tiny.parent)
    assert done.returncode == 1
    assert re.search(r"cmic seed 0: train: diverged: the loss is not finite at step \d+ of epoch 1", done.stdout)
    assert re.search(r"^diverged: cmic\.s0\.train\.\w+, see above$", done.stdout, re.MULTILINE)
    found = rows(tiny.parent / "results" / "tiny")
    assert [row["status"] for row in found] == ["ok", "ok", "ok", "diverged", "skipped", "skipped"]
    record = json.loads(next((tiny.parent / "results" / "tiny").glob("cmic.s0.train*")).read_text())
    assert record["status"] == "diverged"
    assert record["last_finite"]["ce"] > 0
    again = cli_here("run", tiny, cwd=tiny.parent)
    assert again.returncode == 1
    assert "everything that can be done is done already" in again.stdout
    assert "skipped: its training diverged" in cli_here("plan", tiny, cwd=tiny.parent).stdout


def test_a_crashing_attack_fails_its_cell_and_is_tried_again(tiny: Path, cli: Cli) -> None:
    # PGDRS knows no noise of this name, and does not look: a real crash inside torchattacks.
    tiny.write_text(TINY_SUITE.replace("{name: FGSM, eps: 0.1}", "{name: PGDRS, norm: linf, eps: 0.1, noise_type: x}"))
    for _ in range(2):
        done = cli("run", tiny, cwd=tiny.parent)
        assert done.returncode == 1
        assert re.search(r"ce seed 0: PGDRS .*: failed: the attack crashed: UnboundLocalError: ", done.stdout)
    found = rows(tiny.parent / "results" / "tiny")
    assert [row["status"] for row in found] == ["ok", "failed", "ok"] * 2
    assert "worst case" in (tiny.parent / "results/tiny/leaderboard.md").read_text()


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["record", "checkpoint", "both gone", "data"])
def test_damage_is_noticed_set_aside_and_mended(copied: Path, cli_here: Cli, damage: str) -> None:
    folder, work = copied / "results" / "tiny", copied / "results.work" / "tiny"
    expected = contents(folder)
    record = next(folder.glob("ce.s0.train*"))
    weights = next(work.glob("ce.s0.train*"))
    if damage == "record":
        record.write_bytes(record.read_bytes()[:200])
    elif damage == "checkpoint":
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    elif damage == "both gone":
        next(folder.glob("ce.s0.PGD*")).unlink()
        weights.unlink()
    else:
        payload = json.loads(record.read_text()) | {"dataset_sha256": "0" * 64}
        write_json(record, payload)
    done = cli_here("run", "tiny.yaml", cwd=copied)
    assert done.returncode == 0, done.stdout + done.stderr
    said = {
        "record": "its record is corrupt: not whole JSON; set aside as",
        "checkpoint": "its weights are not the recorded ones (the file's hash differs); set aside as",
        "both gone": "2 of 8 cells to run",
        "data": "the data set's fingerprint differs; set aside as",
    }
    assert said[damage] in done.stdout
    assert (damage == "both gone") != (work / "set-aside").exists()
    assert contents(folder) == expected


def test_a_corrupt_resume_state_is_not_trusted(finished: Path, tiny: Path, cli_here: Cli) -> None:
    cell = next((finished / "results" / "tiny").glob("ce.s0.train*")).stem
    work = tiny.parent / "results.work" / "tiny"
    work.mkdir(parents=True)
    (work / f"{cell}.state.safetensors").write_bytes(b"no state at all")
    done = cli_here("run", tiny, cwd=tiny.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is not whole: the training begins anew" in done.stdout
    assert contents(tiny.parent / "results" / "tiny") == contents(finished / "results" / "tiny")


def test_a_full_disk_fails_the_cell_with_the_reason_and_leaves_earlier_records_whole(copied: Path, cli: Cli) -> None:
    """A limit on file sizes stands for the full disk: records fit, the weights of a training (400 kB) do not."""
    folder = copied / "results" / "tiny"
    before = contents(folder)
    text = (copied / "tiny.yaml").read_text().replace("seeds", "").replace("pairs:", "seeds: [0, 1]\npairs:")
    (copied / "tiny.yaml").write_text(text)
    done = cli("run", "tiny.yaml", cwd=copied, prefix=("bash", "-c", 'ulimit -f 128; exec "$@"', "bash"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"ce seed 1: train: failed: cannot write .*: File too large", done.stdout)
    after = contents(folder)
    assert {name: after[name] for name in before if name != "plan.json"} == {
        name: value for name, value in before.items() if name != "plan.json"
    }
    assert not list((copied / "results.work").rglob("*.tmp"))
    statuses = [row["status"] for row in rows(folder) if row["seed"] == "1"]
    assert statuses == ["failed", "skipped", "skipped"] * 2


def test_two_runs_at_once_get_a_clear_message(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "long.yaml").write_text(LONG_SUITE)
    process = subprocess.Popen(command("run", "long.yaml"), cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: (tmp_path / "results" / "long" / "plan.json").exists())
        second = cli("run", "long.yaml")
        assert second.returncode == 2
        assert "another run is using" in second.stderr
        assert "Traceback" not in second.stderr
    finally:
        process.kill()
        process.wait()


# --- other commands ------------------------------------------------------------------------------------------------


def test_plan_shows_what_is_done_and_what_will_run(copied: Path, cli_here: Cli) -> None:
    next((copied / "results" / "tiny").glob("ce.s0.PGD*")).unlink()
    next((copied / "results" / "tiny").glob("cmic.s0.none*")).write_text("{")
    done = cli_here("plan", "tiny.yaml", cwd=copied)
    assert done.returncode == 0
    assert re.search(r"ce seed 0: PGD linf eps 0.1 +to run +ce\.s0\.PGD", done.stdout)
    assert re.search(r"cmic seed 0: clean +to run again: its record is corrupt: not whole JSON", done.stdout)
    assert "8 cells: 6 done, 1 to run, 1 to run again" in done.stdout
    assert cli_here("run", "tiny.yaml", "--dry-run", cwd=copied).stdout == done.stdout
    forced = cli_here("run", "tiny.yaml", "--dry-run", "--force", "--only", "ce", cwd=copied).stdout
    assert "4 cells: 4 to run" in forced
    next((copied / "results.work" / "tiny").glob("ce.s0.train*")).unlink()
    assert (
        "to run again: its weights are not here, and an attack needs them"
        in cli_here("plan", "tiny.yaml", cwd=copied).stdout
    )


def test_plan_and_validate_write_nothing(tiny: Path, cli_here: Cli) -> None:
    assert cli_here("plan", tiny).returncode == 0
    assert cli_here("run", tiny, "--dry-run").returncode == 0
    done = cli_here("validate", tiny)
    assert done.stdout == f"{tiny}: valid: 2 trainings, 6 evaluations\n"
    assert [file.name for file in tiny.parent.iterdir()] == ["tiny.yaml"]


def test_warnings_are_told_and_do_not_stop(tiny: Path, cli: Cli) -> None:
    tiny.write_text(TINY_SUITE.replace("steps: 3", "steps: 3, alpha: 0.01"))
    done = cli("validate", tiny)
    assert done.returncode == 0
    assert done.stderr == (
        f"warning: {tiny}:10: attacks[1].alpha: alpha * steps is 0.03: cannot reach the edge of the ball at eps 0.1\n"
    )


def test_report_renews_the_same_bytes_from_records_alone(copied: Path, cli: Cli) -> None:
    folder = copied / "results" / "tiny"
    before = {name: (folder / name).read_bytes() for name in ("results.csv", "leaderboard.md")}
    for name in before:
        (folder / name).unlink()
    shutil.rmtree(copied / "results.work")
    for argument in ("tiny", "tiny.yaml"):
        assert cli("report", argument, cwd=copied).returncode == 0
        assert {name: (folder / name).read_bytes() for name in before} == before


def test_report_names_damaged_records(copied: Path, cli: Cli) -> None:
    file = next((copied / "results" / "tiny").glob("ce.s0.PGD*"))
    file.write_text("")
    done = cli("report", "tiny", cwd=copied)
    assert done.returncode == 1
    assert f"{file.name}: left out: its record is corrupt: not whole JSON" in done.stderr


def test_audit_says_where_none_was_asked_for(finished: Path, cli_here: Cli) -> None:
    done = cli_here("audit", "results/tiny", cwd=finished)
    assert done.returncode == 0
    assert done.stdout.startswith("tiny: 4 flags\n")
    assert len(re.findall(r"^c\w+ +0 +not-audited +everything", done.stdout, re.MULTILINE)) == 2


def test_list_schema_and_version(tmp_path: Path, cli: Cli) -> None:
    listed = cli("list").stdout
    for name in ("digits", "smoke", "small_cnn", "cmic", "PGD", "APGDT"):
        assert name in listed
    assert cli("schema").stdout == suite_json_schema()
    assert cli("schema", "--output", "s.json").returncode == 0
    assert (tmp_path / "s.json").read_text() == suite_json_schema()
    assert cli("--version").stdout == "0.1.0\n"
    assert "Usage" in cli("--help").stdout


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "missing.yaml"), "missing.yaml: there is no such file"),
        (("run", "digit"), "did you mean 'digits'?"),
        (("run", "."), ".: it is a folder"),
        (("run", "empty.yaml"), "empty.yaml: the file is empty"),
        (("run", "bad.yaml"), "bad.yaml:2: dataset: unknown name 'digitz'; did you mean 'digits'?"),
        (("validate", "bad.yaml"), "bad.yaml:2: dataset: "),
        (("plan", "bad.yaml"), "bad.yaml:2: dataset: "),
        (("run", "tiny.yaml", "--seeds", "7"), "--seeds: the suite has no seed 7; it has 0"),
        (("run", "tiny.yaml", "--seeds", "a"), "--seeds: should be whole numbers such as 0,1,2, not 'a'"),
        (("run", "tiny.yaml", "--only", "PDG"), "--only: nothing in the suite matches 'PDG'; did you mean 'PGD'?"),
        (("plan", "tiny.yaml", "--only", "PDG"), "--only: nothing in the suite matches 'PDG'"),
        (("run", "tiny.yaml", "--seeds", ","), "--seeds: should be whole numbers such as 0,1,2, not ','"),
        (("run", "x" * 300), "no suite: File name too long"),
        (("report", "x" * 300), "no suite: File name too long"),
        (("run", "tiny.yaml", "--only", ""), "--only: is empty; an unset variable of the shell?"),
        (("run", "tiny.yaml", "--limit", "0"), "--limit: should be a whole number such as 1 or 100, not '0'"),
        (("run", "tiny.yaml", "--jobs", "none"), "--jobs: should be a whole number such as 1 or 100, not 'none'"),
        (("run", "tiny.yaml", "--memory", "-1"), "--memory: should be a number from 0 to 1000000 such as 16, not '-1'"),
        (("run", "tiny.yaml", "--limt", "3"), "--limt: run has no such option; did you mean '--limit'?"),
        (("run", "tiny.yaml", "--limit"), "--limit: should have a value behind it"),
        (("run", "tiny.yaml", "--toy=3"), "--toy: takes no value"),
        (("compare", "a", "b", "c"), "compare: got unexpected extra argument"),
        (("compare", "a", "b", "--fail-on", "x"), "--fail-on: 'x' is not one of 'drift', 'regression'"),
        (("report", "--format", "x"), "--format: 'x' is not one of 'md', 'csv', 'html', 'json', 'latex'"),
        (("reproduce", "tiny.yaml", "--fraction", "2"), "--fraction: should be a number from 0 to 1 such as 0.1, not"),
        (("--verson",), "--verson: robustbench-cmic has no such option; did you mean '--version'?"),
        (("run", "tiny.yaml", "--device", "cuda:9"), "--device cuda:9: there is no such device here; choose from cpu"),
        (("run", "tiny.yaml", "--device", "tpu"), "--device tpu: there is no such device here"),
        (("run", "tiny.yaml", "--results", "tiny.yaml"), "cannot write to"),
        (("run", "tiny.yaml", "--results", "/proc/none"), "cannot write to /proc/none/tiny"),
        (("report", "tiny"), "tiny: there is no such file"),
        (("report", "tiny.yaml"), "results/tiny holds no results"),
        (("audit", "results/tiny"), "results/tiny holds no results"),
        (("audit",), "audit: RECORDS is missing: Results folders of suites"),
        (("schema", "--output", "/proc/none/x"), "cannot write /proc/none/x"),
        (("train",), "train: there is no such command; there are: run, evaluate"),
        (("validat",), "validat: there is no such command; did you mean 'validate'?"),
        (("run",), "run: SUITE is missing: A suite file, or the name"),
    ],
)
def test_mistakes_get_one_clear_sentence_and_exit_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    files = {"tiny.yaml": TINY_SUITE, "bad.yaml": TINY_SUITE.replace("digits", "digitz"), "empty.yaml": ""}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = command_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert {file.name for file in tmp_path.iterdir()} == set(files), "nothing is written"


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    file = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert f'\n__version__ = "{__version__}"\n' in file.read_text()


def test_module_and_console_script_are_the_same(tmp_path: Path) -> None:
    script = shutil.which("robustbench-cmic")
    assert script is not None
    done = subprocess.run([script, "list"], cwd=tmp_path, capture_output=True, text=True)
    shipped = sorted(path.name for path in ROOT.joinpath("suites").glob("*.yaml"))
    assert done.stdout.startswith(f"suites: {', '.join(name.removesuffix('.yaml') for name in shipped)}\n")
    assert ROOT.joinpath("suites", "digits.yaml").is_file()
