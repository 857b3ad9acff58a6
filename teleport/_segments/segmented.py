"""The parts of a model that are evaluated as segments: the elements of its lists and sequences of modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from teleport._segments.recomputed import NotRepeatable, Segment

Result = TypeVar("Result")

PLAIN = (type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.Size)
"""What a part of a model may take and return besides tensors, in lists, tuples and dictionaries."""

TENSOR = object()
"""Stands for a tensor in an output."""


def parts_of(model: nn.Module) -> list[nn.Module]:
    """The outermost elements of ``nn.ModuleList`` and ``nn.Sequential`` that have trainable parameters."""
    found: dict[nn.Module, None] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        children = [each for each in module.children() if any(p.requires_grad for p in each.parameters())]
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            for each in children:
                if isinstance(each, (nn.ModuleList, nn.Sequential)):  # of stages
                    waiting.append(each)
                elif not isinstance(each, torch.jit.ScriptModule) and type(each).forward is not nn.Module.forward:
                    found.setdefault(each)
        else:
            waiting += children
    return [module for module in model.modules() if module in found and plain(module)]


def _as_it_is(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    return forward


def in_segments(
    parts: Sequence[nn.Module],
    evaluate: Callable[[], Result],
    around: Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]] = _as_it_is,
    repeated: bool = True,
) -> Result:
    """The result of an evaluation in which each call of ``parts`` is a segment, if it builds a graph.

    Args:
        parts: of a model.
        evaluate: the evaluation.
        around: from a part and its ``forward`` to what is called in place of that, within the segment.
        repeated: ``False`` for plain calls of what ``around`` gives, which are no segments.
    """
    forwards = {module: module.forward for module in parts}
    try:
        for module, forward in forwards.items():
            call = around(module, forward)
            module.__dict__["forward"] = _Segmented(call) if repeated else call
        return evaluate()
    finally:
        for module in forwards:
            module.__dict__.pop("forward", None)


class _Segmented:
    """A module's ``forward`` whose calls are segments; calls within one are part of it."""

    within = False

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() or _Segmented.within:
            return self._forward(*args, **kwargs)
        given, structure = tree_flatten((args, kwargs))
        inputs = _tensors(given)
        form: list[Any] = []  # of the output: its values but for tensors, and its structure

        def function(tensors: Sequence[Tensor]) -> list[Tensor]:
            before, _Segmented.within = _Segmented.within, True
            try:
                args, kwargs = tree_unflatten(_replaced(given, tensors), structure)
                made, outer = tree_flatten(self._forward(*args, **kwargs))
            finally:
                _Segmented.within = before
            form[:] = [each if not isinstance(each, Tensor) else TENSOR for each in made], outer
            return _tensors(made)

        outputs = iter(Segment(function, inputs).result(inputs))
        values, outer = form
        return tree_unflatten([next(outputs) if value is TENSOR else value for value in values], outer)


def plain(module: nn.Module) -> bool:
    """Whether the calls of a module run its ``forward`` as it stands, and nothing compiled from it."""
    return not isinstance(module, torch.jit.ScriptModule) and "forward" not in module.__dict__


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among the leaves of a structure.

    Raises:
        NotRepeatable: another leaf is an object that may hold tensors.
    """
    for value in values:
        if not isinstance(value, (Tensor, *PLAIN)):
            raise NotRepeatable(f"a part of the model takes or returns a {type(value).__name__}")
    return [value for value in values if isinstance(value, Tensor)]


def _replaced(values: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
    left = iter(tensors)
    return [next(left) if isinstance(value, Tensor) else value for value in values]
