"""The gradient norm as a function of the weights alone, with the forward pass frozen as recorded.

A step of :class:`teleport.NullSpace` then costs only the part of the backward pass that depends on moving weights, and
the adjoint of that part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import BatchLoss, Point
from teleport._frozen_forward.activation_backward import simplify_activations
from teleport._frozen_forward.backward_graph import backward_graph_of
from teleport._frozen_forward.convolution_backward import simplify_convolutions
from teleport._frozen_forward.gram_rewrite import half_squares, project_by_gram
from teleport._frozen_forward.normalization_backward import simplify_normalizations
from teleport._frozen_forward.projected_products import Projection
from teleport._frozen_forward.recorded_graph import GraphRecorder, Untraceable
from teleport._tracing.differentiability import nodes_of
from teleport._tracing.layers import Layer


def recorded(
    objective: BatchLoss, differentiable: bool = False, aside: Callable[[], bool] = lambda: False
) -> tuple[Point, GraphRecorder]:
    """``objective.point(differentiable)`` and the recorded graph of its computation, but for operations ``aside``.

    The gradients need no autograd graph of their own, as the derivative is that of the recorded operations. With one,
    torch computes some of them by other operations, which have derivatives (``aten::_weight_norm_interface_backward``
    has none, torch 2.13).

    Raises:
        UnsupportedModel: an operation of the loss has no second derivative.
    """
    with GraphRecorder(aside) as record:
        loss = objective.evaluate()
        record.turn()
        objective.check_twice(loss)
        return objective.gradients_of(loss, differentiable), record


class NoSecondDerivative(Untraceable):
    """A recorded operation that torch cannot differentiate."""


class FrozenForward(BatchLoss):
    """A loss with a frozen forward pass; its points have the recorded loss, a gradient norm and no gradients.

    Exact while the ``moving`` parameters, which enter the loss in linear maps only, move in the null spaces of
    the inputs of these maps.

    Args:
        whole: the loss that was recorded.
        record: of the evaluation of ``start``.
        start: the point of ``whole`` at the current parameters.
        moving: the parameters that will move.

    Attributes:
        structure: the operations that are computed again and what they read of each other. Two evaluations of a model
            with the same structure depend on the moving parameters in the same way.

    Raises:
        Untraceable: the record does not determine how the gradients depend on the moving parameters.
    """

    def __init__(self, whole: BatchLoss, record: GraphRecorder, start: Point, moving: Sequence[nn.Parameter]) -> None:
        super().__init__(whole.evaluate, whole.parameters, whole.names, whole.batch, whole.group, whole.known)
        self.loss = start.loss
        self._graph = backward_graph_of(record, start.gradients, moving)
        simplify_normalizations(self._graph)
        simplify_convolutions(self._graph)
        simplify_activations(self._graph)
        self.structure = self._graph.structure()
        self._leaves = {parameter: parameter.detach().requires_grad_() for parameter in moving}
        self._halves, self._constant = half_squares(self._graph)

    def project_by_gram(self, layer: Layer, projection: Projection) -> bool:
        """Let :meth:`ascent_direction` return the layer's part projected, by the cheapest order of products.

        Returns:
            whether it will; if the layer's weight has other uses, its part stays unprojected.
        """
        return project_by_gram(self._graph, layer, projection)

    def point(self, differentiable: bool) -> Point:
        """The gradient norm at the current parameters, with an autograd graph if ``differentiable``.

        Raises:
            NoSecondDerivative: ``differentiable``, and torch has no derivative of a recorded operation.
        """
        with torch.set_grad_enabled(differentiable):
            values = self._graph.run(self._leaves)
            halves = [values[slot.number] for slot in self._halves]
            if self._constant is not None:
                halves.append(self._constant)
            half = sum(halves, start=self.loss.new_zeros(()))  # on its device, whatever the caller's default device is
        if differentiable and not self._checked:
            if any(node.name().endswith("::NotImplemented") for node in nodes_of(half)):
                raise NoSecondDerivative("an operation of its backward pass has no derivative")
            self._checked = True
        return Point(self.loss, [], half)

    def ascent_direction(self, point: Point, moving: Sequence[nn.Parameter], keep: bool = False) -> list[Tensor]:
        """As of :class:`BatchLoss`, projected for the layers of :meth:`project_by_gram`."""
        if not point.differentiable:
            return [torch.zeros_like(parameter) for parameter in moving]
        leaves = [self._leaves[parameter] for parameter in moving]
        return list(torch.autograd.grad(point.half_square, leaves, allow_unused=True, materialize_grads=True))
