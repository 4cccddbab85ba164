"""Objectives that see the penultimate features, or bring a last layer of their own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

import robustbench_cmic.suite.fields as fields
from robustbench_cmic.suite.objectives.base import Adversary, DeclaredObjective


class CenterObjective(DeclaredObjective):
    """Center loss (Wen et al. 2016): cross entropy + weight / 2 * mean squared distance of features to their centre.

    Attributes:
        weight: of the center loss. The scale of features and their number decide what it should be: search it for each
            architecture, between 0.0005 and 1, say.
        rate: how far a centre moves towards the features of its class in a step, alpha of the paper's equation 4.
    """

    implementation = "robustbench_cmic.objectives.center:CenterLoss"
    needs_features = True
    name: Literal["center"]
    weight: fields.NonNegative = 0.003
    rate: Annotated[fields.Number, Field(ge=0, le=1)] = 0.5
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`Center loss`."""
        return "Center loss"


class OplObjective(DeclaredObjective):
    """Orthogonal projection loss (Ranasinghe et al. 2021): cross entropy + weight ((1 - s) + gamma r).

    s is the mean cosine of features of one class, r that of two. Defaults are those of the authors' CIFAR script.

    Attributes:
        weight: of what is added.
        gamma: of r.
        unlike: r is the mean of cosines (`signed`), of their absolute values (`absolute`), or the absolute value of
            their mean (`absolute_mean`). Behind a ReLU the three are one.
    """

    implementation = "robustbench_cmic.objectives.opl:Opl"
    needs_features = True
    name: Literal["opl"]
    weight: fields.NonNegative = 1.0
    gamma: fields.NonNegative = 0.5
    unlike: Literal["signed", "absolute", "absolute_mean"] = "absolute"
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`OPL`."""
        return "OPL"


class LargeMarginGaussianObjective(DeclaredObjective):
    """Large-margin Gaussian mixture (Wan et al. 2018), with identity covariances; its means are the last layer.

    Attributes:
        margin: a; the squared distance to the true class's mean counts 1 + a times.
        likelihood: weight of that distance; it is of the order of the number of features.
        lr_factor: learning rate of the means, as a multiple of the network's.
    """

    implementation = "robustbench_cmic.objectives.lgm:LargeMarginGaussian"
    owns_head = True
    name: Literal["lgm"]
    margin: fields.NonNegative = 0.1
    likelihood: fields.NonNegative = 0.01
    lr_factor: Annotated[fields.Number, Field(ge=0, le=1e6)] = 2.0
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`L-GM`."""
        return "L-GM"


class CosFaceObjective(DeclaredObjective):
    """Large margin cosine loss (Wang et al. 2018): cross entropy of scale * (cosine - margin of the true class).

    Attributes:
        scale: s; the paper's 64 saturates a softmax, 16 to 30 suit small data.
        margin: m.
    """

    implementation = "robustbench_cmic.objectives.cosface:CosFace"
    owns_head = True
    name: Literal["cosface"]
    scale: fields.Positive = 64.0
    margin: Annotated[fields.Number, Field(ge=0, le=2)] = 0.35
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`CosFace`."""
        return "CosFace"


class NcmiObjective(DeclaredObjective):
    """NCMI alone (arXiv 2601.02543), as the authors' code has it: no linear layer, distributions over features.

    Attributes:
        temperature: that normalised features are divided by.
        momentum: how much of the features' running mean a step keeps.
        centroids: of the loss: `targets` that never move, as in the released trainer, or the class `means` of the last
            epoch. Decisions are by class means in both.
    """

    implementation = "robustbench_cmic.objectives.ncmi:Ncmi"
    owns_head = True
    needs_features = True
    any_features = False
    cross_entropy = False
    name: Literal["ncmi_alone"]
    temperature: fields.Positive = 0.2
    momentum: fields.UnitInterval = 0.9999
    centroids: Literal["targets", "means"] = "targets"
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`NCMI alone`."""
        return "NCMI alone"

    def further_examples(self, images: int, _steps: int, _classes: int) -> tuple[float, float]:
        """Class means after every epoch."""
        return 0.0, float(images)
