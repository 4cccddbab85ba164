"""Models that a suite may name: architectures, given weights, normalisation."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag
from pydantic.json_schema import SkipJsonSchema

from robustbench_cmic.suite.custom import custom_code_sha256
from robustbench_cmic.suite.fields import Name, Number, Positive, Strict, Text
from robustbench_cmic.suite.messages import suggestion
from robustbench_cmic.suite.objectives import Adversary, AnyObjective
from robustbench_cmic.suite.signatures import CustomCodeError, custom_signature, installed_folder
from robustbench_cmic.suite.training import Training

ARCHITECTURES = {
    "small_cnn": "robustbench_cmic.models.architectures:small_cnn",
    "small_resnet": "robustbench_cmic.models.architectures:small_resnet",
    "mlp": "robustbench_cmic.models.architectures:mlp",
    "lenet": "robustbench_cmic.models.architectures:lenet",
}
"""Name -> the function that builds it from the shape of an image and the number of classes."""
_SIZES = {"small_cnn": ("width",), "small_resnet": ("width", "depth"), "mlp": ("width", "depth"), "lenet": ("width",)}
"""Which of them take a `width` or a `depth`."""


_ZERO_INIT = ("resnet", "res2net", "resnest")
"""Modules of timm whose every model starts the last normalisation of a residual block at 0 unless told otherwise."""


class Normalization(Strict):
    """Mean and standard deviation per channel of images in [0, 1], for weights that were trained with others."""

    mean: Annotated[list[Number], Field(min_length=1, max_length=16)]
    std: Annotated[list[Positive], Field(min_length=1, max_length=16)]


def _normalization_kind(value: Any) -> str:
    return "word" if isinstance(value, str) else "moments"


class OtherModel(Strict):
    """Another model of the suite, by its id; of its seeds each model takes the one of its own seed."""

    model: Name


def _beginning_kind(value: Any) -> str:
    return "file" if isinstance(value, str) else "model"


AnyBeginning = Annotated[
    Annotated[Text, Tag("file")] | Annotated[OtherModel, Tag("model")], Discriminator(_beginning_kind)
]
AnyNormalization = Annotated[
    Annotated[Normalization, Tag("moments")] | Annotated[Literal["none"], Tag("word")],
    Discriminator(_normalization_kind),
]


class Model(Strict):
    """One model: an architecture, and the objective to train it with or the weights to load into it.

    Attributes:
        id: names it in results.
        architecture: a name of `list`, any model of timm, or `package.module:function` of your own, which is called
            with the shape (C, H, W) and the number of classes and returns a module that maps images to logits.
        objective: what to train with; None for given weights of unknown training.
        width: channels of the first convolution of an architecture of this package, units of a hidden layer of `mlp`;
            None: as its table says.
        depth: hidden layers of `mlp`, blocks a stage of `small_resnet`; None: as its table says.
        training: its own; in a file the keys alone that differ from the suite's, see `matrix.with_own_trainings`;
            None: the suite's.
        stem: `small` gives a ResNet of timm the first layer for small images: 3x3, stride 1, no max-pooling.
        zero_init_residual: timm starts the last normalisation of every residual block of a ResNet at scale 0, so that
            the block begins as its shortcut (Goyal et al. 2017, section 5.1); false: at 1, as all others.
        weights: a file of weights instead of a training, in the suite's folder: .safetensors, or a state dict that
            torch.save wrote (.pt, .pth, .ckpt, .bin); `{seed}` in it stands for the seed.
        weights_key: where in the checkpoint of either the weights stand, `ema` or `state.model`; None: where they
            usually do.
        initial_weights: what a training begins with in place of random weights: a file as for `weights`, or
            `{model: ID}`, the weights that another model of the suite, listed above, has at the end of its training
            with the same seed; of the same architecture with its own last layer.
        pretrained: load timm's weights instead of training.
        normalization: what the first layer subtracts and divides by; by default the moments of the training images,
            for pretrained weights timm's; `none`: images come as they are, in [0, 1], as models of zoos that normalise
            by themselves want them.
        logits: where the logits are in what the network returns, if that is no tensor: the index of a tuple (-1 for
            the last), the key of a dictionary, or the name of an attribute.
    """

    id: Name
    architecture: Text
    objective: AnyObjective | None = None
    width: Annotated[int, Field(ge=1, le=4096)] | None = None
    depth: Annotated[int, Field(ge=1, le=100)] | None = None
    training: Training | None = None
    stem: Literal["default", "small"] = "default"
    zero_init_residual: bool = True
    weights: Text | None = None
    weights_key: Annotated[Text, Field(min_length=1)] | None = None
    initial_weights: AnyBeginning | None = None
    pretrained: bool = False
    normalization: AnyNormalization | SkipJsonSchema[None] = None  # `checks` refuses a null that is written
    logits: Annotated[int, Field(ge=-100, le=100)] | Name | None = None

    @property
    def given(self) -> bool:
        """Its weights are loaded, not trained."""
        return self.weights is not None or self.pretrained

    @property
    def size(self) -> dict[str, int]:
        """What of `width` and `depth` is declared, by name."""
        return {key: value for key, value in (("width", self.width), ("depth", self.depth)) if value is not None}

    @property
    def adversary(self) -> Adversary | None:
        """What its training is against; None without one, and of given weights."""
        return None if self.given or self.objective is None else self.objective.adversary

    @property
    def file_key(self) -> str:
        """Which of its keys names a file of weights: `weights`, `initial_weights`, or none, which is empty."""
        return "weights" if self.weights is not None else "initial_weights" if self._initial_file else ""

    @property
    def _initial_file(self) -> str:
        return self.initial_weights if isinstance(self.initial_weights, str) else ""

    @property
    def begins_with(self) -> str:
        """The id of the model whose weights its training begins with; empty where there is none."""
        return self.initial_weights.model if isinstance(self.initial_weights, OtherModel) else ""

    def weights_file(self, seed: int) -> Path:
        """The file of `weights`, or of `initial_weights`, for a seed."""
        return Path((self.weights or self._initial_file).replace("{seed}", str(seed)))

    def declared(self) -> dict[str, Any]:
        """What decides the network, as a training declares it: plain data; of a user's own the hash of its file."""
        network = self.model_dump(include={"architecture", "stem", "pretrained", "normalization"})
        if not self.zero_init_residual:
            network["zero_init_residual"] = False
        if self.logits is not None:
            network["logits"] = self.logits
        network |= self.size
        return network | {"code_sha256": custom_code_sha256(self.architecture)}


def model_of(declared: Mapping[str, Any]) -> Model:
    """The model that a training declares, see `Model.declared`; its name, which decides nothing, is not known here."""
    return Model.model_validate({k: v for k, v in declared.items() if k != "code_sha256"} | {"id": "model"})


@functools.cache
def timm_models() -> dict[str, str]:
    """Name of every model of timm -> the module that defines it; read from the source: importing takes seconds."""
    modules = {}
    for file in sorted((installed_folder("timm") / "models").glob("*.py")):
        # By their layout: a tree of all of timm takes a second to build.
        names = re.findall(r"^@register_model\s*\ndef (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
        modules.update(dict.fromkeys(names, file.stem))
    return modules


def _own_problem(name: str) -> str | None:
    """Why a user's own function cannot build a network, as a sentence; None where its source shows nothing."""
    try:
        signature = custom_signature(name, "package.module:function")
        if signature is not None:
            signature.bind("shape", "classes")
    except CustomCodeError as error:
        return str(error)
    except TypeError as error:
        return f"{name} cannot be called as {name.partition(':')[2]}(shape, classes): {error}"
    return None


def size_problems(name: str, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(key, sentence) of those of `width` and `depth` that an architecture does not take."""
    for key in ("width", "depth"):
        if key in keys and key not in _SIZES.get(name, ()):
            takers = ", ".join(taker for taker, own in _SIZES.items() if key in own)
            yield key, f"{name} has no `{key}`, which {takers} take"


def architecture_problem(
    name: str, small_stem: bool = False, pretrained: bool = False, zero_init_residual: bool = True
) -> str | None:
    """What is wrong with an architecture for these keys of a `Model`, as a sentence; None where it is right."""
    base, _, tag = name.partition(".")
    if ":" in name:
        if (problem := _own_problem(name)) is not None:
            return problem
    elif name not in ARCHITECTURES and base not in timm_models():
        near = suggestion(name, [*ARCHITECTURES, *timm_models()])
        if "did you mean" not in near:
            near = f"known here: {', '.join(ARCHITECTURES)}, every model of timm, and package.module:function"
        return f"unknown architecture '{name}'; {near}"
    elif name not in ARCHITECTURES and tag and not pretrained:
        return f"'.{tag}' names weights of timm's {base}: leave it out, or set `pretrained: true`"
    if small_stem and timm_models().get(base) != "resnet":
        return f"`stem: small` is for timm's ResNets (resnet18, say), not for {name}"
    if not zero_init_residual and timm_models().get(base) not in _ZERO_INIT:
        return f"`zero_init_residual: false` is for timm's ResNets (resnet18, say); {name} has no such option"
    if small_stem and pretrained:
        return "`stem: small` would replace the first layer of the pretrained weights: choose one of the two"
    if pretrained and base not in timm_models():
        return f"`pretrained` is for models of timm, not for {name}"
    return None
