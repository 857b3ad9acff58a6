"""How the state of an optimizer changes if its parameters are multiplied by factors: one rule per class of optimizer.

A rule says per entry of a parameter's state which power of the factor f multiplies it. Entries of the unit of the
gradient have power -1 (``dL/dW' = (dL/dW) / f``), of its square -2, of the parameter 1. Averages of normalised
gradients take the sign of f alone. The same name means different things in different optimizers (``exp_avg`` of Adam
averages gradients, of ADOPT normalised ones), so a rule belongs to a class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

Entry: TypeAlias = int | Callable[[Tensor, Tensor], Tensor]
"""The power of the factors, or ``function(value, factors) -> value`` for entries that no power describes."""

StateRule: TypeAlias = Mapping[str, Entry]
"""Name of an entry in the state of a parameter -> how it changes."""


def _by_magnitude(power: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Entries that have no sign of their own."""
    return lambda value, factors: value * factors.abs() ** power


def _by_sign(value: Tensor, factors: Tensor) -> Tensor:
    """Averages of ``g / |g|`` and the like."""
    return value * factors.sign()


ADAM: dict[str, Entry] = {"step": 0, "exp_avg": -1, "exp_avg_sq": -2, "max_exp_avg_sq": -2}

_OF_CLASS: dict[type[torch.optim.Optimizer], StateRule] = {
    torch.optim.SGD: {"momentum_buffer": -1},
    torch.optim.Adam: ADAM,
    torch.optim.AdamW: ADAM,
    torch.optim.RAdam: ADAM,
    torch.optim.SparseAdam: ADAM,
    torch.optim.NAdam: ADAM | {"mu_product": 0},
    torch.optim.Adamax: {"step": 0, "exp_avg": -1, "exp_inf": _by_magnitude(-1)},
    torch.optim.Adagrad: {"step": 0, "sum": -2},
    torch.optim.RMSprop: {"step": 0, "square_avg": -2, "grad_avg": -1, "momentum_buffer": _by_sign},
    torch.optim.Adadelta: {"step": 0, "square_avg": -2, "acc_delta": 2},
    torch.optim.Adafactor: {"step": 0, "variance": -2},  # but not row_var and col_var, which mix elements
    torch.optim.ASGD: {"step": 0, "eta": 0, "mu": 0, "ax": 1},
    torch.optim.Rprop: {"step": 0, "prev": -1, "step_size": _by_magnitude(1)},
}
"""Classes of torch, and those that a caller registered. LBFGS has no rule: one history holds all its parameters."""

if hasattr(torch.optim, "Muon"):  # since torch 2.9
    _OF_CLASS[torch.optim.Muon] = {"momentum_buffer": -1}

_FIRST: dict[str, Entry] = {"exp_avg": -1}
_MOMENTS: dict[str, Entry] = {"exp_avg": -1, "exp_avg_sq": -2}
_BELIEF: dict[str, Entry] = {"exp_avg": -1, "exp_avg_var": -2, "max_exp_avg_var": -2}
_SCHEDULE_FREE: dict[str, Entry] = {"z": 1, "exp_avg_sq": -2}

_OF_NAME: dict[str, StateRule] = {
    "adabelief_pytorch.AdaBelief": _BELIEF | {"step": 0},
    "lion_pytorch.Lion": _FIRST,
    "schedulefree.AdamWScheduleFree": _SCHEDULE_FREE,
    "schedulefree.SGDScheduleFree": _SCHEDULE_FREE,
    "pytorch_optimizer.AdaBelief": _BELIEF,
    "pytorch_optimizer.AdaMax": {"exp_avg": -1, "exp_inf": _by_magnitude(-1)},
    "pytorch_optimizer.AdamC": _MOMENTS,
    "pytorch_optimizer.Adan": _MOMENTS | {"exp_avg_diff": -1, "previous_grad": -1},
    "pytorch_optimizer.AdEMAMix": _MOMENTS | {"exp_avg_slow": -1},
    "pytorch_optimizer.ADOPT": {"exp_avg": _by_sign, "exp_avg_sq": -2},
    "pytorch_optimizer.Lion": _FIRST,
    "pytorch_optimizer.Lookahead": {"slow_params": 1, "backup_params": 1, "slow_momentum": -1},
    "pytorch_optimizer.RAdam": _MOMENTS,
    "pytorch_optimizer.ScheduleFreeAdamW": _SCHEDULE_FREE,
    "pytorch_optimizer.ScheduleFreeSGD": _SCHEDULE_FREE,
    "pytorch_optimizer.SignSGD": {"momentum_buffer": -1},
    "pytorch_optimizer.Tiger": _FIRST,
}
"""Classes of other packages by package and name, so that they are not imported."""


def register_optimizer(optimizer: type[torch.optim.Optimizer], rule: StateRule) -> None:
    """Tell :func:`teleport.transport_state` how the state of a class of optimizers changes.

    Args:
        optimizer: the class; subclasses that override ``step`` need a rule of their own.
        rule: for each entry of the state of a parameter (``optimizer.state[parameter]``) the power of the factors
            that multiplies it: -1 for averages of gradients, -2 for averages of their squares, 1 for values in the
            unit of the parameter, 0 for what no factor changes. Or a function of the entry and the factors that returns
            the new entry. Permutations move the elements of entries that have the parameter's shape; a rotation or
            another matrix acts on entries of power -1 and 1 alone.

    Raises:
        TypeError: ``optimizer`` is no class of optimizers, or an entry is neither a whole number nor a function.
    """
    if not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)):
        raise TypeError(f"register_optimizer takes a class of optimizers, got {optimizer!r}")
    for name, entry in rule.items():
        if isinstance(entry, bool) or not (isinstance(entry, int) or callable(entry)):
            raise TypeError(f"the rule of '{name}' must be a power of the factors or a function, got {entry!r}")
    _OF_CLASS[optimizer] = dict(rule)


def state_rule_of(optimizer: torch.optim.Optimizer) -> StateRule | None:
    """The rule of the optimizer's class, or of the base class whose ``step`` it inherits; ``None`` if there is none."""
    for kind in type(optimizer).__mro__:
        rule = _OF_CLASS.get(kind, _OF_NAME.get(f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"))
        if rule is not None:
            return rule
        if "step" in vars(kind) or "_init_group" in vars(kind):
            return None
    return None
