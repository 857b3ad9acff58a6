"""How the loss of an event is evaluated so that its derivatives fit into memory: whole, or in segments."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from teleport._segments.recomputed import NotRepeatable, Segment
from teleport._segments.segmented import in_segments
from teleport._tangents.attention import AttentionByHeads

UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tb": 10**12}

Call = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Plan:
    """How a loss is evaluated.

    Attributes:
        parts: of the model, evaluated as segments.
        pieces: of a batch, whose samples are evaluated one piece after the other.
        recorded: whether a method may record a whole evaluation.
        tangents: whether products of the Hessian are taken by tangents instead of a graph of the gradient.
        differentiated: whether derivatives are taken; else each tensor is computed once, as it is without a plan.
        chosen: what was chosen and why, in words; empty if nothing was.
    """

    parts: Sequence[nn.Module] = ()
    pieces: int = 1
    recorded: bool = True
    tangents: bool = False
    differentiated: bool = True
    chosen: str = ""

    @property
    def whole(self) -> bool:
        """Whether nothing is computed again, and the gradient may have a graph."""
        return not self.parts and self.pieces == 1 and not self.tangents

    @property
    def lean(self) -> bool:
        """Whether gradients are freed as soon as no step needs them."""
        return not (self.whole and self.recorded)

    def loss(self, loss_fn: Call, model: nn.Module, batch: Any) -> Any:
        """``loss_fn(model, batch)``, evaluated so."""
        if self.whole:
            return loss_fn(model, batch)
        if self.tangents:
            with AttentionByHeads():
                return loss_fn(model, batch)
        if self.pieces == 1 or not torch.is_grad_enabled():
            return in_segments(self.parts, lambda: loss_fn(model, batch))
        total: Any = 0
        for share, piece in pieces_of(batch, self.pieces):
            call = partial(in_segments, self.parts, partial(loss_fn, model, piece))
            segment = Segment(lambda _, call=call: [call().reshape(())], [])  # type: ignore[misc]
            total = total + share * segment.result([])[0]
        return total


WHOLE = Plan()
"""Without segments."""


def bytes_of(memory: int | str | None) -> int | None:
    """A budget in bytes.

    Raises:
        ValueError: it is neither a whole number above 0 nor text such as ``"2GB"`` or ``"500 MiB"``.
    """
    if memory is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", memory) if isinstance(memory, str) else None
    if found and (size := int(float(found[1]) * UNITS.get(found[2].lower(), 0))) > 0:
        return size
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    raise ValueError(
        f"memory must be bytes as a whole number above 0, or text such as '2GB' or '500MiB', not {memory!r}"
    )


def check_memory(memory: int | str | None, divisible: bool = True) -> None:
    """Refuse a budget that is none, or that no evaluation in parts can keep.

    Raises:
        ValueError: the sentence says what would be right.
    """
    if bytes_of(memory) is not None and not divisible:
        raise ValueError("memory is for objectives of the gradient norm alone; leave it out, or take another objective")


def pieces_of(batch: Any, count: int) -> list[tuple[float, Any]]:
    """The batch in pieces along the first axis of its tensors, each with its share of the samples.

    Raises:
        NotRepeatable: the tensors have no first axis of one length, or fewer samples than pieces.
    """
    leaves, form = tree_flatten(batch)
    lengths = {each.shape[0] if each.dim() else 0 for each in leaves if isinstance(each, Tensor)}
    if len(lengths) != 1 or (samples := lengths.pop()) < count:
        raise NotRepeatable("the tensors of a batch have no first axis of one length, with a sample per piece")
    split = [each.tensor_split(count) if isinstance(each, Tensor) else [each] * count for each in leaves]
    pieces = [tree_unflatten([each[number] for each in split], form) for number in range(count)]
    sizes = [len(part) for part in torch.arange(samples).tensor_split(count)]
    return [(size / samples, piece) for size, piece in zip(sizes, pieces, strict=True)]
