"""The model that is judged is the model that was trained: what is lost on the way fails, and says what it was."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.models.outputs import ModelError
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Plan
from robustbench_cmic.records.packing import pack_replicates, unpack_replicates
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, AuditRecord, Fingerprint, TrainRecord
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.job import run_cell
from robustbench_cmic.run.jobs import fidelity
from robustbench_cmic.run.watch.events import CellProgress, EpochDone
from robustbench_cmic.suite import load_suite
from tests.conftest import Cli
from tests.in_process import carried_out, settings_for

HEAD = """\
import math
import random
import numpy as np
import torch
from torch import nn

"""
SHUFFLED = """
class Shuffled(nn.Module):
    def __init__(self, shape, classes, order):
        super().__init__()
        self.order = torch.as_tensor(order)
        self.net = nn.Sequential(nn.Linear(math.prod(shape), 64), nn.ReLU(), nn.Linear(64, classes))

    def forward(self, x):
        return self.net(x.flatten(1)[:, self.order])

IMPORTED = np.random.permutation(64)

def by_numpy(shape, classes):
    return Shuffled(shape, classes, np.random.permutation(math.prod(shape)))

def by_python(shape, classes):
    return Shuffled(shape, classes, random.sample(range(64), 64))

def by_import(shape, classes):
    return Shuffled(shape, classes, IMPORTED)

def by_own(shape, classes):
    return Shuffled(shape, classes, np.random.default_rng().permutation(math.prod(shape)))
"""
MOVING = """
class Moving(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width), persistent=False)
        self.register_buffer("var", torch.ones(width), persistent=False)

    def forward(self, x):
        mean, var = (x.mean(0), x.var(0)) if self.training else (self.mean, self.var)
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(mean, 0.1)
                self.var.lerp_(var, 0.1)
        return (x - mean) / (var + 1e-3).sqrt()

def moving(shape, classes):
    d = math.prod(shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(d, 64), Moving(64), nn.ReLU(), nn.Linear(64, classes))

class Warming(nn.Linear):
    factor = 1.0
    def forward(self, x):
        if self.training:
            self.factor = self.factor * 0.99
        return super().forward(x) * self.factor

def warming(shape, classes):
    return nn.Sequential(nn.Flatten(), Warming(math.prod(shape), classes))

class Grown(nn.Linear):
    def forward(self, x):
        if self.training and not hasattr(self, "more"):
            self.more = nn.Parameter(torch.zeros(()))
        return super().forward(x)

def grown(shape, classes):
    return nn.Sequential(nn.Flatten(), Grown(math.prod(shape), classes))

class Noisy(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.generator = torch.Generator()
    def forward(self, x):
        return super().forward(x + torch.randn(x.shape, generator=self.generator))

def noisy(shape, classes):
    return nn.Sequential(nn.Flatten(), Noisy(math.prod(shape), classes))
"""


def suite_of(folder: Path, module: str, code: str, models: Iterable[str], further: str = "", **training: Any) -> Path:
    """A suite `x.yaml` with models of a module of this code beside it; `models` are their functions."""
    (folder / f"{module}.py").write_text(HEAD + code)
    settings = {"epochs": 2, "batch_size": 32} | training
    said = ", ".join(f"{key}: {value}" for key, value in settings.items())
    lines = []
    for model in models:
        name, _, keys = model.partition(", ")
        more = f", {keys}" if keys else ""
        lines.append(f'  - {{id: {name}, architecture: "{module}:{name}", objective: {{name: ce}}{more}}}')
    file = folder / "x.yaml"
    file.write_text(
        f"suite: x\ndataset: {{name: digits}}\ntraining: {{optimizer: {{name: sgd, lr: 0.1}}, {said}}}\n"
        "models:\n" + "\n".join(lines) + "\n" + (further or "audit: off\n")
    )
    return file


def by_model(records: Iterable[AnyRecord], attack: str = "") -> dict[str, AnyRecord]:
    return {record.cell.model: record for record in records if record.cell.attack == attack}


def read_all(folder: Path) -> list[AnyRecord]:
    return [read_record(file) for file in sorted(folder.glob("*.s*.*.json"))]


REASON = (
    "x:NAME built anew with its stored weights is not the model that was trained: the logits of 64 of 64 images "
    "differ; outside its state dict "
)


def test_what_is_drawn_at_construction_is_drawn_again_and_what_is_lost_fails_by_name(
    tmp_path: Path, cli_here: Cli
) -> None:
    names = ["by_numpy", "by_python", "by_import", "by_own", "moving", "warming", "grown", "noisy"]
    suite = suite_of(tmp_path, "x", SHUFFLED + MOVING, names)
    done = cli_here("run", suite, "--results", "r")
    records = read_all(tmp_path / "r" / "x")
    trained, clean = by_model(records), by_model(records, "none")
    for name in ("by_numpy", "by_python", "by_import"):
        training, evaluation = trained[name], clean[name]
        assert isinstance(training, TrainRecord)
        assert isinstance(evaluation, AttackRecord)
        assert training.fingerprint is not None
        assert (evaluation.accuracy or 0) > 0.8
        assert training.fingerprint.outside.keys() >= {"1.order"}
    keep = "keep such state in persistent buffers (`register_buffer`)"
    assert trained["by_own"].reason == f"{REASON.replace('NAME', 'by_own')}order differs: {keep}"
    assert trained["moving"].reason == f"{REASON.replace('NAME', 'moving')}2.mean, 2.var differ: {keep}"
    assert trained["warming"].reason.endswith(f"outside its state dict 1.factor differs: {keep}")
    assert trained["grown"].reason == (
        "x:grown makes 1.more when it trains first: all weights should be there when it is built, or after a forward "
        "pass in eval mode"
    )
    noisy = trained["noisy"]
    assert isinstance(noisy, TrainRecord)
    assert (noisy.status, noisy.fingerprint) == ("ok", None)
    assert "x:noisy answers otherwise in every pass" in done.stdout + done.stderr


LAZY = """
class Late(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.classes, self.out = classes, None

    def forward(self, x):
        if self.out is None:
            self.out = nn.Linear(x[0].numel(), self.classes)
        return self.out(x.flatten(1))

def lazy(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.LazyLinear(classes))

def late(shape, classes):
    return Late(classes)
"""


def test_weights_made_in_the_first_forward_pass_start_from_the_seed(tmp_path: Path, cli: Cli) -> None:
    suite = suite_of(tmp_path, "x", LAZY, ["lazy", "late"], "seeds: [0, 1]\naudit: off\n", epochs=1, limit=100)
    text = suite.read_text().replace("name: sgd, lr: 0.1", "name: sgd, lr: 1e-12, momentum: 0, weight_decay: 0")
    twin = '  - {id: twin, architecture: "x:lazy", objective: {name: cmic}}\nseeds'
    suite.write_text(text.replace("seeds", twin, 1))
    done = cli("run", suite, "--results", "r", "--jobs", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[tuple[str, int], list[float]] = {}
    for record in read_all(tmp_path / "r" / "x"):
        if isinstance(record, TrainRecord):
            assert record.fingerprint is not None
            found[record.cell.model, record.cell.seed] = unpack_replicates(record.fingerprint.logits)
    assert found["lazy", 0] == pytest.approx(found["twin", 0], abs=1e-6)
    assert found["lazy", 1] == pytest.approx(found["twin", 1], abs=1e-6)
    for name in ("lazy", "late"):
        assert np.abs(np.subtract(found[name, 0], found[name, 1])).max() > 0.1
    torch.manual_seed(0)
    first = nn.Linear(64, 64).weight  # what the seed gives, drawn by hand
    expected = float(first.detach().double().sum())
    weights = next((tmp_path / "r.work" / "x").glob("lazy.s0.train*.safetensors"))
    import safetensors.torch

    stored = safetensors.torch.load_file(weights)
    assert float(stored["1.1.weight"].double().sum()) == pytest.approx(expected, abs=1e-3)


OUTPUTS = """
from dataclasses import dataclass

@dataclass
class Output:
    loss: object
    logits: torch.Tensor

class Many(nn.Module):
    def __init__(self, shape, classes, kind, always):
        super().__init__()
        self.kind, self.always = kind, always
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))

    def forward(self, x):
        logits = self.net(x)
        if not (self.training or self.always):
            return logits
        return {"tuple": (logits, logits), "dict": {"features": x, "out": logits}, "class": Output(None, logits),
                "last": [x, x, logits], "none": None}[self.kind]

def made(kind, always):
    return lambda shape, classes: Many(shape, classes, kind, always)

aux, pair, words, output, last, nothing, picked_wrong = (
    made("tuple", False), made("tuple", True), made("dict", True), made("class", True), made("last", False),
    made("none", False), made("dict", True))
picked_aux, picked_words, picked_output, picked_last = aux, words, output, last

class Stuck(nn.Sequential):
    def train(self, mode=True):
        return super().train(True)

def stuck(shape, classes):
    return Stuck(nn.Flatten(), nn.Linear(math.prod(shape), 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, classes))

def dropping(shape, classes):
    return Stuck(nn.Flatten(), nn.Linear(math.prod(shape), 64), nn.Dropout(0.1), nn.Linear(64, classes))

class Counting(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("calls", torch.zeros(()))
    def forward(self, x):
        self.calls += 1
        return super().forward(x)

def counting(shape, classes):
    return nn.Sequential(nn.Flatten(), Counting(math.prod(shape), classes))
"""
WANTED = "should return float logits of shape (N, 10)"
SAID = {
    "aux": f"o:aux {WANTED} in training mode; for 2 images it returned a tuple of 2; `logits: 0` would take these",
    "pair": f"o:pair {WANTED}; for 2 images it returned a tuple of 2; `logits: 0` would take these",
    "words": f"o:words {WANTED}; for 2 images it returned a dictionary with features, out; `logits: out` would take "
    "these",
    "output": f"o:output {WANTED}; for 2 images it returned an Output with loss, logits; `logits: logits` would take "
    "these",
    "last": f"o:last {WANTED} in training mode; for 2 images it returned a list of 3; `logits: 2` would take these",
    "nothing": f"o:nothing {WANTED} in training mode; for 2 images it returned nothing",
    "picked_wrong": "o:picked_wrong: `logits: scores` is not in its output, a dictionary with features, out",
    "stuck": "o:stuck stays in training mode when it is told to evaluate (the network itself, 0, 1), and changes "
    "2.running_mean, 2.running_var, 2.num_batches_tracked with every image that it evaluates: there is no fixed model "
    "to judge",
    "counting": "o:counting changes 1.calls with every image that it evaluates: there is no fixed model to judge",
}


def test_outputs_that_are_no_logits_and_modes_that_stay_are_named(tmp_path: Path, cli_here: Cli) -> None:
    picked = ["picked_aux, logits: 0", "picked_words, logits: out", "picked_output, logits: logits"]
    picked += ["picked_last, logits: -1", "picked_wrong, logits: scores"]
    names = [name for name in SAID if name != "picked_wrong"] + picked + ["dropping"]
    attacks = "attacks:\n  - {name: PGD, eps: 0.1, steps: 2}\nevaluation: {limit: 40}\n"
    suite = suite_of(tmp_path, "o", OUTPUTS, names, attacks, epochs=1)
    done = cli_here("run", suite, "--results", "r")
    folder = tmp_path / "r" / "x"
    trained = by_model(read_all(folder))
    failed = {name: record.reason for name, record in trained.items() if record.status == "failed"}
    assert {name: reason for name, reason in failed.items() if not name.startswith("audit")} == SAID
    board = (folder / "leaderboard.md").read_text()
    assert "o:dropping stays in training mode when it is told to evaluate" in done.stdout + done.stderr
    assert "**training-mode**" in board
    assert "o:picked_words, logits from out of its output" in board
    clean = by_model(read_all(folder), "none")
    alike = [clean[name] for name in ("picked_aux", "picked_words", "picked_output", "picked_last")]
    values = [record.accuracy for record in alike if isinstance(record, AttackRecord)]
    assert len(values) == 4
    assert len(set(values)) == 1, "the same network, start and training"


MASKED = """
class Masked(nn.Module):
    def __init__(self, shape, classes, added):
        super().__init__()
        mask = torch.zeros(classes)
        mask[[3, 7]] = -torch.inf
        self.register_buffer("mask", mask)
        self.added = added
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, x):
        logits = self.net(x)
        if self.training:
            return logits
        return logits + self.mask if self.added else logits.masked_fill(self.mask.isinf(), -torch.inf)

def added(shape, classes):
    return Masked(shape, classes, True)

def filled(shape, classes):
    return Masked(shape, classes, False)
"""


def test_a_model_may_mask_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    attacks = [f"{{name: PGD, id: {loss}, eps: 0.2, steps: 3, loss: {loss}}}" for loss in ("margin", "ce", "dlr")]
    attacks += [f"{{name: PGD, id: {loss}, eps: 0.2, steps: 3, loss: {loss}}}" for loss in ("scaled_ce", "cmic")]
    attacks += ["{name: PGD, id: odds, eps: 0.2, steps: 3, loss: log_odds}", "{name: AutoAttack, id: aa, eps: 0.2}"]
    further = "attacks:\n" + "".join(f"  - {attack}\n" for attack in attacks) + "evaluation: {limit: 40}\n"
    suite = suite_of(tmp_path, "masked", MASKED, ["added", "filled"], further, epochs=3)
    records = carried_out(suite, tmp_path / "made")
    assert {record.status for record in records} == {"ok"}, [record.reason for record in records]
    for name in ("added", "filled"):
        accuracies = {
            r.cell.attack: r.accuracy or 0 for r in records if isinstance(r, AttackRecord) and r.cell.model == name
        }
        assert 0.6 < accuracies.pop("none") < 0.9, "eight of ten classes"
        assert max(accuracies.values()) < 0.5, accuracies
    (audit,) = (r for r in records if isinstance(r, AuditRecord) and r.cell.model == "added")
    assert audit.forward_pass is not None
    assert (audit.forward_pass.repeat, audit.forward_pass.companions) == (0, 0)
    evaluated = by_model(records, "none")["added"]
    assert isinstance(evaluated, AttackRecord)
    assert evaluated.masked == evaluated.n == 40
    assert evaluated.information is not None
    assert evaluated.information.ncmi is not None
    assert evaluated.calibration is None, "some examples are of a masked class"


# --- between processes ----------------------------------------------------------------------------------------------

FROM_FILE = """
from pathlib import Path

class Scaled(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.scale = float((Path(__file__).parent / "scale.txt").read_text())
    def forward(self, x):
        return self.scale * super().forward(x)

def scaled(shape, classes):
    return nn.Sequential(nn.Flatten(), Scaled(math.prod(shape), classes))
"""


def test_what_changes_after_the_training_fails_every_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "scale.txt").write_text("1")
    suite = suite_of(tmp_path, "fromfile", FROM_FILE, ["scaled"], epochs=1, limit=100)
    training, clean = make_plan(load_suite(suite).suite).cells
    (tmp_path / "made").mkdir()
    store = Store(tmp_path / "made", tmp_path / "made")
    for scale, reason in (("1", ""), ("1.0000001", "1.scale"), ("2", "1.scale")):
        (tmp_path / "scale.txt").write_text("1")
        run_cell(training, settings_for(tmp_path, store=store), lambda _: None)
        (tmp_path / "scale.txt").write_text(scale)
        run_cell(clean, settings_for(tmp_path, store=store), lambda _: None)
        record = read_record(store.record(clean.id))
        assert (record.status == "ok") == (reason == "")
        assert f"outside its state dict {reason}" in record.reason or not reason


def random_logits(n: int = 64, classes: int = 20) -> Tensor:
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("change", "elsewhere", "here"),
    [
        (lambda z: z, True, True),
        (lambda z: z * (1 + 1e-6), True, False),
        (lambda z: torch.cat([z[:8] + torch.randn(8, 20), z[8:]]), True, False),
        (lambda z: torch.cat([z[:9] + torch.randn(9, 20), z[9:]]), False, False),
        (lambda z: z * 1.01, False, False),
        (lambda z: z.masked_fill(z < -2, -torch.inf), False, False),
    ],
)
def test_rounding_is_forgiven_between_machines_alone(change: Any, elsewhere: bool, here: bool) -> None:
    logits = random_logits()
    stored = Fingerprint(images=64, logits=pack_replicates(logits[:, :16].flatten().tolist()))
    changed: Tensor = change(logits)

    class Fixed(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return changed[rows.long()]

    for same_machine, passes in ((False, elsewhere), (True, here)):
        if passes:
            fidelity.check_fingerprint("m", Fixed(), torch.arange(64), stored, same_machine)
        else:
            with pytest.raises(ModelError, match="nothing that it holds itself differs"):
                fidelity.check_fingerprint("m", Fixed(), torch.arange(64), stored, same_machine)


# --- resume ---------------------------------------------------------------------------------------------------------

STEPS = """
class Cooling(nn.Linear):
    steps = 0
    def forward(self, x):
        logits = super().forward(x)
        if not self.training:
            return logits
        self.steps = self.steps + 1
        return logits / (1 + 9 * 0.98 ** self.steps)

class Counting(nn.Linear):
    steps = 0
    def forward(self, x):
        self.steps = self.steps + self.training
        return super().forward(x)

def cooling(shape, classes):
    return nn.Sequential(nn.Flatten(), Cooling(math.prod(shape), classes))

def counting(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.1), Counting(math.prod(shape), classes))

def honest(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.1), nn.Linear(math.prod(shape), classes))
"""


def trained(plan: Plan, place: Path, killed_after: int = 0) -> tuple[TrainRecord | None, list[str]]:
    """The record of the plan's only training, and what was said; None where it is killed after an epoch."""
    said = []
    place.mkdir(exist_ok=True)
    store = Store(place, place)

    def emit(event: Any) -> None:
        if isinstance(event, CellProgress) and "warning" in event.text:
            said.append(event.text)
        if isinstance(event, EpochDone) and event.numbers.epoch == killed_after and not event.restored:
            raise KeyboardInterrupt

    try:
        run_cell(plan.cells[0], settings_for(place, store=store), emit)
    except KeyboardInterrupt:
        return None, said
    record = read_record(store.record(plan.cells[0].id))
    assert isinstance(record, TrainRecord)
    return record, said


@pytest.mark.parametrize("name", ["cooling", "counting", "honest"])
def test_a_resumed_training_that_lost_state_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    plan = make_plan(load_suite(suite_of(tmp_path, "resumed", STEPS, [name], epochs=3, limit=200)).suite)
    whole, said = trained(plan, tmp_path / "whole")
    assert whole is not None
    assert (whole.status, said) == ("ok", [])
    assert trained(plan, tmp_path / "killed", killed_after=1)[0] is None
    record, said = trained(plan, tmp_path / "killed")
    assert record is not None
    assert record.checkpoint_sha256 == whole.checkpoint_sha256
    expected = {
        "cooling": ([
            "warning: resumed:cooling holds 1.steps outside its state dict, which an interruption loses: the training "
            "begins anew"
        ], None),
        "counting": (["warning: resumed:counting goes on with 2.steps as new: not in its state dict"], 1),
        "honest": ([], 1),
    }  # fmt: skip
    assert (said, record.timing.resumed_after_epoch) == expected[name]
