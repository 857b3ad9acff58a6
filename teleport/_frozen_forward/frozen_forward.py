"""The gradient norm as a function of the weights, with the forward pass frozen as recorded.

A step of :class:`teleport.NullSpace` then costs the part of the backward pass that depends on moving weights, and its
adjoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from teleport._engine.ascent import BatchLoss, Point
from teleport._frozen_forward.activation_backward import simplify_activations
from teleport._frozen_forward.backward_graph import backward_graph_of
from teleport._frozen_forward.convolution_backward import simplify_convolutions
from teleport._frozen_forward.gram_rewrite import half_squares, project_by_gram
from teleport._frozen_forward.normalization_backward import simplify_normalisations
from teleport._frozen_forward.projected_products import Projection
from teleport._frozen_forward.recorded_graph import GraphRecorder
from teleport._tracing.layers import Layer


def recorded(objective: BatchLoss, aside: Callable[[], bool] = lambda: False) -> tuple[Point, GraphRecorder]:
    """As ``objective.point(True)``, with the recorded graph, without operations that run ``aside``."""
    with GraphRecorder(aside) as record:
        loss = objective.evaluate()
        record.turn()
        return objective.gradients_of(loss, True), record


class FrozenForward(BatchLoss):
    """A batch loss with a frozen forward pass; its points have the recorded loss and a gradient norm, but no gradients.

    Valid while the ``moving`` parameters, which enter the loss in linear maps only, move in the null space of the
    inputs of these maps.

    Args:
        whole: the batch loss that was recorded.
        record: the recorded graph of ``start``.
        start: its point at the current parameters.
        moving: the parameters that will move.

    Raises:
        Untraceable: the recorded graph does not show how the gradients depend on the moving parameters.
    """

    def __init__(self, whole: BatchLoss, record: GraphRecorder, start: Point, moving: Sequence[nn.Parameter]) -> None:
        super().__init__(whole.evaluate, whole.parameters)
        self.loss = start.loss
        self._graph = backward_graph_of(record, start.gradients, moving)
        simplify_normalisations(self._graph)
        simplify_convolutions(self._graph)
        simplify_activations(self._graph)
        self._leaves = {parameter: parameter.detach().requires_grad_() for parameter in moving}
        self._halves, self._constant = half_squares(self._graph)

    def project_by_gram(self, layer: Layer, projection: Projection) -> bool:
        """Make :meth:`ascent_direction` return the part of a layer projected, by the Gram rewrite.

        Returns:
            whether it will. If the weight of the layer has other uses, its part stays unprojected.
        """
        return project_by_gram(self._graph, layer, projection)

    def point(self, differentiable: bool) -> Point:
        """The gradient norm at the current parameters, with a graph for its derivative if ``differentiable``."""
        with torch.set_grad_enabled(differentiable):
            held = self._graph.run(self._leaves)
            halves = [held[slot.number] for slot in self._halves]
            if self._constant is not None:
                halves.append(self._constant)
            return Point(self.loss, [], torch.as_tensor(sum(halves)))

    def ascent_direction(self, point: Point, moving: Sequence[nn.Parameter]) -> list[Tensor]:
        """As of :class:`BatchLoss`, up to parts in the span of the layer inputs."""
        if not point.differentiable:
            return [torch.zeros_like(parameter) for parameter in moving]
        leaves = [self._leaves[parameter] for parameter in moving]
        return list(torch.autograd.grad(point.half_square, leaves, allow_unused=True, materialize_grads=True))
