"""The recorded graph of one evaluation: every operation below autograd, in the order of execution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from teleport._tracing.ownership import tensors_in


class Value(NamedTuple):
    """The identity of a tensor's values at one moment: its memory, dtype, layout and version."""

    memory: int
    dtype: torch.dtype
    layout: tuple[torch.Size, tuple[int, ...], int]
    written: int


class Untraceable(Exception):
    """An evaluation whose graph cannot be recorded; the message says why."""


@dataclass(frozen=True)
class Operation:
    """One call: the function, its arguments and results, and the identities of the tensors in both, in order.

    The tensors are kept alive, so that no other tensor takes their memory and with it their identity.
    """

    func: OpOverload[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    read: list[Value]
    made: list[Value]


class GraphRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operation while it is entered; results do not change.

    Args:
        aside: whether the current operation is not part of the evaluation and is left out.

    Attributes:
        operations: in the order of execution.
        forward: the number of operations before :meth:`turn`, at which the backward pass begins.
        broken: why the graph cannot be used; empty if it can.
    """

    def __init__(self, aside: Callable[[], bool] = lambda: False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.aside = aside
        self.operations: list[Operation] = []
        self.forward = 0
        self.broken = ""

    def turn(self) -> None:
        """Mark the end of the forward pass."""
        self.forward = len(self.operations)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False, because the decorator that excludes the compiler imports it, which takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: OpOverload[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.broken or self.aside():
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        try:
            read = [value_of(tensor) for tensor in tensors_in((args, kwargs))]
            # the version counter of a view is set only after this call
            written = {value.memory: value.written for value in read}
            made = [value_of(tensor) for tensor in tensors_in(result)]
            made = [value._replace(written=written.get(value.memory, value.written)) for value in made]
            self.operations.append(Operation(func, args, kwargs, result, read, made))
        except Untraceable as reason:
            self.broken = str(reason)
            self.operations.clear()
        return result


def value_of(tensor: Tensor) -> Value:
    """The identity of the current values of ``tensor``. Views and ``detach`` of one memory with one layout are equal.

    A call that writes into a tensor raises the version only after it returns, so its argument and its result are equal.

    Raises:
        Untraceable: a tensor whose memory does not identify its values (sparse, vmapped, complex, of inference mode).
    """
    if tensor.is_inference():
        raise Untraceable("an inference tensor does not tell whether it was overwritten")
    if tensor.is_complex():
        raise Untraceable("complex numbers are read through views that memory does not show")
    try:
        memory = tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        raise Untraceable(f"a tensor of layout {tensor.layout} has no memory to tell it by") from None
    layout = (tensor.shape, tensor.stride(), int(tensor.storage_offset()))
    return Value(memory, tensor.dtype, layout, tensor._version)


def replaced(values: Any, of: Callable[[Tensor, Value], Any], read: Iterator[Value]) -> Any:
    """``values`` with ``of(tensor, its value)`` in place of each tensor, in the order of ``tensors_in``."""
    if isinstance(values, Tensor):
        return of(values, next(read))
    if isinstance(values, dict):
        return {key: replaced(value, of, read) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(replaced(value, of, read) for value in values)
    return values
