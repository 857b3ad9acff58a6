"""What a move in the null space changes on held-out batches, as a metric of moves.

A move U of a layer changes its outputs on an input x by ``U x``: in squares, summed over held-out inputs of the second
moment ``M = sum x x^T``, by ``tr(U M U^T)``. In the null space P of a batch, the direction that raises an objective of
the projected gradient G most per such change is ``G (P M P + lambda I)^-1``. Kronecker-factored curvature has the same
factor of the inputs (Martens and Grosse 2015, "Optimizing neural networks with Kronecker-factored approximate
curvature"); here it is restricted to the null space, and the factor of the outputs is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from teleport._null_space.ascent_problem import with_strides
from teleport._processes.group import ALONE, Group
from teleport._spaces.representation import Representation
from teleport._spaces.subspace import Subspace
from teleport._tracing.layer_tracer import trace_layers
from teleport._tracing.layers import Layer
from teleport._tracing.layers_of_ranks import layers_of_ranks
from teleport._tracing.preconditions import check_tensors

DAMPING = 0.1
"""lambda, over the mean eigenvalue of ``P M P`` in the null spaces of all layers.

Without it a direction that no held-out input shows would cost nothing, and the move would be long along it. That some
hundred samples do not show a direction says little of other data.
"""

ROUNDING = 16.0
"""Relative rounding error of an input vector, in units of its precision."""


class HeldOutInputs:
    """The second moments of layer inputs on held-out batches, measured in one pass when first asked for.

    Args:
        evaluate: computes the loss of a batch at the current parameters.
        batches: held-out ones, read one after the other; none is kept.
        named: the model's parameters by name.
        draw: the result of the caller's code that makes a batch.
        group: of processes, whose inputs are taken together.
    """

    def __init__(
        self,
        evaluate: Callable[[Any], Tensor],
        batches: Iterable[Any],
        named: Mapping[str, nn.Parameter],
        draw: Callable[[Callable[[], Any]], Any],
        group: Group = ALONE,
    ) -> None:
        self._evaluate = evaluate
        self._draw = draw
        self._group = group
        self._batches = batches
        self._named = named
        self._measured: dict[str, Representation | None] | None = None

    def of(self, layers: Sequence[Layer]) -> list[tuple[Layer, Representation | None]]:
        """The measured ones of ``layers`` with their inputs, ``None`` if no held-out batch uses a layer in this form.

        The first call measures its layers; others are not measured by later calls, as the batches may be read but once.

        Raises:
            ValueError: there is no held-out batch.
        """
        if self._measured is None:
            self._measured = self._measure(layers)
        return [(layer, self._measured[layer.name]) for layer in layers if layer.name in self._measured]

    def _measure(self, layers: Sequence[Layer]) -> dict[str, Representation | None]:
        names = {layer.name for layer in layers}
        traced = trace_layers(self._evaluate, self._checked(), self._named, shared_objective=False, only=names)
        traced = layers_of_ranks(self._group, traced)
        measured: dict[str, Representation | None] = {}
        for layer in layers:
            other = traced.layers.get(layer.name)
            same = other is not None and (other.groups, other.dimension) == (layer.groups, layer.dimension)
            measured[layer.name] = traced.representations[layer.name] if same else None
        return measured

    def _checked(self) -> Iterator[Any]:
        """The batches, each made in the state of the caller: evaluations in between have one of their own."""
        iterator, nothing, read = self._draw(lambda: iter(self._batches)), object(), 0
        while (batch := self._draw(lambda: next(iterator, nothing))) is not nothing:
            check_tensors([batch], "held-out batch")
            read += 1
            yield batch
            del batch
        if not read:
            raise ValueError("held_out has no batch; an iterator is used up by the first event that reads it")


class DriftMetric:
    """``sum_l tr(U_l (P M_l P + lambda I) U_l^T)`` of a move in the null spaces, the U_l of its layers.

    Args:
        null_spaces: the layers that have a null space, with the subspaces that their inputs span.
        parameters: of these layers, in the order of the tensors of a move.
        held_out: the inputs of the layers on held-out batches.
    """

    def __init__(
        self, null_spaces: Sequence[tuple[Layer, Subspace]], parameters: Sequence[nn.Parameter], held_out: HeldOutInputs
    ) -> None:
        self._null_spaces = null_spaces
        self._parameters = list(parameters)
        self._held_out = held_out

    @property
    def reason(self) -> str:
        """Why the metric is not defined: a layer whose held-out inputs are not finite; empty if it is defined."""
        bad = [layer.name for layer, inputs in self._inputs if inputs is not None and not inputs.finite]
        return f"not finite before any step: the inputs of '{bad[0]}' on held-out batches" if bad else ""

    def steepest(self, gradient: Sequence[Tensor]) -> list[Tensor]:
        """The direction of most ascent per change on held-out batches, of a gradient in the null spaces.

        It is zero for layers that were not measured.
        """
        given = dict(zip(self._parameters, gradient, strict=True))
        results = {parameter: torch.zeros_like(parameter, requires_grad=False) for parameter in given}
        for layer, form in self._forms:
            layer.scatter(form.solve(_matrix(layer, given)), results)
        return [results[parameter] for parameter in self._parameters]

    def length(self, move: Sequence[Tensor]) -> float:
        """The root of the metric of a move in the null spaces."""
        given = dict(zip(self._parameters, move, strict=True))
        return float(sum(form.square(_matrix(layer, given)) for layer, form in self._forms) ** 0.5)

    @cached_property
    def _inputs(self) -> list[tuple[Layer, Representation | None]]:
        return self._held_out.of([layer for layer, _ in self._null_spaces])

    @cached_property
    def _forms(self) -> list[tuple[Layer, LayerForm]]:
        """The metric of each layer. All have the same lambda, so that it stands for the norm of the whole move."""
        subspaces = dict(self._null_spaces)
        seen = [(layer, SeenNullSpace(subspaces[layer], inputs)) for layer, inputs in self._inputs]
        dimensions = sum(subspaces[layer].null_dimension for layer, _ in seen)
        damping = DAMPING * sum(each.trace for _, each in seen) / max(1, dimensions)
        damping += sum(each.rounding for _, each in seen)  # all that is there, if held-out inputs lie in the spans
        return [(layer, LayerForm(each, damping or 1.0)) for layer, each in seen]


class SeenNullSpace:
    """The part of a layer's held-out inputs that lies in its null space.

    Args:
        subspace: the span of the batch's inputs.
        inputs: the held-out ones, or ``None`` if there are none.

    Attributes:
        rows: ``[groups, n, k]`` float64, one per input; ``None`` if ``moment`` stands for them.
        moment: their products ``[groups, k, k]`` (``P M P``), if there are more inputs than k.
        trace: of ``P M P``.
        rounding: what rounding can make of an eigenvalue of ``P M P`` that is zero.
    """

    def __init__(self, subspace: Subspace, inputs: Representation | None) -> None:
        self._subspace = subspace
        self.rows: Tensor | None = None
        self.moment: Tensor | None = None
        self.trace = self.rounding = 0.0
        if inputs is None:
            return
        error = ROUNDING * torch.finfo(inputs.dtype).eps + inputs.dimension * torch.finfo(torch.float64).eps
        if inputs.rows is None:
            gram = inputs.gram
            self.rounding = error**2 * float(gram.diagonal(dim1=1, dim2=2).sum())
            half = self.coordinates(gram).transpose(1, 2)
            self.moment = self.coordinates(half)
        else:
            rows = self.coordinates(inputs.rows)
            self.rounding = error**2 * float(inputs.rows.square().sum())
            if rows.shape[1] < rows.shape[2]:
                self.rows, self.trace = rows, float(rows.square().sum())
                return
            self.moment = rows.transpose(1, 2) @ rows
        self.trace = float(self.moment.diagonal(dim1=1, dim2=2).sum())

    def coordinates(self, matrix: Tensor) -> Tensor:
        """Of vectors ``[groups, n, dimension]``, ``[groups, n, k]``: along the null space's basis if that is small.

        Otherwise k is the dimension, and they are projected on the null space.
        """
        return self._subspace.coordinates(matrix) if self._subspace.complement else self._subspace.project(matrix)

    def matrix(self, coordinates: Tensor) -> Tensor:
        """The vectors with these coordinates. What rounding left outside of the null space is taken away."""
        if self._subspace.complement:
            return coordinates @ self._subspace.basis.to(coordinates.device).transpose(1, 2)
        return self._subspace.project(coordinates)


class LayerForm:
    """``tr(U (P M P + lambda I) U^T)`` of moves U ``[groups, out, dimension]`` in the null space of a layer.

    Args:
        seen: the held-out inputs in the null space.
        damping: lambda, above 0.
    """

    def __init__(self, seen: SeenNullSpace, damping: float) -> None:
        self.seen = seen
        self.damping = damping

    def square(self, move: Tensor) -> float:
        """The form of a move."""
        along = self.seen.coordinates(move)
        square = self.damping * along.square().sum()
        if self.seen.moment is not None:
            square = square + (along @ self.seen.moment * along).sum()
        elif self.seen.rows is not None:
            square = square + (along @ self.seen.rows.transpose(1, 2)).square().sum()
        return float(square)

    def solve(self, gradient: Tensor) -> Tensor:
        """``G (P M P + lambda I)^-1`` of a gradient G in the null space."""
        along = self.seen.coordinates(gradient)
        if self._factor is None:
            return self.seen.matrix(along / self.damping)
        rows = self.seen.rows
        if rows is None:
            return self.seen.matrix(torch.cholesky_solve(along.transpose(1, 2), self._factor).transpose(1, 2))
        across = torch.cholesky_solve(rows @ along.transpose(1, 2), self._factor).transpose(1, 2)  # Woodbury's identity
        return self.seen.matrix((along - across @ rows) / self.damping)

    @cached_property
    def _factor(self) -> Tensor | None:
        """The Cholesky factor of the smaller Gram matrix of the held-out inputs, with lambda on its diagonal."""
        rows, gram = self.seen.rows, self.seen.moment
        if rows is not None:
            gram = rows @ rows.transpose(1, 2)
        if gram is None:
            return None
        damped = gram.clone()
        damped.diagonal(dim1=1, dim2=2).add_(self.damping)
        factor: Tensor = torch.linalg.cholesky(damped)
        return factor


def _matrix(layer: Layer, given: Mapping[nn.Parameter, Tensor]) -> Tensor:
    """The matrices of a layer ``[groups, out, dimension]``, in double precision."""
    return layer.gather({block.parameter: with_strides(given, block.parameter) for block in layer.blocks}).double()
