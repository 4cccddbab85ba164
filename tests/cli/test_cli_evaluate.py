"""`evaluate`: one model without a suite of one's own; what is written, what comes out, what a wrong option is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from robustbench_cmic import load_model, load_results
from robustbench_cmic.run.evaluate import evaluate
from tests.conftest import Cli

OWN = """\
import math
from torch import nn


def build(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
"""
GIVEN = ("own_net:build", "--weights", "theirs.pth", "--dataset", "digits", "--eps", "0.05,1/10", "--budget", "quick")
FEW = ("--normalization", "none", "--examples", "120")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder with a model of one's own and its weights: the means of each digit as a linear classifier."""
    from robustbench_cmic.data.digits import load_digits

    (tmp_path / "own_net.py").write_text(OWN)
    split = load_digits().train
    means = np.stack([split.images[split.labels == digit].mean(0).ravel() for digit in range(10)])
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].weight.data = torch.from_numpy(means)
    net[1].bias.data = torch.from_numpy(-0.5 * (means**2).sum(1))
    torch.save(net.state_dict(), tmp_path / "theirs.pth")
    return tmp_path


def test_one_model_is_evaluated_and_may_be_gone_on_with(theirs: Path, cli_here: Cli) -> None:
    done = cli_here("evaluate", *GIVEN, *FEW)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = theirs / "evaluations" / "own_net-build-digits"
    suite = yaml.safe_load(folder.with_suffix(".yaml").read_text())
    assert suite["models"][0]["weights"] == str(theirs / "theirs.pth")
    assert [attack["name"] for attack in suite["attacks"]] == ["FGSM", "PGD"]
    frame = load_results(folder)
    assert set(frame["eps"]) == {0.0, 0.05, 0.1}
    assert (frame["status"] == "ok").all()
    net = load_model(folder, "model", 0, work=theirs / "evaluations.work" / folder.name)
    assert float(frame.loc[frame["attack"] == "none", "accuracy"].iloc[0]) > 0.8
    images, labels = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    assert 0 <= evaluate(net, images, labels, eps=0.1, budget="quick", progress=False).worst_case[0.1] <= 1
    assert "clean" in done.stdout
    again = cli_here("evaluate", *GIVEN, *FEW)
    assert again.returncode == 0
    assert "all 6 cells are done already: nothing to run" in again.stdout
    shown = cli_here("evaluate", *GIVEN, *FEW, "--dry-run")
    assert yaml.safe_load(shown.stdout) == suite
    assert "PGD-margin" in done.stdout
    assert "model is not audited" in done.stdout
    other = cli_here("evaluate", *GIVEN, *FEW, "--eps", "0.2")
    assert (other.returncode, other.stdout) == (2, "")
    path = Path("evaluations/own_net-build-digits.yaml")
    assert other.stderr == f"{path}: is there already, and of another evaluation; give this one a --name\n"
    named = cli_here("evaluate", *GIVEN, *FEW, "--eps", "0.2", "--name", "further", "--quiet")
    assert named.returncode == 0
    assert sorted(set(load_results(theirs / "evaluations" / "further")["eps"])) == [0.0, 0.05, 0.1, 0.2]


def test_a_mistake_is_told_once_and_leaves_nothing(theirs: Path, cli_here: Cli) -> None:
    for options in (("8", *GIVEN[-2:]), ("8", *GIVEN[-2:], "--dry-run")):
        wrong = cli_here("evaluate", *GIVEN[:-3], *options, *FEW)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert wrong.stderr.count("8 is outside [0, 1], the range of the images; in pixel units? then write 8/255") == 1
        assert wrong.stderr.startswith("evaluate: attacks[0].eps[0]: ")
        assert not (theirs / "evaluations").exists()


def test_after_a_failure_the_same_name_may_be_taken_again(theirs: Path, cli_here: Cli) -> None:
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).state_dict(), theirs / "wrong.pth")
    failed = cli_here("evaluate", *GIVEN, *FEW, "--weights", "wrong.pth")
    assert failed.returncode == 1
    assert cli_here("evaluate", *GIVEN, *FEW).returncode == 0


def test_a_file_of_ones_own_is_left_alone(theirs: Path, cli_here: Cli) -> None:
    (theirs / "mine.yaml").write_bytes(b"suite: mine \xff")
    done = cli_here("evaluate", *GIVEN, *FEW, "--results", ".", "--name", "mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mine.yaml: is there already, and of another evaluation; give this one a --name\n"
    assert (theirs / "mine.yaml").read_bytes() == b"suite: mine \xff"


def test_data_of_ones_own(theirs: Path, cli_here: Cli) -> None:
    generator = np.random.default_rng(0)
    seen, labels = generator.random((30, 8, 8, 1), dtype=np.float32), np.arange(30) % 10
    np.savez(theirs / "mine.npz", x_train=seen, x_test=seen, y_train=labels, y_test=labels)
    options = ["--weights", "theirs.pth", "--eps", "0.1", "--budget", "quick", "--normalization"]
    done = cli_here("evaluate", "own_net:build", "--dataset", "mine.npz", *options, "none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (theirs / "evaluations" / "own_net-build-mine" / "results.csv").exists()
    for name in "ab":
        (theirs / "photos" / "val" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (9, 9), (80 * number, 40, 10)).save(theirs / "photos" / "val" / name / f"{number}.png")
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).state_dict(), theirs / "theirs.pth")
    options += ["0.5,0.5,0.5/0.2,0.2,0.2", "--size", "8"]
    done = cli_here("evaluate", "own_net:build", "--dataset", "photos", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    net = load_model(theirs / "evaluations" / "own_net-build-photos", "model", 0,
                     work=theirs / "evaluations.work" / "own_net-build-photos")  # fmt: skip
    assert net.get_buffer("0.mean").flatten().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eps", "0.1"], "--weights FILE or --pretrained: one of them says which weights are evaluated"),
        (["--eps", "0.1", "--weights", "a.pth", "--pretrained"], "--weights FILE or --pretrained: one of them says"),
        (["--eps", "0.1", "--pretrained", "--norm", "l1"], "--norm: should be linf or l2, not 'l1'"),
        (["--eps", "0.1", "--pretrained", "--budget", "big"], "--budget: should be quick, standard, strict, not 'big'"),
        (["--eps", "0.1", "--pretrained", "--name", "-a"], "--name: should be letters, digits,"),
        (["--eps", "0.1", "--pretrained", "--size", "8"], "--size: is of a folder of images, and digits is none"),
        (["--eps", "0.1", "--pretrained", "--label", "y"], "--label: is of a table, .csv or .parquet, and digits is"),
        (["--eps", "0.1", "--pretrained", "--dataset", "a.csv"], "--label: which column of a.csv holds the classes?"),
        (["--eps", "0.1", "--pretrained", "--dataset", "."], "--size: to how many pixels are the images in . resized"),
        (["--eps", "0.1", "--pretrained", "--dataset", ".", "--size", "8"], "--normalization: there are no training"),
        (
            ["--eps", "0.1", "--pretrained", "--normalization", "much"],
            "--normalization: should be none or numbers such",
        ),
        (["--pretrained"], "--eps"),
        (["--eps", "0.1", "--weights", "gone.pth"], "gone.pth"),
        (["--eps", "0.1", "--pretrained", "--dataset", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_option_gets_a_sentence(tmp_path: Path, cli_here: Cli, words: list[str], message: str) -> None:
    given = words if "--dataset" in words else [*words, "--dataset", "digits"]
    done = cli_here("evaluate", "resnet18", *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("evaluations/*/"))
