"""Finds the quiver of a network: which channels may carry which change of basis, read off one evaluation.

Every torch function is watched. A tensor that scales with scale variables carries a scale index
(``_quiver/scale_indices.py``), the rules (``_quiver/rules/``) say what a function makes of scale indices and what must
be equal for that, and ``_quiver/scale_variables.py`` solves for what is left free. A function that has no rule pins
what enters it to 1, with the reason, so that what is not understood never changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

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


def find_quiver(
    run: Callable[[], Any],
    named_parameters: Mapping[str, nn.Parameter],
    in_place: bool = True,
    frozen_stay: bool = True,
) -> Quiver:
    """Watch one evaluation and tell which channels may change their basis.

    Args:
        run: evaluates the model once, however it likes. Every tensor that it returns is an output and carries 1, as
            every tensor does that it does not make from parameters.
        named_parameters: those that may be scaled; what else the evaluation reads is constant.
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
) -> Quiver:
    """The quiver that several evaluations of one network allow together.

    Args:
        runs: each evaluates the model once.
        named_parameters, in_place, frozen_stay: as of :func:`find_quiver`.
        output: why an output carries 1.
        spare: evaluations that are made, one after the other, only while there are parameters that none has read.
    """
    tracker = QuiverTracer(named_parameters, in_place, frozen_stay)
    for run in runs:
        tracker.trace_run(run, output)
    for run in spare:
        if not tracker.unread:
            break
        tracker.trace_run(run, output)
    return tracker.result()


class QuiverTracer(FunctionTracer):
    """Carries scale indices through the torch functions of an evaluation."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], in_place: bool, frozen_stay: bool) -> None:
        self.state = ScaleState(parameters, in_place, frozen_stay)
        super().__init__(self.state.memory)
        self.parameters = parameters
        self.calls: dict[str, int] = {}  # of activations, in the last evaluation
        self.unread = {
            name: None for name, held in parameters.items() if held.numel()
        }  # parameters that no evaluation has read, in their order

    def __torch_function__(  # the mode itself is off in here
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """As the watcher's, with the calls of activations counted, also those through which no scale index goes."""
        if func in ACTIVATIONS:
            self.state.calls[func] += 1
        return super().__torch_function__(func, types, args, kwargs)

    def trace_run(self, run: Callable[[], Any], output: str) -> None:
        """Evaluate the model, and take in what that shows."""
        with self.state.scopes.watching():
            result = self.trace(run)
        self.end_of_run(result, output)

    def before(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The arguments' versions, which tell whether the call changed one."""
        return _versions(tensors_in((args, kwargs)))

    def after(self, call: TracedCall) -> None:
        """Scale index the result of a call, or pin what entered it."""
        with torch._C._DisableTorchDispatch():  # the reads need not see what is computed of scale indices
            self._judge(call)

    def _judge(self, seen: TracedCall) -> None:
        call = Call(self.state, seen.func, seen.result)
        scale_indices = indices_of_result(call, seen.args, seen.kwargs)
        explained = Counter[str]() if scale_indices is None else call.explained
        for name in seen.read:
            if name in self.parameters and seen.given[name] > explained[name]:
                self.state.scales.fix(name, other_use(seen.func, "the weight of a layer"))
        self._note_read(seen.read)
        entered = list(tensors_in((seen.args, seen.kwargs)))
        made = list(tensors_in(seen.result))
        if scale_indices is not None and self._keeps_arguments(entered, made, scale_indices):
            for tensor, scale_index in zip(made, scale_indices, strict=True):
                if bool(compact(scale_index).any()) or self.state.memory.indices_of(tensor):
                    self.state.hold(tensor, scale_index)
        elif made or any(name not in self.parameters for name in seen.read):
            changed = seen.prepared != _versions(entered)
            for scale_index in [
                *(scale_indices or []),
                *(scale_index for each in entered for scale_index in self.state.indices_at(each, changed)),
            ]:
                self.state.pin(scale_index, seen.func)

    def _keeps_arguments(self, entered: list[Tensor], made: list[Tensor], scale_indices: list[Tensor]) -> bool:
        """Whether the call did not change what an argument scales with, which other views of it would not know."""
        arguments = {id(tensor) for tensor in entered}
        return all(
            id(tensor) not in arguments or torch.equal(self.state.scale_index(tensor), scale_index)
            for tensor, scale_index in zip(made, scale_indices, strict=True)
        )

    def end_of_run(self, result: Any, output: str) -> None:
        """Judge what is returned and what was read out of sight, and let go of the evaluation's tensors."""
        for tensor in tensors_returned(result):
            for scale_index in self.state.indices_at(tensor):
                self.state.variables.pin(scale_index, output)
            for name in self.state.memory.of(tensor):
                if name in self.parameters:
                    self.state.scales.fix(name, output)
                    self.unread.pop(name, None)
        unseen = self.unseen_reasons()
        self._note_read(unseen)
        for name, reason in unseen.items():
            if name in self.parameters:
                self.state.scales.fix(name, reason)
            for scale_index in self.state.memory.scale_indices.get(name, []):
                self.state.variables.pin(scale_index, reason)
        self.unseen.operations.clear()
        self.calls = {function_name(func): count for func, count in self.state.calls.items()}
        self.state.forget_tensors()

    def _note_read(self, names: Iterable[str]) -> None:
        for name in names:
            self.unread.pop(name, None)

    def result(self) -> Quiver:
        """Classes, with what each parameter does at their factors."""
        for name, reached in self.state.scopes.in_reach_of(self.unread):
            for scale_index in reached:
                self.state.variables.pin(scale_index, f"no evaluation reached '{name}', whose module may read it")
        quiver = quiver_of(self.state.scales, self.state.sites)
        quiver.calls = self.calls
        return quiver


def _versions(tensors: Iterable[Tensor]) -> list[int]:
    """How often each has been changed in place; -1 where torch does not count it."""
    return [-1 if tensor.is_inference() else tensor._version for tensor in tensors]
