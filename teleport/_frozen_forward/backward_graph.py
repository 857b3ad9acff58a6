"""The backward graph: the part of a gradient that depends on moving weights if all layer outputs are fixed.

In the exact null space of a batch no layer output changes as the weights move, so the forward pass is constant. Of the
backward pass only the part that depends on a moving weight changes. The recorded graph (``recorded_graph.py``) is cut
accordingly: products of moving weights in the forward pass keep their recorded values, operations that depend on no
moving weight are constants, and operations that no gradient needs are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teleport._frozen_forward.recorded_graph import GraphRecorder, Operation, Untraceable, Value, replaced, value_of
from teleport._tracing.ownership import tensors_in

aten = torch.ops.aten

PRODUCTS = {
    *(aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.mv.default, aten.addmv.default),
    *(aten.convolution.default, aten.add.Tensor, aten.add_.Tensor),
}
"""What a linear map computes with a weight that moves, the addition of its bias included."""

COPIES = {
    *(aten.clone.default, aten._to_copy.default, aten.cat.default, aten.stack.default, aten._unsafe_view.default),
}
"""Hand a weight on without computing with it, beside views."""


@dataclass(frozen=True)
class Slot:
    """A placeholder in the arguments of a node for a tensor that is computed anew."""

    number: int


@dataclass(eq=False)
class GraphNode:
    """One operation to run again; ``made`` holds the slots of the tensors in its result, ``None`` for unused ones."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: list[int | None]

    @property
    def read(self) -> list[int]:
        """The slots that the node reads."""
        return [slot.number for slot in _slots((self.args, self.kwargs))]


@dataclass
class BackwardGraph:
    """The part of a recorded computation that depends on the moving parameters.

    Attributes:
        inputs: the slot of each moving parameter.
        calls: the nodes, in the order of execution.
        slots: the slot of every value that is computed anew.
        gradients: per parameter the recorded gradient, or the slot of the one that is computed anew.
        count: the number of slots.
    """

    inputs: dict[nn.Parameter, int]
    calls: list[GraphNode]
    slots: dict[Value, int]
    gradients: list[Tensor | int]
    count: int

    def call(self, func: Callable[..., Tensor], *args: Any) -> Slot:
        """Append a call of another function; returns the slot of its result."""
        made = Slot(self.count)
        self.count += 1
        self.calls.append(GraphNode(func, args, {}, [made.number]))
        return made

    def run(self, leaves: Mapping[nn.Parameter, Tensor]) -> dict[int, Tensor]:
        """The values of all slots, with ``leaves`` in place of the moving parameters."""
        held = {number: leaves[parameter] for parameter, number in self.inputs.items()}

        def filled(values: Any) -> Any:
            if isinstance(values, Slot):
                return held[values.number]
            if isinstance(values, (list, tuple)):
                return type(values)(filled(value) for value in values)
            return values

        for call in self.calls:
            result = call.func(*filled(call.args), **{key: filled(value) for key, value in call.kwargs.items()})
            for number, tensor in zip(call.made, tensors_in(result), strict=True):
                if number is not None:
                    held[number] = tensor
        return held


def backward_graph_of(
    record: GraphRecorder, gradients: Sequence[Tensor], moving: Sequence[nn.Parameter]
) -> BackwardGraph:
    """The part of the recorded ``gradients`` that changes if the ``moving`` parameters move in null spaces.

    Args:
        record: the recorded graph of the loss and of its ``gradients``, at the current parameters.
        gradients: the results of the recorded evaluation.
        moving: parameters that enter the loss in linear maps only, whose outputs do not change as they move.

    Raises:
        Untraceable: a use of a moving parameter is not understood, or a tensor was overwritten.
    """
    if record.broken:
        raise Untraceable(record.broken)
    changing = {value_of(parameter): number for number, parameter in enumerate(moving)}
    kept = []
    for number, operation in enumerate(record.operations):
        if changing.keys().isdisjoint(operation.read):
            continue
        if number < record.forward and _stays(operation, changing):
            continue
        if operation.func._schema.is_mutable or not operation.made:
            raise Untraceable(f"{operation.func} writes into or decides on what changes")
        if changing.keys() >= set(operation.made):
            continue  # another view of a known value
        for value in operation.made:
            changing.setdefault(value, len(changing))
        kept.append(operation)
    ends = [changing.get(value_of(gradient), gradient) for gradient in gradients]
    needed = {end for end in ends if isinstance(end, int)}
    calls = []
    for operation in reversed(kept):
        if needed.isdisjoint(changing[value] for value in operation.made):
            continue
        needed.update(changing[value] for value in operation.read if value in changing)
        calls.append(_call(operation, changing, needed))
    inputs = {parameter: number for number, parameter in enumerate(moving)}
    held = [end if isinstance(end, int) else end.detach() for end in ends]
    return BackwardGraph(inputs, calls[::-1], changing, held, len(changing))


def _stays(operation: Operation, changing: Mapping[Value, int]) -> bool:
    """Whether a forward operation on a moving weight is the product of a layer, whose value is fixed, not a view."""
    if operation.func in PRODUCTS and not (operation.func._schema.is_mutable and operation.read[0] in changing):
        return True
    if operation.func.is_view or operation.func in COPIES:
        return False
    raise Untraceable(f"{operation.func} reads a moving weight in the forward pass")


def _call(operation: Operation, changing: Mapping[Value, int], needed: set[int]) -> GraphNode:
    def constant_or_slot(tensor: Tensor, value: Value) -> Any:
        if value in changing:
            return Slot(changing[value])
        if value_of(tensor) != value:
            raise Untraceable(f"an argument of {operation.func} was overwritten")
        return tensor.detach()

    read = iter(operation.read)
    args = replaced(operation.args, constant_or_slot, read)
    kwargs = replaced(operation.kwargs, constant_or_slot, read)
    numbers = [changing[value] for value in operation.made]
    return GraphNode(operation.func, args, kwargs, [number if number in needed else None for number in numbers])


def _slots(values: Any) -> list[Slot]:
    if isinstance(values, Slot):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, (list, tuple)):
        return []
    return [slot for value in values for slot in _slots(value)]
