"""The loss on one batch as a function of the parameters, and points of it: its value with its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from teleport._allocator import hand_back
from teleport._errors import UnsupportedModel
from teleport._processes.group import ALONE, Group
from teleport._segments.recomputed import spend
from teleport._spaces.norms import half_squared_norm
from teleport._tracing.differentiability import check_graph
from teleport._tracing.ownership import distinct_elements


class Point:
    """The loss and its gradients at the current parameters; the ``gradients`` have a graph on request.

    Args:
        loss: a scalar, detached.
        gradients: one per parameter of the loss.
        half_square: ``1/2 |grad|^2``, if it is known without the gradients.
        by_tangents: whether the gradients are differentiated by tangents, and so have no graph.
    """

    def __init__(
        self, loss: Tensor, gradients: list[Tensor], half_square: Tensor | None = None, by_tangents: bool = False
    ) -> None:
        self.loss = loss
        self.gradients = gradients
        self.by_tangents = by_tangents
        self._half_square = half_square

    @property
    def half_square(self) -> Tensor:
        """``1/2 |grad|^2`` over all parameters of the loss, with a graph if the gradients have one."""
        if self._half_square is None:
            with torch.enable_grad():
                self._half_square = half_squared_norm(self.gradients)
        return self._half_square

    @property
    def norm(self) -> float:
        """The gradient norm, over all parameters of the loss."""
        return math.sqrt(2 * float(self.half_square.detach()))

    @property
    def differentiable(self) -> bool:
        """Whether the gradients can be differentiated again."""
        return self.by_tangents or self.half_square.requires_grad

    def forget(self) -> None:
        """Keep the loss and the norm; free the gradients and their graph."""
        self._half_square, self.gradients, self.by_tangents = self.half_square.detach(), [], False

    def forget_if(self, lean: bool) -> Point:
        """The point; with ``lean``, without gradients that have no graph, unless they tell what is not finite."""
        if lean and not self.differentiable and math.isfinite(self.norm):
            self.forget()
        return self


Product = Callable[[Callable[[], Tensor], Sequence[nn.Parameter], list[Tensor], Sequence[nn.Parameter]], list[Tensor]]
"""The Hessian of a loss times vectors, for the parameters that move; see ``hessian_product``."""

NOTHING: Mapping[nn.Parameter, Tensor] = MappingProxyType({})
"""No values of parameters."""


def copy_of(parameter: nn.Parameter, known: Mapping[nn.Parameter, Tensor] = NOTHING) -> Tensor:
    """A copy of the current values, not to be written to: the ``known`` one if it has these values."""
    held, now = known.get(parameter), parameter.detach()
    return held if held is not None and torch.equal(held, now) else now.clone()


class BatchLoss:
    """The loss on one batch as a function of the parameters, with its gradients.

    Args:
        evaluate: computes the loss (a scalar tensor) at the current parameters.
        parameters: the gradient norm is over these.
        names: of all parameters of the model, for messages.
        batch: what the loss is evaluated on, for messages.
        group: of processes whose mean loss this is; ``evaluate`` is this process's part of it.
        known: copies of values that parameters had before, see :func:`copy_of`.
        lean: whether gradients are freed as soon as no step needs them. Then objectives must be functions of the norm.
        product: of the Hessian by tangents (``hessian_product`` of a model), in place of a graph of the gradient.
    """

    def __init__(
        self,
        evaluate: Callable[[], Tensor],
        parameters: Sequence[nn.Parameter],
        names: Mapping[nn.Parameter, str] | None = None,
        batch: Any = None,
        group: Group = ALONE,
        known: Mapping[nn.Parameter, Tensor] = NOTHING,
        lean: bool = False,
        product: Product | None = None,
    ) -> None:
        self.known = known
        self.product = product
        self.lean = lean
        self.evaluate = evaluate
        self.parameters = list(parameters)
        self.names = names or {}
        self.batch = batch
        self.group = group
        self._checked = False  # whether the graph was found to have second derivatives

    def check_writable(self) -> None:
        """Refuse to move all parameters if the elements of one share memory.

        Raises:
            UnsupportedModel: the sentence has its name.
        """
        for parameter in self.parameters:
            if not distinct_elements(parameter):
                raise UnsupportedModel(
                    f"'{self.names.get(parameter, 'a parameter')}' has elements that share memory, as if expanded: "
                    "clone it, or let it require no gradient"
                )

    def point(self, differentiable: bool) -> Point:
        """Evaluate the loss and its gradients, with a graph for a second derivative if ``differentiable``."""
        return self.gradients_of(self.evaluate(), differentiable)

    def value(self) -> Tensor:
        """The loss, detached."""
        return self.group.mean([self.evaluate().detach()])[0]

    def check_twice(self, loss: Tensor) -> None:
        """Refuse a loss that cannot be differentiated twice, at its first evaluation.

        Raises:
            UnsupportedModel: an operation in the graph has no second derivative.
        """
        if not self._checked:
            check_graph(loss, twice=True)
            self._checked = True

    def gradients_of(self, loss: Tensor, differentiable: bool) -> Point:
        """The point of a loss that was evaluated here at the current parameters, with its gradients.

        Raises:
            UnsupportedModel: ``differentiable``, and an operation in the graph has no second derivative.
        """
        graph = differentiable and self.product is None
        if graph:
            self.check_twice(loss)
        gradients = torch.autograd.grad(
            loss, self.parameters, create_graph=graph, allow_unused=True, materialize_grads=True
        )
        if self.lean:
            hand_back()
        value, means = self.group.mean_with_gradients(loss.detach(), gradients)
        if not self.group.holds_parts:
            return Point(value.detach(), means, by_tangents=differentiable and not graph)
        with torch.enable_grad():
            return Point(value.detach(), means, self.group.total(half_squared_norm(means)))

    def ascent_direction(self, point: Point, moving: Sequence[nn.Parameter], keep: bool = False) -> list[Tensor]:
        """``grad_W (1/2 |grad L|^2)`` for the ``moving`` parameters, a Hessian-vector product.

        A ``lean`` loss frees the gradients of the point, unless ``keep`` says that they are read afterwards.
        """
        if not point.differentiable:  # the loss is linear in the parameters
            return [torch.zeros_like(parameter) for parameter in moving]
        if self.product is not None:
            vectors = list(point.gradients)
            if not keep:
                point.forget()
            products = self.product(self.evaluate, self.parameters, vectors, moving)
            hand_back()
            return self.group.mean_gradients(products)
        if self.lean:
            outputs = [gradient for gradient in point.gradients if gradient.requires_grad]
            if not keep and self.group.alone:
                spend(outputs)
            directions = torch.autograd.grad(
                outputs, list(moving), [each.detach() for each in outputs], allow_unused=True, materialize_grads=True
            )
            point.forget()
            hand_back()
            return self.group.mean_gradients(directions)
        directions = torch.autograd.grad(point.half_square, list(moving), allow_unused=True, materialize_grads=True)
        return self.group.mean_gradients(directions)
