"""Weights as people have them: files of PyTorch and safetensors, in checkpoints, under prefixes; what is refused."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from robustbench_cmic.models.build import Normalize
from robustbench_cmic.models.given import fit_weights, read_given_weights
from robustbench_cmic.models.outputs import ModelError
from robustbench_cmic.models.weights import CorruptCheckpointError
from robustbench_cmic.suite.messages import UserError
from tests.conftest import Cli
from tests.in_process import command_here

STATE = {"1.weight": torch.arange(640.0).reshape(10, 64) / 640, "1.bias": torch.zeros(10)}


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def linear() -> nn.Sequential:
    return nn.Sequential(Normalize([0.5], [0.5]), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))


def judged(path: Path, key: str | None = None) -> Tensor:
    """The weights of the network after loading."""
    model = linear()
    fit_weights(model, read_given_weights(path, key=key), path.name)
    return model.get_parameter("1.1.weight").detach()


EMA = {name: value + 1 for name, value in STATE.items()}
HELD: dict[str, tuple[Any, str | None]] = {
    "flat": (STATE, None),
    "ordered": (OrderedDict(STATE), None),
    **{key: ({key: STATE, "epoch": 3, "optimizer": {"state": {}}}, None) for key in ("state_dict", "model", "net")},
    "model_state_dict": ({"model_state_dict": STATE, "loss": 0.5}, None),
    "another key": ({"weights": STATE, "epoch": 3}, None),
    "beside the criterion's": ({"state_dict": STATE, "criterion": {"weight": torch.ones(10)}}, None),
    "chosen": ({"state_dict": EMA, "ema": STATE}, "ema"),
    "chosen below": ({"trainer": {"best": STATE}}, "trainer.best"),
    "chosen with a point": ({"model.ema": STATE, "model": EMA}, "model.ema"),
    "DataParallel": ({"state_dict": prefixed("module.")}, None),
    "Lightning": ({"state_dict": prefixed("model."), "pytorch-lightning_version": "2.5"}, None),
    "torch.compile": (prefixed("_orig_mod."), None),
    "all of them": (prefixed("model.module._orig_mod."), None),
    "AveragedModel": (prefixed("module.") | {"n_averaged": torch.tensor(3)}, None),
    "a compiled part": ({name.replace("1.", "1._orig_mod."): value for name, value in STATE.items()}, None),
    "complex beside": ({"net": STATE, "phases": torch.ones(2, dtype=torch.complex64)}, None),
    "half precision": ({name: value.bfloat16() for name, value in STATE.items()}, None),
    "parameters": ({name: nn.Parameter(value) for name, value in STATE.items()}, None),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("name", HELD)
def test_weights_are_found_wherever_training_scripts_keep_them(tmp_path: Path, name: str, zipped: bool) -> None:
    held, key = HELD[name]
    torch.save(held, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    assert torch.allclose(judged(tmp_path / "x.ckpt", key), STATE["1.weight"], atol=2e-3)


def test_the_content_of_a_file_tells_what_it_is(tmp_path: Path) -> None:
    safetensors.torch.save_file(prefixed("module."), tmp_path / "x.bin")
    assert torch.equal(judged(tmp_path / "x.bin"), STATE["1.weight"])
    torch.save(STATE, tmp_path / "x.safetensors")
    with pytest.raises(CorruptCheckpointError, match=r"is no \.safetensors file; .* let its name end in \.pt"):
        judged(tmp_path / "x.safetensors")


def test_a_name_that_the_architecture_has_is_no_prefix() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    model = nn.Sequential(Normalize([0.5], [0.5]), Wrapped())
    weights = {"model.weight": torch.ones(2, 2), "model.bias": torch.ones(2)}
    for prefix in ("", "module.", "model."):
        fit_weights(model, prefixed(prefix, weights), "x")
        assert torch.equal(model.get_parameter("1.model.weight"), torch.ones(2, 2))


def test_a_network_whose_own_first_layer_normalises_is_no_whole_classifier() -> None:
    network = nn.Sequential(Normalize([0.2], [0.3]), nn.Flatten(), nn.Linear(64, 10))
    model = nn.Sequential(
        Normalize([0.5], [0.5]), nn.Sequential(Normalize([0.0], [1.0]), nn.Flatten(), nn.Linear(64, 10))
    )
    fit_weights(model, network.state_dict(), "x")
    assert (float(model.get_buffer("0.mean")), float(model.get_buffer("1.0.mean"))) == pytest.approx((0.5, 0.2))


def test_a_normalisation_in_the_file_may_not_contradict_a_declared_one() -> None:
    weights = nn.Sequential(Normalize([0.2], [0.3]), linear()[1]).state_dict()
    with pytest.raises(ModelError, match=r"0.mean is \[0.2\], not \[0.5\] as declared"):
        fit_weights(linear(), weights, "x", normalized=True)
    fit_weights(linear(), weights, "x")


def test_counts_of_batches_that_are_lacking_or_averaged_are_no_misfit() -> None:
    model = nn.Sequential(Normalize([0.5], [0.5]), nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)))
    weights = {name: value for name, value in model[1].state_dict().items() if "num_batches" not in name}
    fit_weights(model, weights, "x")
    for count in (torch.tensor(0.98), torch.tensor(3.0).half()):
        fit_weights(model, weights | {"0.num_batches_tracked": count}, "x")
        assert model.get_buffer("1.0.num_batches_tracked").dtype == torch.int64
    fit_weights(model, weights | {"0.num_batches_tracked": torch.tensor(7)}, "x")
    assert int(model.get_buffer("1.0.num_batches_tracked")) == 7
    with pytest.raises(ModelError, match=r"x lacks 0\.running_var$"):
        fit_weights(model, {name: value for name, value in weights.items() if "var" not in name}, "x")


def test_several_misfits_are_named_by_key() -> None:
    with pytest.raises(ModelError) as error:
        fit_weights(linear(), {"1.weight": STATE["1.weight"], **{f"fc{i}": torch.ones(1) for i in range(5)}}, "x")
    assert str(error.value) == "x lacks 1.bias and holds fc0, fc1, fc2 and 2 more, which the architecture has not"


def test_a_part_of_a_network_and_one_without_weights_are_told(tmp_path: Path) -> None:
    torch.save({"1.weight": STATE["1.weight"]}, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=r"x.pt lacks 1\.bias$"):
        judged(tmp_path / "x.pt")


class Touch:
    """Unpickled it would leave a file behind."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("harmed",)


def expanded(size: int) -> dict[str, Tensor]:
    return {"1.weight": torch.zeros(1).expand(size, size), "1.bias": torch.zeros(10)}


REFUSED: dict[str, tuple[Any, str | None, str]] = {
    "model": (nn.Linear(2, 2), None, "torch.nn.modules.linear.Linear beside tensors"),
    "code": ({"state_dict": STATE, "x": Touch()}, None, "mkdir beside tensors, and is not read"),
    "empty": ({}, None, "holds nothing where a state dict should be"),
    "list": ([torch.ones(1)], None, "holds a list where a state dict should be"),
    "no state": ({"epoch": 3}, None, "epoch is of type int"),
    "mixed": (STATE | {"epoch": 3}, None, "epoch is of type int"),
    "two": (
        {"state_dict": STATE, "state_dict_ema": EMA},
        None,
        "choose by `weights_key` among state_dict, state_dict_ema",
    ),
    "two, one of them wrapped": (
        {"net": prefixed("module."), "average": prefixed("module.module.", EMA) | {"n_averaged": torch.tensor(3)}},
        None,
        "choose by `weights_key` among net, average",
    ),
    "two usual": ({"model": STATE, "net": EMA}, None, "choose by `weights_key` among model, net"),
    "no such key": ({"model": STATE, "epoch": 3}, "ema", r"nothing under ema \(`weights_key`\); it has model, epoch"),
    "key of a tensor": (STATE, "1.weight", "holds a Tensor where a state dict should be"),
    "sparse": ({"1.weight": torch.eye(3).to_sparse()}, None, "1.weight is sparse"),
    "meta": ({"1.weight": torch.ones(3, device="meta")}, None, "1.weight is without values"),
    "vast": (expanded(10**7), None, r"1.weight has shape \(10000000, 10000000\), not \(10, 64\)"),
    "beyond float32": (
        {"1.weight": STATE["1.weight"].double() + 1e300, "1.bias": torch.zeros(10)},
        None,
        "is not finite",
    ),
    "strange name": ({"a\x1b[2J" * 50: torch.ones(1)}, None, r"a\\x1b\[2J.*\.\.\., which the architecture"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_state_dict_ends_in_one_sentence(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    held, key, sentence = REFUSED[name]
    torch.save(held, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=sentence) as error:
        judged(tmp_path / "x.pt", key)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harmed").exists()


def bomb() -> bytes:
    """A small zip that unfolds into a gigabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(2**24))
    return file.getvalue()


def overreaching() -> bytes:
    """A file of torch.save whose tensor is said to be far longer than what is stored of it."""
    saved, changed = io.BytesIO(), io.BytesIO()
    torch.save({"1.weight": torch.zeros(200)}, saved)
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(changed, "w") as after:
        for entry in before.infolist():
            content = before.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = content.replace(b"K\xc8", b"J\x00\x00\x00\x7f")  # 200 -> 2,130,706,432
            after.writestr(entry, content)
    return changed.getvalue()


def truncated(zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()[:-200]


DAMAGED = {
    "nothing": (b"", "neither a whole .safetensors file nor one that torch.save wrote"),
    "text": (b"<html>404</html>", "neither a whole"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
    "zip": (truncated(True), "is no whole file of torch.save"),
    "old": (truncated(False), "is no whole file of torch.save"),
    "pickle": (pickle.dumps(Touch(), protocol=2), "beside tensors, and is not read|is no whole file of torch.save"),
    "bomb": (bomb(), "is no whole file of torch.save"),
    "overreaching": (overreaching(), "is no whole file of torch.save"),
    "safetensors": (safetensors.torch.save(STATE)[:-8], "is no whole .safetensors file"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_hostile_files_end_in_one_sentence(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, sentence = DAMAGED[name]
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match=sentence) as error:
        judged(tmp_path / "x.pt")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harmed").exists()


def test_a_program_of_torchscript_is_told_from_weights(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated; files of it are still about
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "x.pt")
    with pytest.raises(ModelError, match="is a program of TorchScript, not weights"):
        read_given_weights(tmp_path / "x.pt")


def test_a_file_of_another_hash_is_not_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pt")
    with pytest.raises(CorruptCheckpointError, match="its hash differs"):
        read_given_weights(tmp_path / "x.pt", sha256="0" * 64)
    with pytest.raises(CorruptCheckpointError, match="cannot read"):
        read_given_weights(tmp_path / "missing.pt")


OWN = """\
from torch import nn

def build(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""
SUITE = """\
suite: own
dataset: {name: digits}
models:
  - {id: parallel, architecture: "own:build", weights: parallel.ckpt}
  - {id: ema, architecture: "own:build", weights: two.pth, weights_key: ema}
attacks: [{name: FGSM, eps: 0.1}]
audit: off
"""


def test_weights_of_any_kind_are_validated_and_run(tmp_path: Path, cli_here: Cli) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "own.yaml").write_text(SUITE)
    torch.save({"state_dict": prefixed("module.")}, tmp_path / "parallel.ckpt")
    torch.save({"state_dict": EMA, "ema": STATE}, tmp_path / "two.pth")
    assert "valid: 2 trainings" in command_here("validate", "own.yaml", cwd=tmp_path).stdout
    done = cli_here("run", "own.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (
        safetensors.torch.load_file(file) for file in (tmp_path / "results.work" / "own").glob("*.safetensors")
    )
    for stored in (first, second):
        assert torch.equal(stored["1.1.weight"], STATE["1.weight"])
    board = (tmp_path / "results" / "own" / "leaderboard.md").read_text()
    assert "weights given: two.pth under ema, normalised by mean" in board
    # Another key is another model.
    (tmp_path / "own.yaml").write_text(SUITE.replace("key: ema", "key: state_dict"))
    assert "6 cells: 3 done, 3 to run" in command_here("plan", "own.yaml", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        (nn.Linear(2, 2), "x.yaml:4: models[0].weights: {file} holds torch.nn.modules.linear.Linear beside tensors"),
        ({"net": {"2.weight": torch.ones(1)}}, "models[0].weights: x.pt lacks 1.bias, 1.weight and holds 2.weight"),
        ({"1.weight": torch.ones(9, 64), "1.bias": torch.ones(10)}, "1.weight has shape (9, 64), not (10, 64)"),
        ({"model": STATE, "ema": EMA}, "choose by `weights_key` among model, ema"),
    ],
)
def test_validate_says_what_does_not_fit(tmp_path: Path, held: Any, sentence: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    torch.save(held, tmp_path / "x.pt")
    model = '{id: x, architecture: "own:build", weights: x.pt}'
    (tmp_path / "x.yaml").write_text(f"suite: x\ndataset: {{name: digits}}\nmodels:\n  - {model}\n")
    done = command_here("validate", "x.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert sentence.format(file=tmp_path / "x.pt") in done.stderr
    assert len(done.stderr.splitlines()) == 1
