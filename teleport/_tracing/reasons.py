"""Reasons why a parameter stays as it is, as reports and errors tell them: sentences whose subject is the parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from teleport._tracing.functions import called

SHARED_STORAGE = "it shares storage with another parameter"
"""Two parameters that are views of one tensor, or reach into each other's elements."""

ZERO_WEIGHTS = "it is zero, which no factor moves"
"""A weight whose channels have factors."""

UNUSED = "no use of it was traced"
"""A parameter that the evaluation does not read."""


FROZEN_WEIGHT = "it is the bias of a weight that requires no gradient"
"""A bias moves with its weight or not at all."""

COMPUTED_WEIGHT = "it is the bias of a weight that is computed from other tensors"
"""Such as the weight of a parametrized layer."""


def unregistered_use(func: Callable[..., Any]) -> str:
    """A torch function without a rule in the registry of linear operations reads the parameter."""
    return f"it is used by {called(func)}, which is not a registered linear map"


def other_use(func: Callable[..., Any], role: str) -> str:
    """A torch function reads the parameter, and not in the ``role`` that is understood."""
    return f"it is used by {called(func)} other than as {role}"


def unseen_read(operation: str) -> str:
    """An operation that no torch function shows reads the parameter."""
    return f"{operation} reads it below the torch functions, where its use cannot be seen"
