"""Reads of a parameter's values below the torch functions, where a function tracer sees nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from teleport._tracing.ownership import Owners, tensors_in
from teleport._tracing.value_reads import ValueReads


class UnseenReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode: every kernel that reads or writes a parameter passes through it.

    For each torch function that it judges, the function tracer opens a frame with the parameters among the arguments.
    A read of another parameter, or one outside of a frame, is an unseen one: in a scripted module, under
    ``torch.func``, in the backward pass of a gradient penalty.

    Attributes:
        operations: name of each parameter with an unseen read -> the operation that read it first.
        paused: whether nothing is recorded.
    """

    def __init__(self, owners: Owners, values: ValueReads | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owners = owners
        self.values = values
        self.operations: dict[str, str] = {}
        self.paused = False
        self._given: frozenset[str] = frozenset()
        self._read: set[str] = set()

    @contextmanager
    def frame(self, given: Iterable[str]) -> Iterator[set[str]]:
        """A call with these parameters among its arguments; yields a set, filled with those whose values it reads."""
        self._given, self._read = frozenset(given), set()
        try:
            yield self._read
        finally:
            self._given, self._read = frozenset(), set()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Record nothing: what is computed inside is no part of the evaluation."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: the decorator that would keep the compiler out imports it, which takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: OpOverload[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.paused:
            with self.pause():
                self._record(func, args, kwargs, result)
                if self.values is not None:
                    self.values.note(func, args, kwargs, result)
        return result

    def _record(self, func: OpOverload[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        names = {name for tensor in tensors_in((args, kwargs)) for name in self.owners.of(tensor)}
        if not names:
            return
        made = list(tensors_in(result))
        if made and all(self.owners.of(tensor) for tensor in made) and not func._schema.is_mutable:
            return  # a view: no value was read
        self._read |= names & self._given
        for name in names - self._given:
            self.operations.setdefault(name, str(func))
