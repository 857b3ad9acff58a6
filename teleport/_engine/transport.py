"""Transport of an optimizer's state (momentum, squared gradients, copies of the parameters) through a linear move.

If ``W' = f W`` elementwise and the loss stays, ``dL/dW' = (dL/dW) / f`` (Armenta et al. 2023, Theorem 5.1). Averages
of gradients transform the same way, averages of their squares by the square, values in the unit of the parameter (the
step sizes of Rprop, the averaged weights of ASGD) like the parameter. ``carriers`` says how this goes on with
permutations and matrices. Weight decay that an optimizer adds to the gradient is a term of the weights, which
transforms like a gradient under permutations and rotations, but not under other moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from teleport._arguments import check_choice
from teleport._engine.carriers import Carrier, Carriers, FactorCarrier
from teleport._engine.report import TeleportReport
from teleport._engine.state_reset import counts_per_parameter, reset_parameter, wrapped_by
from teleport._engine.state_rules import Entry, StateRule, state_rule_of
from teleport._tracing.replicas import local_part

Elementwise = Literal["refuse", "reset", "keep"]

Moves: TypeAlias = Mapping[nn.Parameter, Tensor] | Carriers
"""Of each parameter that moved: its factors, or how tensors of its shape follow."""


@dataclass(frozen=True)
class _Held:
    """The state that one optimizer keeps of one parameter, its rule, and the move."""

    optimizer: torch.optim.Optimizer
    state: Mapping[str, Any]
    parameter: nn.Parameter
    carrier: Carrier
    rule: StateRule

    @property
    def entries(self) -> Iterator[tuple[str, Tensor, Entry]]:
        """What has a value per element: name, value, rule."""
        for key, value in self.state.items():
            if isinstance(value, Tensor) and (self.rule[key] != 0 or _of_elements(value, self.parameter)):
                yield key, value, self.rule[key]

    @property
    def lost(self) -> list[str]:
        """The entries that cannot follow."""
        return [key for key, _, entry in self.entries if self.carrier.hindrance(entry)]


@torch.no_grad()
def transport_state(
    optimizer: torch.optim.Optimizer,
    group: Moves | TeleportReport,
    elementwise: Elementwise = "refuse",
) -> None:
    """Carry the state of ``optimizer`` through a move by factors, permutations or matrices, in place.

    Momentum follows any of them, and so do copies of the parameters (``z`` of schedule-free optimizers, slow weights of
    Lookahead). Squares of gradients follow factors and permutations, signs leave them; rotations and other matrices mix
    the elements that they belong to. Of an optimizer around another one both are carried.

    Args:
        optimizer: of ``torch.optim`` without LBFGS, a class of another package that is known (ADOPT, Lion, Adan and
            others of pytorch_optimizer), or one that :func:`teleport.register_optimizer` was told of.
        group: the report of the move; or the factors that each parameter was multiplied by, in its shape or one that
            broadcasts to it (``report.group``); or the carriers of a change of basis (``change.carriers(model)``).
            Parameters that are not in it stayed.
        elementwise: what becomes of entries of single elements if a matrix mixes the elements of the parameter, and of
            those of weights that were folded: ``"refuse"`` raises an error, ``"reset"`` starts the state of this
            parameter anew, ``"keep"`` leaves these entries as they are and carries the others.

    Raises:
        ValueError: the report's move is not linear, a factor is zero or not finite, no rule is known for the
            optimizer or for an entry of its state, or an entry cannot follow and is to be refused; nothing is changed
            then.
        TypeError: the arguments are no optimizer and no factors.
    """
    moves = _moves(optimizer, group)
    check_choice("elementwise", elementwise, get_args(Elementwise))
    held = list(_held(optimizer, moves)) if moves else []
    for each in held:
        _check(each, elementwise)
    forgotten = [each for each in held if each.lost and elementwise == "reset"]
    values, carried = [], []
    for each in held:
        for key, value, entry in each.entries:
            if not each.lost or (elementwise == "keep" and key not in each.lost):
                values.append(value)
                carried.append(each.carrier.carried(value, entry))
    if values:
        torch._foreach_copy_(
            list(map(local_part, values)), list(map(local_part, carried))
        )  # one call, which no interrupt parts
    for each in forgotten:
        reset_parameter(each.optimizer, each.parameter)


def _of_elements(value: Tensor, parameter: nn.Parameter) -> bool:
    """Whether a value that no factor changes has one entry per element all the same, which a permutation moves."""
    return value.dim() > 0 and value.shape == parameter.shape


def _held(optimizer: torch.optim.Optimizer, moves: Moves) -> Iterator[_Held]:
    """What an optimizer, and those inside of it, keep of the parameters that moved."""
    for each in (*wrapped_by(optimizer), optimizer):
        if not each.state or any(each.state is inner.state for inner in wrapped_by(each)):
            continue
        rule = _rule(each)
        for parameter in moves:
            if parameter in each.state:
                found = moves[parameter]
                carrier = FactorCarrier(found) if isinstance(found, Tensor) else found
                yield _Held(each, each.state[parameter], parameter, carrier, rule)


def _moves(optimizer: torch.optim.Optimizer, group: Any) -> Moves:
    """How each parameter moved; refuses arguments of another type and a report of a move that is not linear."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"transport_state takes an optimizer and then the factors, got {type(optimizer).__name__} first"
        )
    method = f" of {group.method}" if isinstance(group, TeleportReport) else ""
    found = group.carriers if isinstance(group, TeleportReport) else group
    if found is None:
        raise ValueError(
            f"the report{method} has no factors to transport the optimizer's state by: only Rescaling, Balance and "
            f"ChangeOfBasis move parameters linearly; keep the state or reset it{_copies(optimizer)}"
        )
    if not isinstance(found, Mapping):
        raise TypeError(f"transport_state takes the factors as report.group, got {type(found).__name__}")
    return found


def _copies(optimizer: torch.optim.Optimizer) -> str:
    """The clause that names the copies of the parameters in a state: kept as they are, they forget the move."""
    copies = {
        (type(each).__name__, key)
        for each in (*wrapped_by(optimizer), optimizer)
        for key, entry in (state_rule_of(each) or {}).items()
        if entry == 1 and any(key in state for state in each.state.values())
    }
    names = ", ".join(f"'{key}' of {kind}" for kind, key in sorted(copies))
    return f"; {names} is a copy of the parameters, which forgets the move if it is kept" if names else ""


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


def _check(held: _Held, elementwise: Elementwise) -> None:
    """Refuse entries without a rule, of another shape than the parameter, or mixed; and factors of zero."""
    kind, state, parameter, carrier = type(held.optimizer).__name__, held.state, held.parameter, held.carrier
    unknown = sorted(str(key) for key in state if key not in held.rule)
    if unknown:
        raise ValueError(
            f"{kind} keeps a state that no rule transports ({', '.join(unknown)}); keep the state or reset it instead"
        )
    if isinstance(carrier, FactorCarrier) and not bool((carrier.factors.isfinite() & (carrier.factors != 0)).all()):
        raise ValueError("the factors to transport an optimizer's state by must be finite and not zero")
    if wrong := [key for key, value, _ in held.entries if value.shape != parameter.shape]:
        raise ValueError(
            f"{kind} keeps '{wrong[0]}' in shape {list(state[wrong[0]].shape)} for a parameter of shape "
            f"{list(parameter.shape)}, which no rule transports; keep the state or reset it instead"
        )
    if not held.lost:
        return
    hindrance = carrier.hindrance(held.rule[held.lost[0]])
    if elementwise == "refuse":
        raise ValueError(
            f"{kind} keeps '{held.lost[0]}', which cannot follow the move: {hindrance}; pass "
            'elementwise="reset" or "keep", or move by factors and permutations'
        )
    if elementwise == "reset" and not counts_per_parameter(held.optimizer, held.rule):
        raise ValueError(
            f"{kind} counts its steps for all parameters together, so the state of one parameter cannot start anew "
            f'({hindrance}); pass elementwise="keep", or start a new optimizer'
        )
