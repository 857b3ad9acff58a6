"""The base of the tracers: every torch function of one evaluation, with the parameters whose values it reads.

A subclass says which calls concern it (:meth:`FunctionTracer.concerns`), what it must know before a call
(:meth:`FunctionTracer.before`) and what it concludes from it (:meth:`FunctionTracer.after`). Three do so:
``LayerTracer`` and ``PairTracer`` in this package, and ``QuiverTracer`` in ``_quiver/find_quiver.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from teleport._errors import UnsupportedModel
from teleport._processes.shards import Shards, gathered
from teleport._tracing.functions import called
from teleport._tracing.ownership import Owners, tensors_in
from teleport._tracing.reasons import unseen_read
from teleport._tracing.unseen_reads import UnseenReads
from teleport._tracing.value_reads import EXPORTS, ValueReads

T = TypeVar("T")


@dataclass(frozen=True)
class TracedCall:
    """A call of a torch function that concerns the tracer.

    Attributes:
        func, args, kwargs, result: the call.
        prepared: what ``before`` returned.
        given: by the name of a parameter (or of other owned memory), how many of the arguments reach into it.
        read: names of those whose values the call read.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    prepared: Any
    given: Counter[str]
    read: set[str]


class FunctionTracer(TorchFunctionMode):
    """Calls ``before`` and ``after`` around each torch function that concerns the tracer.

    Args:
        owners: of the memory that is traced, the parameters' above all.
        values: told of every call, if reads of values are to be found.

    Attributes:
        unseen: the reads below the torch functions.
    """

    def __init__(self, owners: Owners, values: ValueReads | None = None) -> None:
        super().__init__()
        self.owners = owners
        self.values = values
        self.unseen = UnseenReads(owners, values)

    def trace(self, evaluate: Callable[[], T]) -> T:
        """The result of ``evaluate()``, which is traced."""
        try:
            with nullcontext() if self.values is None else self.values.watching(), self.unseen, self:
                return evaluate()
        except NotImplementedError as error:
            if "HigherOrderOperator" not in str(error):
                raise
            raise UnsupportedModel(
                "the model calls a control flow operator (torch.cond, torch.while_loop), which cannot be traced; "
                "branch in Python instead"
            ) from error

    @property
    def paused(self) -> bool:
        """Whether the tracer itself computes something, which is no part of the evaluation."""
        return self.unseen.paused

    def unseen_reasons(self) -> dict[str, str]:
        """Name -> sentence, for everything that was read below the torch functions."""
        return {name: unseen_read(operation) for name, operation in self.unseen.operations.items()}

    def concerns(self, args: tuple[Any, ...], kwargs: dict[str, Any], given: Counter[str]) -> bool:
        """Whether ``before`` and ``after`` must see a call: if owned memory is among its arguments."""
        return bool(given)

    def before(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What ``after`` must know of the arguments as they are before the call, which may change them."""
        return None

    def after(self, call: TracedCall) -> None:
        """Conclude from a call."""
        raise NotImplementedError

    def __torch_function__(  # the mode itself is off in here
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if func is gathered:
            with self.unseen.pause():
                return self._gathered(*args)
        if self.values is None:
            return self._traced(func, args, kwargs)
        self.values.before(func)
        result = self._traced(func, args, kwargs)
        self.values.after(func, args, kwargs, result)
        return result

    def _gathered(self, group: Shards, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """The whole parameters, whose memory is then known as theirs."""
        wholes = gathered(group, parameters)
        for parameter, whole in zip(parameters, wholes, strict=True):
            self.owners.admit(group.rows[parameter].name, whole)
            if self.values is not None:
                self.values.note_copy(parameter, whole)
        return wholes

    def _traced(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = Counter(name for tensor in tensors_in((args, kwargs)) for name in self.owners.of(tensor))
        if not self.concerns(args, kwargs, given):
            return func(*args, **kwargs)
        if any(tensor.is_nested for tensor in tensors_in((args, kwargs))):
            raise UnsupportedModel(
                f"a nested (or jagged) tensor enters {called(func)} with parameters, and its rows cannot be traced; "
                "pad it to a dense tensor with a mask"
            )
        with self.unseen.pause():
            prepared = self.before(func, args, kwargs)
        with self.unseen.frame(given) as read:
            result = func(*args, **kwargs)
        if getattr(func, "__name__", "") in EXPORTS:
            read |= set(given)
        with self.unseen.pause():
            self.after(TracedCall(func, args, kwargs, result, prepared, given, read))
        return result
