"""The last linear layer of a network: what goes into it are its features; an objective may put a head in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.messages import UserError

_MARK = "own_head"


class ObjectiveError(UserError):
    """An objective that cannot be used; the message says why."""


class OwnHead(nn.Module):
    """An objective's head where a network's last linear layer was, computed in float32 also under autocast.

    Its state dict says that it is one, so that a network built anew gets the same.

    Args:
        head: features (N, d) -> logits (N, C).
        features: d.
    """

    def __init__(self, head: nn.Module, features: int) -> None:
        super().__init__()
        self.head = head
        self.register_buffer(_MARK, torch.tensor(features))

    def forward(self, features: Tensor) -> Tensor:
        """(N, d) -> (N, C)."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(features.float())
        return logits


def holds_own_head(names: Iterable[str]) -> bool:
    """Whether a state dict with these names is of a network with an objective's head."""
    return any(name.endswith(f".{_MARK}") for name in names)


class LastLayer:
    """The layer of a network that computes its logits, linear or an `OwnHead`, found by one pass over a few images.

    Args:
        model: returns logits (N, C); its modes, weights, statistics and the global generators are left as they were.
        images: two or more that the model takes.

    Attributes:
        name: within the model.
        layer: itself.
        features: d, the numbers that go into it for an image.

    Raises:
        ObjectiveError: no linear layer's output is what the model returns.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        layers = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear | OwnHead)}
        passes: list[tuple[str, Tensor, Tensor]] = []
        hooks = [layer.register_forward_hook(_noting(name, passes)) for name, layer in layers.items()]
        modes = {module: module.training for module in model.modules()}
        try:
            with torch.no_grad(), seeded(derive_seed("last layer")):
                logits = model.eval()(images)
        finally:
            for hook in hooks:
                hook.remove()
            for module, mode in modes.items():
                module.training = mode
        if not isinstance(logits, Tensor):
            raise ObjectiveError(f"the network, or its head, should return logits, not {type(logits).__name__}")
        if logits.isnan().any():
            raise ObjectiveError("the network, or its head, returns NaN before it is trained")
        found = [(name, into) for name, into, out in passes if _same(out, logits)]
        names = [name for name, _, _ in passes]
        if not found or names.count(found[-1][0]) > 1 or found[-1][1].dim() != 2:
            raise ObjectiveError(_problem([(name, into) for name, into, _ in passes], found))
        self.name, into = found[-1]
        self.layer: nn.Module = layers[self.name]
        self.features = into.shape[1]

    def outputs(self, model: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, C), and features (N, d) in float32, of one pass through a model that the layer is in.

        Raises:
            ObjectiveError: the pass leaves the layer out, as in another mode than the one it was found in.
        """
        held: list[Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda _, inputs: held.append(inputs[0]))
        try:
            logits = model(images)
        finally:
            hook.remove()
        if len(held) != 1:
            raise ObjectiveError(f"the last linear layer, {self.name}, is used {len(held)} times in a pass, not once")
        return logits, held[0].float()


def put_head(model: nn.Module, images: Tensor, make: Callable[[int], nn.Module]) -> None:
    """Replace the last linear layer of a model by an objective's head; the model is changed in place.

    Args:
        model: returns logits.
        images: see `LastLayer`.
        make: the number d of features -> a head.

    Raises:
        ObjectiveError: there is no such layer, or it cannot be replaced.
    """
    last = LastLayer(model, images)
    if isinstance(last.layer, OwnHead):
        raise ObjectiveError(f"the network has the head of an objective already, {last.name}")
    if last.name == "":
        raise ObjectiveError("the network is a linear layer itself, which cannot be replaced: put it into a Sequential")
    parent, _, name = last.name.rpartition(".")
    made = make(last.features)
    if not isinstance(made, nn.Module):
        raise ObjectiveError(f"`make_head` should return a module, not {type(made).__name__}")
    head = OwnHead(made, last.features).to(images.device)
    setattr(model.get_submodule(parent), name, head)
    if LastLayer(model, images).layer is not head:
        raise ObjectiveError(f"the network uses its last linear layer, {last.name}, in other places, too")


def _noting(name: str, passes: list[tuple[str, Tensor, Tensor]]) -> Callable[..., None]:
    def note(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            passes.append((name, inputs[0], output))

    return note


def _same(output: Tensor, logits: Tensor) -> bool:
    """The same numbers; a model may return them as float32 where its layers compute in less."""
    return output.shape == logits.shape and torch.equal(output.float(), logits.float())


def _problem(passes: list[tuple[str, Tensor]], found: list[tuple[str, Tensor]]) -> str:
    wants = "this objective needs a network that ends in a linear layer, whose output are the logits"
    if found and found[-1][1].dim() != 2:
        return f"{wants}; {found[-1][0]} takes {tuple(found[-1][1].shape)}, not one row of features an image"
    if found:
        return f"{wants}; {found[-1][0]} is used more than once in a pass"
    if not passes:
        return f"{wants}; it has no linear layer"
    return f"{wants}; the output of its last one, {passes[-1][0]}, is another"


def unit_rows(values: Tensor) -> Tensor:
    """Rows (N, d) over their length; one that is shorter than 1e-4 stays shorter than 1, with a bounded gradient."""
    return functional.normalize(values, dim=1, eps=1e-4)
