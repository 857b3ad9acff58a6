"""The state of an optimizer as a new one would have it, of all parameters or of one, and optimizers around others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from teleport._engine.state_rules import StateRule

Group = dict[str, Any]

_AT_FIRST: dict[str, dict[str, Callable[[Tensor, Group], Tensor]]] = {
    "torch.Adagrad": {
        "step": lambda _, group: torch.zeros(()),
        "sum": lambda parameter, group: torch.full_like(parameter, group["initial_accumulator_value"]),
    },
    "pytorch_optimizer.Lookahead": {
        "slow_params": lambda parameter, _: parameter.detach(),
        "slow_momentum": lambda parameter, _: torch.zeros_like(parameter),
    },
}
"""What optimizers write into their states before the first step; others make the state of a parameter at need."""


def wrapped_by(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    """The optimizers inside of one, the innermost first: of Accelerate's and Lookahead's."""
    inner = getattr(optimizer, "optimizer", None)
    return (*wrapped_by(inner), inner) if isinstance(inner, torch.optim.Optimizer) else ()


def counts_per_parameter(optimizer: torch.optim.Optimizer, rule: StateRule) -> bool:
    """Whether nothing but the state of a parameter says how many steps it took."""
    return "step" in rule or _first(optimizer) is not None


def reset_state(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer, and those inside of it, forget what they have seen, in place."""
    for each in (*wrapped_by(optimizer), optimizer):
        if _first(each) is None:
            each.state.clear()
        for parameter in (one for group in each.param_groups for one in group["params"] if one in each.state):
            reset_parameter(each, parameter)


@torch.no_grad()
def reset_parameter(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    """Let an optimizer forget what it has seen of one parameter."""
    first = _first(optimizer)
    if first is None:
        optimizer.state.pop(parameter, None)
        return
    group = next(each for each in optimizer.param_groups if any(parameter is one for one in each["params"]))
    state = optimizer.state[parameter]
    for key in [each for each in state if each not in first]:
        del state[key]
    for key in state:
        state[key].copy_(first[key](parameter, group))


def _first(optimizer: torch.optim.Optimizer) -> dict[str, Callable[[Tensor, Group], Tensor]] | None:
    for kind in type(optimizer).__mro__:
        found = _AT_FIRST.get(f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}")
        if found is not None:
            return found
    return None
