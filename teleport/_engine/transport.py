"""Transport of an optimizer's state (momentum, squared gradients) through a move that multiplies parameters by factors.

If ``W' = f W`` elementwise and the loss stays, ``dL/dW' = (dL/dW) / f`` (Armenta et al. 2023, Theorem 5.1). Averages
of gradients transform the same way, averages of their squares by the square, values in the unit of the parameter (the
step sizes of Rprop, the averaged weights of ASGD) like the parameter. Weight decay that an optimizer adds to the
gradient is a term of the weights, which does not transform like a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from teleport._engine.report import TeleportReport
from teleport._engine.state_rules import Entry, StateRule, state_rule_of
from teleport._tracing.replicas import local_part


@torch.no_grad()
def transport_state(optimizer: torch.optim.Optimizer, group: Mapping[nn.Parameter, Tensor] | TeleportReport) -> None:
    """Carry the state of ``optimizer`` through a diagonal rescaling, in place.

    Args:
        optimizer: of ``torch.optim`` without LBFGS, a class of another package that is known (ADOPT, Lion, Adan and
            others of pytorch_optimizer), or one that :func:`teleport.register_optimizer` was told of.
        group: the factors that each parameter was multiplied by, in its shape or one that broadcasts to it
            (``report.group``), or the report itself; parameters that are not in it stayed.

    Raises:
        ValueError: the report's method has no factors, a factor is zero or not finite, or no rule is known for the
            optimizer or for an entry of its state; nothing is changed then.
        TypeError: the arguments are no optimizer and no factors.
    """
    factors = _factors(optimizer, group)
    if not factors or not optimizer.state:
        return
    rule = _rule(optimizer)
    held = [
        (optimizer.state[parameter], parameter, factor)
        for parameter, factor in factors.items()
        if parameter in optimizer.state
    ]
    for state, parameter, factor in held:
        _check(optimizer, rule, state, parameter, factor)
    values, transported = [], []
    for state, _, factor in held:
        for key, value in state.items():
            if isinstance(value, Tensor) and rule[key] != 0:
                values.append(value)
                transported.append(_transported(value, rule[key], factor))
    if values:
        torch._foreach_copy_(
            list(map(local_part, values)), list(map(local_part, transported))
        )  # one call, which no interrupt parts


def _factors(
    optimizer: torch.optim.Optimizer, group: Mapping[nn.Parameter, Tensor] | TeleportReport
) -> Mapping[nn.Parameter, Tensor]:
    """The factors of each parameter; refuses arguments of another type and a report without factors."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"transport_state takes an optimizer and then the factors, got {type(optimizer).__name__} first"
        )
    method = f" of {group.method}" if isinstance(group, TeleportReport) else ""
    factors = group.group if isinstance(group, TeleportReport) else group
    if factors is None:
        raise ValueError(
            f"the report{method} has no factors to transport the optimizer's state by: only Rescaling and ChangeOfBasis"
            " multiply parameters by factors; keep the state or reset it"
        )
    if not isinstance(factors, Mapping):
        raise TypeError(f"transport_state takes the factors as report.group, got {type(factors).__name__}")
    return factors


def _rule(optimizer: torch.optim.Optimizer) -> StateRule:
    """The rule of the optimizer; refuses a class that has none."""
    kind = type(optimizer)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            f"{kind.__name__} keeps one history of all its parameters together, which cannot be transported; start a "
            "new optimizer instead"
        )
    rule = state_rule_of(optimizer)
    if rule is None:
        raise ValueError(
            f"no rule is known for the state of {kind.__module__}.{kind.__qualname__}; keep the state, reset it, or "
            f"register a rule with teleport.register_optimizer({kind.__name__}, {{...}})"
        )
    return rule


def _check(
    optimizer: torch.optim.Optimizer, rule: StateRule, state: Mapping[str, Any], parameter: nn.Parameter, factor: Tensor
) -> None:
    """Refuse entries without a rule or of another shape than the parameter, and factors that cannot be divided by."""
    kind = type(optimizer).__name__
    unknown = sorted(str(key) for key in state if key not in rule)
    if unknown:
        raise ValueError(
            f"{kind} keeps a state that no rule transports ({', '.join(unknown)}); keep the state or reset it instead"
        )
    if not bool((factor.isfinite() & (factor != 0)).all()):
        raise ValueError("the factors to transport an optimizer's state by must be finite and not zero")
    moved = [key for key, value in state.items() if isinstance(value, Tensor) and rule[key] != 0]
    if wrong := [key for key in moved if state[key].shape != parameter.shape]:
        raise ValueError(
            f"{kind} keeps '{wrong[0]}' in shape {list(state[wrong[0]].shape)} for a parameter of shape "
            f"{list(parameter.shape)}, which no rule transports; keep the state or reset it instead"
        )


def _transported(value: Tensor, entry: Entry, factor: Tensor) -> Tensor:
    """One entry of a state after the move."""
    if not isinstance(entry, int):
        return entry(value, factor.to(value))
    return value / (factor**-entry).to(value) if entry < 0 else value * (factor**entry).to(value)
