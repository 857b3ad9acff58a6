"""A group of processes of which each holds some rows of every parameter, as ``fully_shard`` (FSDP2) keeps them.

Parameters, gradients and moves are rows of this process. A parameter as a whole is a function of its rows: gathering
them, whose adjoint reduces a gradient and keeps the rows of this process. Both are differentiable as often as needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.overrides import handle_torch_function, has_torch_function

from teleport._processes.ranks import Ranks

_ALL_GATHER: Any = getattr(distributed, "all_gather_single", None) or getattr(
    distributed, "all_gather_into_tensor", None
)
_REDUCE_SCATTER: Any = getattr(distributed, "reduce_scatter_single", None) or getattr(
    distributed, "reduce_scatter_tensor", None
)
"""Of one tensor each; torch 2.13 renamed them, and a build without process groups has neither."""


@dataclass(frozen=True)
class Rows:
    """The rows of a parameter that a process holds.

    Attributes:
        name: of the parameter in the model.
        shape: of the whole parameter.
        first: the number of the first row held.
        held: the number of rows held, 0 for the last ones of many processes.
        most: the largest number of rows that a process holds.
    """

    name: str
    shape: torch.Size
    first: int
    held: int
    most: int

    @classmethod
    def of(cls, name: str, shape: torch.Size, rank: int, size: int) -> Rows:
        """The rows of one process of ``size``, as ``torch.chunk`` parts them."""
        most = -(-shape[0] // size)
        first = min(rank * most, shape[0])
        return cls(name, shape, first, min(most, shape[0] - first), most)

    @property
    def end(self) -> int:
        """The number of the row behind the last one held."""
        return self.first + self.held


class Shards(Ranks):
    """Several processes that hold rows of the parameters of one model.

    Args:
        processes: that move it together.
        device: of the model.
        rows: what this process holds of each parameter.
        shards: the sharded parameters of the model by what this process holds of them.
    """

    def __init__(
        self,
        processes: distributed.ProcessGroup,
        device: torch.device,
        rows: Mapping[nn.Parameter, Rows],
        shards: Mapping[nn.Parameter, nn.Parameter],
    ) -> None:
        super().__init__(processes, device)
        self.rows = dict(rows)
        self.shards = dict(shards)

    @property
    def holds_parts(self) -> bool:
        """See :class:`Group`."""
        return True

    def mean_with_gradients(self, loss: Tensor, gradients: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See :class:`Group`; gradients of rows are means over the ranks already."""
        return self.mean([loss])[0], list(gradients)

    def mean_gradients(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """See :class:`Group`."""
        return list(gradients)

    def total(self, value: Tensor) -> Tensor:
        """See :class:`Group`."""
        total: Tensor = _Total.apply(self, value)  # type: ignore[no-untyped-call]
        return total

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """See :class:`Group`; in double precision."""
        return self._reduced(torch.tensor(list(numbers), dtype=torch.float64, device=self.device)).tolist()

    def lengths(self, *lengths: float) -> list[float]:
        """See :class:`Group`."""
        return [math.sqrt(square) for square in self.totals([length * length for length in lengths])]

    def anywhere(self, flag: bool) -> bool:
        """See :class:`Group`."""
        return self.any(flag)

    def common(self, reason: str) -> str:
        """See :class:`Group`."""
        return self.reasons([reason])[0]

    def whole_shape(self, parameter: nn.Parameter) -> torch.Size:
        """See :class:`Group`."""
        return self.rows[parameter].shape

    def part_of(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """See :class:`Group`."""
        rows = self.rows[parameter]
        return whole[rows.first : rows.end]

    def gather(self, pieces: Iterable[tuple[Tensor, Rows]]) -> list[Tensor]:
        """The whole tensors of which the ranks hold rows, without a graph; new memory."""
        held = [(_padded(piece.detach(), rows), rows) for piece, rows in pieces]
        wholes = [piece.new_empty(self.size * rows.most, *rows.shape[1:]) for piece, rows in held]

        def exchange() -> None:
            for (piece, _), whole in zip(held, wholes, strict=True):
                _ALL_GATHER(whole, piece, group=self.processes)

        self._exchange(exchange)
        return [whole[: rows.shape[0]] for whole, (_, rows) in zip(wholes, held, strict=True)]

    def scatter_mean(self, wholes: Iterable[tuple[Tensor, Rows]]) -> list[Tensor]:
        """This process's rows of the mean over the ranks, without a graph; half precision is summed in single."""
        found = []
        for whole, rows in wholes:
            working = torch.promote_types(whole.dtype, torch.float32)
            own = _padded(whole.detach().to(working), rows, self.size)
            part = own.new_empty(rows.most, *rows.shape[1:])
            self._exchange(partial(_REDUCE_SCATTER, part, own, group=self.processes))
            found.append(part.div_(self.size)[: rows.held].to(whole.dtype))
        return found


def _padded(tensor: Tensor, rows: Rows, size: int = 1) -> Tensor:
    """The tensor with rows of zeros behind it, as all processes exchange the same number of rows."""
    missing = size * rows.most - tensor.shape[0]
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor.contiguous()


def gathered(group: Shards, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The parameters as a whole, differentiable where they require a gradient.

    To tracers it is a torch function whose results are the parameters that ``group.rows`` names.

    Args:
        group: of the processes that hold them.
        parameters: rows of this process.
    """
    if has_torch_function(parameters):
        found: list[Tensor] = handle_torch_function(gathered, parameters, group, parameters)
        return found
    trained = [parameter for parameter in parameters if parameter.requires_grad and torch.is_grad_enabled()]
    fixed = [parameter for parameter in parameters if parameter not in set(trained)]
    whole: dict[nn.Parameter, Tensor] = {}
    if fixed:
        whole |= zip(fixed, group.gather((each, group.rows[each]) for each in fixed), strict=True)
    if trained:
        rows = [group.rows[each] for each in trained]
        whole |= zip(trained, _Gather.apply(group, rows, *trained), strict=True)  # type: ignore[no-untyped-call]
    return [whole[parameter] for parameter in parameters]


class _Gather(torch.autograd.Function):
    """Whole tensors from rows. The gradient of the mean loss over the ranks is the mean of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, group: Shards, rows: list[Rows], *pieces: Tensor) -> tuple[Tensor, ...]:
        ctx.group, ctx.rows = group, rows
        return tuple(group.gather(zip(pieces, rows, strict=True)))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_Scatter.apply(ctx.group, ctx.rows, *outer)  # type: ignore[no-untyped-call]


class _Scatter(torch.autograd.Function):
    """Rows of the mean of whole tensors. The mean of what is computed from it is taken by :class:`_Gather` in turn, so
    that each rank's own tensor gets the gradient as a whole."""

    @staticmethod
    def forward(ctx: Any, group: Shards, rows: list[Rows], *wholes: Tensor) -> tuple[Tensor, ...]:
        ctx.group, ctx.rows = group, rows
        return tuple(group.scatter_mean(zip(wholes, rows, strict=True)))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_Gather.apply(ctx.group, ctx.rows, *outer)  # type: ignore[no-untyped-call]


class _Total(torch.autograd.Function):
    """The sum over the ranks of numbers that each computes from its own rows."""

    @staticmethod
    def forward(ctx: Any, group: Shards, value: Tensor) -> Tensor:
        return group.sum(value)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return None, *outer
