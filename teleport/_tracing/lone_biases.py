"""Biases whose weight is no trainable parameter: they stay, as a bias moves with its weight or not at all."""

from __future__ import annotations

from torch import nn

from teleport._tracing.function_tracer import TracedCall
from teleport._tracing.linear_uses import linear_uses
from teleport._tracing.ownership import Owners
from teleport._tracing.reasons import COMPUTED_WEIGHT, FROZEN_WEIGHT


def bias_of(call: TracedCall, name: str, owners: Owners) -> str:
    """Why a parameter stays that a call reads as the bias of no parameter; empty if it is none.

    Args:
        call: of a torch function.
        name: of the parameter.
        owners: of the parameters' memory.
    """
    for use in linear_uses(call.func, call.args, call.kwargs):
        if name in owners.of(use.bias) and not owners.of(use.weight):
            fixed = isinstance(use.weight, nn.Parameter) and not use.weight.requires_grad
            return FROZEN_WEIGHT if fixed else COMPUTED_WEIGHT
    return ""
