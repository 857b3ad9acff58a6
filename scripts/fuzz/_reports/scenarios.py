"""What is tried on a case: a call, the same call again, a preview, an exception, a callback that stops or raises."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import teleport
from scripts.fuzz._reports.cases import RANDOM_STATE, Case, draw_case
from scripts.fuzz._reports.checks import (
    Call,
    batch_findings,
    error_findings,
    function_findings,
    moved_findings,
    number_findings,
    text_findings,
)
from scripts.fuzz._reports.methods import METHODS, Drawn, call
from scripts.fuzz._reports.reference import measured
from scripts.fuzz._reports.state import State, bits
from teleport import UnsupportedModel
from teleport._tracing.undisturbed import ModelState

INJECTED = (RuntimeError, KeyboardInterrupt, MemoryError, StopIteration, SystemExit, ValueError, GeneratorExit)
"""Exceptions that a loss, a batch or a callback raises."""

SURROUNDINGS: dict[str, Callable[[], Any]] = {
    "": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
}
"""What a call may be made in. Autocast changes the losses, so that numbers are not compared there."""


class Trial:
    """The scenarios of one case and one method; findings and outcomes are collected.

    Attributes:
        findings: what is wrong, one line each.
        around: the surroundings of its calls.
        outcomes: of the first call: ``moved``, ``stayed``, ``rolled back`` or ``refused``.
    """

    def __init__(self, case: Case, name: str) -> None:
        self.case, self.seed = case, case.seed
        self.draws = random.Random(f"{case.seed} {name}")
        self.drawn: Drawn = METHODS[name](self.draws, case.model, case.batches)
        self.around = ""
        self.findings: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.calls = 0  # of the loss, in the first call
        self.told = 0  # how often the callback was called

    def run(self) -> None:
        """All scenarios."""
        around = self.draws.choice([*[""] * 8, *SURROUNDINGS])
        self.around = around = around if sensible(self.case, around) else ""
        first = self.first(around)
        if self.draws.random() < 0.3:
            self.again(first, around)
        if self.draws.random() < 0.3:
            self.preview(first)
        for _ in range(2):
            if self.calls:
                self.interrupted(around)
        if self.told and self.draws.random() < 0.6:
            self.told_off()

    def note(self, scenario: str, findings: Iterator[str] | list[str]) -> None:
        """Keep some findings."""
        self.findings += [f"{scenario}: {each}" for each in findings]

    def first(self, around: str) -> dict[str, Tensor] | None:
        """The call as it is, with all invariants; the values of the parameters after it, ``None`` if it was refused."""
        case, watched = draw_case(self.seed), self.draws.random() < 0.5
        state, starts, progress = State(case.model), {}, []

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            self.calls += 1
            return case.loss_fn(model, batch)

        def callback(told: teleport.Progress) -> None:
            progress.append(told)
            if told.step == 0:
                starts[told.batch] = {name: p.detach().clone() for name, p in state.parameters.items()}

        report, error = attempt(self.drawn, case, loss_fn, callback if watched else None, around)
        self.told = len(progress) if watched else 1
        self.note("left behind", state.changed())
        if report is None:
            self.outcomes["refused"] += 1
            self.outcomes[f"refused: {str(error)[:60]}"] += 1
            self.note("error", error_findings(error))
            self.note("after an error", [f"{name} moved" for name in sorted(state.touched())])
            return None
        rolled = not report.accepted
        self.outcomes["rolled back" if rolled else "stayed" if report.no_op else "moved"] += 1
        values = {name: p.detach().clone() for name, p in state.parameters.items()}
        done = Call(case, self.drawn, report, state, values, starts, progress)
        for check in (text_findings, batch_findings, moved_findings):
            self.note(check.__name__.partition("_")[0], check(done if check is not text_findings else report))
        if around != "autocast":
            self.note("number", number_findings(done))
            self.note("function", function_findings(done))
        return values

    def again(self, first: dict[str, Tensor] | None, around: str) -> None:
        """The same call on the same model gives the same move."""
        case = draw_case(self.seed)
        attempt(self.drawn, case, case.loss_fn, None, around)
        for name, p in case.model.named_parameters(remove_duplicate=False):
            if first is not None and not _equal(p, first[name]):
                self.note("again", [f"another move of {name}"])
                return

    def preview(self, first: dict[str, Tensor] | None) -> None:
        """A preview undoes everything, and the call after it makes the move that it told of."""
        case = draw_case(self.seed)
        state, generator = State(case.model), torch.Generator().manual_seed(3)
        source = generator.get_state()
        report, error = attempt(self.drawn, case, case.loss_fn, None, "", generator, preview=True)
        self.note("preview", [*state.changed(), *(f"{name} moved" for name in sorted(state.touched()))])
        if not torch.equal(source, generator.get_state()):
            self.note("preview", ["the generator advanced"])
        torch.manual_seed(RANDOM_STATE)
        real, _ = attempt(self.drawn, case, case.loss_fn, None, "", generator)
        if (report is None) != (real is None):
            self.note("preview", [f"preview {report is not None}, call {real is not None}: {error}"])
        elif report is not None and real is not None and _numbers(report) != _numbers(real):
            self.note("preview", ["the call after it reports other numbers"])

    def interrupted(self, around: str) -> None:
        """The loss, a batch or a module raises; nothing is left behind, and the exception is the one raised."""
        case, place = draw_case(self.seed), self.draws.choice(["loss", "loss", "loss", "after", "module", "batches"])
        state, when, seen = State(case.model), self.draws.randint(1, self.calls), [0]
        kinds = [
            kind for kind in INJECTED if place == "loss" or kind is not StopIteration
        ]  # torch's generators turn it
        error = self.draws.choice(kinds)("on purpose")

        def tick() -> None:
            seen[0] += 1
            if seen[0] == when:
                raise error

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            if place == "loss":
                tick()
            loss = case.loss_fn(model, batch)
            if place == "after":
                loss.register_hook(lambda g: tick())
            return loss

        def batches() -> Iterator[Any]:
            yield from case.batches
            if place == "batches":
                raise error

        hook = self.draws.choice(list(case.model.modules())).register_forward_hook(
            lambda *_: tick() if place == "module" else None
        )
        _, caught = attempt(self.drawn, case, loss_fn, None, around, batches=batches())
        hook.remove()
        raised = seen[0] >= when or place == "batches"
        if caught is None and not raised:
            return
        what = f"{type(error).__name__} in {place}, call {when}"
        # tensors in plain attributes are probed by evaluations that may fail (_tracing/caches.py), except for want of
        # memory; a failure makes an attribute one that the model needs, or its model one that is refused
        probed = bool(ModelState(case.model).attributes.slots) and not isinstance(error, MemoryError)
        if raised and caught is not error and not (probed and isinstance(caught, UnsupportedModel | None)):
            self.note(what, [f"came out as {caught!r}"])
        if caught is not None:
            self.note(what, [*state.changed(), *(f"{name} moved" for name in sorted(state.touched()))])

    def told_off(self) -> None:
        """The callback raises or stops the event."""
        case, raises, seen = draw_case(self.seed), self.draws.random() < 0.5, [0]
        state, when = State(case.model), self.draws.randint(1, self.told)
        error = self.draws.choice(INJECTED)("on purpose")

        def callback(told: teleport.Progress) -> bool:
            seen[0] += 1
            if seen[0] == when and raises:
                raise error
            return seen[0] >= when

        report, caught = attempt(self.drawn, case, case.loss_fn, callback, "")
        self.note("callback", state.changed())
        if caught is not None:
            if raises and seen[0] >= when and caught is not error:
                self.note("callback", [f"came out as {caught!r}"])
            self.note("callback", [f"{name} moved" for name in sorted(state.touched())])
        elif report is not None and seen[0] >= when:
            if seen[0] > when + len(case.batches):
                self.note("callback", [f"called {seen[0] - when} times after it stopped the event"])
            values = {name: p.detach().clone() for name, p in state.parameters.items()}
            done = Call(case, self.drawn, report, state, values)
            for check in (batch_findings, moved_findings, number_findings, function_findings):
                self.note(f"callback, {check.__name__.partition('_')[0]}", check(done))


def attempt(
    drawn: Drawn,
    case: Case,
    loss_fn: Callable[..., Tensor],
    callback: Callable[[teleport.Progress], bool | None] | None,
    around: str,
    generator: torch.Generator | None = None,
    batches: Any = None,
    preview: bool = False,
) -> tuple[teleport.TeleportReport | None, BaseException | None]:
    """One call; its report or its exception. Warnings are not shown."""
    source = generator or torch.Generator().manual_seed(3)
    with warnings.catch_warnings(), SURROUNDINGS[around]():
        warnings.simplefilter("ignore")
        try:
            return call(drawn, case.model, batches or case.batches, loss_fn, source, callback, preview), None
        except BaseException as error:
            return None, error


def sensible(case: Case, around: str = "") -> bool:
    """Whether the loss of each batch can be evaluated and differentiated at all, in some surroundings."""
    fresh = draw_case(case.seed)
    try:
        with warnings.catch_warnings(), SURROUNDINGS[around]():
            warnings.simplefilter("ignore")
            for batch in fresh.batches:
                measured(fresh.model, fresh.loss_fn, batch)
            for batch in fresh.unseen:
                fresh.loss_fn(fresh.model.eval(), batch)
    except Exception:
        return False
    return True


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool(bits(one) == bits(other))


def _numbers(report: teleport.TeleportReport) -> str:
    content = report.to_dict()
    content.pop("seconds")
    return str(content)
