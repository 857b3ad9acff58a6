"""The seconds of a teleport event by phase: what the event was doing, before which operation was slow."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from importlib import import_module
from types import CodeType, FrameType, TracebackType
from typing import Any, Self

import torch

OTHER = "other"
FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "inspect": (
        "teleport._engine.loss_call:check_signature",
        "teleport._tracing.caches:clear_caches",
        "teleport._tracing.differentiability:check_graph",
        "teleport._tracing.differentiability:check_reach",
        "teleport._tracing.preconditions:check_model",
        "teleport._tracing.preconditions:check_tensors",
    ),
    "losses": ("teleport._engine.event:Event.measure_from", "teleport._engine.run_event:_measured"),
    "record": (
        "teleport._null_space.driver:_NullSpaceEvent._start",
        "teleport._null_space.driver:_NullSpaceEvent._out_of_room",
        "teleport._null_space.driver:_NullSpaceEvent._traced",
        "teleport._null_space.ascent_problem:freeze_forward",
        "teleport._quiver.find_quiver:trace_quiver",
    ),
    "decompose": ("teleport._null_space.layer_statistics:LayerStatistics.open",),
    "steps": (
        "teleport._engine.ascent:ascend",
        "teleport._engine.shortest:ascend_shortest",
        "teleport._level_set.level_set:_LevelSetAscent.run",
        "teleport._symmetry.symmetry:_SymmetryEvent._ascend",
        "teleport._rescaling.gradient_norm:SquaredGradientNormOfFactors.ascend",
        "teleport._rescaling.gradient_norm:SquaredGradientNormOfFactors.balance",
    ),
    "looks": ("teleport._engine.capped_step:capped_step",),
    "checks": (
        "teleport._null_space.frozen_steps:FrozenSteps.ascend",
        "teleport._null_space.ascent_problem:agree",
        "teleport._engine.finiteness:all_finite",
        "teleport._engine.finiteness:not_finite_at",
        "teleport._engine.finiteness:not_finite_along",
    ),
    "guard": (
        "teleport._engine.transaction:roll_back_if_violated",
        "teleport._engine.transaction:Snapshot.__init__",
        "teleport._engine.transaction:Snapshot.restore",
        "teleport._engine.transaction:Snapshot.restore_all_but",
    ),
    "rollouts": ("teleport._auto.rollout:Rollout.losses",),
}
"""Phase -> its functions, as ``module:qualified name``. Time counts for the innermost of them that is running."""

MEANINGS = {
    "inspect": "is the call valid, can the model be differentiated twice",
    "losses": "losses of all batches before and after the event",
    "record": "an evaluation of each batch, with the layer inputs or the graph that later steps need",
    "decompose": "the null space of each layer's inputs",
    "steps": "directions of the steps, and whole steps",
    "looks": "gradient norms along a line, to land on the cap",
    "checks": "finite numbers, and the norm of the frozen forward pass against the model's",
    "guard": "copies of the parameters, and steps taken back",
    "rollouts": "training steps ahead, with and without the move (auto)",
    OTHER: "what is in no phase, such as the report",
}


class Phases:
    """A context manager that measures the phases of an event on this thread.

    Each Python call costs some tenths of a microsecond more while it measures; on a CUDA device each change of phase
    waits for its queue.

    Args:
        device: of the model.

    Attributes:
        seconds: phase -> seconds of the wall clock; their sum is the time in the context.
        calls: phase -> how often it was entered from another one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = dict.fromkeys([*FUNCTIONS, OTHER], 0.0)
        self.calls = dict.fromkeys([*FUNCTIONS, OTHER], 0)
        self._of = {code_of(name): phase for phase, names in FUNCTIONS.items() for name in names}
        self._running: list[tuple[FrameType | None, str]] = [(None, OTHER)]
        self._since = 0.0

    def __enter__(self) -> Self:
        self._charge()
        self.seconds[OTHER] = 0.0
        sys.setprofile(self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        sys.setprofile(None)
        self._charge()

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            phase = self._of.get(frame.f_code)
            if phase is not None:
                self._charge()
                self.calls[phase] += phase != self._running[-1][1]
                self._running.append((frame, phase))
        elif event == "return" and frame is self._running[-1][0]:
            self._charge()
            self._running.pop()

    def _charge(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[self._running[-1][1]] += now - self._since
        self._since = now

    def __str__(self) -> str:
        whole = sum(self.seconds.values()) or 1.0
        lines = [f"{'phase':10} {'seconds':>9} {'share':>6} {'times':>6}  what it is"]
        for phase, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            if seconds:
                share = f"{seconds / whole:6.1%}"
                lines.append(f"{phase:10} {seconds:9.4f} {share} {self.calls[phase] or '':>6}  {MEANINGS[phase]}")
        return "\n".join(lines)


def code_of(name: str) -> CodeType:
    """The code of the function ``module:qualified name``, under its decorators.

    Raises:
        AttributeError: there is no such function.
    """
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    code: CodeType = found.__code__
    return code
