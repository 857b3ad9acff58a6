"""The registry of linear operations: torch functions that use a weight as a matrix, open to the user's functions.

The null-space method needs the weight matrix of every layer and the vectors that it multiplies. Layers are recognised
at the call of ``torch.nn.functional.linear`` and its like, not by their module class: a hand-written attention, a
functional model and ``nn.Linear`` all end in the same call. The recogniser that is registered for a function translates
one call into :class:`LinearUse` values (Wu et al. 2025, equations 8 to 16). A parameter that an unregistered function
receives stays as it is.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from teleport._spaces.representation import Extent
from teleport._tracing.linear_use import LinearUse
from teleport._tracing.random_state import RandomState

CHUNK = 1 << 20
"""Elements of unfolded input per chunk; bounds the memory of a convolution's patches."""

Recogniser = Callable[..., list[LinearUse]]
"""Called with the arguments of a function, it returns the linear uses of the call."""

_REGISTRY: dict[Callable[..., Any], Recogniser] = {}


def register_view(*functions: Callable[..., Any]) -> Callable[[Recogniser], Recogniser]:
    """Register a recogniser: it tells which arguments of a call are weights of linear maps, and on which inputs.

    It is called with the arguments of each call, right before the call, and returns the call's linear uses. A use
    states that the result depends on ``use.weight`` through ``matrix @ input (+ bias)`` alone, for all inputs in
    ``use.rows``. A parameter among the arguments that is in no use stays as it is, and so do all of them if the
    recogniser's signature does not fit the call.

    Args:
        functions: torch functions, as ``torch.overrides`` sees them. The caller's own function becomes one by
            ``torch.overrides.handle_torch_function``.

    Example::

        @register_view(torch.bmm)  # one weight [groups, dimension, out], no bias
        def _experts(input, mat2):
            groups, dimension, out = mat2.shape
            weight = mat2.view(groups * dimension, out)
            return [LinearUse("experts", weight, input, lambda: iter([input]), groups=groups, transposed=True)]
    """

    def register(recogniser: Recogniser) -> Recogniser:
        for function in functions:
            _REGISTRY[function] = recogniser
        return recogniser

    return register


def is_linear_operation(function: Callable[..., Any]) -> bool:
    """Whether a recogniser is registered for ``function``."""
    return function in _REGISTRY


def linear_uses(function: Callable[..., Any], args: Any, kwargs: Any) -> list[LinearUse]:
    """The linear uses of a call; none if ``function`` has no recogniser, or one without these arguments."""
    recogniser = _REGISTRY.get(function)
    if recogniser is None:
        return []
    try:
        inspect.signature(recogniser).bind(*args, **kwargs)
    except TypeError:
        return []
    return recogniser(*args, **kwargs)


def _linear_use(
    kind: str, weight: Tensor, inputs: Tensor, bias: Tensor | None = None, transposed: bool = False
) -> LinearUse:
    """A use on the feature vectors of every position of ``inputs [..., dimension]`` (equations 8 and 10)."""

    def rows() -> Iterator[Tensor]:
        flat = inputs.detach().reshape(1, inputs.shape[:-1].numel(), inputs.shape[-1])
        yield from torch.split(flat, max(1, CHUNK // max(1, inputs.shape[-1])), dim=1)

    return LinearUse(kind, weight, inputs, rows, key="features", bias=bias, transposed=transposed)


@register_view(F.linear)
def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> list[LinearUse]:
    return [_linear_use("linear", weight, input, bias)]


@register_view(torch.matmul, Tensor.matmul, Tensor.__matmul__)
def _matmul(input: Tensor, other: Tensor) -> list[LinearUse]:
    """``inputs @ weight`` with a two-dimensional weight ``[dimension, out]``."""
    return [_linear_use("linear", other, input, transposed=True)] if other.dim() == 2 else []


@register_view(torch.mm, Tensor.mm)
def _mm(input: Tensor, mat2: Tensor) -> list[LinearUse]:
    return _matmul(input, mat2)


@register_view(torch.addmm, Tensor.addmm)
def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> list[LinearUse]:
    """``bias + inputs @ weight`` (GPT-2's ``Conv1D``); a bias is part of the use if it is one vector, unscaled."""
    bias = input if beta == 1 and input.dim() == 1 else None
    return [_linear_use("linear", mat2, mat1, bias, transposed=True)] if alpha == 1 else []


def _patches(
    inputs: Tensor, kernel: tuple[int, ...], stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Iterator[Tensor]:
    """Unfolded patches of ``inputs [n, c, *size]`` as rows ``[groups, n * positions, c / groups * prod(kernel)]``."""
    spatial = len(kernel)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    out = _outputs(inputs, reach, stride, padding)
    per_sample = inputs.shape[1] * math.prod(kernel) * math.prod(out)
    for part in torch.split(inputs.detach(), max(1, CHUNK // max(1, per_sample))):
        windows = F.pad(part, [p for pad in reversed(padding) for p in (pad, pad)])
        for axis in range(spatial):
            windows = windows.unfold(2 + axis, reach[axis], stride[axis])
            windows = windows[..., :: dilation[axis]]
        # [n, c, *out, *kernel] -> [groups, n, *out, c / groups, *kernel]
        windows = torch.unflatten(windows, 1, (groups, -1))
        order = [1, 0, *range(3, 3 + spatial), 2, *range(3 + spatial, 3 + 2 * spatial)]
        yield windows.permute(order).reshape(groups, -1, inputs.shape[1] // groups * math.prod(kernel))


def _outputs(inputs: Tensor, reach: list[int], stride: list[int], padding: list[int]) -> list[int]:
    """The number of outputs of a convolution per axis; ``reach`` is the extent of its kernel."""
    return [
        (s + 2 * p - r) // t + 1
        for s, p, r, t in zip(inputs.shape[2:], padding, reach, stride, strict=True)
    ]  # fmt: skip


def _per_axis(value: Any, spatial: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * spatial if len(values) == 1 else values


def _convolution(kind: str, spatial: int) -> Recogniser:
    """Convolution as a product with unfolded patches (equation 9; appendix A.4)."""

    def recogniser(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> list[LinearUse]:
        inputs = input if input.dim() == spatial + 2 else input.unsqueeze(0)
        kernel = tuple(weight.shape[2:])
        steps, gaps = _per_axis(stride, spatial), _per_axis(dilation, spatial)
        if padding == "same":  # torch pads the odd element at the end
            total = [d * (k - 1) for k, d in zip(kernel, gaps, strict=True)]
            inputs = F.pad(inputs, [p for t in reversed(total) for p in (t // 2, t - t // 2)])
            margins = [0] * spatial
        else:
            margins = [0] * spatial if padding == "valid" else _per_axis(padding, spatial)

        def rows() -> Iterator[Tensor]:
            return _patches(inputs, kernel, steps, margins, gaps, groups)

        def extent() -> Extent:
            reach = [d * (k - 1) + 1 for k, d in zip(kernel, gaps, strict=True)]
            count = len(inputs) * math.prod(_outputs(inputs, reach, steps, margins))
            channels = torch.unflatten(inputs.detach(), 1, (groups, -1)).transpose(0, 1).flatten(1)
            norms = torch.linalg.vector_norm(channels, dim=1, dtype=torch.float64)
            return Extent(count, math.prod(kernel) * norms.square())  # a tap reads each element at most once

        key = (kind, kernel, tuple(steps), str(padding), tuple(gaps), groups)
        return [LinearUse(kind, weight, input, rows, key=key, bias=bias, groups=groups, extent=extent)]

    return recogniser


def _transposed_convolution(kind: str, spatial: int) -> Recogniser:
    """Transposed convolution: every tap multiplies the channel vector of every position.

    Every output is kept if those products are. The bias is added once per output, not once per product, so that it is
    no extra input and stays as it is.
    """

    def recogniser(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> list[LinearUse]:
        def rows() -> Iterator[Tensor]:
            inputs = input.detach() if input.dim() == spatial + 2 else input.detach().unsqueeze(0)
            channels = torch.unflatten(inputs.flatten(2), 1, (groups, -1))  # [n, groups, c / groups, positions]
            yield channels.permute(1, 0, 3, 2).reshape(groups, -1, inputs.shape[1] // groups)

        key = (kind, groups)
        return [LinearUse(kind, weight, input, rows, key=key, groups=groups, transposed=True)]

    return recogniser


for _spatial in (1, 2, 3):
    register_view(getattr(F, f"conv{_spatial}d"))(_convolution(f"conv{_spatial}d", _spatial))
    register_view(getattr(F, f"conv_transpose{_spatial}d"))(
        _transposed_convolution(f"conv_transpose{_spatial}d", _spatial)
    )

_ATTENTION = inspect.signature(F.multi_head_attention_forward)


@register_view(F.multi_head_attention_forward)
def _attention(*args: Any, **kwargs: Any) -> list[LinearUse]:
    """``nn.MultiheadAttention``: query, key and value projections, and the output projection (equations 13 to 16).

    Input projections of the same tensor share one basis. The inputs of the output projection are the concatenated
    heads, found by running the attention once more with an identity in its place.
    """
    given = _bound_attention(args, kwargs).arguments
    width = given["embed_dim_to_check"]
    packed, bias = given["in_proj_weight"], given["in_proj_bias"]
    uses = []
    for row, name in enumerate(("query", "key", "value")):
        own_rows = slice(row * width, (row + 1) * width)
        weight = given[f"{name[0]}_proj_weight"] if given["use_separate_proj_weight"] else packed[own_rows]
        uses.append(_linear_use(f"attention {name}", weight, given[name], None if bias is None else bias[own_rows]))
    heads = _concatenated_heads(args, kwargs)
    uses.append(_linear_use("attention out", given["out_proj_weight"], heads, given["out_proj_bias"]))
    return uses


def _bound_attention(args: Any, kwargs: Any) -> inspect.BoundArguments:
    call = _ATTENTION.bind(*args, **kwargs)
    call.apply_defaults()
    return call


def _concatenated_heads(args: Any, kwargs: Any) -> Tensor:
    """The inputs of the output projection, ``[..., embed_dim]``, with the dropout that the call itself will draw."""
    call = _bound_attention(args, kwargs)
    weight = call.arguments["out_proj_weight"]
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    call.arguments.update(out_proj_weight=identity, out_proj_bias=None)
    random_state = RandomState([weight])
    try:
        heads = F.multi_head_attention_forward(*call.args, **call.kwargs)[0]
    finally:
        random_state.restore()
    assert isinstance(heads, Tensor)
    return heads
