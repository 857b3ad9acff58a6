"""The settings that methods in the null space of the layer inputs share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NullSpaceSettings:
    """The settings that methods in the null space share; :class:`teleport.NullSpace` says what they mean.

    Attributes:
        differentiable: whether the step rule needs gradients that can be differentiated again.
        frozen_forward: whether the step rule needs the gradient norm alone. The forward pass can then be frozen if
            no layer output changes.
        memory: the budget of an event.
        divisible: whether the step rule takes gradients and products of the Hessian alone.
    """

    threshold: float
    cap: float | None
    relative_cap: float | None
    rule: str
    guard: str
    tolerance: float
    objective_params: str
    differentiable: bool
    steps: int
    frozen_forward: bool = False
    memory: int | str | None = None
    divisible: bool = True
