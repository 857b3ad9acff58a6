"""Chooses how an event evaluates its loss: by the size of the model, or by a budget in bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from teleport._processes.group import Group
from teleport._segments.plan import WHOLE, Plan, pieces_of
from teleport._segments.recomputed import NotRepeatable
from teleport._segments.saved_bytes import Saved, saved_by
from teleport._segments.segmented import parts_of
from teleport._tracing.differentiability import nodes_of
from teleport._tracing.linear_use import as_matrix
from teleport._tracing.linear_uses import linear_uses

LARGE = 64 << 20
"""Bytes of trainable parameters from which an event without a budget is evaluated in segments."""

COPIES, COPIES_OF_GRAPH = 4.0, 5.0
"""Copies of the trainable parameters that an event holds: their values at its start and at that of a step, a gradient,
a direction; with the whole graph of a gradient one more."""

KEPT = 48 << 20
"""Bytes that the allocator keeps of what was freed."""

BASES = 2.0
"""What representations and bases of layer inputs take, in units of the inputs in double precision."""

RECORDED, WHOLE_GRAPH, TANGENTS, SEGMENT = 13.0, 6.0, 3.0, 9.0
"""What the derivatives hold in units of what an evaluation saves: recorded for a frozen forward pass, with a graph of
the whole gradient, by tangents, and in the largest segment. Upper bounds of values measured on a few transformers."""

BY_TANGENTS = Plan(
    recorded=False, tangents=True, chosen="products of the Hessian by tangents, without a graph of a gradient"
)

Evaluate = Callable[[Plan, Any], Tensor]


class _Inputs(TorchFunctionMode):
    """Counts the bytes of the inputs of linear maps in double precision, at most as many vectors as dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, int] = {}
        self._sources: list[Tensor] = []  # so that no id is given to another

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for use in linear_uses(func, args, kwargs or {}):
            groups, _, dimension = as_matrix(use.weight.detach(), use.groups, use.transposed).shape
            if use.weight.requires_grad and id(use.source) not in self.bytes:
                vectors = max(1, use.source.numel() * (1 if use.kind == "linear" else dimension) // dimension)
                self.bytes[id(use.source)] = 8 * groups * dimension * min(dimension, vectors)
                self._sources.append(use.source)
        return func(*args, **(kwargs or {}))


def choose(
    model: nn.Module,
    batches: Sequence[Any],
    evaluate: Evaluate,
    budget: int | None,
    group: Group,
    recorded: bool,
    custom_operations: list[bool],
    tangents: bool = True,
) -> Plan:
    """The plan of an event: with a budget the first that fits, without one for a large model tangents or segments.

    Args:
        model: in the state in which it is evaluated.
        batches: of the event.
        evaluate: the loss on a batch by a plan.
        budget: in bytes, of the event's own peak: without the model, its gradients and the batches.
        group: of processes that choose alike; one process if there is a budget.
        recorded: whether the method records whole evaluations (``NullSpace(forward="once")``).
        custom_operations: whether an evaluation has some, entered by the first; such a loss is evaluated whole.
        tangents: ``False`` if the loss was found to have none.

    Raises:
        ValueError: no plan fits into the budget.
    """
    parameters = [each for each in model.parameters() if each.requires_grad]
    weights = sum(each.numel() * each.element_size() for each in parameters)
    parts = parts_of(model)
    if budget is None:
        if weights < LARGE:
            return WHOLE
        if tangents and _has_tangents(evaluate, batches[0], custom_operations, group):
            return BY_TANGENTS
        if len(parts) < 2:
            return WHOLE
        plan = Plan(parts, chosen=f"{len(parts)} parts of the model one at a time, each computed again for derivatives")
        return WHOLE if group.any(not _valid(plan, evaluate, batches[:1], custom_operations, group)) else plan
    inputs = _Inputs()
    least: list[int] = []
    with inputs:
        saved = saved_by(partial(evaluate, WHOLE, batches[0]), parts, list(model.parameters()))[1]
    fixed = COPIES * weights + BASES * sum(inputs.bytes.values()) + KEPT
    tangents = tangents and not any(custom_operations)
    for plan, variable in _plans(parts, saved, batches[0], recorded, weights, tangents):
        needed = int(fixed + variable)
        least.append(needed)
        sure = plan.whole or plan.tangents
        if needed <= budget and (sure or _valid(plan, evaluate, batches, custom_operations, group)):
            return dataclasses.replace(plan, chosen=f"{plan.chosen} (at most {_text(needed)} of {_text(budget)})")
    raise ValueError(
        f"memory={_text(budget)} is too little: this event needs about {_text(min(least))} besides the model, of which "
        f"{_text(int(fixed))} are copies of its weights and bases of its layer inputs; give more, or smaller batches"
    )


def _plans(
    parts: Sequence[nn.Module], saved: Saved, batch: Any, recorded: bool, weights: int, tangents: bool
) -> Iterator[tuple[Plan, float]]:
    """The plans from the fastest to the smallest, each with the bytes that it takes besides what all take."""
    whole = saved.inside + saved.outside
    if recorded:
        yield Plan(chosen="the whole record of an evaluation"), RECORDED * whole
    more = (COPIES_OF_GRAPH - COPIES) * weights
    yield Plan(recorded=False, chosen="the whole graph of a gradient"), WHOLE_GRAPH * whole + more
    if tangents:
        yield BY_TANGENTS, TANGENTS * whole
    segments = len(parts) > 1
    several = f"{len(parts)} parts of the model one at a time"
    if segments:
        yield Plan(parts, chosen=several), SEGMENT * (saved.outside + saved.largest)
    pieces = 2
    while _divides(batch, pieces):
        text = f"{pieces} pieces of a batch one at a time"
        yield Plan(pieces=pieces, chosen=text), SEGMENT * whole / pieces
        if segments:
            both = f"{text}, and {several}"
            yield Plan(parts, pieces, chosen=both), SEGMENT * (saved.outside + saved.largest) / pieces
        pieces *= 2


def _has_tangents(evaluate: Evaluate, batch: Any, custom_operations: list[bool], group: Group) -> bool:
    """Whether products by tangents may be tried: several processes would have to find out together that they fail."""
    if group.alone and not custom_operations:
        evaluate(BY_TANGENTS, batch)
    return group.alone and not any(custom_operations)


def _divides(batch: Any, pieces: int) -> bool:
    try:
        return len(pieces_of(batch, pieces)) == pieces
    except NotRepeatable:
        return False


def _valid(plan: Plan, evaluate: Evaluate, batches: Sequence[Any], custom_operations: list[bool], group: Group) -> bool:
    """Whether a plan gives the losses of whole evaluations, and a graph down to the same parameters.

    One process evaluates whole if a part turns out later not to be repeatable; several must know it before.
    """
    try:
        for batch in batches:
            whole = evaluate(WHOLE, batch)
            planned = evaluate(plan, batch)
            if any(custom_operations) or not _same(whole, planned, plan.pieces):
                return False
            del whole
            if not group.alone:
                torch.autograd.grad(planned, leaves_of(planned), allow_unused=True)
        return True
    except NotRepeatable:
        return False


def _same(whole: Tensor, planned: Tensor, pieces: int) -> bool:
    rounding = 0.0 if pieces == 1 else 64 * torch.finfo(whole.dtype).eps * max(1.0, abs(float(whole.detach())))
    return abs(float(whole.detach()) - float(planned.detach())) <= rounding and set(leaves_of(whole)) == set(
        leaves_of(planned)
    )


def leaves_of(loss: Tensor) -> list[Tensor]:
    """The leaves of a graph, the parameters of a loss."""
    leaves = (getattr(node, "variable", None) for node in nodes_of(loss))
    return [leaf for leaf in leaves if leaf is not None]


def _text(size: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= 10 * unit:
            return f"{size / unit:.0f} {name}" if name == "MiB" else f"{size / unit:.1f} {name}"
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"
