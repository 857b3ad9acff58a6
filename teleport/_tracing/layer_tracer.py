"""Traces the layers of a loss: which weights it uses as linear maps, and on which inputs.

Input: an evaluation of the loss, and the model's parameters. Output: :class:`TracedLayers`. A call of a registered
linear operation (``_tracing/linear_uses.py``) tells which parameters multiply which inputs. A parameter that another
function reads, or that is read below the torch functions, or that is not read at all, stays as it is, with the
reason. The inputs are represented by their span (Wu et al. 2025, equations 8 to 16; ``_spaces/representation.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from teleport._spaces.representation import Representation
from teleport._tracing.function_tracer import FunctionTracer, T, TracedCall
from teleport._tracing.layers import Block, Layer, RecordedUse
from teleport._tracing.linear_use import LinearUse, as_matrix
from teleport._tracing.linear_uses import is_linear_operation, linear_uses
from teleport._tracing.lone_biases import bias_of
from teleport._tracing.ownership import Owners, distinct_elements, keeps_layout, storage_of
from teleport._tracing.reasons import SHARED_STORAGE, UNUSED, other_use, unregistered_use

Key = tuple[Block, int, bool]
"""Uses with the same key are uses of one layer: the weight's block, and its form as matrices (groups, transposed)."""


@dataclass(frozen=True)
class TracedLayers:
    """The result of tracing one evaluation, or several.

    Attributes:
        layers: those that may move, by name.
        representations: of the inputs of each of these layers, by name; ``None`` if the layer provably cannot move.
        pinned: why the other parameters stay, by the parameter's name.
    """

    layers: dict[str, Layer]
    representations: dict[str, Representation | None]
    pinned: dict[str, str]


def trace_layers(
    evaluate: Callable[[Any], Any],
    batches: Iterable[Any],
    named_parameters: Mapping[str, nn.Parameter],
    shared_objective: bool,
    rank_only: bool = False,
    only: Collection[str] | None = None,
) -> TracedLayers:
    """Evaluate the loss on each of ``batches``, and represent the inputs of each layer over all of them.

    Args:
        evaluate: computes the loss of a batch; everything that it computes is traced.
        batches: the constraint batches.
        named_parameters: the model's parameters; those that require no gradient are taken as constants.
        shared_objective: whether the objective is evaluated on this very batch. Then a layer whose only inputs depend
            on no parameter cannot move at the exact null space and needs no representation: the objective depends on
            its weight through ``weight @ inputs`` alone.
        rank_only: whether the representations serve the null space at threshold 1 alone. Those of full rank are then
            found from a part of the inputs.
        only: the names of the layers whose inputs are represented; ``None`` for all.
    """
    tracer = LayerTracer(named_parameters, shared_objective, rank_only=rank_only, only=only)
    for batch in batches:
        tracer.trace(partial(evaluate, batch))
        tracer.end_batch()
    return tracer.result()


class LayerTracer(FunctionTracer):
    """Traces the uses of all trainable parameters, and represents the inputs of each layer.

    Args:
        named_parameters, shared_objective, rank_only, only: as of :func:`trace_layers`.
        deferred: whether uses are only recorded during an evaluation, and represented in :meth:`end_batch`. Then
            tracing costs the evaluation nothing, but the inputs must not be ``overwritten`` before :meth:`end_batch`.

    Attributes:
        recorded: the uses that are not represented yet.
    """

    def __init__(
        self,
        named_parameters: Mapping[str, nn.Parameter],
        shared_objective: bool,
        deferred: bool = False,
        rank_only: bool = False,
        only: Collection[str] | None = None,
    ) -> None:
        parameters = {name: parameter for name, parameter in named_parameters.items() if parameter.requires_grad}
        super().__init__(Owners(parameters))
        self.parameters = parameters
        self.shared_objective = shared_objective
        self.deferred = deferred
        self.rank_only = rank_only
        self.only = only
        self.recorded: list[tuple[Layer, RecordedUse]] = []
        self._layers: dict[Key, Layer] = {}
        self._representations: dict[Layer, Representation] = {}
        self._waiting: dict[Layer, RecordedUse] = {}  # the only use of a layer so far, on constant inputs
        self._inputs = _BatchInputs(rank_only)
        self._pinned = dict.fromkeys(self.owners.shared(), SHARED_STORAGE)
        for name, parameter in parameters.items():
            if parameter.is_complex() or not keeps_layout(parameter):
                self._pinned[name] = "its storage is complex or has gaps, which no registered linear map supports"

    def trace(self, evaluate: Callable[[], T]) -> T:
        """The result of ``evaluate()``, which is traced with gradients enabled."""
        with torch.enable_grad():
            return super().trace(evaluate)

    def before(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[LinearUse]:
        """The uses of a call, which may change its arguments or draw random numbers."""
        return [use for use in linear_uses(func, args, kwargs) if self._supported(use)]

    def after(self, call: TracedCall) -> None:
        """Record the uses of a call, and pin the parameters that it reads in another way."""
        uses: list[LinearUse] = call.prepared
        explained = Counter(name for use in uses for name in self._record(use))
        sources = {name for use in uses for name in self.owners.of(use.source)}
        for name in call.read:
            if name in sources or call.given[name] > explained[name]:
                registered = is_linear_operation(call.func)
                reason = bias_of(call, name, self.owners) or (
                    other_use(call.func, "the weight of a linear map") if registered else unregistered_use(call.func)
                )
                self._pinned.setdefault(name, reason)

    def _supported(self, use: LinearUse) -> bool:
        """Whether a use is of one parameter's own elements, on inputs whose rows can be read."""
        names = self.owners.of(use.weight)
        return (
            len(names) == 1
            and use.weight.dim() >= 2
            and use.weight.dtype == self.parameters[names[0]].dtype
            and distinct_elements(use.weight)
            and use.source.layout == torch.strided
            and not use.source.is_inference()  # which does not tell whether it was overwritten
            and (storage_of(use.source) is not None or use.source.numel() == 0)
        )

    def _record(self, use: LinearUse) -> list[str]:
        """Record one use; returns the names of the parameters that it explains."""
        (name,) = self.owners.of(use.weight)
        weight = Block.of(use.weight, name, self.parameters[name])
        bias = self._bias(use)
        layer = self._layers.setdefault((weight, use.groups, use.transposed), Layer.of(use, weight, bias))
        if layer.bias != bias:
            self._pinned.setdefault(name, "it is used with and without a bias, or with different ones")
            for other in filter(None, (layer.bias, bias)):
                self._pinned.setdefault(other.owner, f"its weight stays: {self._pinned[name]}")
        if self.deferred:
            self.recorded.append((layer, RecordedUse.now(use)))
        else:
            self._represent(layer, RecordedUse.now(use))
        return [name] if bias is None else [name, bias.owner]

    def _bias(self, use: LinearUse) -> Block | None:
        """The bias that moves with the weight: one element per output, all in one parameter."""
        names = self.owners.of(use.bias)
        outputs = as_matrix(use.weight.detach(), use.groups, use.transposed).shape[:2].numel()
        if use.bias is None or len(names) != 1 or use.bias.shape != (outputs,) or not distinct_elements(use.bias):
            return None
        return Block.of(use.bias, names[0], self.parameters[names[0]])

    def _represent(self, layer: Layer, recorded: RecordedUse) -> None:
        """Add the inputs of a use to the layer's representation; a first use on constant inputs waits for a second."""
        if layer.weight.owner in self._pinned or (self.only is not None and layer.name not in self.only):
            return
        waiting = self._waiting.get(layer)
        first = waiting is None and layer not in self._representations
        if first and self.shared_objective and recorded.constant:
            self._waiting[layer] = recorded
            return
        if waiting is not None and waiting.overwritten:
            self._pinned.setdefault(layer.weight.owner, "its inputs were overwritten before its second use was traced")
            return
        self._waiting.pop(layer, None)
        for each in filter(None, (waiting, recorded)):
            before = self._representations.get(layer)
            self._representations[layer] = self._inputs.joined(before, self._inputs.of(layer, each))

    @property
    def overwritten(self) -> bool:
        """Whether recorded inputs were written to since."""
        return any(recorded.overwritten for _, recorded in self.recorded)

    def end_batch(self) -> None:
        """Represent the recorded uses, and release the batch's tensors."""
        for layer, recorded in self.recorded:
            self._represent(layer, recorded)
        self.recorded.clear()
        self._inputs = _BatchInputs(self.rank_only)

    def result(self) -> TracedLayers:
        """The layers that may move and the parameters that stay, each with its reason.

        The representations are large: they are handed over, and the tracer keeps none.
        """
        self._pinned |= self.unseen_reasons()
        self._pin_overlaps()
        self._pin_weights_with_their_biases()
        for name in self.parameters.keys() - {block.owner for layer in self._layers.values() for block in layer.blocks}:
            self._pinned.setdefault(name, UNUSED)
        free = [layer for layer in self._layers.values() if layer.weight.owner not in self._pinned]
        representations, self._representations = self._representations, {}
        return TracedLayers(
            {layer.name: layer for layer in free},
            {layer.name: representations.get(layer) for layer in free},
            {name: self._pinned[name] for name in self.parameters if name in self._pinned},
        )

    def _pin_weights_with_their_biases(self) -> None:
        """A weight and its folded bias move together or not at all."""
        pairs = [(layer.weight.owner, layer.bias.owner) for layer in self._layers.values() if layer.bias is not None]
        count = -1
        while count < len(self._pinned):
            count = len(self._pinned)
            for weight, bias in pairs:
                if bias in self._pinned:
                    self._pinned.setdefault(weight, f"its bias stays: {self._pinned[bias]}")
                elif weight in self._pinned:
                    self._pinned.setdefault(bias, f"its weight stays: {self._pinned[weight]}")

    def _pin_overlaps(self) -> None:
        """A part of a parameter that several layers use (tied, and one use transposed) would need all constraints."""
        parts: dict[str, list[Block]] = {}
        for layer in self._layers.values():
            for block in layer.blocks:
                parts.setdefault(block.owner, []).append(block)
        for name, blocks in parts.items():
            if len(blocks) > 1 and name not in self._pinned:  # else a block's place may not exist in a new tensor
                count = _counts_of(self.parameters[name])
                for block in blocks:
                    block.within(count).add_(1)
                if int(count.max()) > 1:
                    self._pinned.setdefault(name, "layers share a part of it in different ways (a tied weight or bias)")


def _place_of(tensor: Tensor) -> Hashable:
    """Identifies a tensor's elements among those of tensors that exist."""
    storage = storage_of(tensor)
    if storage is None:
        return id(tensor)
    return storage, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _counts_of(parameter: Tensor) -> Tensor:
    """Zeros with the shape and strides of a parameter, which may stand for one that is sharded."""
    device = "cpu" if parameter.is_meta else parameter.device
    return torch.zeros_like(parameter, dtype=torch.int32, device=device, requires_grad=False)


class _BatchInputs:
    """The representations of one batch's layer inputs, one for all layers with the same inputs."""

    def __init__(self, rank_only: bool) -> None:
        self._rank_only = rank_only
        # The values hold the tensors and representations whose place or id is a key, so that no other gets it.
        self._of: dict[Hashable, tuple[Tensor, Representation]] = {}
        self._joined: dict[tuple[int, int], tuple[Representation, Representation, Representation]] = {}

    def of(self, layer: Layer, recorded: RecordedUse) -> Representation:
        """The representation of one use's inputs."""
        use, ones = recorded.use, layer.bias is not None
        key = (_place_of(use.source), recorded.version, use.key or use.kind, ones)
        if key not in self._of:
            made = Representation(layer.dimension, layer.groups, recorded.dtype, ones, use.source.device)
            if self._rank_only:
                made.update_until_full(lambda: (rows.to(recorded.dtype) for rows in use.rows()), use.extent)
            else:
                for rows in use.rows():
                    made.update(rows.to(recorded.dtype))
            # without its graph, which would keep alive all that was computed before in a segment
            self._of[key] = (use.source.detach() if storage_of(use.source) else use.source, made)
        return self._of[key][1]

    def joined(self, first: Representation | None, second: Representation) -> Representation:
        """Both together; layers with the same two share the result."""
        if first is None:
            return second
        pair = (id(first), id(second))
        if pair not in self._joined:
            self._joined[pair] = (first, second, first.merged(second))
        return self._joined[pair][2]
