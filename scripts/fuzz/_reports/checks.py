"""The invariants of a report: it says what happened, and what happened is what the method promises."""

from __future__ import annotations

import json
import math
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import teleport
from scripts.fuzz._reports.cases import Case
from scripts.fuzz._reports.methods import Drawn
from scripts.fuzz._reports.reference import PRECISION, Reference, in_double, measured, outputs
from scripts.fuzz._reports.state import State

LIBRARY = str(Path(teleport.__file__).parent)


@dataclass
class Call:
    """One call that returned.

    Attributes:
        report: what it returned.
        state: of the model before it; ``values``: of its parameters after it.
        starts: the values of the parameters when the callback was told of step 0 of each batch.
        progress: all that the callback was told.
    """

    case: Case
    drawn: Drawn
    report: teleport.TeleportReport
    state: State
    values: dict[str, Tensor]
    starts: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    progress: list[teleport.Progress] = field(default_factory=list)

    @property
    def model(self) -> nn.Module:
        """The model to continue with."""
        return self.report.model or self.case.model

    @property
    def wrapped(self) -> bool:
        """Whether activations are teleported, so that parameters alone do not make the function."""
        return isinstance(self.model, teleport.Teleported)


def error_findings(error: BaseException) -> Iterator[str]:
    """What is wrong with a refusal."""
    text = str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = bool(frames) and frames[-1].filename.startswith(LIBRARY)
    if not isinstance(error, ValueError | TypeError) or not own:
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        through = [f for f in frames if f.filename.startswith(LIBRARY)]
        last = f"{Path(through[-1].filename).name}:{through[-1].lineno}" if through else "?"
        yield f"raw {type(error).__name__} from {where} by {last}: {text[:200]!r}"
    elif not 15 <= len(text) <= 400 or "\n" in text or re.search(r"0x[0-9a-f]{6,}|\(at \.\.|aten::\w+\(", text):
        yield f"a refusal is not one sentence: {text[:500]!r}"


def text_findings(report: teleport.TeleportReport) -> Iterator[str]:
    """The report as text, plain values and tables."""
    lines = str(report).splitlines()
    if len(lines) > 40 or max(map(len, lines)) > 110:
        yield f"str(report) has {len(lines)} lines, the longest of {max(map(len, lines))} characters"
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    if len(plain["batches"]) != len(report.batches) or plain["steps"] != report.steps:
        yield "to_dict() has other batches or steps"
    for of in ("layers", "batches"):
        if len(report.to_frame(of)) != len(getattr(report, of)):
            yield f"to_frame({of!r}) has another number of rows"
    for name, count in {each.name: 0 for each in report.layers}.items():
        count = sum(each.name == name for each in report.layers)
        if count > 1:
            yield f"layer {name} has {count} reports"


def batch_findings(call: Call) -> Iterator[str]:
    """The consistency of the batches' reports."""
    report, settings = call.report, call.drawn.settings
    asked = settings.get("steps", 100)
    for number, each in enumerate(report.batches):
        what = f"batch {number}: "
        if not isinstance(each.stopped, teleport.Stopped):
            yield what + f"stopped is {each.stopped!r}"
        ended = each.accepted and each.steps and each.stopped == "not finite"  # steps before that are kept
        if (each.accepted != (not each.reason) and not ended) or not (
            each.accepted or each.stopped in ("rolled back", "not finite")
        ):
            yield what + f"accepted {each.accepted}, reason {each.reason!r}, stopped {each.stopped}"
        if not 0 <= each.steps <= max(asked, 1):
            yield what + f"{each.steps} steps of {asked}"
        if each.trace and not same(each.trace[0].loss, each.loss_before, 1e-6):
            yield what + f"trace starts at {each.trace[0].loss}, loss before {each.loss_before}"
        finite = math.isfinite(each.loss_after) and math.isfinite(each.gradient_norm_after)
        with_loss = "without a loss" not in call.drawn.options
        finite = finite and math.isfinite(each.loss_before)
        if with_loss and each.accepted and each.steps and not finite and settings.get("guard") != "none":
            numbers = f"loss {each.loss_before} to {each.loss_after}, norm {each.gradient_norm_after}"
            yield what + f"{each.steps} steps accepted, {numbers}"
    if not report.no_op and not any(b.accepted and b.steps for b in report.batches):
        yield "something moved without a kept step"


def moved_findings(call: Call) -> Iterator[str]:
    """Which parameters moved, and by how much."""
    report, state = call.report, call.state
    moved = state.moved()
    if report.no_op == bool(moved):
        yield f"no_op is {report.no_op}, and these moved: {sorted(moved)[:3]}"
    frozen = {name for name in moved if not state.parameters[name].requires_grad}
    if frozen:
        yield f"frozen parameters moved: {sorted(frozen)[:3]}"
    said = {each.name.partition("[")[0] for each in report.layers if each.relative_change}
    aliases = {name: {n for n, q in state.parameters.items() if _overlap(q, p)} for name, p in state.parameters.items()}
    for name in said:
        around = aliases.get(name, set()) | {name, f"module.{name}"}
        if report.group is not None and moved:
            continue  # a group of channels moves if anything does that carries its factors
        near = {each for each in moved if each in around or _module(each) in {_module(one) for one in around}}
        if not near:
            yield f"the report says that {name} moved, and it did not"
    modules = {_module(each) for name in said for each in aliases.get(name, {name})}  # a tied weight has several
    for name in moved:
        if report.group is not None:
            if not any(state.parameters[each] in report.group for each in aliases[name]):
                yield f"{name} moved and is not in report.group"
        elif not any(each in said or _module(each) in modules for each in aliases[name]):
            yield f"{name} moved, and the report does not say so"
    for each in report.layers:
        if not (each.relative_change >= 0 and each.relative_change == each.relative_change):
            yield f"relative change of {each.name} is {each.relative_change}"
        if not each.relative_change and not each.reason:
            yield f"{each.name} stayed without a reason"
        if len(each.reason) > 400 or "\n" in each.reason:
            yield f"the reason of {each.name} is not one sentence: {each.reason[:500]!r}"
        if call.drawn.exact and each.name in state.values:
            yield from _change_findings(each, state.values[each.name], call.values[each.name])
    yield from _group_findings(call)


def _change_findings(layer: teleport.LayerReport, before: Tensor, after: Tensor) -> Iterator[str]:
    before, after = (torch.view_as_real(v) if v.is_complex() else v for v in (before, after))
    size = float(before.double().norm()) or 1.0
    change = float((after.double() - before.double()).norm()) / size
    if math.isfinite(change) and not same(change, layer.relative_change, 1e-6):
        yield f"{layer.name} moved by {change}, reported {layer.relative_change}"


def _group_findings(call: Call) -> Iterator[str]:
    """Each parameter is what it was, multiplied by the reported factors."""
    group = call.report.group
    for name, p in call.state.parameters.items() if group is not None else ():
        before, after = call.state.values[name], call.values[name]
        factors = group[p] if p in group else torch.ones(())
        expected = before.double() * factors if p.is_floating_point() else before
        if torch.broadcast_shapes(factors.shape, p.shape) != p.shape:
            yield f"the factors of {name} do not broadcast"
        error = (after.double() - expected).abs() if p.is_floating_point() else torch.zeros(1)
        allowed = (
            4 * torch.finfo(p.dtype).eps * expected.abs() + torch.finfo(p.dtype).tiny if p.is_floating_point() else 1
        )
        if bool((error > allowed).any()):
            yield f"{name} is not its value before times the factors of report.group"


def number_findings(call: Call) -> Iterator[str]:
    """Losses and gradient norms, compared with those of a fresh model at the same values."""
    if "without a loss" in call.drawn.options:
        return
    case, report = call.case, call.report
    reference = Reference(case)
    before = [reference.at(call.state.values, batch) for batch in case.batches]
    if call.wrapped:
        after = [measured(call.model, case.loss_fn, batch) for batch in case.batches]
    else:
        after = [reference.at(call.values, batch) for batch in case.batches]
    told = report.batches
    together = (
        call.drawn.name in ("Balance", "ChangeOfBasis", "PseudoTeleport")
        or call.drawn.settings.get("mode") == "balance"
    )
    points = [("before", 0, before[0], told[0].loss_before, told[0].gradient_norm_before)]
    last = len(told) - 1
    if told[last].accepted:
        points.append(("after", last, after[last], told[last].loss_after, told[last].gradient_norm_after))
    for number, values in call.starts.items():
        if number < len(told):
            at = reference.at(values, case.batches[number])
            points.append(
                (f"before, batch {number}", number, at, told[number].loss_before, told[number].gradient_norm_before)
            )
    if not together and not call.wrapped:
        for number in range(last):
            if told[number].accepted and number + 1 in call.starts:
                at = reference.at(call.starts[number + 1], case.batches[number])
                told_here = told[number].loss_after, told[number].gradient_norm_after
                points.append((f"after, batch {number}", number, at, *told_here))
    for what, _, (loss, norm), said_loss, said_norm in points:
        if not same(loss, said_loss, precision(case) / 10):
            yield f"loss {what}: {loss}, reported {said_loss}"
        over_all = call.drawn.settings.get("objective_params", "all") == "all"
        if over_all and not (same(norm, said_norm, precision(case)) or _out_of_range(norm, said_norm)):
            yield f"gradient norm {what}: {norm}, reported {said_norm}"
    for what, points_of, said in (("before", before, report.loss_before), ("after", after, report.loss_after)):
        mean = sum(loss for loss, _ in points_of) / len(points_of)
        if not same(mean, said, precision(case) / 10):
            yield f"mean loss {what}: {mean}, reported {said}"
    yield from _promise_findings(call, before, after)


def _promise_findings(call: Call, before: list[Any], after: list[Any]) -> Iterator[str]:
    """The loss, the cap and the rise of the norm, as promised per batch."""
    drawn, told, case = call.drawn, call.report.batches, call.case
    slack = precision(case) / 10
    coarse = 16 * torch.finfo(case.dtype).eps if case.dtype.itemsize < 4 else 0.0
    for number, each in enumerate(told):
        if not (each.accepted and each.steps):
            continue
        if drawn.tolerance == math.inf:
            continue
        room = max(drawn.tolerance, coarse) * max(1.0, abs(each.loss_before)) * (1 + slack)
        change = each.loss_after - each.loss_before
        if drawn.keeps_loss and not (change <= room if drawn.may_fall else abs(change) <= room):
            yield f"batch {number}: accepted, and the loss moved by {change}, tolerance {drawn.tolerance}"
        if drawn.raises_norm and each.gradient_norm_after < each.gradient_norm_before * (1 - slack):
            yield f"batch {number}: the gradient norm fell: {each.gradient_norm_before} to {each.gradient_norm_after}"
        cap = drawn.settings.get("cap") or math.inf
        if (factor := drawn.settings.get("relative_cap", 2.0)) and all(math.isfinite(norm) for _, norm in before):
            cap = min(cap, factor * sum(norm for _, norm in before) / len(before))
        over = drawn.settings.get("objective_params", "all") == "all" and drawn.settings.get("step") != "fixed"
        if drawn.caps and over and each.gradient_norm_after > cap * (1 + 10 * slack):
            yield f"batch {number}: gradient norm {each.gradient_norm_after} above the cap {cap}"


def function_findings(call: Call) -> Iterator[str]:
    """The outputs on all data, seen or not, in evaluation and in training, before and after; the model is used up."""
    case = call.case
    if (
        not call.drawn.keeps_function
        or call.report.no_op
        or not all(bool(v.isfinite().all()) for v in call.values.values())
    ):
        return
    reference = Reference(case)
    call.model.double()
    tolerance = max(precision(case), 1e-3)
    for training in (False, True):
        try:
            old = reference.outputs(call.state.values, case.batches + case.unseen, training)
        except (RuntimeError, ValueError):  # one row in a batch norm
            continue
        for number, (was, batch) in enumerate(zip(old, case.batches + case.unseen, strict=True)):
            is_now = outputs(call.model, in_double(batch), training)
            scale = float(was.abs().max()) if was.numel() else 0.0
            if not math.isfinite(scale) or not scale:
                continue
            moved = float((is_now - was).abs().max()) / scale
            if not moved <= tolerance:
                seen = "watched" if number < len(case.batches) else "other"
                mode = "training" if training else "evaluation"
                yield f"outputs on {seen} data in {mode} moved by {moved:.3g} of the largest"
                return


def precision(case: Case) -> float:
    """The relative error of a gradient norm that rounding explains."""
    return max(PRECISION[case.dtype], PRECISION[torch.bfloat16] if "autocast" in case.loss else 0.0)


def same(one: float, other: float, precision: float) -> bool:
    """Whether two numbers agree, infinite and nan ones as well."""
    if not (math.isfinite(one) and math.isfinite(other)):
        return str(one) == str(other) or one == other
    return abs(one - other) <= precision * max(abs(one), abs(other), 1e-12)


def _out_of_range(one: float, other: float) -> bool:
    """Whether squares of the norm leave the range of single precision."""
    return not all(1e-18 < each < 1e18 for each in (one, other))


def _module(name: str) -> str:
    return re.sub(r"(\.parametrizations\.\w+)?\.[^.]+$", "", name)


def _overlap(one: Tensor, other: Tensor) -> bool:
    return one is other or (
        bool(one.numel()) and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    )
