"""A tensor with its derivative along a direction, carried through autograd's forward and backward pass alike.

torch's own forward mode records how tangents were computed wherever a tensor requires a gradient, so that a backward
pass over it holds several times what training holds. Here values and tangents are one tensor to autograd: what it saves
for the backward pass is twice what it saves in training, and the backward pass computes the gradient with its tangent,
which is a Hessian-vector product (Pearlmutter 1994, "Fast exact multiplication by the Hessian"). Below autograd each
operation is evaluated by torch's forward mode, so that its rules are torch's. Products of matrices are written out:
their values are computed once they are read, since nobody reads the gradients of weights besides their tangents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from teleport._allocator import hand_back


class NoTangent(RuntimeError):
    """An operation has no tangent, or one that is not the derivative of the backward pass; the message names it."""


FREED = 16 << 20
"""Bytes of results after which the process hands freed memory back."""


class DispatchState:
    """torch's dispatch keys outside of any operation, in which operations on tangents are evaluated."""

    def __init__(self) -> None:
        self._made = 0
        self._included = torch._C._dispatch_tls_local_include_set()
        self._excluded = torch._C._dispatch_tls_local_exclude_set()

    def restored(self) -> Any:
        """A context in which operations have forward mode, within an operation below autograd."""
        return torch._C._ForceDispatchKeyGuard(self._included, self._excluded)

    def made(self, result: Tensor) -> None:
        """Hand freed memory back now and then: the heap keeps what temporary results took."""
        self._made += result.numel() * result.element_size()
        if self._made > FREED:
            self._made = 0
            hand_back()


class Dual(Tensor):
    """A tensor of values, with their tangent of the same shape; ``None`` for zero once it is no longer needed."""

    tangent: Tensor | None
    state: DispatchState
    _primal: Tensor | Callable[[], Tensor]

    @property
    def primal(self) -> Tensor:
        """The values."""
        if not isinstance(self._primal, Tensor):
            self._primal = self._primal()
        return self._primal

    @staticmethod
    def __new__(cls, primal: Tensor, tangent: Tensor | None, state: DispatchState, requires_grad: bool = False) -> Dual:
        made = Tensor._make_wrapper_subclass(
            cls,
            primal.shape,
            strides=primal.stride(),
            storage_offset=primal.storage_offset(),
            dtype=primal.dtype,
            device=primal.device,
            requires_grad=requires_grad,
        )
        made._primal, made.tangent, made.state = primal, tangent, state
        state.made(primal)
        return made

    @staticmethod
    def later(primal: Callable[[], Tensor], tangent: Tensor, state: DispatchState) -> Dual:
        """Values that are computed once they are read; they have the tangent's shape, type and strides."""
        made = Dual(tangent, tangent, state)
        made._primal = primal
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Dual(shape={tuple(self.shape)}, dtype={self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """The operation on values and tangents.

        Raises:
            NoTangent: it writes into a tensor without a tangent, or torch has no tangent for it.
        """
        leaves, form = tree_flatten((args, kwargs or {}))
        given = [each for each in leaves if isinstance(each, Dual)]
        state = given[0].state
        if func is torch.ops.aten.detach.default:
            return Dual(given[0].primal, given[0].tangent, state)
        if func in _WRITTEN_OUT:
            made = _WRITTEN_OUT[func](state, *args)
            if made is not None:
                return made
        if not func._schema.is_mutable:
            made = _evaluated(func, leaves, form, state)
            return tree_map(lambda each: each if not isinstance(each, _Pair) else Dual(*each.values, state), made)
        written = leaves[0]
        if not isinstance(written, Dual) or written.tangent is None or sum(_writes(func)) > 1:
            raise NoTangent(f"{func} writes into a tensor without a tangent")
        made = _evaluated(func, leaves, form, state)
        if not isinstance(made, _Pair) or made.values[1].data_ptr() != written.tangent.data_ptr():
            raise NoTangent(f"{func} writes a tangent elsewhere")
        return written


def _product(state: DispatchState, left: Tensor, right: Tensor) -> Dual | None:
    """A product of matrices, of which one at least has a tangent."""
    (a, ta), (b, tb) = (parts_of(each) for each in (left, right))
    if ta is None and tb is None:
        return None
    with state.restored(), torch.no_grad():
        if ta is None:
            tangent = torch.mm(a, tb)  # type: ignore[arg-type]
        else:
            tangent = torch.mm(ta, b)
            if tb is not None:
                tangent.addmm_(a, tb)

    def values() -> Tensor:
        with state.restored(), torch.no_grad():
            return torch.mm(a, b)

    return Dual.later(values, tangent, state)


def _transposed(state: DispatchState, matrix: Tensor) -> Dual | None:
    """A transposed matrix, whose values may still be to be computed."""
    if not isinstance(matrix, Dual) or matrix.tangent is None or isinstance(matrix._primal, Tensor):
        return None
    return Dual.later(lambda: matrix.primal.t(), matrix.tangent.t(), state)


def parts_of(each: Tensor) -> tuple[Tensor, Tensor | None]:
    """Values, and the tangent if there is one."""
    return (each.primal, each.tangent) if isinstance(each, Dual) else (each, None)


_WRITTEN_OUT: dict[Any, Callable[..., Dual | None]] = {
    torch.ops.aten.mm.default: _product,
    torch.ops.aten.t.default: _transposed,
}


class _Pair:
    """Values and tangent of a result."""

    def __init__(self, values: tuple[Tensor, Tensor]) -> None:
        self.values = values


def _writes(func: Any) -> list[bool]:
    return [each.alias_info is not None and each.alias_info.is_write for each in func._schema.arguments]


def _evaluated(func: Any, leaves: list[Any], form: Any, state: DispatchState) -> Any:
    """The result of an operation, each tensor that has a tangent as a ``_Pair``."""
    with state.restored(), torch.no_grad(), forward_ad.dual_level():
        args, kwargs = tree_unflatten([_as_torch_dual(each) for each in leaves], form)
        try:
            made = _in_steps_if_needed(func, args, kwargs)
        except NotImplementedError as error:
            raise NoTangent(f"{func} has no tangent ({' '.join(str(error).split())[:120]})") from error
        return tree_map(_unpacked, made)


def _in_steps_if_needed(func: Any, args: Any, kwargs: Any) -> Any:
    """The operation, of those that have no forward mode in steps that have, if torch knows some."""
    try:
        return func(*args, **kwargs)
    except NotImplementedError:
        from torch._decomp import decomposition_table  # seldom needed, and slow to load

        steps = decomposition_table.get(func)
        if steps is None or func._schema.is_mutable:
            raise
        return steps(*args, **kwargs)


def _as_torch_dual(each: Any) -> Any:
    if not isinstance(each, Dual):
        return each
    return each.primal if each.tangent is None else forward_ad.make_dual(each.primal, each.tangent)  # type: ignore[no-untyped-call]


def _unpacked(made: Any) -> Any:
    if not isinstance(made, Tensor):
        return made
    primal, tangent = forward_ad.unpack_dual(made)  # type: ignore[no-untyped-call]
    return primal.detach() if tangent is None else _Pair((primal.detach(), tangent.detach()))
