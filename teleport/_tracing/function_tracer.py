"""Sees every torch function of an evaluation that some watched memory enters, and which of it the call reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.overrides import TorchFunctionMode

from teleport._tracing.ownership import Owners, tensors_in
from teleport._tracing.unseen_reads import UnseenReads

EXPORTS = {"numpy", "tolist", "data_ptr", "untyped_storage", "storage", "__array__", "__dlpack__", "share_memory_"}
"""Methods that give a tensor's memory away, after which nobody sees what is done with it."""


@dataclass(frozen=True)
class TracedCall:
    """A call of a torch function that was given watched memory.

    Attributes:
        func, args, kwargs, result: the call.
        known: what ``before`` told of its arguments.
        given: how many of its arguments reach into each watched memory.
        read: those whose values the call read.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    known: Any
    given: Counter[str]
    read: set[str]


class FunctionTracer(TorchFunctionMode):
    """Calls ``before`` and ``after`` around each torch function that is given watched memory.

    To be entered together with its ``reads``, which sees what no torch function shows.
    """

    def __init__(self, owners: Owners) -> None:
        super().__init__()
        self.owners = owners
        self.reads = UnseenReads(owners)

    def before(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What ``after`` must know of the arguments as they are before the call, which may change them."""
        return None

    def after(self, seen: TracedCall) -> None:
        """Judge a call."""
        raise NotImplementedError

    def __torch_function__(  # the mode itself is off in here
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.reads.paused:  # the watcher's own doings
            return func(*args, **kwargs)
        given = Counter(name for tensor in tensors_in((args, kwargs)) for name in self.owners.of(tensor))
        if not given:
            return func(*args, **kwargs)
        with self.reads.pause():
            known = self.before(func, args, kwargs)
        with self.reads.frame(given) as read:
            result = func(*args, **kwargs)
        if getattr(func, "__name__", "") in EXPORTS:
            read |= set(given)
        with self.reads.pause():
            self.after(TracedCall(func, args, kwargs, result, known, given, read))
        return result
