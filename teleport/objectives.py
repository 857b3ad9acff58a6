"""What a teleport ascends."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def half_squared_norm(gradients: Iterable[Tensor]) -> Tensor:
    """``L_tel = 1/2 |grad_W L|^2`` (Wu et al. 2025, equation 4), a scalar that is differentiable where they are."""
    total = sum(gradient.square().sum() for gradient in gradients)
    assert isinstance(total, Tensor)
    return total / 2
