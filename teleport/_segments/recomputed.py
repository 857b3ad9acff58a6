"""A segment of a computation whose intermediate results are computed again where a derivative needs them.

Activation checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost") frees them between the
forward and the backward pass. torch's own does so for a first derivative only: a graph of the gradient holds what was
computed again. Here the backward pass of a segment is a segment itself. So the graph of a gradient holds the inputs of
segments and the gradients of their outputs, and the second derivative holds the intermediate results of one segment at
a time. It computes what it would compute without segments, with its sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from teleport._allocator import hand_back
from teleport._tracing.caller_autocast import CallerAutocast
from teleport._tracing.differentiability import nodes_of
from teleport._tracing.random_state import RandomState

Function = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class NotRepeatable(RuntimeError):
    """A call that cannot be a segment; the message gives the reason."""


class Segment:
    """One call of a function, to be repeated in the state in which it was made.

    Args:
        function: from input tensors to output tensors. It may use parameters, but no tensors of the graph around it.
        inputs: of the call.

    Attributes:
        outputs: of the call, without a graph.
        parameters: leaves of its graph that are no inputs.

    Raises:
        NotRepeatable: it writes into its inputs, or uses tensors that were computed outside of it.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        self._function = function
        self._needed = [tensor.requires_grad for tensor in inputs]
        self._random_state = RandomState(inputs)
        self._autocast = CallerAutocast()
        versions = [tensor._version for tensor in inputs]
        begin = torch._C._autograd._get_sequence_nr()
        own = self._own(inputs)
        with torch.enable_grad():
            made = function(own)
        if [tensor._version for tensor in inputs] != versions:
            raise NotRepeatable("a part of the model writes into its inputs")
        self.parameters = _leaves(made, begin, own)
        self.outputs = [tensor.detach() for tensor in made]

    def result(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, with a graph that repeats the call."""
        if not self.parameters and not any(self._needed):
            return self.outputs
        return list(_Forward.apply(self, *inputs, *self.parameters))  # type: ignore[no-untyped-call]

    def repeated(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The call again: copies of the inputs and the parameters, and the outputs with a graph down to these.

        Args:
            tensors: the inputs, and behind them the parameters.

        Raises:
            NotRepeatable: it has other outputs than the first time.
        """
        own, now = self._own(tensors[: len(self._needed)]), RandomState(tensors)
        try:
            self._random_state.restore()
            with torch.enable_grad():
                made = list(self._autocast.run(lambda: self._function(own)))
        finally:
            now.restore()
        if len(made) != len(self.outputs) or not all(map(_same, made, self.outputs)):
            raise NotRepeatable("a part of the model computes something else when it is called again")
        return [*own, *self.parameters], made

    def gradients(self, tensors: Sequence[Tensor], outer: Sequence[Tensor | None], graph: bool) -> _Gradients:
        """The gradients of ``<outputs, outer>``, with a graph of their own on request."""
        leaves, outputs = self.repeated(tensors)
        known = [None if each is None else each.detach().requires_grad_(graph) for each in outer]
        pairs = [
            (out, each) for out, each in zip(outputs, known, strict=True) if each is not None and out.requires_grad
        ]
        asked = [leaf for leaf in leaves if leaf.requires_grad]
        found = torch.autograd.grad(
            [out for out, _ in pairs], asked, [each for _, each in pairs], create_graph=graph, allow_unused=True
        )
        of = dict(zip(map(id, asked), found, strict=True))
        return _Gradients(leaves, known, [of.get(id(leaf)) for leaf in leaves])

    def _own(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        pairs = zip(inputs, self._needed, strict=True)
        return [tensor.detach().requires_grad_() if needed else tensor.detach() for tensor, needed in pairs]


class _Gradients:
    """Gradients for ``leaves`` of the sum of outputs times ``outer``; ``None`` for those that do not matter."""

    def __init__(self, leaves: list[Tensor], outer: list[Tensor | None], values: list[Tensor | None]) -> None:
        self.leaves = leaves
        self.outer = outer
        self.values = values

    def adjoint(self, outer: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The gradients of ``<values, outer>`` for the leaves and for this object's own ``outer``."""
        pairs = [
            (value, each)
            for value, each in zip(self.values, outer, strict=True)
            if value is not None and each is not None and value.requires_grad
        ]
        tensors = [*self.leaves, *self.outer]
        asked = [each for each in tensors if each is not None and each.requires_grad]
        if not pairs:
            return [None] * len(tensors)
        found = torch.autograd.grad(
            [value for value, _ in pairs], asked, [each for _, each in pairs], allow_unused=True
        )
        of = dict(zip(map(id, asked), found, strict=True))
        return [of.get(id(each)) for each in tensors]


class _Forward(torch.autograd.Function):
    """The outputs of a segment; its backward pass repeats the call."""

    @staticmethod
    def forward(ctx: Any, segment: Segment, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.segment = segment
        ctx.save_for_backward(*tensors)
        return tuple(tensor.detach() for tensor in segment.outputs)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *_Backward.apply(ctx.segment, len(ctx.saved_tensors), *ctx.saved_tensors, *outer)  # type: ignore[no-untyped-call]


class _Backward(torch.autograd.Function):
    """The gradients of a segment; their backward pass repeats the call as well."""

    @staticmethod
    def forward(ctx: Any, segment: Segment, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.segment, ctx.count = segment, count
        ctx.save_for_backward(*tensors)
        return tuple(segment.gradients(tensors[:count], tensors[count:], graph=False).values)  # type: ignore[arg-type]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        hand_back()  # what the segment before freed
        found = ctx.segment.gradients(tensors[: ctx.count], tensors[ctx.count :], graph=True)
        made = found.adjoint(outer)
        _free([outer[number] for number in getattr(ctx, "spent", ())], made)
        return None, None, *made


def spend(gradients: Sequence[Tensor]) -> None:
    """Let the next derivative of gradients, along themselves, free each one as soon as it was used.

    That is possible for those that one segment alone computed; none may be read afterwards.
    """
    for gradient in gradients:
        node = gradient.grad_fn
        if isinstance(getattr(node, "segment", None), Segment):
            node.spent = {*getattr(node, "spent", ()), gradient.output_nr}  # type: ignore[union-attr]


def _free(spent: Sequence[Tensor | None], kept: Sequence[Tensor | None]) -> None:
    """Free the memory of tensors, but for what ``kept`` ones share with them."""
    held = {each.untyped_storage().data_ptr() for each in kept if each is not None}
    for each in spent:
        if each is not None and each.untyped_storage().data_ptr() not in held:
            each.untyped_storage().resize_(0)


def _leaves(outputs: Sequence[Tensor], begin: int, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The leaves in the graph of the outputs, but for the inputs."""
    known, found = set(map(id, inputs)), dict[int, Tensor]()
    for output in outputs:
        for node in nodes_of(output):
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                found.setdefault(id(leaf), leaf)
            elif node._sequence_nr() < begin:
                raise NotRepeatable(
                    "a part of the model uses tensors that another part computed, besides its arguments"
                )
    return [leaf for key, leaf in found.items() if key not in known]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.detach(), other)
