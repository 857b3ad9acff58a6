"""A Hessian-vector product of a model's loss by tangents: forward over reverse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from teleport._allocator import hand_back
from teleport._tangents.dual import DispatchState, Dual, NoTangent
from teleport._undone import always_undone

AGREEMENT = 16.0
"""Largest relative difference of two derivatives of the loss that agree, in units of the root of the precision."""


class _Product:
    """A product under way: the tensors that stand for the parameters, with the gradient as their tangents.

    Args:
        parameters: that have a tangent.
        gradients: their tangents; each is taken out of the list, and freed when its parameter's product is known.
        moving: those of the parameters whose part of the product is needed.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], gradients: list[Tensor], moving: Sequence[nn.Parameter]
    ) -> None:
        state = DispatchState()
        self.square = sum(float(torch.sum(each.detach() ** 2)) for each in gradients)
        gradients.reverse()
        self.duals = {each: Dual(each.detach(), gradients.pop().detach(), state, True) for each in parameters}
        self._moving = set(moving)
        for dual, parameter in zip(self.duals.values(), self.duals, strict=True):
            dual.register_hook(partial(self._known, dual, parameter))  # type: ignore[no-untyped-call]

    def _known(self, dual: Dual, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        """The part of the product in place of the gradient; the parameter's own tangent is freed."""
        dual.tangent = None
        if parameter not in self._moving:
            return gradient.new_zeros(()).expand(gradient.shape)
        if not isinstance(gradient, Dual) or gradient.tangent is None:
            return torch.zeros_like(parameter)
        return gradient.tangent


def hessian_product(
    model: nn.Module,
    evaluate: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    gradients: list[Tensor],
    moving: Sequence[nn.Parameter],
) -> list[Tensor]:
    """``H g`` for the ``moving`` parameters, in the memory of two training steps and the time of three gradients.

    Args:
        model: read by the evaluation through its modules.
        evaluate: the loss at the current parameters, a scalar with a graph.
        parameters: over which ``H`` and ``g`` are.
        gradients: ``g``, one tensor per parameter; the list is empty afterwards, so that each can be freed early.
        moving: those of the parameters whose part of the product is returned.

    Raises:
        NoTangent: an operation has no tangent; or the loss has another derivative along ``g`` than ``|g|^2``, as if
            the model cuts its graph.
    """
    try:
        product = _Product(parameters, gradients, moving)
        return _with_tensors_for_parameters(model, product.duals, partial(_products, evaluate, product, moving))
    except (NoTangent, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of the model's code, which may not work on a tensor with a tangent
        raise NoTangent(f"the loss has no tangent ({' '.join(str(error).split())[:160]})") from error


def _products(evaluate: Callable[[], Tensor], product: _Product, moving: Sequence[nn.Parameter]) -> list[Tensor]:
    loss = evaluate()
    if not isinstance(loss, Dual) or loss.tangent is None:
        raise NoTangent("the loss has no tangent")
    slope, eps = float(loss.tangent), torch.finfo(loss.dtype).eps
    if not abs(slope - product.square) <= AGREEMENT * math.sqrt(eps) * product.square:
        raise NoTangent(f"the loss changes by {slope:.6g} along its gradient, whose square is {product.square:.6g}")
    hand_back()
    duals = list(product.duals.values())
    by_parameter = dict(zip(product.duals, torch.autograd.grad(loss, duals, allow_unused=True), strict=True))
    parts = [by_parameter[parameter] for parameter in moving]
    return [torch.zeros_like(p) if part is None else part for p, part in zip(moving, parts, strict=True)]


def _with_tensors_for_parameters(
    model: nn.Module, tensors: Mapping[nn.Parameter, Tensor], work: Callable[[], list[Tensor]]
) -> list[Tensor]:
    """The result of ``work`` while each module holds these tensors in place of its parameters."""
    held = [(module, name, each) for module in model.modules() for name, each in module._parameters.items()]

    def replaced() -> list[Tensor]:
        for module, name, parameter in held:
            if parameter is not None and parameter in tensors:
                module._parameters[name] = tensors[parameter]  # type: ignore[assignment]
        return work()

    def undo() -> None:
        for module, name, parameter in held:
            module._parameters[name] = parameter

    return always_undone(replaced, undo)
