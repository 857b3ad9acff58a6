"""What is left of a gradient's computation once every layer's output is known to stay.

At the exact null space of a batch no layer's output changes as the weights move, so neither does anything else of the
forward pass. What does change is the backward pass, and of it only what depends on a weight that moves. The recorded
evaluation (``_frozen_forward/recorded_graph.py``) is cut there: products of moving weights in the forward pass are
taken as recorded, what depends on nothing that moves is a constant, and what no gradient needs is left out.
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
    """Stands in a call's arguments for a tensor that is computed anew."""

    number: int


@dataclass(eq=False)
class GraphNode:
    """One operation to run again; ``made`` are the slots of the tensors in its result, ``None`` where unused."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: list[int | None]

    @property
    def read(self) -> list[int]:
        """The slots that it reads."""
        return [slot.number for slot in _slots((self.args, self.kwargs))]


@dataclass
class BackwardGraph:
    """The part of a recorded computation that depends on the moving parameters.

    Attributes:
        inputs: the slot of each moving parameter.
        calls: in order.
        slots: of every value that is computed anew.
        gradients: a recorded gradient each, or the slot where it is computed anew.
        count: of slots.
    """

    inputs: dict[nn.Parameter, int]
    calls: list[GraphNode]
    slots: dict[Value, int]
    gradients: list[Tensor | int]
    count: int

    def call(self, func: Callable[..., Tensor], *args: Any) -> Slot:
        """Run another function, too; gives the slot of what it makes."""
        made = Slot(self.count)
        self.count += 1
        self.calls.append(GraphNode(func, args, {}, [made.number]))
        return made

    def run(self, leaves: Mapping[nn.Parameter, Tensor]) -> dict[int, Tensor]:
        """All slots, with ``leaves`` in the place of the moving parameters."""
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
    tape: GraphRecorder, gradients: Sequence[Tensor], moving: Sequence[nn.Parameter]
) -> BackwardGraph:
    """What of the recorded ``gradients`` must be computed anew after the ``moving`` parameters moved in null spaces.

    Args:
        tape: of an evaluation of the loss and, after the turn, of its ``gradients``, at the parameters as they stand.
        gradients: what the evaluation ended with.
        moving: parameters that enter the loss in linear maps only, whose outputs stay while they move.

    Raises:
        Untraceable: what happened to a moving parameter is not understood, or something was overwritten.
    """
    if tape.broken:
        raise Untraceable(tape.broken)
    changing = {value_of(parameter): number for number, parameter in enumerate(moving)}
    kept = []
    for number, operation in enumerate(tape.operations):
        if changing.keys().isdisjoint(operation.read):
            continue
        if number < tape.forward and _stays(operation, changing):
            continue
        if operation.func._schema.is_mutable or not operation.made:
            raise Untraceable(f"{operation.func} writes into or decides on what changes")
        if changing.keys() >= set(operation.made):
            continue  # another view of what is known
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
    """Whether a forward operation on a moving weight is a layer's product, whose value stays; else it hands it on."""
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
