"""The table of rules, and the call that a rule is given.

A rule is called after the function, with the call and the function's arguments, and returns the scale index of its
result (see ``_quiver/scale_indices.py``), one per tensor if there are several, or ``None`` if it does not
understand the call.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.parameter_scales import Weight
from teleport._quiver.scale_indices import compact, constant
from teleport._quiver.scale_state import ScaleState
from teleport._tracing.functions import called
from teleport._tracing.ownership import tensors_in

Rule = Callable[..., Tensor | Sequence[Tensor] | None]

RULES: dict[Callable[..., Any], Rule] = {}

UNFORESEEN = (RuntimeError, IndexError, TypeError, ValueError)
"""What a rule may raise at a call of a form that it was not written for, which is thus not understood."""

ACTIVATIONS: set[Callable[..., Any]] = set()
"""Functions whose calls are sites, where the quiver is not found for changes in place."""

CONCATENATIONS: set[Callable[..., Any]] = {torch.cat, torch.concat, torch.concatenate}


@dataclass
class Call:
    """One call of a torch function, for its rule.

    Attributes:
        state: the scale indices of the evaluation so far.
        func: the function.
        result: of the call.
        zeros: the identities of the arguments that were made as zeros, and not written to before the call.
        explained: per parameter, the number of arguments that use it and that the rule accounts for.
        asked: the identities of the arguments whose scale indices the rule has read.
    """

    state: ScaleState
    func: Callable[..., Any]
    result: Any
    zeros: frozenset[int] = frozenset()
    explained: Counter[str] = field(default_factory=Counter)
    asked: set[int] = field(default_factory=set)

    def scale_index(self, tensor: Tensor | None) -> Tensor:
        """The scale index of a tensor; a parameter, or a view of one, scales element by element."""
        if tensor is None:
            return constant(())
        self.asked.add(id(tensor))
        self.explained.update(self.state.parameters_of(tensor))
        return self.state.scale_index(tensor)

    def was_zero(self, tensor: Tensor) -> bool:
        """Whether a tensor was made as zeros, which scale with anything, and not written to before the call."""
        return id(tensor) in self.zeros and not self.state.held(tensor)

    def weight(self, tensor: Tensor | None) -> Weight | None:
        """The parameter that a tensor is, or is a view of, if it may be used as the weight of a layer."""
        return None if tensor is None else self.state.weight(tensor)

    def join(self, scale_index: Tensor, other: Tensor) -> None:
        """Both carry the same factors."""
        self.state.variables.join(scale_index, other, f"it meets in {called(self.func)} what carries 1")

    def pin(self, scale_index: Tensor, why: str = "through which no factor is moved") -> None:
        """Pin scale variables to 1, because of this function."""
        self.state.pin(scale_index, self.func, why)

    def along(self, scale_index: Tensor, *axes: int) -> Tensor:
        """The scale index as a function of these axes, of length 1 along the others, whose variables are set equal."""
        kept = {axis % scale_index.dim() for axis in axes}
        first = scale_index[tuple(slice(None) if axis in kept else slice(0, 1) for axis in range(scale_index.dim()))]
        if scale_index.numel() and any(
            scale_index.stride(a) and scale_index.shape[a] > 1 for a in range(scale_index.dim()) if a not in kept
        ):
            self.join(scale_index, first.expand_as(scale_index))
        return first

    def invert(self, scale_index: Tensor, other: Tensor) -> None:
        """The factors are inverse to each other."""
        self.state.variables.join(scale_index, other, f"it meets in {called(self.func)} what carries 1", inverse=True)

    def use(self, tensor: Tensor) -> None:
        """Account for an argument that is the weight of a layer."""
        self.asked.add(id(tensor))
        self.explained.update(self.state.parameters_of(tensor))


def register_rule(*functions: Callable[..., Any]) -> Callable[[Rule], Rule]:
    """Register how the factors of a change of basis pass through torch functions that have no rule.

    A function without a rule pins the channels that enter it. The rule is called after each call of one of
    ``functions``, with a :class:`Call` and the arguments of the call. It returns the scale index of the result, an
    integer tensor of the shape of the result (a list of them, one per tensor, if there are several), or ``None`` if it
    does not cover the call. ``call.scale_index(tensor)`` is the scale index of an argument, ``call.join``,
    ``call.invert``, ``call.pin`` and ``call.along`` add constraints on factors. A rule is not checked: if it is wrong,
    the guard of a method is what detects that the loss changed.

        @teleport.register_rule(torch.diff, torch.Tensor.diff)
        def diff_rule(call, input, n=1, dim=-1):  # elements along dim are subtracted, so they have one factor
            kept = [axis for axis in range(input.dim()) if axis != dim % input.dim()]
            return call.along(call.scale_index(input), *kept).expand(call.result.shape)

    Args:
        functions: the callables that ``torch.overrides`` reports; a function and the method of a tensor are two.

    Returns:
        A decorator that registers the rule and returns it.
    """

    def register(made: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, made))
        return made

    return register


def named(*names: str) -> list[Callable[..., Any]]:
    """The functions and methods of torch with one of these names."""
    places = (torch, Tensor, F)
    found = [getattr(place, name) for name in names for place in places if hasattr(place, name)]
    if missing := [name for name in names if not any(hasattr(place, name) for place in places)]:
        raise ValueError(f"torch has no functions called {', '.join(missing)}")
    return found


@cache
def _signature(found: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(found)


def understood(found: Callable[..., Any], call: Any, args: Any, kwargs: Any) -> Any:
    """What a rule returns for a call; ``None`` if it does not understand the call."""
    try:
        _signature(found).bind(call, *args, **kwargs)
    except TypeError:
        return None
    try:
        return found(call, *args, **kwargs)
    except UNFORESEEN:
        return None


def indices_of_result(call: Call, args: Any, kwargs: Any) -> list[Tensor] | None:
    """The scale indices of a call's results; ``None`` if there is no rule or it does not understand the call."""
    found = RULES.get(call.func)
    entered = entering(call.func, args, kwargs)
    if found is None or not all(in_sight(tensor) for tensor in [*entered, *tensors_in(call.result)]):
        return None
    scale_indices = understood(found, call, args, kwargs)
    if scale_indices is None or any(call.state.held(t) and id(t) not in call.asked for t in entered):
        return None
    scale_indices = [scale_indices] if isinstance(scale_indices, Tensor) else list(scale_indices)
    made = list(tensors_in(call.result))
    if [scale_index.shape for scale_index in scale_indices] != [tensor.shape for tensor in made]:
        return None
    rounded = [
        scale_index for scale_index, tensor in zip(scale_indices, made, strict=True) if not tensor.is_floating_point()
    ]
    return None if any(bool(compact(scale_index).any()) for scale_index in rounded) else scale_indices


def entering(func: Callable[..., Any], args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors among a call's arguments, without those of shape ``[0]`` that a concatenation leaves out."""
    entered = list(tensors_in((args, kwargs)))
    return [tensor for tensor in entered if not left_out(tensor)] if func in CONCATENATIONS else entered


def left_out(tensor: Tensor) -> bool:
    """Whether a concatenation leaves a tensor out. The caches of language models begin with such a one."""
    return tensor.shape == (0,)


def in_sight(tensor: Tensor) -> bool:
    """Whether a tensor has elements and is not wrapped by ``torch.func``."""
    return tensor.numel() > 0 and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
