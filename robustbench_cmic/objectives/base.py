"""What the training loop asks of an objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from robustbench_cmic.information.measures import check_labels
from robustbench_cmic.objectives.last_layer import LastLayer, ObjectiveError, OwnHead, put_head
from robustbench_cmic.suite.messages import problems_of

TrainingOutputs = Callable[[], Iterator[tuple[Tensor, ...]]]
"""Logits, labels, and the features of a `FeatureObjective`, batch by batch, over the whole training set.

In eval mode, without augmentation and gradients; attacked by an adversary.
"""


class ParameterGroup(NamedTuple):
    """How the optimiser of a training treats the parameters of an objective and of its head.

    Attributes:
        lr_factor: their learning rate, as a multiple of the network's at the same step.
        weight_decay: whether the network's weight decay holds for them.
        momentum: whether its momentum does; of AdamW the first moment.
    """

    lr_factor: float = 1.0
    weight_decay: bool = False
    momentum: bool = True


def check_arguments(declaration: type[BaseModel], classes: int, keys: dict[str, Any]) -> None:
    """Check what an objective is made with, in a loop of a user's own too, as a suite that declares it is checked.

    Args:
        declaration: of the objective in suites.
        classes: number of classes, at least 2.
        keys: by their names in suites.

    Raises:
        ValueError: the first that is wrong, and what would be right.
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ValueError(f"classes: should be a whole number of at least 2, not {classes!r}")
    try:
        declaration.model_validate(keys)
    except ValidationError as error:
        problem = problems_of(error, keys, declaration)[0]
        raise ValueError(f"{'.'.join(map(str, problem.location))}: {problem.message}") from None


def check_step_labels(_: nn.Module, outputs: tuple[Any, ...]) -> None:
    """Check the labels of a step, (N,), on the CPU: on a GPU the host would wait for it in every step.

    Args:
        outputs: logits (N, C), labels, and what else the objective sees.

    Raises:
        ValueError: a label that is no class.
    """
    if len(outputs) > 1 and outputs[1].device.type == "cpu":
        check_labels(outputs[1], outputs[0].shape[1])


def terms_problem(terms: Any, before: tuple[str, ...] = ()) -> str | None:
    """What is wrong with what an objective has returned for a step; nothing is read from the device.

    Args:
        terms: of the loss.
        before: names of the terms of an earlier step of the same epoch; none: not known.

    Returns:
        What it should do and what it did, as the rest of a sentence; None where all is well.
    """
    problem = None
    if not isinstance(terms, dict):
        problem = f"it returned {type(terms).__name__}"
    elif wrong := [key for key, term in terms.items() if not isinstance(term, Tensor) or term.shape != ()]:
        term = terms[wrong[0]]
        problem = f"its '{wrong[0]}' is {tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__}"
    elif "total" not in terms:
        problem = f"it returned {', '.join(map(str, terms)) or 'none'}"
    elif not terms["total"].is_floating_point():
        problem = f"its `total` is of {terms['total'].dtype}".replace("torch.", "")
    elif not terms["total"].requires_grad:
        problem = "its `total` has no gradient in the logits"
    if problem is not None:
        return f"should return a dictionary of scalar tensors with a `total`; {problem}"
    if before and tuple(terms) != before:
        found = f"{', '.join(map(str, terms))} after {', '.join(before)}"
        return f"should return the same terms in all steps of an epoch, not {found}"
    return None


def checked_names(objective: nn.Module, terms: Any, before: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a step's terms, if they are what they should be, see `terms_problem`.

    Raises:
        ObjectiveError: they are not.
    """
    if (problem := terms_problem(terms, before)) is not None:
        raise ObjectiveError(f"{type(objective).__name__} {problem}")
    return tuple(terms)


class Objective(nn.Module):
    """A loss over a mini-batch, with state that is updated between steps.

    State lives in buffers and parameters, so that it is stored and restored with the rest of a training. Parameters get
    a group of their own in the optimiser.

    Attributes:
        classes: number of classes.
        class_examples: how many extra examples of every class `update` wants after each step; 0: the step's own.
        class_mode: the model's mode for these; in `train` mode they enter running statistics.
        needs_features: `forward` and `update` get the features as a third argument; see `FeatureObjective`.
        owns_head: the network's last linear layer is replaced by what `make_head` returns. The network that is stored,
            attacked and judged has it, so it returns logits as a classifier that is evaluated does, without any margin.
        parameter_group: for its own parameters and those of its head.
    """

    classes: int
    class_examples = 0
    class_mode: Literal["eval", "train"] = "eval"
    needs_features = False
    owns_head = False
    parameter_group = ParameterGroup()
    _last: LastLayer | None = None

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_pre_hook(check_step_labels)

    def attach(self, model: nn.Module, images: Tensor) -> None:
        """Called once with the network, before its optimiser is made and anything is trained.

        Without effect where neither features nor a head are wanted. An own head is put in place, unless the network
        has it already.

        Args:
            model: returns logits; changed in place where a head is put into it.
            images: two or more that it takes, on its device.

        Raises:
            ObjectiveError: no linear layer's output is what the model returns.
        """
        if not (self.needs_features or self.owns_head):
            return
        if self.owns_head and not any(isinstance(module, OwnHead) for module in model.modules()):
            put_head(model, images, self.make_head)
        # Past `nn.Module`, which would store the network's layer with the objective's state, too.
        object.__setattr__(self, "_last", LastLayer(model, images))
        self.prepare(self.last_layer.features)

    @property
    def last_layer(self) -> LastLayer:
        """What `attach` has found.

        Raises:
            ObjectiveError: it was not called.
        """
        if self._last is None:
            raise ObjectiveError(f"{type(self).__name__} needs `attach(model, images)` before it is used")
        return self._last

    @property
    def head(self) -> nn.Module:
        """The head in its place in the network, as `make_head` has made it; only for an objective that owns it."""
        layer = self.last_layer.layer
        if not isinstance(layer, OwnHead):
            raise ObjectiveError(f"{type(self).__name__} has no head of its own")
        return layer.head

    def make_head(self, features: int) -> nn.Module:
        """A new head, a module from features (N, `features`) to logits (N, C); where `owns_head`."""
        raise NotImplementedError

    def prepare(self, features: int) -> None:
        """Called by `attach` with the number of features, for parameters and buffers of that size."""

    def own_parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """The objective's, and those of its head in the network, once attached: what `parameter_group` is for."""
        heads = [module for module in model.modules() if isinstance(module, OwnHead)] if self.owns_head else []
        return [parameter for part in (*heads, self) for parameter in part.parameters()]

    def parameter_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """For an optimiser: the network's parameters, and the objective's own with what `parameter_group` sets apart.

        A group may hold options of other optimisers than the one that gets it, which leaves them unread.

        Args:
            model: on its device, attached.
            lr: learning rate of the network.
        """
        own, chosen = self.own_parameters(model), self.parameter_group
        held = {id(parameter) for parameter in own}
        groups: list[dict[str, Any]] = [{"params": [each for each in model.parameters() if id(each) not in held]}]
        if own:
            groups.append({"params": own, "lr": lr * chosen.lr_factor, "lr_factor": chosen.lr_factor})
            groups[1] |= {} if chosen.weight_decay else {"weight_decay": 0.0}
            groups[1] |= {} if chosen.momentum else {"momentum": 0.0, "nesterov": False, "betas": (0.0, 0.999)}
        return groups

    def outputs(self, model: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, ...]:
        """Of one pass: logits (N, C), and features (N, d), float32, where `needs_features`.

        Raises:
            ObjectiveError: the pass leaves out the layer that features or logits are of.
        """
        if not (self.needs_features or self.owns_head):
            return (model(images),)
        logits, features = self.last_layer.outputs(model, images)
        return (logits, features) if self.needs_features else (logits,)

    def begin(self, steps: int) -> None:
        """Called before a training begins or goes on, with the number of its steps from beginning to end."""

    def begin_epoch(self, epoch: int, outputs: TrainingOutputs) -> None:
        """Called before each epoch, counted from 1; `outputs` yields the whole training set's, where it is called."""

    def end_epoch(self, epoch: int, outputs: TrainingOutputs) -> None:
        """Called after each epoch, before the network is judged or stored; `outputs` as for `begin_epoch`."""

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss, scalars, for logits (N, C) and labels (N,); `total` is what is minimised.

        Called as `objective(logits, labels)`, on the CPU it raises a ValueError for a label that is no class.
        """
        raise NotImplementedError

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Called after each step with detached outputs: of the step itself, or of the extra class examples."""


class FeatureObjective(Objective):
    """An objective that sees the features, too: (N, d), float32, what goes into the network's last linear layer."""

    needs_features = True

    def forward(self, logits: Tensor, labels: Tensor, features: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """As of every objective."""
        raise NotImplementedError

    def update(self, logits: Tensor, labels: Tensor, features: Tensor) -> None:  # type: ignore[override]
        """As of every objective."""
