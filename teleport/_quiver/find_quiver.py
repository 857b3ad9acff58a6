"""Finds the quiver of a network: which channels may carry which factors, traced in one evaluation.

Every torch function is traced. A tensor with factors has a scale index (``scale_indices.py``). The rules (``rules/``)
say which scale index the result of a function has and which scale variables must be equal for that, and
``scale_variables.py`` solves for the free ones. A function without a rule pins the scale variables of its arguments to
1, with the reason, so that nothing changes whose use is not understood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teleport._processes.group import ALONE, Group
from teleport._processes.shards import Shards
from teleport._quiver.quiver import Quiver
from teleport._quiver.rules import ACTIVATIONS, Call, indices_of_result
from teleport._quiver.scale_indices import compact
from teleport._quiver.scale_state import ScaleState
from teleport._quiver.solver import quiver_of
from teleport._tracing.function_tracer import FunctionTracer, TracedCall
from teleport._tracing.functions import function_name
from teleport._tracing.outputs import tensors_returned
from teleport._tracing.ownership import tensors_in
from teleport._tracing.reasons import other_use
from teleport._tracing.value_reads import ValueReads


def find_quiver(
    run: Callable[[], Any],
    named_parameters: Mapping[str, nn.Parameter],
    in_place: bool = True,
    frozen_stay: bool = True,
) -> Quiver:
    """Trace one evaluation and find which channels may change their basis.

    Args:
        run: evaluates the model once. Every tensor that it returns is an output and carries 1, as does every tensor
            that is not computed from parameters.
        named_parameters: the parameters that may be scaled; all other tensors are constant.
        in_place: whether the changed parameters alone must keep the function. Otherwise activations may be called in
            their teleported form, and the quiver's ``sites`` say which.
        frozen_stay: whether parameters that require no gradient stay, and their scale variables with them.
    """
    return trace_quiver([run], named_parameters, in_place, frozen_stay, "it is an output")


def trace_quiver(
    runs: Iterable[Callable[[], Any]],
    named_parameters: Mapping[str, nn.Parameter],
    in_place: bool,
    frozen_stay: bool,
    output: str,
    spare: Iterable[Callable[[], Any]] = (),
    values: ValueReads | None = None,
    group: Group = ALONE,
) -> Quiver:
    """The quiver that several evaluations of one network allow together.

    Args:
        runs: each evaluates the model once.
        named_parameters, in_place, frozen_stay: as of :func:`find_quiver`.
        output: why an output carries 1.
        spare: evaluations that are made, one after the other, only while there are parameters that none has read.
        values: finds the reads of values, for the quiver to name.
        group: of processes that may hold rows of the parameters, and make the same evaluations then.
    """
    tracker = QuiverTracer(named_parameters, in_place, frozen_stay, values)
    for run in runs:
        tracker.trace_run(run, output)
    for run in spare:
        if not group.anywhere(bool(tracker.unread)):
            break
        tracker.trace_run(run, output)
    return tracker.result()


ZEROS = {torch.zeros, torch.zeros_like, Tensor.new_zeros, torch.empty, torch.empty_like, Tensor.new_empty}
"""Their results scale with anything: zeros, and memory that is written before it is read."""


class QuiverTracer(FunctionTracer):
    """Propagates scale indices through the torch functions of an evaluation."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        in_place: bool,
        frozen_stay: bool,
        values: ValueReads | None = None,
    ) -> None:
        self.state = ScaleState(parameters, in_place, frozen_stay)
        super().__init__(self.state.memory, values)
        self.parameters = parameters
        self.calls: dict[str, int] = {}  # of activations, in the last evaluation
        self.unread = {
            name: None for name, held in parameters.items() if held.numel()
        }  # parameters that no evaluation has read, in their order

    def __torch_function__(  # the mode itself is off in here
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """As of the base class, with the calls of activations counted, including those without factors."""
        if func in ACTIVATIONS:
            self.state.calls[func] += 1
        result = super().__torch_function__(func, types, args, kwargs)
        if func in ZEROS and isinstance(result, Tensor):
            self.state.note_zero(result)
        return result

    def _gathered(self, group: Shards, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        wholes = super()._gathered(group, parameters)
        for rows, whole in zip(parameters, wholes, strict=True):
            self.state.note_gathered(rows, group.rows[rows].name, whole)
        return wholes

    def trace_run(self, run: Callable[[], Any], output: str) -> None:
        """Evaluate the model and add the constraints that follow."""
        with self.state.scopes.watching():
            result = self.trace(run)
        self.end_of_run(result, output)

    def before(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The versions of the arguments, to detect a change in place, and which of them are zeros."""
        entered = list(tensors_in((args, kwargs)))
        return _versions(entered), frozenset(id(tensor) for tensor in entered if self.state.is_zero(tensor))

    def after(self, call: TracedCall) -> None:
        """Set the scale index of the result of a call, or pin its arguments."""
        with torch._C._DisableTorchDispatch():  # reads of scale indices are no reads of parameters
            self._judge(call)

    def _judge(self, seen: TracedCall) -> None:
        versions, zeros = seen.prepared
        call = Call(self.state, seen.func, seen.result, zeros)
        scale_indices = indices_of_result(call, seen.args, seen.kwargs)
        explained = Counter[str]() if scale_indices is None else call.explained
        for name in seen.read:
            if name in self.parameters and seen.given[name] > explained[name]:
                self.state.scales.pin(name, other_use(seen.func, "the weight of a layer"))
        self._note_read(seen.read)
        entered = list(tensors_in((seen.args, seen.kwargs)))
        made = list(tensors_in(seen.result))
        if scale_indices is not None and self._keeps_arguments(entered, made, scale_indices, zeros):
            for tensor, scale_index in zip(made, scale_indices, strict=True):
                if bool(compact(scale_index).any()) or self.state.memory.indices_of(tensor):
                    self.state.hold(tensor, scale_index)
        elif made or any(name not in self.parameters for name in seen.read):
            changed = versions != _versions(entered)
            for scale_index in [
                *(scale_indices or []),
                *(scale_index for each in entered for scale_index in self.state.indices_at(each, changed)),
            ]:
                self.state.pin(scale_index, seen.func)

    def _keeps_arguments(
        self, entered: list[Tensor], made: list[Tensor], scale_indices: list[Tensor], zeros: frozenset[int]
    ) -> bool:
        """Whether the call left the scale index of each argument unchanged, since other views of it keep the old
        one. Zeros have none; another view of them is found by its memory."""
        arguments = {id(tensor) for tensor in entered if id(tensor) not in zeros or self.state.held(tensor)}
        return all(
            id(tensor) not in arguments or torch.equal(self.state.scale_index(tensor), scale_index)
            for tensor, scale_index in zip(made, scale_indices, strict=True)
        )

    def end_of_run(self, result: Any, output: str) -> None:
        """Pin the outputs and what was read below the torch functions, and release the tensors of the evaluation."""
        for tensor in tensors_returned(result):
            for scale_index in self.state.indices_at(tensor):
                self.state.variables.pin(scale_index, output)
            for name in self.state.memory.of(tensor):
                if name in self.parameters:
                    self.state.scales.pin(name, output)
                    self.unread.pop(name, None)
        unseen = self.unseen_reasons()
        self._note_read(unseen)
        for name, reason in unseen.items():
            if name in self.parameters:
                self.state.scales.pin(name, reason)
            for scale_index in self.state.memory.scale_indices.get(name, []):
                self.state.variables.pin(scale_index, reason)
        self.unseen.operations.clear()
        self.calls = {function_name(func): count for func, count in self.state.calls.items()}
        self.state.forget_tensors()

    def _note_read(self, names: Iterable[str]) -> None:
        for name in names:
            self.unread.pop(name, None)

    def result(self) -> Quiver:
        """The quiver that follows from all evaluations; the tracer is not changed."""
        pins = [
            (scale_index, f"no evaluation reached '{name}', whose module may read it")
            for name, reached in self.state.scopes.in_reach_of(self.unread)
            for scale_index in reached
        ]
        quiver = quiver_of(self.state.scales, self.state.sites, self.calls, pins)
        quiver.value_reads = list(self.values.found) if self.values is not None else []
        return quiver


def _versions(tensors: Iterable[Tensor]) -> list[int]:
    """The version counter of each tensor; -1 if torch does not count."""
    return [-1 if tensor.is_inference() else tensor._version for tensor in tensors]
