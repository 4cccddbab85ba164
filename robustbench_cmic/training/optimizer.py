"""Optimisers: one group for the network, one of their own for the parameters of an objective and of its head."""

from __future__ import annotations

import pkgutil
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.objectives import Objective
from robustbench_cmic.suite.training import AnyOptimizer

_FACTOR = "lr_factor"


def build_optimizer(
    model: nn.Module, declared: AnyOptimizer, objective: Objective | None = None
) -> torch.optim.Optimizer:
    """The optimiser that a suite declares; on a GPU its learning rate is a tensor there, so that graphs can read it.

    Args:
        model: on its device, with the objective's head where that has one.
        declared: its learning rate and all else for the weights of the network.
        objective: attached and on the same device; its parameters, and those of its head, are a second group.
    """
    own = [] if objective is None else objective.own_parameters(model)
    held = {id(parameter) for parameter in own}
    weights = [parameter for parameter in model.parameters() if id(parameter) not in held]
    arguments = declared.model_dump(exclude={"name"})
    on_gpu = any(parameter.is_cuda for parameter in [*weights, *own])
    if on_gpu:
        arguments |= declared.on_gpu | {"lr": torch.tensor(declared.lr, device=[*weights, *own][0].device)}
    groups: list[Any] = weights
    if objective is not None and own:
        groups = [{"params": weights}, {"params": own} | _own_options(declared, objective)]
        if on_gpu:
            groups[1]["lr"] = torch.tensor(groups[1]["lr"], device=own[0].device)
    optimizer: torch.optim.Optimizer = pkgutil.resolve_name(declared.implementation)(groups, **arguments)
    return optimizer


def _own_options(declared: AnyOptimizer, objective: Objective) -> dict[str, Any]:
    """What sets the second group apart."""
    chosen = objective.parameter_group
    options: dict[str, Any] = {"lr": declared.lr * chosen.lr_factor, _FACTOR: chosen.lr_factor}
    if not chosen.weight_decay:
        options["weight_decay"] = 0.0
    if not chosen.momentum:
        options |= {"betas": (0.0, 0.999)} if declared.name == "adamw" else {"momentum": 0.0, "nesterov": False}
    return options


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give the network a learning rate, and the parameters of the objective their multiple of it."""
    for group in optimizer.param_groups:
        own = rate * group.get(_FACTOR, 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
