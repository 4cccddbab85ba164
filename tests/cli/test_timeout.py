"""`--timeout` by the real command line: own code that hangs, and a training that takes too long."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import TINY_SUITE, Cli
from tests.in_process import command_here

HANGING = """\
def forever(model, images, labels, *, eps, norm):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""


def test_own_code_that_hangs_is_stopped_and_the_rest_is_done(tiny: Path, cli: Cli) -> None:
    (tiny.parent / "hang.py").write_text(HANGING)
    text = TINY_SUITE.replace("name: FGSM", 'id: hang, norm: linf, name: "hang:forever"')
    tiny.write_text(
        text.replace("  - {id: cmic, architecture: mlp, objective: {name: cmic}}\npairs: [[ce, cmic]]\n", "")
    )
    trained = cli("run", tiny, "--only", "none", cwd=tiny.parent)  # however long that takes
    assert trained.returncode == 0, trained.stdout + trained.stderr
    done = cli("run", tiny, "--timeout", "10s", "--jobs", 1, cwd=tiny.parent)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 of 4 cells to run, 1 at a time, on cpu, at most 10 s each" in done.stdout
    sentence = "it took longer than --timeout allows (10 s) and was stopped; give it more, or none"
    assert done.stdout.count(sentence) == 1, "as it ends"
    assert re.search(r"^failed: ce\.s0\.hang\S+, see above$", done.stdout, re.MULTILINE)
    assert "1 of 4 cells have no result" in done.stdout
    folder = tiny.parent / "results" / "tiny"
    record = json.loads(next(folder.glob("ce.s0.hang*")).read_text())
    assert (record["status"], record["reason"]) == ("failed", sentence)
    assert record["timing"]["seconds"] >= 10
    (status,) = json.loads(command_here("status", "--json", cwd=tiny.parent).stdout)
    assert (status["timeout"], status["exit_code"]) == (10.0, 1)
    assert [failure["reason"] for failure in status["failures"]] == [sentence]
    assert sentence in (tiny.parent / "results.work" / "tiny" / "events.jsonl").read_text()


def test_a_training_that_takes_too_long_goes_on_from_what_it_has_stored(tiny: Path, cli: Cli) -> None:
    tiny.write_text(TINY_SUITE.replace("epochs: 2", "epochs: 100000"))
    done = cli("run", tiny, "--timeout", "10", "--only", "ce.s0.train*", cwd=tiny.parent)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "(10 s) and was stopped; it goes on from its last stored epoch when run again" in done.stdout
    (state,) = (tiny.parent / "results.work" / "tiny").glob("ce.s0.train*.state.safetensors")
    before = state.stat().st_mtime_ns
    again = cli("run", tiny, "--timeout", "10", "--only", "ce.s0.train*", cwd=tiny.parent)
    assert "begins anew" not in again.stdout
    events = (tiny.parent / "results.work" / "tiny" / "events.jsonl").read_text().splitlines()
    assert any('"restored":true' in line for line in events), "the second run has taken it up"
    assert state.stat().st_mtime_ns > before


@pytest.mark.parametrize("text", ["0", "-1", "ten", "10 minutes", "1e3", "nan", "inf", "0m", "1h30m", "9" * 40])
def test_what_is_no_time_is_refused(tiny: Path, text: str) -> None:
    done = command_here("run", tiny, "--timeout", text, cwd=tiny.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--timeout: should be a time above 0 such as 90 (seconds), 10m or 2h, not '")
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("text", ["90", "0.5", "10m", "2h", "1d", "3 s"])
def test_times(tiny: Path, text: str) -> None:
    assert command_here("run", tiny, "--dry-run", "--timeout", text, cwd=tiny.parent).returncode == 0
