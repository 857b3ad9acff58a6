"""Attention: the element of a key is the inverse transpose of its query's; that of a value passes to the output."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from teleport._symmetry_groups.axis import Axis, fixed, size_of
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.rules.table import AxisCall, axis_rule


@axis_rule(F.scaled_dot_product_attention)
def _attention(
    call: AxisCall,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Axes | None:
    """``query [..., heads, length, dim]``."""
    queries, keys, values = (list(call.axes(tensor)) for tensor in (query, key, value))
    if not len(queries) == len(keys) == len(values):
        return None
    if enable_gqa and len(queries) > 2:
        for own in (keys, values):
            own[-3] = call.product(own[-3], call.state.variables.copies(size_of(queries[-3]) // size_of(own[-3])))
    for place in range(len(queries) - 2):
        sizes = {size_of(own[place]) for own in (queries, keys, values)}
        if len(sizes) > 1:
            call.pin([queries[place], keys[place], values[place]], "where it is broadcast")
            continue
        call.join(queries[place], keys[place])
        call.join(queries[place], values[place])
        call.reduce([queries[place]])
    call.pin([queries[-2]], "which attends along it") if is_causal else call.reduce([queries[-2]])
    call.join(keys[-2], values[-2])
    call.mix(tuple(keys), [-2])
    call.mix(tuple(values), [-2])
    if is_causal:
        call.pin([keys[-2]], "which attends along it")
    call.join(queries[-1], keys[-1], dual=True)
    batches = tuple(queries[:-2])
    call.state.contexts += [(*batches, axis) for axis in (queries[-1], queries[-2], keys[-2])]
    resolve = call.state.variables.resolve
    if attn_mask is not None:
        mask = (None,) * (len(queries) - attn_mask.dim()) + call.axes(attn_mask)
        for axis, other in zip(mask, [*queries[:-1], keys[-2]], strict=True):
            if axis is not None and size_of(axis) > 1:
                call.join(other, axis)
    batch = [
        next((axis for axis in (queries[place], values[place]) if size_of(axis) > 1), queries[place])
        for place in range(len(queries) - 2)
    ]
    return tuple(resolve(axis) for axis in (*batch, queries[-2], values[-1]))


@axis_rule(F.multi_head_attention_forward)
def _multi_head_attention(call: AxisCall, *args: Any, **kwargs: Any) -> list[Axes] | None:
    """``nn.MultiheadAttention``: inputs ``[length, batch, dim]``, projections packed or apart, an output projection."""
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
    others = ("static_k", "static_v", "bias_k", "bias_v")
    if any(given.get(name) is not None for name in others) or given.get("add_zero_attn"):
        return None
    heads = given["num_heads"]
    inputs = [call.axes(given[name]) for name in ("query", "key", "value")]
    call.pin([axis for axes in inputs for axis in axes[:-1]], "which attends along it")
    if given.get("use_separate_proj_weight"):
        weights = [call.axes(given[name]) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
        rows, columns = [axes[0] for axes in weights], [axes[1] for axes in weights]
    else:
        packed = call.axes(given["in_proj_weight"])
        rows, columns = _thirds(call, packed[0]), [packed[1]] * 3
    for axes, column in zip(inputs, columns, strict=True):
        call.join(axes[-1], column, dual=True)
    if given.get("in_proj_bias") is not None:
        for row, bias in zip(rows, _thirds(call, call.axes(given["in_proj_bias"])[0]), strict=True):
            call.join(row, bias)
    for row in rows:  # first all, as one split may compose the variables of another
        call.split(row, heads, size_of(row) // heads)
    apart = [call.split(row, heads, size_of(row) // heads) for row in rows]
    for head, _ in apart[1:]:
        call.join(apart[0][0], head)
    call.reduce([apart[0][0]], why="it enters attention, per head")
    call.join(apart[0][1], apart[1][1], dual=True)
    output = call.axes(given["out_proj_weight"])
    call.join(rows[2], output[1], dual=True)
    made = output[0]
    if given.get("out_proj_bias") is not None:
        call.join(made, call.axes(given["out_proj_bias"])[0])
    if given.get("attn_mask") is not None:
        call.axes(given["attn_mask"])
        if given["attn_mask"].dim() > 2:
            call.pin([apart[0][0]], "with a mask per head")
    if given.get("key_padding_mask") is not None:
        call.axes(given["key_padding_mask"])
    attended, *weighted = [each for each in call.result if each is not None]
    if weighted and not given.get("average_attn_weights", True):
        call.pin([apart[0][0]], "which returns the attention of each head")
    own = call.state.variables.resolve(made)
    result: list[Axes] = [(*(fixed(size) for size in attended.shape[:-1]), own)]
    return result + [tuple(fixed(size) for size in each.shape) for each in weighted]


def _thirds(call: AxisCall, axis: Axis) -> list[Axis]:
    """The parts of queries, keys and values of a packed axis."""
    part = size_of(axis) // 3
    return [call.cut(axis, start, start + part) for start in (0, part, 2 * part)]
