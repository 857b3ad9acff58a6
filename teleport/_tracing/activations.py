"""Elementwise activations as they were called: applied to other values and, if they are bijections, inverted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_NAMES = (
    *("relu", "leaky_relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign"),
    *("tanh", "sigmoid", "logsigmoid", "hardtanh", "hardsigmoid", "hardswish", "tanhshrink", "softshrink"),
)
_FUNCTIONS: dict[Callable[..., Any], str] = {
    getattr(namespace, name): name for name in _NAMES for namespace in (F, torch, Tensor) if hasattr(namespace, name)
}


@dataclass(frozen=True)
class ElementwiseActivation:
    """One call of an activation function: ``activation(z)`` applies it to other values, never in place.

    Attributes:
        name: the function's name in ``torch.nn.functional``.
        function, args, kwargs: the call, without the values and without ``inplace``.
    """

    name: str
    function: Callable[..., Tensor] = field(repr=False)
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, values: Tensor) -> Tensor:
        """The activation of ``values`` of any shape, elementwise."""
        return self.function(values, *self.args, **self.kwargs)

    @property
    def slope(self) -> float:
        """The negative slope of ``leaky_relu``."""
        return float(self.kwargs.get("negative_slope", self.args[0] if self.args else 0.01))

    def inverse(self) -> Callable[[Tensor], Tensor] | None:
        """The inverse function; ``None`` if the activation is not a bijection of the real numbers onto themselves."""
        if self.name == "identity":
            return _identity
        if self.name == "leaky_relu" and self.slope > 0:
            slope = self.slope
            return lambda values: torch.where(values > 0, values, values / slope)
        return None


def _identity(values: Tensor) -> Tensor:
    return values


IDENTITY = ElementwiseActivation("identity", _identity)
"""The activation between two linear layers without one."""


def activation_of(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> ElementwiseActivation | None:
    """The activation that a call of a torch function applies; ``None`` if it is not a known one."""
    name = _FUNCTIONS.get(func)
    if name is None or not args:
        return None
    return ElementwiseActivation(
        name, func, tuple(args[1:]), {key: value for key, value in kwargs.items() if key != "inplace"}
    )
