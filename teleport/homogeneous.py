"""How a factor on hidden channels passes through torch functions: a rule a function, all others stop it.

A rule is called after the function with the tracker, the result and the function's arguments, and returns the label of
each tensor of the result (see :mod:`teleport.channels`), or ``None`` where it does not understand the call after all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport.ownership import tensors_in

if TYPE_CHECKING:
    from teleport.channels import Tracker

Rule = Callable[..., list[Tensor] | None]

_RULES: dict[Callable[..., Any], tuple[Rule, int]] = {}  # function -> (rule, leading arguments that may be labelled)


def output_labels(
    tracker: Tracker, func: Callable[..., Any], args: Any, kwargs: Any, result: Any, explained: set[str]
) -> list[Tensor] | None:
    """The labels of a call's results; adds to ``explained`` the parameters that it uses as weights of a layer.

    ``None`` where there is no rule, or the call is not one that the rule understands.
    """
    if func not in _RULES:
        return None
    rule, leading = _RULES[func]
    labelled = sum(map(tracker.labelled, tensors_in((args, kwargs))))
    if labelled > sum(map(tracker.labelled, tensors_in(args[:leading]))):
        return None
    try:
        inspect.signature(rule).bind(tracker, result, explained, *args, **kwargs)
    except TypeError:
        return None
    labels = rule(tracker, result, explained, *args, **kwargs)
    made = list(tensors_in(result))
    if labels is None or [label.shape for label in labels] != [tensor.shape for tensor in made]:
        return None
    return labels


def _rule(*functions: Callable[..., Any], leading: int = 1) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for function in functions:
            _RULES[function] = (rule, leading)
        return rule

    return register


def _along(label: Tensor, *axes: int) -> Tensor | None:
    """The label as a function of these axes alone, 1 long in the others; ``None`` where it is none."""
    kept = {axis % label.dim() for axis in axes}
    core = label[tuple(slice(None) if axis in kept else slice(0, 1) for axis in range(label.dim()))]
    return core if label.numel() and bool((label == core).all()) else None


# ---------------------------------------------------------------------------------------- functions without weights


@_rule(
    *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu, F.leaky_relu, F.leaky_relu_),
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout),
    *(torch.abs, Tensor.abs, Tensor.contiguous, Tensor.clone, torch.clone),
)
def _elementwise(
    tracker: Tracker, result: Tensor, explained: set[str], input: Tensor, *options: Any, **named: Any
) -> list[Tensor] | None:
    """``f(tau x) = tau f(x)``, for each element by itself."""
    return None if any(True for _ in tensors_in((options, named))) else [tracker.label(input)]


def _reshaping(function: Callable[..., Any]) -> Rule:
    """What moves elements about moves their labels the same way."""

    def rule(
        tracker: Tracker, result: Any, explained: set[str], input: Tensor, *options: Any, **named: Any
    ) -> list[Tensor] | None:
        if any(isinstance(option, torch.dtype) for option in (*options, *named.values())):
            return None  # x.view(dtype) reads the memory as something else
        return list(tensors_in(function(tracker.label(input), *options, **named)))

    return rule


for _name in ("flatten", "reshape", "transpose", "permute", "unflatten", "squeeze", "unsqueeze", "chunk", "split"):
    _rule(getattr(torch, _name), getattr(Tensor, _name))(_reshaping(getattr(Tensor, _name)))
_rule(Tensor.view)(_reshaping(Tensor.reshape))  # a label has strides of its own
_rule(Tensor.__getitem__)(_reshaping(Tensor.__getitem__))
_rule(Tensor.expand)(_reshaping(Tensor.expand))


@_rule(torch.cat, torch.concat)
def _cat(tracker: Tracker, result: Tensor, explained: set[str], tensors: Any, dim: int = 0) -> list[Tensor] | None:
    """Labels side by side, as the tensors are."""
    return [torch.cat([tracker.label(tensor) for tensor in tensors], dim)]


@_rule(torch.mean, Tensor.mean, torch.sum, Tensor.sum)
def _reduction(
    tracker: Tracker, result: Tensor, explained: set[str], input: Tensor, dim: Any = None, keepdim: bool = False
) -> list[Tensor] | None:
    """A mean over elements that all scale alike."""
    label = tracker.label(input)
    gone = [dim] if isinstance(dim, int) else list(range(label.dim()) if dim is None else dim)
    gone = [axis % max(1, label.dim()) for axis in gone]
    core = _along(label, *(axis for axis in range(label.dim()) if axis not in gone))
    return None if core is None else [core.reshape(result.shape)]


def _pooling(spatial: int) -> Rule:
    def rule(
        tracker: Tracker, result: Tensor, explained: set[str], input: Tensor, *options: Any, **named: Any
    ) -> list[Tensor] | None:
        """Maxima or means over the positions of each channel."""
        if not isinstance(result, Tensor):  # with indices
            return None
        label = tracker.label(input)
        core = _along(label, *range(label.dim() - spatial))
        return None if core is None else [core.expand(result.shape)]

    return rule


for _spatial in (1, 2, 3):
    _rule(
        getattr(torch, f"max_pool{_spatial}d"),
        getattr(F, f"max_pool{_spatial}d"),
        getattr(F, f"avg_pool{_spatial}d"),
        getattr(F, f"adaptive_avg_pool{_spatial}d"),
    )(_pooling(_spatial))


# ------------------------------------------------------------------------------------------- functions with weights


def _layer(
    tracker: Tracker,
    result: Tensor,
    explained: set[str],
    kind: str,
    weight: Tensor | None,
    bias: Tensor | None,
    columns: Tensor | None,
    axis: int,
) -> list[Tensor] | None:
    """The label of what a layer makes: units of its own along the result's ``axis``."""
    name, bias_name = tracker.whole(weight), tracker.whole(bias)
    if name is None or (bias is not None and bias_name is None):
        return None
    explained |= {name} if bias_name is None else {name, bias_name}
    rows = tracker.produce(kind, name, bias_name, columns)
    shape = [1] * result.dim()
    shape[axis] = len(rows)
    return [rows.reshape(shape).expand(result.shape)]


def _read_columns(tracker: Tracker, input: Tensor, axis: int) -> Tensor:
    """The unit of each feature along the input's ``axis``; units that are not the same everywhere are pinned."""
    label = tracker.label(input)
    core = _along(label, axis)
    if core is None:
        tracker.pin(label, "its output is read in different ways at different positions")
        return label.new_zeros(label.shape[axis])
    return core.flatten()


@_rule(F.linear)
def _linear(
    tracker: Tracker, result: Tensor, explained: set[str], input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> list[Tensor] | None:
    if tracker.whole(weight) is None or weight.dim() != 2:
        return None
    return _layer(tracker, result, explained, "linear", weight, bias, _read_columns(tracker, input, -1), -1)


def _convolution(spatial: int) -> Rule:
    def rule(
        tracker: Tracker,
        result: Tensor,
        explained: set[str],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> list[Tensor] | None:
        if groups != 1 or tracker.whole(weight) is None:
            return None
        axis = -spatial - 1
        columns = _read_columns(tracker, input, axis)
        return _layer(tracker, result, explained, f"conv{spatial}d", weight, bias, columns, axis)

    return rule


for _spatial in (1, 2, 3):
    _rule(getattr(F, f"conv{_spatial}d"))(_convolution(_spatial))


@_rule(F.batch_norm)
def _batch_norm(
    tracker: Tracker,
    result: Tensor,
    explained: set[str],
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *options: Any,
    **named: Any,
) -> list[Tensor] | None:
    """What it standardises must stay, because of its eps and its statistics; its scale and shift make new units."""
    tracker.pin(tracker.label(input), "its output enters torch.nn.functional.batch_norm, which standardises it")
    return _layer(tracker, result, explained, "batch norm", weight, bias, None, 1)


@_rule(F.layer_norm)
def _layer_norm(
    tracker: Tracker,
    result: Tensor,
    explained: set[str],
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> list[Tensor] | None:
    """As a batch norm; over one axis."""
    tracker.pin(tracker.label(input), "its output enters torch.nn.functional.layer_norm, which standardises it")
    if len(normalized_shape) != 1:
        return None
    return _layer(tracker, result, explained, "layer norm", weight, bias, None, -1)


@_rule(F.scaled_dot_product_attention, leading=3)
def _attention(
    tracker: Tracker,
    result: Tensor,
    explained: set[str],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> list[Tensor] | None:
    """A key's factor undoes its query's, head by head; a value's passes to the output. ``[b, heads, length, dim]``."""
    labels = [tracker.label(tensor) for tensor in (query, key, value)]
    heads = range(1, query.dim() - 2)
    queries, keys = (_along(label, *heads, -1) for label in labels[:2])
    values = _along(labels[2], *range(value.dim() - 2), -1)
    if enable_gqa or query.shape[:-2] != key.shape[:-2] or queries is None or keys is None or values is None:
        return None
    if bool(queries.any()) or bool(keys.any()):
        tracker.invert(queries, keys)
    return [values.expand(result.shape)]
