"""Tensors that a model computed in earlier evaluations and keeps in attributes: caches, which a move makes stale.

Whether a tensor in an attribute was computed from parameters cannot be read from it. So it is measured: the attribute
is cleared, and the model is evaluated again. A cache is filled again with the same result. What is needed, or not
filled again, is a constant of the model. If it is filled again and the result differs, the model goes on from earlier
evaluations, as one with a key-value cache does.

A cache outside of the model, as a global dictionary, is not found; ``functools.cache`` is cleared before each
evaluation, for methods and for functions of the files that define the modules.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teleport._errors import UnsupportedModel
from teleport._tracing.outputs import difference
from teleport._tracing.plain_attributes import ABSENT, EMPTIED, Slot, computed_on_access
from teleport._tracing.undisturbed import ModelState

log = logging.getLogger(__name__)


def clear_caches(model: nn.Module, state: ModelState, evaluate: Callable[[], list[Tensor]]) -> None:
    """Clear the attributes that are caches; they stay so after the teleport, unless it ends with an exception.

    Args:
        model: whose attributes are tried, all of one name together.
        state: of the model; it restores attributes before each evaluation.
        evaluate: the loss or the outputs at the current parameters, starting from the saved attributes.

    Raises:
        UnsupportedModel: the result depends on tensors of earlier evaluations.
    """
    _refuse_frozen_code(model)
    groups: dict[str, list[Slot]] = {}
    for module, name in state.attributes.slots:
        groups.setdefault(name, []).append((module, name))
    if not groups:
        return
    expected = _copies(evaluate())
    kept = {name for name, slots in groups.items() if all(_same(state, slot) for slot in slots)}
    written = {name for name, slots in groups.items() if any(state.attributes.written(slot) for slot in slots)}
    for name, slots in groups.items():
        found = _without(state, slots, evaluate, expected, zero=False)
        if found is None and name in written:
            found = _without(state, slots, evaluate, expected, zero=True)
            refused = found is not None and not found.same
        else:
            earlier = any(tensor.grad_fn is not None for slot in slots for tensor in state.attributes.slots[slot])
            refused = earlier if found is None else not found.same and (found.filled or earlier)
            if found is not None and found.filled and found.same and name in kept:
                log.info("'%s' is a cache: it was cleared", _path(model, slots[0]))
                for slot in slots:
                    state.attributes.set_to(slot, found.empty[slot])
        if refused:
            raise UnsupportedModel(
                f"'{_path(model, slots[0])}' keeps tensors of earlier evaluations (a key-value cache, or values that "
                "were computed from parameters once), on which the result depends: clear it before the teleport, or "
                "register it as a buffer if it is none"
            )


@dataclass
class _Found:
    """What an evaluation without some attributes shows.

    Attributes:
        filled: whether it fills them again.
        same: whether it has the same result.
        empty: the values that stood for an empty cache.
    """

    filled: bool
    same: bool
    empty: dict[Slot, Any]


def _same(state: ModelState, slot: Slot) -> bool:
    """Whether an attribute holds the same tensors after an evaluation as before."""
    saved, now = state.attributes.slots[slot], state.attributes.now(slot)
    return len(saved) == len(now) and all(one is other for one, other in zip(saved, now, strict=True))


def _without(
    state: ModelState, slots: list[Slot], evaluate: Callable[[], list[Tensor]], expected: list[Tensor], zero: bool
) -> _Found | None:
    """An evaluation with these attributes empty, or ``zero`` in place of a tensor; ``None`` if the model needs them."""
    held = {slot: state.attributes.value_of(slot) for slot in slots}
    ways = {slot: _zeros(value) if zero else _emptied(slot, value) for slot, value in held.items()}
    for attempt in range(max(len(each) for each in ways.values())):
        empty = {slot: each[min(attempt, len(each) - 1)] for slot, each in ways.items()}
        try:
            for slot, value in empty.items():
                state.attributes.set_to(slot, value)
            result = _copies(evaluate())
            filled = any(state.attributes.now(slot) for slot in slots)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            log.debug("the model needs '%s': %s", slots[0][1], error)
            continue
        finally:
            for slot, value in held.items():
                state.attributes.set_to(slot, value)
        rounding = max((torch.finfo(tensor.dtype).eps for tensor in expected), default=0.0) ** 0.5
        return _Found(filled, len(result) == len(expected) and difference(expected, result) <= rounding, empty)
    return None


def _emptied(slot: Slot, value: Any) -> list[Any]:
    """The values that a model may take for an empty cache."""
    if computed_on_access(slot):
        return [ABSENT]
    if isinstance(value, dict | list | set | deque):
        return [EMPTIED, None, ABSENT]
    return [None, ABSENT]


def _zeros(value: Any) -> list[Any]:
    return [torch.zeros_like(value)] if isinstance(value, Tensor) else []


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _path(model: nn.Module, slot: Slot) -> str:
    owner = next((name for name, module in model.named_modules() if module is slot[0]), "")
    return f"{owner}.{slot[1]}".lstrip(".")


def _refuse_frozen_code(model: nn.Module) -> None:
    config = sys.modules.get("torch._inductor.config")
    if config is not None and config.freezing and any(_compiled(model)):
        raise UnsupportedModel(
            "the model is compiled with torch._inductor.config.freezing, whose code keeps the weights as constants and "
            "would not see them move; compile it without"
        )


def _compiled(model: nn.Module) -> Iterator[bool]:
    for module in model.modules():
        yield type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None
