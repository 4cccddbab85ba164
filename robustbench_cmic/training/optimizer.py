"""Optimisers: one group for the network, one of their own for the parameters of an objective and of its head."""

from __future__ import annotations

import pkgutil
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.objectives import Objective
from robustbench_cmic.suite.training import AnyOptimizer


def build_optimizer(
    model: nn.Module, declared: AnyOptimizer, objective: Objective | None = None
) -> torch.optim.Optimizer:
    """The optimiser that a suite declares; on a GPU its learning rate is a tensor there, so that graphs can read it.

    Args:
        model: on its device, with the objective's head where that has one.
        declared: its learning rate and all else for the weights of the network.
        objective: attached and on the same device; its parameters, and those of its head, are a second group.
    """
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if objective is not None:
        groups = objective.parameter_groups(model, declared.lr)
    arguments = declared.model_dump(exclude={"name"})
    used = [parameter for group in groups for parameter in group["params"]]
    if any(parameter.is_cuda for parameter in used):
        arguments |= declared.on_gpu | {"lr": torch.tensor(declared.lr, device=used[0].device)}
        for own in groups[1:]:
            own["lr"] = torch.tensor(own["lr"], device=own["params"][0].device)
    optimizer: torch.optim.Optimizer = pkgutil.resolve_name(declared.implementation)(groups, **arguments)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give the network a learning rate, and the parameters of the objective their multiple of it."""
    for group in optimizer.param_groups:
        own = rate * group.get("lr_factor", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
