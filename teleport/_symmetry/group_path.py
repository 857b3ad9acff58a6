"""All adjacent pairs of a model on one batch, moved together by one group element each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._engine.ascent import BatchLoss, Point
from teleport._errors import UnsupportedModel
from teleport._symmetry.group_actions import Inputs, Inverse, conjugate, residual, transform
from teleport._tracing.layer_pairs import LayerPair
from teleport._tracing.layers import Layer


@dataclass(frozen=True)
class Rule:
    """What a variant does to a pair, see :class:`teleport.Symmetry`."""

    variant: str
    inverse: Inverse

    @property
    def lossy(self) -> bool:
        """Whether the action at T = 0 is not the identity."""
        return self.variant != "corrected"

    def refusal(self, pair: LayerPair) -> str:
        """Why the variant cannot act on a pair, empty where it can."""
        if self.variant == "2024" or pair.activation.inverse() is not None:
            return ""
        slope = f" of slope {pair.activation.slope:g}" if pair.activation.name == "leaky_relu" else ""
        return (
            f"the activation {pair.activation.name}{slope} between '{pair.lower.name}' and '{pair.upper.name}' is no "
            "bijection of the real numbers onto themselves, as leaky_relu with a positive slope is"
        )

    def act(
        self, pair: LayerPair, weights: tuple[Tensor, Tensor], inputs: Inputs, element: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The new lower and upper weights of a pair."""
        lower, upper = weights
        if self.variant == "2024":
            return transform(upper, inputs, lower, element, pair.activation)
        return conjugate(
            *(upper, inputs, lower, element, pair.activation), inverse=self.inverse, complement=not self.lossy
        )


@dataclass(frozen=True)
class Moved:
    """What an action made of the layers' matrices, the inputs that it took, and each pair's residual if measured."""

    weights: list[Tensor]
    inputs: list[Inputs]
    residuals: list[float]


class Stack:
    """The pairs of one batch.

    Attributes:
        rule: what is done to each pair.
        layers: of the pairs, each once; ``parameters``: theirs.
        joints: the numbers of each pair's lower and upper layer.
        residuals: by the lower layer's name, how far the steps so far missed keeping a pair's output, the largest.

    Raises:
        UnsupportedModel: the rule cannot act on one of the pairs.
    """

    def __init__(self, pairs: Sequence[LayerPair], rule: Rule) -> None:
        for refusal in filter(None, map(rule.refusal, pairs)):
            raise UnsupportedModel(refusal)
        self.rule = rule
        self.pairs = list(pairs)
        self.layers = list({layer.name: layer for pair in pairs for layer in (pair.lower, pair.upper)}.values())
        self.parameters = list(dict.fromkeys(block.parameter for layer in self.layers for block in layer.blocks))
        self.residuals: dict[str, float] = {}
        number = {layer.name: index for index, layer in enumerate(self.layers)}
        self.joints = [(number[pair.lower.name], number[pair.upper.name]) for pair in pairs]
        dtypes = [matrix_of(pair.lower).dtype for pair in pairs]
        self._first = [self._inputs(pair, pair.inputs.T.to(dtype)) for pair, dtype in zip(pairs, dtypes, strict=True)]

    def read(self) -> list[Tensor]:
        """A copy of each layer's matrix ``[out, dimension]``, its bias the last column."""
        return [matrix_of(layer) for layer in self.layers]

    @torch.no_grad()
    def write(self, matrices: Sequence[Tensor]) -> None:
        """Set the layers to ``matrices``."""
        for layer, matrix in zip(self.layers, matrices, strict=True):
            layer.scatter(matrix[None], _values(layer))

    def ray(self) -> GroupPath:
        """The action from where the weights stand."""
        return GroupPath(self)

    def advance(self, ray: GroupPath) -> None:
        """Note what a step missed; the published code of 2024 multiplies later inputs by ``I + T``."""
        for pair, missed in zip(self.pairs, ray.missed, strict=True):
            self.residuals[pair.lower.name] = max(self.residuals.get(pair.lower.name, 0.0), missed)
        if self.rule.variant == "2024":
            for number, pair in enumerate(self.pairs):
                if pair.follows is not None:
                    held = self._first[number].columns[: pair.inputs.shape[1]]
                    self._first[number] = self._inputs(pair, held + ray.elements[pair.follows] @ held)

    def act(
        self,
        weights: Sequence[Tensor],
        elements: Sequence[Tensor],
        inputs: Sequence[Inputs] | None = None,
        measure: bool = False,
    ) -> Moved:
        """Let each pair's element act, from the inputs on.

        Args:
            weights: the layers' matrices.
            elements: T of each pair.
            inputs: of each pair; ``None`` takes those that the variant takes at T = 0.
            measure: whether to measure residuals.
        """
        moved = Moved(list(weights), [], [])
        hidden: list[Tensor] = []
        for number, (pair, (below, above)) in enumerate(zip(self.pairs, self.joints, strict=True)):
            here = self._first[number] if inputs is None else inputs[number]
            if inputs is None and pair.follows is not None and self.rule.variant != "2024":
                here = self._inputs(pair, hidden[pair.follows])
            moved.inputs.append(here)
            width = len(moved.weights[below])
            before = (moved.weights[below], moved.weights[above][:, :width])
            lower, upper = after = self.rule.act(pair, before, here, elements[number])
            if measure:
                moved.residuals.append(residual(before, after, here.columns, pair.activation))
            moved.weights[above] = torch.cat([upper, moved.weights[above][:, width:]], dim=1)
            moved.weights[below] = lower
            hidden.append(pair.activation(lower @ here.columns))
        return moved

    def _inputs(self, pair: LayerPair, columns: Tensor) -> Inputs:
        """What a pair's lower layer multiplies: ``columns``, and a row of ones where it has a bias."""
        if pair.lower.bias is None:
            return Inputs(columns)
        return Inputs(torch.cat([columns, columns.new_ones(1, columns.shape[1])]))


class GroupPath:
    """The weights as a function of how far T goes along its directions, from where they stand (at length 0).

    Attributes:
        missed: the residual of each pair at the length that was moved to.
        elements: T of each pair there.
        directions: of T, one a pair, once they are aimed.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.start = stack.read()
        self.missed = [0.0] * len(stack.pairs)
        self._zeros = [_zeros(self.start[below]) for below, _ in stack.joints]
        self.elements: list[Tensor] = [zero.detach() for zero in self._zeros]
        self._at_zero = stack.act(self.start, self._zeros)
        self._inputs = [inputs.detach() for inputs in self._at_zero.inputs] if stack.rule.lossy else None
        self.directions: list[Tensor] = []

    def at_zero(self, objective: BatchLoss) -> Point:
        """Set the weights to what the action makes of them at T = 0, and evaluate with a graph."""
        self.stack.write([matrix.detach() for matrix in self._at_zero.weights])
        return objective.point(True)

    def aim(self, gradients: Sequence[Tensor]) -> None:
        """Let T go along the pull-back of ``gradients``, one a parameter of the stack, through the action at T = 0."""
        given = dict(zip(self.stack.parameters, gradients, strict=True))
        pulled = [layer.gather(given)[0].to(held) for layer, held in zip(self.stack.layers, self.start, strict=True)]
        self.directions = list(torch.autograd.grad(self._at_zero.weights, self._zeros, pulled))

    @torch.no_grad()
    def move_to(self, length: float) -> None:
        """Set the weights to those at T = length times its direction; at 0 to where they stood."""
        if not length:
            self.stack.write(self.start)
            return
        self.elements = [length * direction for direction in self.directions]
        moved = self.stack.act(self.start, self.elements, self._inputs, measure=True)
        self.missed = moved.residuals
        self.stack.write(moved.weights)


def matrix_of(layer: Layer) -> Tensor:
    """A copy of a layer's weight ``[out, dimension]``, its bias the last column, in single precision or better."""
    matrix = layer.gather(_values(layer))[0]
    return matrix.to(torch.promote_types(matrix.dtype, torch.float32)).clone()


def _values(layer: Layer) -> dict[nn.Parameter, Tensor]:
    return {block.parameter: block.parameter.detach() for block in layer.blocks}


def _zeros(lower: Tensor) -> Tensor:
    return lower.new_zeros(len(lower), len(lower)).requires_grad_()
