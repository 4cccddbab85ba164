"""Models: timm's by name, the stem for small images, a user's own, given weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from robustbench_cmic.models.architectures import lenet, small_cnn
from robustbench_cmic.models.build import build_model
from robustbench_cmic.models.given import fit_weights
from robustbench_cmic.models.outputs import ModelError
from robustbench_cmic.suite.models import architecture_problem, model_of, timm_models
from tests.conftest import TINY_SUITE, Cli, contents

MOMENTS = ((0.5, 0.4, 0.3), (0.2, 0.0, 0.1))


def build(architecture: str, classes: int = 100, seed: int = 0, **declared: Any) -> nn.Sequential:
    return build_model(model_of({"architecture": architecture} | declared), (3, 32, 32), classes, MOMENTS, seed)


def test_names_read_from_timms_source_are_those_it_registers() -> None:
    assert set(timm.list_models()) == set(timm_models())
    assert timm_models()["resnet18"] == "resnet"


def test_resnet18_with_the_small_stem_is_that_of_the_cifar_literature() -> None:
    model = build("resnet18", stem="small")
    assert sum(weight.numel() for weight in model.parameters()) == 11_220_132
    sizes = []
    for name in ("1.conv1", "1.layer1", "1.layer4"):
        model.get_submodule(name).register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 100)
    assert sizes == [(64, 32, 32), (64, 32, 32), (512, 4, 4)]
    assert float(model.get_parameter("1.conv1.weight").detach().std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)


def scales(model: nn.Sequential) -> dict[str, float]:
    """Name -> mean scale of every batch normalisation."""
    return {
        name: float(layer.weight.detach().mean())
        for name, layer in model.named_modules()
        if isinstance(layer, nn.BatchNorm2d)
    }


@pytest.mark.parametrize(("architecture", "last", "blocks"), [("resnet18", "bn2", 8), ("res2net50_14w_8s", "bn3", 16)])
def test_residual_blocks_may_start_with_a_scale_of_one(architecture: str, last: str, blocks: int) -> None:
    """Everything else starts from the weights that it has otherwise."""
    usual, other = build(architecture), build(architecture, zero_init_residual=False)
    zero = [name for name, scale in scales(usual).items() if scale == 0]
    assert len(zero) == blocks
    assert all(name.endswith(last) for name in zero)
    assert set(scales(other).values()) == {1.0}
    changed = {f"{name}.weight" for name in zero}
    for name, value in other.state_dict().items():
        assert torch.equal(value, usual.state_dict()[name]) == (name not in changed), name


def test_models_whose_residual_blocks_may_start_with_a_scale_of_one_are_those_that_have_the_option() -> None:
    """One of each module of timm that is said to have it; sknet's start at one anyway."""
    for name in ("resnet10t", "seresnet18", "resnest14d"):
        assert architecture_problem(name, zero_init_residual=False) is None
        with torch.device("meta"):
            timm.create_model(name, zero_init_last=False)
    for name in ("skresnet18", "regnetz_005", "vit_tiny_patch16_224", "mlp", "small_resnet"):
        sentence = f"`zero_init_residual: false` is for timm's ResNets (resnet18, say); {name} has no such option"
        assert architecture_problem(name, zero_init_residual=False) == sentence


def test_a_seed_decides_the_weights_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (build("resnet10t", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    values = [nn.utils.parameters_to_vector(model.parameters()) for model in (first, same, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_small_resnet_has_the_size_it_says() -> None:
    model = build("small_resnet")
    assert sum(weight.numel() for weight in model.parameters()) == 83_892
    assert model(torch.rand(3, 3, 32, 32)).shape == (3, 100)


def test_lenet_is_the_network_of_madry_et_al_for_mnist() -> None:
    network = lenet((1, 28, 28), 10)
    by_hand = 32 * (5 * 5 * 1 + 1) + 64 * (5 * 5 * 32 + 1) + 1024 * (7 * 7 * 64 + 1) + 10 * (1024 + 1)
    assert sum(weight.numel() for weight in network.parameters()) == by_hand == 3_274_634
    sizes: list[tuple[int, ...]] = []
    for layer in network.children():
        layer.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    network(torch.rand(2, 1, 28, 28))
    first, second = [(32, 28, 28)] * 2 + [(32, 14, 14)], [(64, 14, 14)] * 2 + [(64, 7, 7)]
    assert sizes == [*first, *second, (3136,), (1024,), (1024,), (10,)]


def test_lenet_computes_what_is_written() -> None:
    network = lenet((1, 8, 8), 10)
    weights = list(network.parameters())
    images = torch.rand(3, 1, 8, 8)
    values = images
    for index in (0, 2):
        convolved = nn.functional.conv2d(values, weights[index], weights[index + 1], padding=2).clamp(min=0)
        values = convolved.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
    hidden = (values.flatten(1) @ weights[4].T + weights[5]).clamp(min=0)
    assert torch.allclose(network(images), hidden @ weights[6].T + weights[7], atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (3, 32, 32), (2, 7, 13)])
def test_lenet_takes_images_of_any_size_from_four_pixels_on(shape: tuple[int, int, int]) -> None:
    model, same, other = (
        build_model(model_of({"architecture": "lenet"}), shape, 10, ((0.5,) * shape[0], (0.2,) * shape[0]), seed)
        for seed in (0, 0, 1)
    )
    assert model(torch.rand(2, *shape)).shape == (2, 10)
    values = [nn.utils.parameters_to_vector(each.parameters()) for each in (model, same, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_lenet_says_which_images_are_too_small() -> None:
    with pytest.raises(ModelError, match="lenet needs images of at least 4x4 pixels"):
        build_model(model_of({"architecture": "lenet"}), (1, 3, 8), 10, ((0.5,), (0.2,)), 0)


def test_normalisation_is_by_given_moments_where_given() -> None:
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in ((0.5, 0.4, 0.3), (0.2, 1.0, 0.1)))
    assert torch.equal(build("mlp")[0](images), (images - mean) / std)
    given = build("mlp", normalization={"mean": [0.0] * 3, "std": [1.0] * 3})
    assert torch.equal(given[0](images), images)
    with pytest.raises(ModelError, match="one mean and one deviation a channel, 3 each; it has 1 and 1"):
        build("mlp", normalization={"mean": [0.0], "std": [1.0]})


def test_weights_fit_with_and_without_the_normalisation() -> None:
    source, target = build("mlp", seed=1), build("mlp", seed=2)
    fit_weights(target, source[1].state_dict(), "x")
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))
    whole = build("mlp", seed=1, normalization={"mean": [0.1] * 3, "std": [1.0] * 3}).state_dict()
    fit_weights(target, whole, "x")
    assert float(target.get_buffer("0.mean")[0]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("5.bias"), "x lacks 5.bias"),
        (lambda w: w.update(extra=torch.ones(1)), "x holds extra, which the architecture has not"),
        (lambda w: w.update({"5.bias": torch.ones(9)}), r"5.bias has shape \(9,\), not \(100,\)"),
        (lambda w: w["5.bias"].fill_(torch.nan), "5.bias is not finite"),
    ],
)
def test_weights_that_do_not_fit(change: Any, message: str) -> None:
    weights = {name: value.clone() for name, value in build("mlp")[1].state_dict().items()}
    change(weights)
    with pytest.raises(ModelError, match=message):
        fit_weights(build("mlp"), weights, "x")


OWN = """\
from torch import nn

def build(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

def wrong(shape, classes):
    return "no module"

def seven(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 7))

def bare():
    return nn.Flatten()

def colour(shape, classes):
    return nn.Conv2d(3, classes, 3)
"""
GIVEN = """\
suite: given
dataset: {name: digits}
models:
  - {id: own, architecture: "my_model:build", weights: "own-s{seed}.safetensors"}
seeds: [0, 3]
attacks:
  - {name: FGSM, eps: 0.1}
"""


def test_own_architecture_and_own_weights_are_attacked_without_training(tmp_path: Path, cli_here: Cli) -> None:
    (tmp_path / "my_model.py").write_text(OWN)
    (tmp_path / "given.yaml").write_text(GIVEN)
    missing = cli_here("run", "given.yaml")
    assert missing.returncode == 2
    assert "given.yaml:4: models[0].weights: there is no file" in missing.stderr
    weights = {"1.weight": torch.eye(10, 64), "1.bias": torch.zeros(10)}
    for seed in (0, 3):
        safetensors.torch.save_file(weights, tmp_path / f"own-s{seed}.safetensors")
    done = cli_here("run", "given.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    records = contents(tmp_path / "results" / "given")
    (loaded,) = [record for name, record in records.items() if name.startswith("own.s0.train")]
    assert (loaded["curve"], loaded["parameters"]) == ([], 650)
    assert "weights given: own-s0.safetensors" in (tmp_path / "results" / "given" / "leaderboard.md").read_text()
    # Other content under the same name is another experiment.
    safetensors.torch.save_file(weights | {"1.bias": torch.ones(10)}, tmp_path / "own-s0.safetensors")
    assert "8 cells: 4 to run, 4 done" in cli_here("plan", "given.yaml").stdout


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("architecture: mlp", "architecture: no_module:build", "there is no module no_module here"),
        ("architecture: mlp", "architecture: my_model.py:build", "no module my_model.py here: write my_model:build"),
        ("architecture: mlp", "architecture: my_model:bare", "called as bare(shape, classes): too many positional"),
        ("architecture: mlp", "architecture: my_model:bild", "defines no bild; did you mean 'build'?"),
        ("architecture: mlp", 'architecture: "my_model:"', "should be written package.module:function"),
        ("architecture: mlp", "architecture: resnet81", "unknown architecture 'resnet81'; did you mean 'resnet18'?"),
        (
            "architecture: mlp",
            "architecture: zzz",
            "known here: small_cnn, small_resnet, mlp, lenet, every model of timm",
        ),
        ("architecture: mlp", "architecture: mlp, stem: small", "`stem: small` is for timm's ResNets"),
        ("architecture: mlp", "architecture: resnet18.a1_in1k", "names weights of timm's resnet18"),
        ("architecture: mlp", "architecture: mlp, pretrained: true", "`pretrained` is for models of timm"),
        (", objective: {name: ce}", "", "needs an `objective` to train with, or `weights` to load"),
        (", objective: {name: ce}", ", weights: a.safetensors, pretrained: true", "exclude each other"),
        ("pairs: [[ce, cmic]]", "seeds: [0, 1]\npairs: []", "write `{seed}` in the file's name"),
    ],
)
def test_models_that_cannot_be_are_told_before_anything_runs(
    tmp_path: Path, cli_here: Cli, old: str, new: str, sentence: str
) -> None:
    (tmp_path / "my_model.py").write_text(OWN)
    text = TINY_SUITE if "seeds" not in new else TINY_SUITE.replace("{name: ce}}", "{name: ce}, weights: a}", 1)
    assert old in text
    (tmp_path / "x.yaml").write_text(text.replace(old, new, 1))
    done = cli_here("validate", "x.yaml")
    assert done.returncode == 2, done.stdout
    assert sentence in done.stderr


WRONG = {
    "wrong": "my_model:wrong should return a torch.nn.Module, not str",
    "seven": "my_model:seven should return float logits of shape (N, 10); for 2 images it returned (2, 7)",
    "colour": "my_model:colour fails on images of (1, 8, 8): RuntimeError:",
}


def test_models_that_do_not_fit_fail_their_trainings_with_a_sentence(tmp_path: Path, cli_here: Cli) -> None:
    (tmp_path / "my_model.py").write_text(OWN)
    (tmp_path / "bad.safetensors").write_bytes(b"PK no tensors")
    models = [f"{{id: {name}, architecture: my_model:{name}, objective: {{name: ce}}}}" for name in WRONG]
    models.append("{id: bad, architecture: my_model:build, weights: bad.safetensors}")
    lines = "\n".join(f"  - {model}" for model in models)
    training = "training: {epochs: 1, batch_size: 64, optimizer: {name: sgd, lr: 0.1}}"
    (tmp_path / "x.yaml").write_text(f"suite: x\ndataset: {{name: digits}}\n{training}\nmodels:\n{lines}\n")
    done = cli_here("run", "x.yaml")
    assert done.returncode == 1
    for sentence in [*WRONG.values(), "bad.safetensors is no .safetensors file"]:
        assert sentence in done.stdout
    assert list((tmp_path / "results.work" / "x").glob("*.safetensors")) == []


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 32), (1, 9, 12)])
def test_small_cnn_averages_quarters_whatever_the_size(shape: tuple[int, int, int]) -> None:
    network = small_cnn(shape, 10)
    assert isinstance(network, nn.Sequential)
    features = network[:9](torch.rand(4, *shape))
    pooled = network[9](features)
    assert torch.allclose(pooled, nn.functional.adaptive_avg_pool2d(features, 2), atol=1e-6)
    assert pooled.shape == (4, 64, 2, 2)
