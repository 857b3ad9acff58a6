"""Transport of an optimizer's state (momentum, squared gradients) through a move that multiplies parameters by factors.

If ``W' = f W`` elementwise and the loss stays, ``dL/dW' = (dL/dW) / f`` (Armenta et al. 2023, Theorem 5.1). Averages
of gradients transform the same way, averages of their squares by the square. Weight decay that an optimizer adds to
the gradient is a term of the weights, which does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from teleport._engine.report import TeleportReport

POWERS = {
    "momentum_buffer": 1,  # SGD
    "exp_avg": 1,  # Adam, AdamW
    "exp_avg_sq": 2,
    "max_exp_avg_sq": 2,  # with amsgrad
    "sum": 2,  # Adagrad
    "step": 0,
}
"""The power of the gradient that each entry of an optimizer's state scales with."""


@torch.no_grad()
def transport_state(optimizer: torch.optim.Optimizer, group: Mapping[nn.Parameter, Tensor] | TeleportReport) -> None:
    """Carry the state of ``optimizer`` through a diagonal rescaling, in place.

    Args:
        optimizer: torch's SGD, Adagrad, Adam or AdamW, or one that keeps the same under the same names.
        group: the factors that each parameter was multiplied by, in its shape or one that broadcasts to it
            (``report.group``), or the report itself; parameters that are not in it stayed.

    Raises:
        ValueError: the report's method has no factors, or there is a state whose rule is not known; nothing is changed
            then.
        TypeError: the arguments are no optimizer and no factors.
    """
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
    kind = type(optimizer).__name__
    held = [
        (optimizer.state[parameter], factor) for parameter, factor in factors.items() if parameter in optimizer.state
    ]
    unknown = sorted({str(key) for state, _ in held for key in state if key not in POWERS})
    if unknown:
        raise ValueError(
            f"{kind} keeps a state that no rule transports ({', '.join(unknown)}); keep the state or reset it instead"
        )
    for state, factor in held:
        for key, value in state.items():
            if isinstance(value, Tensor) and POWERS[key]:
                value.div_((factor ** POWERS[key]).to(value))
