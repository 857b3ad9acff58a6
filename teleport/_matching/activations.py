"""Units of two networks side by side by their activations on batches (Li et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from teleport._matching.assignment import Kind
from teleport._matching.pairs import Pair
from teleport._symmetry_groups.axis import factors_in, fixed, size_of
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.axis_tracer import AxisTracer
from teleport._symmetry_groups.families import Block, blocks_of
from teleport._symmetry_groups.find_symmetries import persistent_buffers, symmetries_by
from teleport._symmetry_groups.parts import leading_first, part_of
from teleport._symmetry_groups.symmetries import Symmetries
from teleport._tracing.outputs import Forward
from teleport._tracing.ownership import storage_of, tensors_in
from teleport._tracing.undisturbed import ModelState, undisturbed

MOST_UNITS = 8192
"""Of one tensor; the correlations of a larger one take too much memory."""

Place = tuple[int, int]
"""The number of a call that computes from the batch, and which of its results."""


class DataCalls:
    """Numbers the calls of an evaluation that compute from its batch, so that two networks have the same numbers."""

    def __init__(self, batch: Any) -> None:
        self.count = 0
        self._data = {id(tensor): tensor for tensor in tensors_in(batch)}  # held, so that no other takes their id

    def results(self, args: Any, kwargs: Any, result: Any) -> list[tuple[Place, Tensor]]:
        """The tensors that a call makes from the batch, but for views of its arguments."""
        entered = list(tensors_in((args, kwargs)))
        made = list(tensors_in(result))
        if not made or not any(id(tensor) in self._data for tensor in entered):
            return []  # a question about the form of a tensor, which a tracer asks, too
        self._data.update({id(tensor): tensor for tensor in made})
        self.count += 1
        held = {storage_of(tensor) for tensor in entered}
        return [
            ((self.count, number), tensor)
            for number, tensor in enumerate(made)
            if tensor.is_floating_point() and tensor.dim() and storage_of(tensor) not in held
        ]


class AxesOfActivations(AxisTracer):
    """An axis tracer that keeps the axes of activations of its first run.

    Args:
        model: that is traced.
        batch: of the first run.
    """

    def __init__(self, model: nn.Module, batch: Any) -> None:
        super().__init__(dict(model.named_parameters()), persistent_buffers(model))
        self.found: dict[Place, Axes] = {}
        self._calls: DataCalls | None = DataCalls(batch)

    def __torch_function__(  # the mode itself is off in here
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """As of the base class; the axes of what is computed from the batch are kept."""
        result = super().__torch_function__(func, types, args, kwargs)
        if not self.paused and self._calls is not None:
            for place, tensor in self._calls.results(args, kwargs or {}, result):
                if self.state.held(tensor) and self.state.form(tensor) is None:
                    self.found[place] = self.state.axes(tensor)
        return result

    def trace_run(self, run: Callable[[], Any]) -> None:
        """As of the base class, which forgets the tensors at its end."""
        super().trace_run(run)
        self._calls = None

    def resolved(self) -> dict[Place, Axes]:
        """The axes of activations after all constraints."""
        return {place: tuple(map(self.state.variables.resolve, axes)) for place, axes in self.found.items()}


class Values(TorchFunctionMode):
    """Copies of some results of an evaluation.

    Args:
        batch: of the evaluation.
        wanted: which results.
    """

    def __init__(self, batch: Any, wanted: Mapping[Place, Axes]) -> None:
        super().__init__()
        self.found: dict[Place, Tensor] = {}
        self._calls, self._wanted = DataCalls(batch), wanted

    def __torch_function__(  # the mode itself is off in here
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for place, tensor in self._calls.results(args, kwargs or {}, result):
            if place in self._wanted:
                self.found[place] = tensor.detach().clone()
        return result


class Correlations:
    """Products of the units of one block of an activation of both networks, summed over samples and positions."""

    def __init__(self, block: Block) -> None:
        self.at = [place for place, variable in enumerate(block.variables) if variable >= 0]
        self.block = block
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, block: Block, first: Tensor, second: Tensor) -> None:
        """Add the values of one batch, in the same block of another number of samples."""
        one, other = (
            leading_first(part_of(each, block).reshape(block.sizes), self.at).flatten(0, len(self.at) - 1).flatten(1)
            for each in (first.double(), second.double())
        )
        self.count += one.shape[1]
        new = [one.sum(1), other.sum(1), one.square().sum(1), other.square().sum(1), one @ other.mT]
        self.sums = [old + each for old, each in zip(self.sums, new, strict=True)] if self.sums else new

    def pair(self, kinds: Mapping[int, Kind]) -> Pair:
        """A pair with the same inner products as the standardised units: their correlations beside the identity."""
        mean, other_mean, square, other_square, product = (each / self.count for each in self.sums)
        covariance = product - mean[:, None] * other_mean
        variance, other_variance = square - mean.square(), other_square - other_mean.square()
        if any(kinds.get(self.block.variables[place]) in (Kind.ROTATION, Kind.TURN) for place in self.at):
            variance, other_variance = (each.mean().expand_as(each) for each in (variance, other_variance))
        spread, other_spread = (
            torch.where(each > 1e-12 * each.max().clamp(min=1e-30), each, torch.inf).sqrt()
            for each in (variance, other_variance)
        )
        correlation = covariance / spread[:, None] / other_spread
        sizes = tuple(self.block.sizes[place] for place in self.at)
        units = len(correlation)
        block = Block(
            (),
            (*sizes, units),
            (*(self.block.variables[place] for place in self.at), -1),
            (*(self.block.dual[place] for place in self.at), False),
            (*(self.block.axes[place] for place in self.at), 1 + max(self.block.axes)),
        )
        identity = torch.eye(units).to(correlation)
        return Pair(block, correlation.reshape(block.sizes), identity.reshape(block.sizes))


def symmetries_and_activations(model: nn.Module, batch: Any, forward: Forward) -> tuple[Symmetries, dict[Place, Axes]]:
    """The symmetries of a model, and the axes of its activations in the same variables."""
    tracer = AxesOfActivations(model, batch)
    symmetries = symmetries_by(tracer, model, batch, forward)
    return symmetries, tracer.resolved()


def activation_pairs(
    a: nn.Module,
    b: nn.Module,
    batches: Sequence[Any],
    forward: Forward,
    axes: Mapping[Place, Axes],
    kinds: Mapping[int, Kind],
) -> list[Pair]:
    """The correlations of the units of two networks over batches.

    Args:
        a: the network that stays, and gives the rows.
        b: the network that moves.
        batches: over whose samples and positions the correlations are taken.
        forward: one evaluation.
        axes: of the activations.
        kinds: of the variables that are sought.
    """
    wanted = {place: each for place, each in axes.items() if any(f.variable in kinds for f in factors_in(each))}
    found: dict[tuple[Place, int], Correlations] = {}
    for batch in batches:
        first, second = (_values(model, batch, forward, wanted) for model in (a, b))
        for place, held in wanted.items():
            if place not in first or place not in second or first[place].shape != second[place].shape:
                raise ValueError("a and b must have the same architecture: they compute different tensors from a batch")
            for number, block in enumerate(_blocks(held, first[place])):
                if any(each in kinds for each in block.variables) and _units(block) <= MOST_UNITS:
                    found.setdefault((place, number), Correlations(block)).add(block, first[place], second[place])
    return [each.pair(kinds) for each in found.values()]


def _blocks(axes: Axes, tensor: Tensor) -> list[Block]:
    """The blocks of an activation; its axes of samples and positions may have another length than in the trace."""
    held = [any(True for _ in factors_in([axis])) for axis in axes]
    shaped = [axis if units else fixed(size) for axis, units, size in zip(axes, held, tensor.shape, strict=True)]
    if [size_of(axis) for axis in shaped] != list(tensor.shape):
        return []
    return list(blocks_of(shaped))


def _units(block: Block) -> int:
    return torch.Size(size for size, each in zip(block.sizes, block.variables, strict=True) if each >= 0).numel()


def _values(model: nn.Module, batch: Any, forward: Forward, wanted: Mapping[Place, Axes]) -> dict[Place, Tensor]:
    def evaluated(state: ModelState) -> dict[Place, Tensor]:
        values = Values(batch, wanted)

        def call() -> None:
            with torch.no_grad(), values:
                forward(model, batch)

        state.evaluate(call)
        return values.found

    return undisturbed(model, evaluated)
