"""Follows the axes of tensors through the torch functions of an evaluation.

A function without a rule (``rules/``) pins the axes of its arguments, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teleport._processes.shards import Shards
from teleport._symmetry_groups.axis import factors_in
from teleport._symmetry_groups.axis_state import Axes, AxisState
from teleport._symmetry_groups.later import Later
from teleport._symmetry_groups.rules import AxisCall, axes_of_result
from teleport._symmetry_groups.rules.table import named
from teleport._tracing.function_tracer import FunctionTracer, TracedCall
from teleport._tracing.outputs import tensors_returned
from teleport._tracing.ownership import tensors_in
from teleport._tracing.reasons import other_use

ONE_VALUE = {torch.zeros, torch.zeros_like, torch.ones, torch.ones_like, torch.full, torch.full_like}
ONE_VALUE |= {Tensor.new_zeros, Tensor.new_ones, Tensor.new_full}
"""Their results hold one value throughout."""

REPEATING = {*named("cat", "concat", "concatenate", "repeat_interleave", "repeat", "stack")}
"""Their results may hold copies of one constant."""


class AxisTracer(FunctionTracer):
    """Propagates axes through the torch functions of an evaluation.

    Args:
        parameters: of the model by name.
        buffers: its persistent buffers by name.
        foldable: the names of weights that may be folded into others.

    Attributes:
        state: what is known so far.
        unread: parameters that no evaluation has read.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], buffers: Mapping[str, Tensor], foldable: Iterable[str] = ()
    ) -> None:
        self.state = AxisState(parameters, buffers, foldable)
        super().__init__(self.state.memory)
        self.unread = {name: None for name, held in parameters.items() if held.numel()}

    def __torch_function__(  # the mode itself is off in here
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """As of the base class; tensors of one value, and constants that are repeated, are noted."""
        result = super().__torch_function__(func, types, args, kwargs)
        if not self.paused and isinstance(result, Tensor):
            if func in ONE_VALUE:
                self.state.note_uniform(result)
            elif func in REPEATING and not self.state.held(result):
                self._note_repeated(func, args, kwargs or {}, result)
        return result

    def _gathered(self, group: Shards, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        wholes = super()._gathered(group, parameters)
        for rows, whole in zip(parameters, wholes, strict=True):
            self.state.note_gathered(rows, group.rows[rows].name, whole)
        return wholes

    def _note_repeated(self, func: Callable[..., Any], args: Any, kwargs: Any, result: Tensor) -> None:
        """The axes of a constant that was put together of copies, as cosines of rotary embeddings are."""
        if any(self.owners.of(tensor) for tensor in tensors_in((args, kwargs))):
            return  # it was judged
        with self.unseen.pause(), torch._C._DisableTorchDispatch():
            axes = axes_of_result(AxisCall(self.state, func, result), args, kwargs)
            if isinstance(axes, list) and isinstance(axes[0], tuple) and any(map(self.state.variables.copied, axes[0])):
                self.state.hold(result, axes[0])

    def trace_run(self, run: Callable[[], Any]) -> None:
        """Evaluate the model and add the constraints that follow; all that is returned is an output."""
        with self.state.scopes.watching():
            result = self.trace(run)
        for tensor in tensors_returned(result):
            for axes in self.state.axes_at(tensor):
                self.state.pin(axes, "it is an output")
            for name in self.state.memory.of(tensor):
                if name in self.state.named:
                    self.state.pin_held(name, "it is an output")
                    self.unread.pop(name, None)
        unseen = self.unseen_reasons()
        self._note_read(unseen)
        for name, reason in unseen.items():
            if name in self.state.named:
                self.state.pin_held(name, reason)
            for axes in self.state.memory.axes.get(name, []):
                self.state.pin(axes, reason)
        self.unseen.operations.clear()
        self.state.forget_tensors()

    def pin_unreached(self) -> None:
        """Pin what parts of the model that no evaluation reached may read."""
        for name, reached in self.state.scopes.in_reach_of(self.unread):
            self.state.pin_held(name, "no evaluation reached it")
            for axes in reached:
                self.state.pin(axes, f"no evaluation reached '{name}', whose module may read it")

    def before(self, func: Callable[..., Any], args: Any, kwargs: Any) -> list[int]:
        """The versions of the arguments, to detect a change in place."""
        return [_version(tensor) for tensor in tensors_in((args, kwargs))]

    def after(self, seen: TracedCall) -> None:
        """Set the axes of the result of a call, or pin its arguments."""
        with torch._C._DisableTorchDispatch():  # reads of axes are no reads of parameters
            self._judge(seen)

    def _judge(self, seen: TracedCall) -> None:
        state = self.state
        entered, made = list(tensors_in((seen.args, seen.kwargs))), list(tensors_in(seen.result))
        call = AxisCall(state, seen.func, seen.result)
        self._note_read(seen.read)
        changed = seen.prepared != [_version(tensor) for tensor in entered]
        axes = axes_of_result(call, seen.args, seen.kwargs)
        if axes is not None and self._keeps_arguments(entered, made, axes):
            for tensor, each in zip(made, axes, strict=True):
                if isinstance(each, Later):
                    state.put_off(tensor, each)
                    continue
                moves = any(True for _ in factors_in(each)) or state.held(tensor)
                if moves and state.name_of(tensor) is None:
                    state.hold(tensor, each)
            return
        if not made and not changed and not seen.read:
            return  # a question about the form of a tensor
        for name in seen.given:
            if name in state.named and (name in seen.read or changed):
                state.pin_held(name, other_use(seen.func, "the weight of a layer"))
        for tensor in entered:
            for each in state.axes_at(tensor, all_views=changed):
                state.pin_for(each, seen.func)
            own = state.name_of(tensor)
            if own is not None and (made or changed):
                state.pin_held(own, other_use(seen.func, "the weight of a layer"))
        for each in axes or ():
            state.pin_for(each.settle() if isinstance(each, Later) else each, seen.func)

    def _keeps_arguments(self, entered: list[Tensor], made: list[Tensor], axes: Sequence[Axes | Later]) -> bool:
        """Whether the call left the axes of each argument unchanged, since other views of it keep the old ones."""
        arguments = {id(tensor) for tensor in entered}
        resolve = self.state.variables.resolve
        for tensor, each in zip(made, axes, strict=True):
            if id(tensor) not in arguments:
                continue
            if isinstance(each, Later):
                return False
            if self.state.axes(tensor) != tuple(resolve(axis) for axis in each):
                return False
        return True

    def _note_read(self, names: Iterable[str]) -> None:
        for name in names:
            self.unread.pop(name, None)


def _version(tensor: Tensor) -> int:
    """The version counter of a tensor; -1 if torch does not count."""
    return -1 if tensor.is_inference() else tensor._version
