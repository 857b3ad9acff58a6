"""Attention that holds the products of queries and keys for a few heads at a time.

A fused kernel computes attention without saving them but has no tangents; the plain formula has tangents but saves a
matrix of length times length per head. Here the plain formula is computed for a few heads after the other, and again
in the backward pass, on values alone or with tangents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from teleport._tangents.dual import Dual, parts_of

PRODUCTS = 1 << 18
"""Products of queries and keys that are held at a time, few enough for a processor's cache."""


class AttentionByHeads(TorchFunctionMode):
    """Computes ``scaled_dot_product_attention`` so, where it has no dropout and its mask needs no gradient."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            call = _call(*args, **kwargs)
            if call is not None:
                return _Attention.apply(*call)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


@dataclass(frozen=True)
class _Form:
    """What an attention is besides queries, keys and values: the ``mask`` is ``[samples, heads, queries, keys]``."""

    mask: Tensor | None
    causal: bool
    scale: float


def _call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor, Tensor, _Form] | None:
    """The arguments of ``_Attention``; ``None`` where the plain formula is left to torch."""
    four = query.dim() == key.dim() == value.dim() == 4
    if not four or dropout_p or not query.is_floating_point() or key.shape[:2] != value.shape[:2]:
        return None
    grouped = query.shape[1] % key.shape[1] == 0 if enable_gqa else query.shape[1] == key.shape[1]
    if query.shape[0] != key.shape[0] or not grouped or query.shape[0] * query.shape[1] == 0:
        return None
    if attn_mask is not None:
        if isinstance(attn_mask, Dual) or attn_mask.requires_grad or is_causal:
            return None
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    form = _Form(attn_mask, is_causal, 1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    return query, key, value, form


class _Attention(torch.autograd.Function):
    """Attention of ``[samples, heads, length, channels]``; keys and values may have a divisor of the heads."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, form: _Form) -> Tensor:
        """The values that queries attend to."""
        ctx.save_for_backward(query, key, value)
        ctx.form = form
        return _by_heads(_forward, form, [query, key, value], [(0, value.shape[-1])])[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys and values."""
        query, key, value = ctx.saved_tensors
        widths = [(number, each.shape[-1]) for number, each in enumerate((query, key, value))]
        return (*_by_heads(_backward, ctx.form, [query, key, value, gradient], widths), None)


def _forward(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> list[Tensor]:
    return [_weights(query, key, bias, scale) @ value]


def _backward(
    query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, bias: Tensor | None, scale: float
) -> list[Tensor]:
    weights = _weights(query, key, bias, scale)
    along = gradient @ value.mT
    products = weights * (along - (along * weights).sum(-1, keepdim=True)) * scale
    return [products @ key, products.mT @ query, weights.mT @ gradient]


def _weights(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """The softmax over the keys, zero for a query to which no key is open."""
    products = query @ key.mT * scale
    if bias is None:
        return products.softmax(-1)
    return torch.where((bias > -math.inf).any(-1, keepdim=True), (products + bias).softmax(-1), 0.0)


def _by_heads(
    formula: Callable[..., list[Tensor]], form: _Form, tensors: Sequence[Tensor], of: Sequence[tuple[int, int]]
) -> list[Tensor]:
    """The results of a formula on a few heads after the other.

    Args:
        formula: from matrices ``[heads, length, channels]`` of these tensors, a bias and the scale to matrices.
        form: of the attention.
        tensors: queries, keys, values, and what else is per query; with tangents or without.
        of: per result the number of the tensor whose heads and length it has, and its channels.
    """
    state = next((each.state for each in tensors if isinstance(each, Dual)), None)
    values, tangents = zip(*map(parts_of, tensors), strict=True)
    copies = 1 if state is None else 2
    dtype = _exact(values[0].dtype)
    made = [
        [values[number].new_zeros((*values[number].shape[:3], width), dtype=dtype) for _ in range(copies)]
        for number, width in of
    ]
    (samples, heads, queries), (kept, keys) = values[0].shape[:3], values[1].shape[1:3]
    for chosen, rows in _pieces(samples * heads, queries, keys, values[0].device):
        shared = chosen // (heads // kept)  # keys and values of a group of heads
        opened = slice(0, min(keys, rows.stop) if form.causal else keys)
        places = [(shared, opened) if number in (1, 2) else (chosen, rows) for number in range(len(tensors))]
        with torch.no_grad(), forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
            taken = [_taken(*each) for each in zip(values, tangents, places, strict=True)]
            bias = _bias(form, chosen, heads, rows, opened, taken[0])
            for result, parts, (number, _) in zip(formula(*taken, bias, form.scale), made, of, strict=True):
                place, along = places[number]
                both = forward_ad.unpack_dual(result)  # type: ignore[no-untyped-call]
                for part, found in zip(parts, both, strict=False):
                    if found is not None:
                        part.flatten(0, 1)[:, along].index_add_(0, place, found)
    rounded = [[part.to(values[0].dtype) for part in each] for each in made]
    return [each[0] if state is None else Dual(each[0], each[1], state) for each in rounded]


def _exact(dtype: torch.dtype) -> torch.dtype:
    """The precision of sums."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _pieces(heads: int, queries: int, keys: int, device: torch.device) -> Iterator[tuple[Tensor, slice]]:
    """The numbers of heads and the queries, a few at a time: whole heads if they are small, else parts of one."""
    rows = max(1, min(queries, PRODUCTS // max(1, keys)))
    together = max(1, PRODUCTS // max(1, rows * keys))
    for chosen in torch.split(torch.arange(heads, device=device), together):
        for start in range(0, queries, rows):
            yield chosen, slice(start, min(queries, start + rows))


def _taken(values: Tensor, tangents: Tensor | None, place: tuple[Tensor, slice]) -> Tensor:
    """The matrices of some heads, of at least single precision, with their tangents if they have some."""

    def matrices(each: Tensor) -> Tensor:
        return _from(each, *place).to(_exact(each.dtype))

    taken = matrices(values)
    if tangents is None:
        return taken
    return forward_ad.make_dual(taken, matrices(tangents))  # type: ignore[no-untyped-call, no-any-return]


def _from(each: Tensor, chosen: Tensor, rows: slice) -> Tensor:
    """As indexing samples and heads that are one axis, without a copy of the whole."""
    return each[chosen // each.shape[1], chosen % each.shape[1], rows]


def _bias(form: _Form, chosen: Tensor, heads: int, rows: slice, opened: slice, like: Tensor) -> Tensor | None:
    """What is added to the products of some heads: minus infinity for keys that are not open; ``None`` for nothing."""
    if form.causal:
        numbers = torch.arange(rows.start, rows.stop, device=like.device)[:, None]
        closed = torch.arange(opened.stop, device=like.device) > numbers
    elif form.mask is None:
        return None
    else:
        mask = form.mask[chosen // heads, chosen % heads, rows]
        if mask.dtype != torch.bool:
            return mask.to(like.dtype)
        closed = ~mask
    return torch.zeros(closed.shape, dtype=like.dtype, device=like.device).masked_fill_(closed, -math.inf)
