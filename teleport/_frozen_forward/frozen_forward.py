"""The gradient norm as a function of the weights alone, with the forward pass held as it was recorded.

A step of :class:`teleport.NullSpace` then costs the backward pass, as far as it depends on what moves, and its adjoint.
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
    """As ``objective.point(True)``, with a record of how it was computed, less what runs ``aside``."""
    with GraphRecorder(aside) as tape:
        loss = objective.evaluate()
        tape.turn()
        return objective.gradients_of(loss, True), tape


class FrozenForward(BatchLoss):
    """A loss whose forward pass is not computed again; its points have the recorded loss, and no gradients but a norm.

    True while the ``moving`` parameters, which enter the loss in linear maps only, move where these maps' inputs do not
    see it.

    Args:
        whole: the objective that was recorded.
        tape: of the evaluation of ``start``.
        start: its point where the parameters stand.
        moving: the parameters that will move.

    Raises:
        Untraceable: the record does not say how the gradients depend on the moving parameters.
    """

    def __init__(self, whole: BatchLoss, tape: GraphRecorder, start: Point, moving: Sequence[nn.Parameter]) -> None:
        super().__init__(whole.evaluate, whole.parameters)
        self.loss = start.loss
        self._residual = backward_graph_of(tape, start.gradients, moving)
        simplify_normalisations(self._residual)
        simplify_convolutions(self._residual)
        simplify_activations(self._residual)
        self._leaves = {parameter: parameter.detach().requires_grad_() for parameter in moving}
        self._halves, self._constant = half_squares(self._residual)

    def project_by_gram(self, layer: Layer, projection: Projection) -> bool:
        """Have :meth:`ascent_direction` give a layer's part projected, by products as thin as they can be.

        Returns:
            whether it will; where the layer's weight is used in other ways, its part is as it always was.
        """
        return project_by_gram(self._residual, layer, projection)

    def point(self, differentiable: bool) -> Point:
        """The gradient norm where the parameters stand, with a graph for its derivative where asked for."""
        with torch.set_grad_enabled(differentiable):
            held = self._residual.run(self._leaves)
            halves = [held[slot.number] for slot in self._halves]
            if self._constant is not None:
                halves.append(self._constant)
            return Point(self.loss, [], torch.as_tensor(sum(halves)))

    def ascent_direction(self, point: Point, moving: Sequence[nn.Parameter]) -> list[Tensor]:
        """As of :class:`BatchLoss`, less parts that the moving layers' inputs see."""
        if not point.differentiable:
            return [torch.zeros_like(parameter) for parameter in moving]
        leaves = [self._leaves[parameter] for parameter in moving]
        return list(torch.autograd.grad(point.half_square, leaves, allow_unused=True, materialize_grads=True))
