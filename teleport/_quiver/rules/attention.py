"""Attention: the factors of a key are the inverses of its query's, per head; those of a value pass to the output."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from teleport._quiver.parameter_scales import Weight
from teleport._quiver.rules.contractions import with_bias
from teleport._quiver.rules.table import Call, register_rule
from teleport._quiver.scale_indices import constant


@register_rule(F.scaled_dot_product_attention)
def _attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """``query [..., heads, length, dim]``."""
    if enable_gqa:
        return None
    queries, keys, values = (
        call.along(call.scale_index(tensor), *range(tensor.dim() - 2), -1) for tensor in (query, key, value)
    )
    if bool(queries.any()) or bool(keys.any()):
        call.invert(queries, keys)
    return values.expand(call.result.shape)


@register_rule(F.multi_head_attention_forward)
def _multi_head_attention(call: Call, *args: Any, **kwargs: Any) -> list[Tensor] | None:
    """``nn.MultiheadAttention``: inputs ``[length, batch, dim]``, projections packed or apart, an output projection."""
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
    if given.get("static_k") is not None or given.get("static_v") is not None:
        return None
    columns = [call.along(call.scale_index(given[name]), -1).flatten() for name in ("query", "key", "value")]
    project = _separate if given.get("use_separate_proj_weight") else _packed
    projected = project(call, given, columns)
    output = call.weight(given["out_proj_weight"])
    if projected is None or output is None:
        return None
    queries, keys, values = projected
    if given["in_proj_bias"] is not None:
        call.join(torch.cat(projected), call.scale_index(given["in_proj_bias"]))
    for name, variables in (("bias_k", keys), ("bias_v", values)):
        if given[name] is not None:
            call.join(variables[None, None], call.scale_index(given[name]))
    call.invert(queries, keys)
    call.use(given["out_proj_weight"])
    rows = call.state.produce("attention", output, [0], values[None, :]).flatten()
    attended, *weights = [each for each in call.result if each is not None]
    scale_index = with_bias(call, rows.expand(attended.shape), given["out_proj_bias"])
    return None if scale_index is None else [scale_index, *(constant(each.shape) for each in weights)]


def _packed(call: Call, given: dict[str, Any], columns: list[Tensor]) -> list[Tensor] | None:
    """The scale variables of queries, keys and values, made by one weight ``[3 dim, dim]``."""
    used = call.weight(given["in_proj_weight"])
    if used is None:
        return None
    call.use(given["in_proj_weight"])
    read = torch.stack(columns)
    same = bool((read == read[:1]).all())
    read = read[:1] if same else read.repeat_interleave(read.shape[1], 0)
    return list(call.state.produce("attention", used, [0], read).flatten().chunk(3))


def _separate(call: Call, given: dict[str, Any], columns: list[Tensor]) -> list[Tensor] | None:
    """The same, if each has a weight of its own."""
    weights: list[tuple[Tensor, Weight]] = []
    for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        used = call.weight(given[name])
        if used is None:
            return None
        call.use(given[name])
        weights.append((given[name], used))
    return [
        call.state.produce("attention", used, [0], read[None, :]).flatten()
        for (_, used), read in zip(weights, columns, strict=True)
    ]
