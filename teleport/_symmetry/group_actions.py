"""Group actions on two adjacent layers ``U s(V X)``, as matrices (Zhao et al. 2022 and 2024).

Columns of ``X`` are samples; ``V`` is ``[width, fan_in]``, ``U`` is ``[outputs, width]``, and ``T [width, width]`` is
an element of the Lie algebra, with the group element ``I + T``. A bias of the lower layer is a column of ``V``, and a
row of ones of ``X``; ``T`` acts on outputs, so it has no row or column for the bias. The upper layer's bias has no part
in the product. (The published networks have no biases.) All functions are differentiable, pseudo-inverses included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from teleport._spaces.norms import norm_of
from teleport._tracing.activations import ElementwiseActivation

Inverse = Literal["exact", "first_order"]


class LayerInputs:
    """The inputs of a lower layer, ``columns [fan_in, samples]``, with their pseudo-inverse, computed on first use."""

    def __init__(self, columns: Tensor) -> None:
        self.columns = columns

    @cached_property
    def pseudo_inverse(self) -> Tensor:
        """``X^+ [samples, fan_in]``."""
        return pseudo_inverse(self.columns)

    def detach(self) -> LayerInputs:
        """The same without a graph; a pseudo-inverse that was computed is kept."""
        same = LayerInputs(self.columns.detach())
        if "pseudo_inverse" in self.__dict__:
            same.__dict__["pseudo_inverse"] = self.pseudo_inverse.detach()
        return same


def pseudo_inverse(matrix: Tensor) -> Tensor:
    """The Moore-Penrose inverse of ``matrix [m, n]``, ``[n, m]``, differentiable while the rank stays the same."""
    inverse: Tensor = torch.linalg.pinv(matrix)
    return inverse


def transform(
    upper: Tensor, inputs: LayerInputs, lower: Tensor, element: Tensor, activation: ElementwiseActivation
) -> tuple[Tensor, Tensor]:
    """The action of 2024, for any activation: ``V <- (I+T) V``, ``U <- U s(V X) s((I+T) V X)^+``.

    The product ``U s(V X)`` is kept if ``s((I+T) V X)`` has full column rank. At T = 0, ``U`` loses its component
    outside the span of ``s(V X)``.

    Returns:
        the new lower and upper weights.
    """
    moved = lower + element @ lower
    hidden = activation(lower @ inputs.columns)
    moved_hidden = activation(moved @ inputs.columns)
    return moved, (upper @ hidden) @ pseudo_inverse(moved_hidden)


def conjugate(
    upper: Tensor,
    inputs: LayerInputs,
    lower: Tensor,
    element: Tensor,
    activation: ElementwiseActivation,
    *,
    inverse: Inverse,
    complement: bool,
) -> tuple[Tensor, Tensor]:
    """The action of 2022, for bijections s: ``V <- s^-1((I+T) s(V X)) X^+``, ``U <- U (I+T)^-1``.

    The hidden value becomes ``(I+T) s(V X)`` if X has full column rank.

    Args:
        upper: U.
        inputs: X.
        lower: V.
        element: T.
        activation: s.
        inverse: ``"exact"``, or ``"first_order"`` for the published code's ``U (I - T)``.
        complement: whether V keeps its component outside the span of X, ``V <- V + (s^-1((I+T) s(V X)) - V X) X^+``,
            so that the action is the identity at T = 0; the published action loses this component.

    Returns:
        the new lower and upper weights.
    """
    before = lower @ inputs.columns
    hidden = activation(before)
    after = inverse_of(activation)(hidden + element @ hidden)
    if complement:
        moved = lower + (after - before) @ inputs.pseudo_inverse
    else:
        moved = after @ inputs.pseudo_inverse
    if inverse == "first_order":
        return moved, upper - upper @ element
    return moved, torch.linalg.solve(torch.eye(len(element)).to(element) + element, upper, left=False)


def inverse_of(activation: ElementwiseActivation) -> Callable[[Tensor], Tensor]:
    """The inverse of an activation.

    Raises:
        ValueError: it is not a bijection of the real numbers onto themselves.
    """
    inverse = activation.inverse()
    if inverse is None:
        raise ValueError(f"{activation.name} is not a bijection of the real numbers onto themselves")
    return inverse


@torch.no_grad()
def residual(
    before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], inputs: Tensor, activation: ElementwiseActivation
) -> float:
    """The relative change of a pair's output by an action on (V, U): ``|U' s(V' X) - U s(V X)| / |U s(V X)|``."""
    (lower, upper), (moved_lower, moved_upper) = before, after
    output = upper @ activation(lower @ inputs)
    change = moved_upper @ activation(moved_lower @ inputs) - output
    precision = torch.promote_types(output.dtype, torch.float32)
    distance, size = torch.tensor([norm_of(change), norm_of(output) or 1.0], dtype=precision)
    return float(distance / size)
