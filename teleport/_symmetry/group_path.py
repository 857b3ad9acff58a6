"""A path in the group: the weights of all adjacent pairs of a model, moved by one group element per pair.

Input: the pairs of one batch (``_tracing/layer_pairs.py``) and the action of a variant. Output: the layers' weights as
a function of one length, along the directions of the Lie algebra elements T in which an objective grows (Zhao et al.
2022, 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._engine.batch_loss import BatchLoss, Point
from teleport._errors import UnsupportedModel
from teleport._symmetry.group_actions import Inverse, LayerInputs, conjugate, residual, transform
from teleport._tracing.layer_pairs import LayerPair
from teleport._tracing.layers import Layer


@dataclass(frozen=True)
class PairAction:
    """The action of a variant on one pair of layers, see :class:`teleport.Symmetry`."""

    variant: str
    inverse: Inverse

    @property
    def identity_at_zero(self) -> bool:
        """Whether the action at T = 0 is the identity."""
        return self.variant == "corrected"

    def refusal(self, pair: LayerPair) -> str:
        """Why the variant cannot act on a pair, empty if it can."""
        if self.variant == "2024" or pair.activation.inverse() is not None:
            return ""
        slope = f" of slope {pair.activation.slope:g}" if pair.activation.name == "leaky_relu" else ""
        return (
            f"the activation {pair.activation.name}{slope} between '{pair.lower.name}' and '{pair.upper.name}' is not "
            "a bijection of the real numbers onto themselves, as leaky_relu with a positive slope is"
        )

    def __call__(
        self, pair: LayerPair, weights: tuple[Tensor, Tensor], inputs: LayerInputs, element: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The new lower and upper weights of a pair under T = ``element``."""
        lower, upper = weights
        if self.variant == "2024":
            return transform(upper, inputs, lower, element, pair.activation)
        return conjugate(
            *(upper, inputs, lower, element, pair.activation), inverse=self.inverse, complement=self.identity_at_zero
        )


@dataclass(frozen=True)
class ActionResult:
    """The layers' matrices after an action, each pair's inputs for it, and each pair's residual if measured."""

    weights: list[Tensor]
    inputs: list[LayerInputs]
    residuals: list[float]


class AdjacentLayers:
    """The layers in the pairs of one batch, and the action on them.

    Attributes:
        action: on each pair.
        layers: of the pairs, each once; ``parameters``: theirs.
        indices: of each pair's lower and upper layer among ``layers``.
        residuals: the largest residual of a step so far, by the lower layer's name.

    Raises:
        UnsupportedModel: the variant cannot act on one of the pairs.
    """

    def __init__(self, pairs: Sequence[LayerPair], action: PairAction) -> None:
        for refusal in filter(None, map(action.refusal, pairs)):
            raise UnsupportedModel(refusal)
        self.action = action
        self.pairs = list(pairs)
        self.layers = list({layer.name: layer for pair in pairs for layer in (pair.lower, pair.upper)}.values())
        self.parameters = list(dict.fromkeys(block.parameter for layer in self.layers for block in layer.blocks))
        self.residuals: dict[str, float] = {}
        index_of = {layer.name: index for index, layer in enumerate(self.layers)}
        self.indices = [(index_of[pair.lower.name], index_of[pair.upper.name]) for pair in pairs]
        dtypes = [matrix_of(pair.lower).dtype for pair in pairs]
        self._inputs = [_inputs_of(pair, pair.inputs.T.to(dtype)) for pair, dtype in zip(pairs, dtypes, strict=True)]

    def matrices(self) -> list[Tensor]:
        """A copy of each layer's matrix ``[out, dimension]``, its bias the last column."""
        return [matrix_of(layer) for layer in self.layers]

    @torch.no_grad()
    def write(self, matrices: Sequence[Tensor]) -> None:
        """Set the layers to ``matrices``."""
        for layer, matrix in zip(self.layers, matrices, strict=True):
            layer.scatter(matrix[None], _values(layer))

    def record_step(self, path: GroupPath) -> None:
        """Record a step's residuals; the published code of 2024 multiplies later inputs by ``I + T``."""
        for pair, missed in zip(self.pairs, path.residuals, strict=True):
            self.residuals[pair.lower.name] = max(self.residuals.get(pair.lower.name, 0.0), missed)
        if self.action.variant == "2024":
            for index, pair in enumerate(self.pairs):
                if pair.follows is not None:
                    columns = self._inputs[index].columns[: pair.inputs.shape[1]]
                    self._inputs[index] = _inputs_of(pair, columns + path.elements[pair.follows] @ columns)

    def act(
        self,
        weights: Sequence[Tensor],
        elements: Sequence[Tensor],
        inputs: Sequence[LayerInputs] | None = None,
        measure: bool = False,
    ) -> ActionResult:
        """Act on each pair by its element, in the order of use.

        Args:
            weights: the layers' matrices.
            elements: T of each pair.
            inputs: of each pair; ``None`` takes those that the variant takes at T = 0.
            measure: whether to measure residuals.
        """
        result = ActionResult(list(weights), [], [])
        hidden: list[Tensor] = []
        for index, (pair, (below, above)) in enumerate(zip(self.pairs, self.indices, strict=True)):
            pair_inputs = self._inputs[index] if inputs is None else inputs[index]
            if inputs is None and pair.follows is not None and self.action.variant != "2024":
                pair_inputs = _inputs_of(pair, hidden[pair.follows])
            result.inputs.append(pair_inputs)
            width = len(result.weights[below])
            before = (result.weights[below], result.weights[above][:, :width])
            lower, upper = after = self.action(pair, before, pair_inputs, elements[index])
            if measure:
                result.residuals.append(residual(before, after, pair_inputs.columns, pair.activation))
            result.weights[above] = torch.cat([upper, result.weights[above][:, width:]], dim=1)
            result.weights[below] = lower
            hidden.append(pair.activation(lower @ pair_inputs.columns))
        return result


class GroupPath:
    """The weights as a function of the length of T along its directions, from the current weights at length 0.

    Attributes:
        residuals: of each pair, at the length of the last :meth:`move_to`.
        elements: T of each pair there.
        directions: of T, one per pair, once they are computed.
    """

    def __init__(self, layers: AdjacentLayers) -> None:
        self.layers = layers
        self.start = layers.matrices()
        self.residuals = [0.0] * len(layers.pairs)
        self._zeros = [_zeros(self.start[below]) for below, _ in layers.indices]
        self.elements: list[Tensor] = [zero.detach() for zero in self._zeros]
        self._at_zero = layers.act(self.start, self._zeros)
        self._inputs = None if layers.action.identity_at_zero else [inputs.detach() for inputs in self._at_zero.inputs]
        self.directions: list[Tensor] = []

    def evaluate_at_zero(self, objective: BatchLoss) -> Point:
        """Set the weights to the result of the action at T = 0, and evaluate with a graph."""
        self.layers.write([matrix.detach() for matrix in self._at_zero.weights])
        return objective.point(True)

    def compute_directions(self, gradients: Sequence[Tensor]) -> None:
        """The directions of T: the pull-back of ``gradients``, one per parameter, through the action at T = 0."""
        given = dict(zip(self.layers.parameters, gradients, strict=True))
        pulled = [layer.gather(given)[0].to(start) for layer, start in zip(self.layers.layers, self.start, strict=True)]
        self.directions = list(torch.autograd.grad(self._at_zero.weights, self._zeros, pulled))

    @torch.no_grad()
    def move_to(self, length: float) -> None:
        """Set the weights to those at T = length times its direction; at 0 to those at the start."""
        if not length:
            self.layers.write(self.start)
            return
        self.elements = [length * direction for direction in self.directions]
        result = self.layers.act(self.start, self.elements, self._inputs, measure=True)
        self.residuals = result.residuals
        self.layers.write(result.weights)


def matrix_of(layer: Layer) -> Tensor:
    """A copy of a layer's weight ``[out, dimension]``, its bias the last column, in single precision or better."""
    matrix = layer.gather(_values(layer))[0]
    return matrix.to(torch.promote_types(matrix.dtype, torch.float32)).clone()


def _values(layer: Layer) -> dict[nn.Parameter, Tensor]:
    return {block.parameter: block.parameter.detach() for block in layer.blocks}


def _zeros(lower: Tensor) -> Tensor:
    return lower.new_zeros(len(lower), len(lower)).requires_grad_()


def _inputs_of(pair: LayerPair, columns: Tensor) -> LayerInputs:
    """The inputs of a pair's lower layer: ``columns``, and a row of ones if it has a bias."""
    if pair.lower.bias is None:
        return LayerInputs(columns)
    return LayerInputs(torch.cat([columns, columns.new_ones(1, columns.shape[1])]))
