"""The recorded graph of one evaluation: its ATen operations in order, recorded below autograd by a dispatch mode."""

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
    """Identity of a tensor's content at one time: memory address, dtype, layout and version counter."""

    memory: int
    dtype: torch.dtype
    layout: tuple[torch.Size, tuple[int, ...], int]
    written: int


class Untraceable(Exception):
    """An evaluation whose backward graph cannot be determined; the message gives the reason."""


@dataclass(frozen=True)
class Operation:
    """One call: function, arguments and result, and the values of the tensors in arguments and result, in order.

    References to the tensors are kept: reuse of their memory would duplicate their identity.
    """

    func: OpOverload[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    read: list[Value]
    made: list[Value]


class GraphRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operation while it is entered, without changing the results.

    Args:
        aside: whether the current operation is not part of the evaluation; it is then not recorded.

    Attributes:
        operations: in the order of their calls.
        forward: the number of operations recorded before :meth:`turn`, which belong to the forward pass.
        broken: why the record cannot be used, empty if it can.
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
        """False: the decorator that excludes the compiler imports it, which takes seconds."""
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
    """The identity of the content of ``tensor``. Views and ``detach`` of one memory with one layout are one value.

    The version counter grows after a call that writes into a tensor, so that its argument and its result are one value.

    Raises:
        Untraceable: a tensor whose memory does not identify its content (sparse, vmapped, complex, inference mode).
    """
    if tensor.is_inference():
        raise Untraceable("an inference tensor has no version counter, so that overwriting cannot be detected")
    if tensor.is_complex():
        raise Untraceable("views of complex tensors (conjugates) cannot be identified by their memory")
    try:
        memory = tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        raise Untraceable(
            f"a tensor of layout {tensor.layout} has no single memory address to identify it by"
        ) from None
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
