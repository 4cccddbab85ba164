"""What a shell, a terminal or foreign text may do to the command line: each of it gets a sentence, no traceback."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from safetensors.torch import save_file

from robustbench_cmic.cli import app, main
from robustbench_cmic.records.files import write_json
from robustbench_cmic.run.console import encode_anything, show
from robustbench_cmic.suite import load_suite
from tests.conftest import ROOT, TINY_SUITE, Cli, command
from tests.in_process import command_here

# --- empty and doubled answers --------------------------------------------------------------------------------------

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
REQUIRED = {
    "evaluate": ["m", "--dataset", "digits", "--eps", "0.1"],
    "compare": ["a", "b"],
    "audit": ["a"],
    "run": ["s"],
    "plan": ["s"],
    "validate": ["s"],
    "reproduce": ["s"],
}
OPTIONS = [
    (name, option)
    for name, each in COMMANDS.items()
    for parameter in each.params
    for option in parameter.opts
    if option.startswith("--") and not parameter.is_flag
]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_no_option_takes_an_empty_text(tmp_path: Path, name: str, option: str) -> None:
    done = command_here(name, *REQUIRED.get(name, []), option, "", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{option}: is empty; an unset variable of the shell?\n"
    joined = command_here(name, *REQUIRED.get(name, []), f"{option}=", cwd=tmp_path)
    assert (joined.returncode, joined.stderr) == (2, done.stderr)
    assert not list(tmp_path.iterdir())


def test_the_options_that_name_folders_are_among_them() -> None:
    assert {option for _, option in OPTIONS} >= {"--results", "--work", "--data", "--seeds", "--only", "--against"}


@pytest.mark.parametrize("words", [("validate",), ("report",), ("status",), ("audit",), ("compare", "x")])
def test_no_argument_is_an_empty_text(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = command_here(*words, "", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "an argument: is empty; an unset variable of the shell?\n"


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("0,0", "--seeds: 0 is named twice in '0,0'; once is enough"),
        ("0,1,01", "--seeds: 1 is named twice in '0,1,01'; once is enough"),
        ("0,", "--seeds: should be whole numbers such as 0,1,2, not '0,'"),
        ("1_0", "--seeds: should be whole numbers such as 0,1,2, not '1_0'"),
        ("9" * 5000, f"--seeds: should be whole numbers such as 0,1,2, not '{'9' * 1000}"),
    ],
)
def test_seeds_are_numbers_each_once(tiny: Path, seeds: str, message: str) -> None:
    for name in ("run", "plan"):
        done = command_here(name, tiny, "--seeds", seeds, cwd=tiny.parent)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(message)
        assert len(done.stderr) < 1300


def test_an_unset_variable_writes_nothing_anywhere(tiny: Path, cli: Cli) -> None:
    """By the real command line: it was the folder that one is in, and a work folder beside it."""
    inner = tiny.parent / "inner"
    inner.mkdir()
    done = cli("run", tiny, "--results", "", cwd=inner)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "--results: is empty; an unset variable of the shell?\n"
    assert sorted(path.name for path in tiny.parent.rglob("*")) == ["inner", "tiny.yaml"]


# --- terminals ------------------------------------------------------------------------------------------------------


def narrow(*words: object, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """The command line where nothing but ASCII can be printed."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "120"}
    return subprocess.run(command(*words), cwd=cwd, env=environment, capture_output=True, timeout=300)


def test_what_a_terminal_cannot_encode_is_replaced(copied: Path) -> None:
    (copied / "results").rename(copied / "r6 \u00e9")
    (copied / "results.work").rename(copied / "r6 \u00e9.work")
    for words in (["run", "tiny.yaml", "--jobs", 1], ["report", "tiny"], ["status"], ["plan", "tiny.yaml"]):
        done = narrow(*words, "--results", "r6 \u00e9", cwd=copied)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        assert words[0] == "plan" or b"r6 \\xe9/tiny" in done.stdout, done.stdout
    folder = "r6 \u00e9/tiny"
    assert narrow("compare", folder, folder, cwd=copied).stdout.startswith(b"r6 \\xe9/tiny and r6 \\xe9/tiny are ident")
    missing = narrow("report", "none", "--results", "r6 \u00e9", cwd=copied)
    assert missing.returncode == 2
    assert b"Traceback" not in missing.stderr


def test_what_we_print_ourselves_is_ascii_where_nothing_else_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    encode_anything()
    show("97.0 ± 0.5 †", "≤ 1 – ≥ 2 × 3 …", "é± ü")
    sys.stdout.flush()
    assert raw.getvalue() == b"97.0 +- 0.5 *\n<= 1 - >= 2 x 3 ...\n\\xe9+- \\xfc\n"


@pytest.mark.parametrize("words", [("validate", "tiny.yaml"), ("report", "tiny"), ("run", "tiny.yaml")])
def test_a_full_standard_output_is_one_sentence(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    for name, value in (("sys.argv", ["robustbench-cmic", *words]), ("sys.path", list(sys.path))):
        monkeypatch.setattr(name, value)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.chdir(copied)
    with open("/dev/full", "w") as full:  # noqa: PTH123
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as ended:
            main()
        sys.stdout.close()  # what it still holds goes nowhere by now
    sentence = "stdout: cannot be written to: No space left on device"
    assert (ended.value.code, capsys.readouterr().err) == (1, f"{sentence}\n")
    if words[0] == "run":
        last = (copied / "results.work" / "tiny" / "events.jsonl").read_text().splitlines()[-1]
        assert json.loads(last)["reason"] == sentence


def test_own_code_may_print_what_the_log_cannot_encode(tiny: Path) -> None:
    (tiny.parent / "talk.py").write_text(
        "import torch\n\n\ndef attack(model, images, labels, *, eps, norm):\n    print('\\u00e9')\n    return images\n"
    )
    tiny.write_text(TINY_SUITE.replace("name: FGSM", 'id: talk, norm: linf, name: "talk:attack"'))
    done = narrow("run", "tiny.yaml", "--only", "talk", "--jobs", 1, cwd=tiny.parent)
    assert done.returncode == 0, done.stdout
    assert "\\xe9" in (tiny.parent / "results.work" / "tiny" / "workers.log").read_text()


# --- foreign text ---------------------------------------------------------------------------------------------------

HOSTILE = "line1\nline2\x1b[31mred\u202e\x9b" + "x" * 5000
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


def test_an_exception_of_own_code_neither_steers_nor_floods_the_terminal(tiny: Path, cli: Cli) -> None:
    (tiny.parent / "bad.py").write_text(
        f"def attack(model, images, labels, *, eps, norm):\n    raise ValueError({HOSTILE!r})\n"
    )
    tiny.write_text(TINY_SUITE.replace("name: FGSM", 'id: bad, norm: linf, name: "bad:attack"'))
    done = cli("run", tiny, "--only", "bad", cwd=tiny.parent)
    assert done.returncode == 1
    assert not RAW.search(done.stdout + done.stderr)
    said = [line for line in done.stdout.splitlines() if "ValueError" in line]
    assert len(said) == 2, "once for each model, as it ends"
    assert len(re.findall(r"^failed: \S+, see above$", done.stdout, re.MULTILINE)) == 2
    assert all("line1 line2\\x1b[31mred\\u202e" in line and len(line) < 1300 for line in said)
    for words in (["plan", tiny], ["status"], ["audit", "results/tiny"], ["run", tiny, "--dry-run"]):
        seen = cli(*words, cwd=tiny.parent)
        assert not RAW.search(seen.stdout + seen.stderr), words


@pytest.fixture
def hostile(copied: Path) -> Path:
    """Records as only an enemy writes them: a reason that steers the terminal, of the record of an attack."""
    file = next((copied / "results" / "tiny").glob("ce.s0.PGD*"))
    payload = json.loads(file.read_text())
    for key in ("outcomes", "information", "accuracy", "ci_low", "ci_high", "n", "calibration", "ncmi_replicates"):
        payload[key] = None
    write_json(file, {**payload, "status": "failed", "reason": HOSTILE})
    return copied


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "tiny.yaml"),
        ("status",),
        ("report", "tiny"),
        ("audit", "results/tiny"),
        ("compare", "results/tiny", "results/tiny"),
        ("compare", "results/tiny", "results/tiny", "--format", "json"),
        ("compare", "results/tiny", "results/tiny", "--format", "md", "--fail-on", "drift"),
        ("status", "--json"),
    ],
)
def test_a_reason_in_a_record_neither_steers_nor_floods_the_terminal(hostile: Path, words: tuple[str, ...]) -> None:
    done = command_here(*words, cwd=hostile)
    assert done.returncode in (0, 1)
    assert done.stdout
    assert not RAW.search(done.stdout + done.stderr)
    if words[0] == "plan":
        assert "to run again: line1\\nline2\\x1b[31mred\\u202e\\x9bxxx" in done.stdout
        assert max(map(len, done.stdout.splitlines())) < 800


def test_names_of_files_neither_steer_the_terminal_nor_begin_lines(tiny: Path) -> None:
    name = "no\nsuch\x1b[2J\udcff.yaml"
    for words in (("run", name), ("report", name), ("validate", name), ("compare", name, name), ("audit", name)):
        done = command_here(*words, cwd=tiny.parent)
        assert done.returncode == 2
        assert not RAW.search(done.stderr)
        assert "no\\nsuch\\x1b[2J\\udcff.yaml" in done.stderr
        assert done.stderr.count("\n") == 1
    (tiny.parent / "f\x1b[2J").write_text("")
    done = command_here("run", tiny, "--data", "f\x1b[2J", cwd=tiny.parent)
    assert done.stderr == "--data f\\x1b[2J: is a file, not a folder\n" or "f\\x1b[2J" in done.stderr


# --- several suites -------------------------------------------------------------------------------------------------


def test_validate_checks_every_suite(tiny: Path, cli: Cli) -> None:
    (tiny.parent / "bad.yaml").write_text(TINY_SUITE.replace("digits", "digitz"))
    done = cli("validate", "bad.yaml", "tiny.yaml", "smoke", "missing.yaml", cwd=tiny.parent)
    assert done.returncode == 2
    assert re.findall(r"^(.*): valid", done.stdout, re.MULTILINE)[0] == "tiny.yaml"
    assert done.stdout.count(": valid: ") == 2
    first, second, last = done.stderr.splitlines()
    assert first.startswith("bad.yaml:2: dataset: unknown name 'digitz'")
    assert second.startswith("missing.yaml: there is no such file")
    assert last == "2 of 4 suites are wrong"
    assert cli("validate", "tiny.yaml", "smoke", cwd=tiny.parent).returncode == 0


NET = """\
from torch import nn

def build(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, {width}), nn.Linear({width}, classes))
"""


def test_suites_in_several_folders_have_their_own_modules_of_one_name(tmp_path: Path) -> None:
    for name, width in (("one", 3), ("two", 5)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "its_net.py").write_text(NET.format(width=width))
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, 10))
        save_file(model.state_dict(), folder / "w.safetensors")
        (folder / "s.yaml").write_text(
            f"suite: {name}\ndataset: {{name: digits}}\n"
            'models: [{id: a, architecture: "its_net:build", weights: w.safetensors}]\n'
        )
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "s.yaml").write_text(
        (tmp_path / "two" / "s.yaml").read_text().replace("w.saf", "../two/w.saf")
    )
    done = command_here("validate", "one/s.yaml", "two/s.yaml", "three/s.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.count(": valid: ") == 2, done.stderr
    assert "three/s.yaml:3: models[0].architecture: there is no module its_net here" in done.stderr


def test_merge_keys_in_a_suite(tiny: Path, cli: Cli) -> None:
    attacks = "attacks:\n  - &pgd {name: PGD, eps: 0.1, steps: 5}\n  - {<<: *pgd, id: PGD-margin, loss: margin}\n"
    tiny.write_text(TINY_SUITE.partition("attacks:")[0] + attacks + "audit: off\n")
    assert cli("validate", tiny).stdout == f"{tiny}: valid: 2 trainings, 6 evaluations\n"
    tiny.write_text(tiny.read_text().replace("loss: margin", "los: margin").replace("steps: 5", "steps: 0"))
    lines = command_here("validate", tiny, cwd=tiny.parent).stderr.splitlines()
    assert [line.partition(": attacks")[2].partition(": ")[0] for line in lines] == [
        "[0].steps",
        "[1].steps",
        "[1].los",
    ]
    assert [line.removeprefix(f"{tiny}:").partition(":")[0] for line in lines] == ["9", "9", "10"]


def test_the_merge_keys_in_the_docs_are_what_they_say(tiny: Path) -> None:
    (block,) = re.findall(
        r"^```yaml\n(attacks:.*?)^```", (ROOT / "docs" / "suite.md").read_text(), re.DOTALL | re.MULTILINE
    )
    tiny.write_text(TINY_SUITE.partition("attacks:")[0] + block)
    attacks = load_suite(tiny).suite.attacks
    assert [(each.label, each.eps) for each in attacks] == [("PGD", [0.1]), ("PGD-margin", [0.1]), ("PGD-long", [0.1])]
