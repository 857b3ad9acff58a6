"""The backward graph: the part of a recorded gradient computation that depends on moving weights.

In the exact null space of a batch no layer's output changes as the weights move, so the whole forward pass is constant.
Only the operations of the backward pass that read a moving weight change. The recorded graph
(``_frozen_forward/recorded_graph.py``) is reduced to them: products of moving weights in the forward pass keep their
recorded values, values that depend on no moving weight are constants, and operations that no gradient needs are
removed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
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
"""Operations of a linear map on a moving weight, including the addition of its bias."""

COPIES = {
    *(aten.clone.default, aten._to_copy.default, aten.cat.default, aten.stack.default, aten._unsafe_view.default),
}
"""Operations besides views that copy a weight without arithmetic."""


@dataclass(frozen=True)
class Slot:
    """Placeholder for a recomputed tensor in the arguments of a node."""

    number: int


@dataclass(eq=False)
class GraphNode:
    """One operation to recompute; ``made`` are the slots of the tensors in its result, ``None`` for unused ones."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: list[int | None]

    @property
    def read(self) -> list[int]:
        """The slots among its arguments."""
        return [slot.number for slot in _slots((self.args, self.kwargs))]


@dataclass
class BackwardGraph:
    """The part of a recorded computation that depends on the moving parameters.

    Attributes:
        inputs: the slot of each moving parameter.
        nodes: the operations in the order of execution.
        slots: the slot of every recomputed value.
        gradients: per gradient, its slot if it is recomputed, otherwise its recorded value.
        count: the number of slots.
    """

    inputs: dict[nn.Parameter, int]
    nodes: list[GraphNode]
    slots: dict[Value, int]
    gradients: list[Tensor | int]
    count: int

    def append(self, func: Callable[..., Tensor], *args: Any) -> Slot:
        """Append a node for another function; returns the slot of its result."""
        made = Slot(self.count)
        self.count += 1
        self.nodes.append(GraphNode(func, args, {}, [made.number]))
        return made

    def structure(self) -> Hashable:
        """The moving parameters and the operations, with the slots that each reads and makes, without their values."""
        nodes = tuple((node.func, tuple(node.read), tuple(node.made)) for node in self.nodes)
        return tuple(self.inputs), nodes, tuple(end if isinstance(end, int) else None for end in self.gradients)

    def run(self, leaves: Mapping[nn.Parameter, Tensor]) -> dict[int, Tensor]:
        """Compute the values of all slots, with ``leaves`` in place of the moving parameters."""
        computed = {number: leaves[parameter] for parameter, number in self.inputs.items()}

        def filled(values: Any) -> Any:
            if isinstance(values, Slot):
                return computed[values.number]
            if isinstance(values, (list, tuple)):
                return type(values)(filled(value) for value in values)
            return values

        for node in self.nodes:
            result = node.func(*filled(node.args), **{key: filled(value) for key, value in node.kwargs.items()})
            for number, tensor in zip(node.made, tensors_in(result), strict=True):
                if number is not None:
                    computed[number] = tensor
        return computed


def backward_graph_of(
    record: GraphRecorder, gradients: Sequence[Tensor], moving: Sequence[nn.Parameter]
) -> BackwardGraph:
    """The part of the recorded ``gradients`` to recompute after the ``moving`` parameters moved in null spaces.

    Args:
        record: of an evaluation of the loss and then, after ``turn``, of its ``gradients``, at the current parameters.
        gradients: the results of the evaluation.
        moving: parameters that enter the loss in linear maps only, whose outputs stay constant while they move.

    Raises:
        Untraceable: a moving parameter is used by an unsupported operation, or a recorded tensor was overwritten.
    """
    if record.broken:
        raise Untraceable(record.broken)
    changing = {value_of(parameter): number for number, parameter in enumerate(moving)}
    kept = []
    for number, operation in enumerate(record.operations):
        if changing.keys().isdisjoint(operation.read):
            continue
        if number < record.forward and _is_frozen_product(operation, changing):
            continue
        if operation.func._schema.is_mutable or not operation.made:
            raise Untraceable(f"{operation.func} writes into, or returns no tensor for, a value that changes")
        if changing.keys() >= set(operation.made):
            continue  # another view of a known value
        for value in operation.made:
            changing.setdefault(value, len(changing))
        kept.append(operation)
    ends = [changing.get(value_of(gradient), gradient) for gradient in gradients]
    needed = {end for end in ends if isinstance(end, int)}
    nodes = []
    for operation in reversed(kept):
        if needed.isdisjoint(changing[value] for value in operation.made):
            continue
        needed.update(changing[value] for value in operation.read if value in changing)
        nodes.append(_node(operation, changing, needed))
    inputs = {parameter: number for number, parameter in enumerate(moving)}
    outputs = [end if isinstance(end, int) else end.detach() for end in ends]
    return BackwardGraph(inputs, nodes[::-1], changing, outputs, len(changing))


def _is_frozen_product(operation: Operation, changing: Mapping[Value, int]) -> bool:
    """Whether a forward operation on a moving weight is a layer's product, whose value is frozen; if not, it copies."""
    if operation.func in PRODUCTS and not (operation.func._schema.is_mutable and operation.read[0] in changing):
        return True
    if operation.func.is_view or operation.func in COPIES:
        return False
    raise Untraceable(f"{operation.func} reads a moving weight in the forward pass")


def _node(operation: Operation, changing: Mapping[Value, int], needed: set[int]) -> GraphNode:
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
