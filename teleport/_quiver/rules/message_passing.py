"""Functions that gather rows, and that add or average them by an index, as layers on graphs and mixtures of experts do.

They are linear along one axis, and keep the others apart: a channel's factor passes, if all rows carry the same one.
A target of zeros, as it is made for this purpose, scales with anything.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teleport._quiver.rules.contractions import contract
from teleport._quiver.rules.elementwise import joined
from teleport._quiver.rules.table import Call, named, register_rule

LINEAR = ("sum", "mean", "add")
EXTREME = ("amax", "amin", "max", "min")


def _rows(call: Call, tensor: Tensor, dim: int) -> Tensor:
    """The scale index of a tensor as a function of all axes but ``dim``, along which it has length 1."""
    scale_index = call.scale_index(tensor)
    return call.along(scale_index, *(axis for axis in range(scale_index.dim()) if axis != dim % scale_index.dim()))


def _into(call: Call, target: Tensor, dim: int, rows: Tensor, reduce: str = "sum") -> Tensor | None:
    """The scale index of ``target`` after these rows were added to it, or written into it, along ``dim``.

    Args:
        call: of the function.
        target: before the call.
        dim: the axis along which an index says where a row goes.
        rows: scale index of the rows, of length 1 along ``dim``.
        reduce: how rows of one place are combined.
    """
    shape = list(call.result.shape)
    shape[dim % len(shape)] = 1
    if reduce not in LINEAR + EXTREME or list(rows.shape) != shape:
        return None
    if reduce in EXTREME:
        call.state.only_positive(rows, call.func)
    rows = rows.expand(call.result.shape)
    return rows if call.was_zero(target) else joined(call, call.scale_index(target), rows)


@register_rule(*named("index_add", "index_add_"))
def _index_add(call: Call, input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor | None:
    return _into(call, input, dim, _rows(call, source, dim))


@register_rule(*named("index_copy", "index_copy_"))
def _index_copy(call: Call, input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor | None:
    return _into(call, input, dim, _rows(call, source, dim))


@register_rule(*named("index_reduce", "index_reduce_"))
def _index_reduce(
    call: Call, input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor | None:
    return _into(call, input, dim, _rows(call, source, dim), reduce)


@register_rule(*named("scatter_add", "scatter_add_"))
def _scatter_add(call: Call, input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor | None:
    return _scattered(call, input, dim, index, src)


@register_rule(*named("scatter_reduce", "scatter_reduce_"))
def _scatter_reduce(
    call: Call, input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor | None:
    return _scattered(call, input, dim, index, src, reduce)


@register_rule(*named("scatter", "scatter_"))
def _scatter(
    call: Call, input: Tensor, dim: int, index: Tensor, src: Any = None, *, reduce: str = "add", value: Any = None
) -> Tensor | None:
    source = src if value is None else value
    if not isinstance(source, Tensor):  # a number, which is written
        return call.scale_index(input) if source == 0 and reduce == "add" else None
    return _scattered(call, input, dim, index, source, reduce)


def _scattered(
    call: Call, input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str = "sum"
) -> Tensor | None:
    """Each element of ``source`` goes to a place along ``dim`` and stays where it is along the other axes."""
    rows = _rows(call, source, dim)
    used = [slice(None) if a == dim % index.dim() else slice(0, length) for a, length in enumerate(index.shape)]
    return _into(call, input, dim, rows[tuple(used)], reduce)


@register_rule(*named("gather", "take_along_dim"))
def _gather(call: Call, input: Tensor, *options: Any, **named_options: Any) -> Tensor | None:
    """Each element comes from a place along ``dim``, and from where it is along the other axes."""
    dim, index = _dim_and_index(*options, **named_options)
    if dim is None:
        return None
    if call.func in (torch.take_along_dim, Tensor.take_along_dim):
        return torch.take_along_dim(call.scale_index(input).contiguous(), index.cpu(), dim)
    scale_index = call.scale_index(input)
    if scale_index.shape[dim] > 1 and scale_index.stride(dim):
        return torch.gather(scale_index, dim, index.cpu())
    kept = [slice(0, 1) if a == dim % index.dim() else slice(0, length) for a, length in enumerate(index.shape)]
    return scale_index[tuple(kept)].expand(call.result.shape)


def _dim_and_index(*options: Any, **named_options: Any) -> tuple[int | None, Any]:
    values = dict(named_options)
    for value in options:
        values.setdefault("index" if isinstance(value, Tensor) else "dim", value)
    return values.get("dim"), values.get("index", values.get("indices"))


@register_rule(*named("cumsum", "cumsum_"))
def _cumulative_sum(call: Call, input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    return _rows(call, input, dim).expand(call.result.shape)


@register_rule(torch.segment_reduce)
def _segment_reduce(
    call: Call, data: Tensor, reduce: str, *, axis: int = 0, initial: Any = None, **segments: Any
) -> Tensor | None:
    """Rows in order, reduced by segments."""
    if reduce not in LINEAR + EXTREME or initial not in (None, 0):
        return None
    rows = _rows(call, data, axis)
    if reduce in EXTREME:
        call.state.only_positive(rows, call.func)
    return rows.expand(call.result.shape)


@register_rule(torch.sparse.mm)
def _sparse_product(call: Call, mat1: Tensor, mat2: Tensor, reduce: str = "sum") -> Tensor | None:
    return _product(call, mat1, mat2, reduce)


def _product(call: Call, mat1: Tensor, mat2: Tensor, reduce: str = "sum") -> Tensor | None:
    if reduce not in LINEAR + EXTREME:
        return None
    scale_index = contract(call, "matmul", mat1, mat2, (["row", "inner"], ["inner", "column"], ["row", "column"]))
    if scale_index is not None and reduce in EXTREME:
        call.state.only_positive(scale_index, call.func)
    return scale_index


@register_rule(torch.sparse.addmm)
def _add_sparse_product(
    call: Call, mat: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor | None:
    scale_index = _product(call, mat1, mat2)
    return scale_index if scale_index is None or beta == 0 else joined(call, scale_index, call.scale_index(mat))
