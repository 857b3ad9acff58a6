"""A group of processes (ranks) that teleport one model together, each on batches of its own: what they exchange.

The loss of the group is the mean of the ranks' losses, as gradients under ``DistributedDataParallel`` are. Numbers that
steps and decisions depend on are reduced, so that every rank takes the same steps. :class:`Group` itself is one process
and exchanges nothing; :class:`teleport._processes.ranks.Ranks` is more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


class Group:
    """One process. The methods of a larger group return what the ranks have in common; here that is what they get."""

    size = 1
    rank = 0

    @property
    def alone(self) -> bool:
        """Whether there is one process."""
        return self.size == 1

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each tensor over the ranks, differentiable as often as the tensors are.

        The gradient of what is computed from it with respect to a parameter is again a mean over the ranks, to be
        taken by the caller.
        """
        return list(tensors)

    @property
    def holds_parts(self) -> bool:
        """Whether each rank holds some rows of the parameters, gradients and moves; else it holds all of them."""
        return False

    def mean_with_gradients(self, loss: Tensor, gradients: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """:meth:`mean` of a rank's loss and of its gradients, in one exchange."""
        value, *means = self.mean([loss, *gradients])
        return value, means

    def mean_gradients(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """:meth:`mean` of gradients that :func:`torch.autograd.grad` found on each rank."""
        return self.mean(gradients)

    def total(self, value: Tensor) -> Tensor:
        """The sum of what the ranks compute from the rows that they hold, differentiable by a rank's own value."""
        return value

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """:meth:`total` of numbers."""
        return list(numbers)

    def lengths(self, *lengths: float) -> list[float]:
        """The norms of tensors of which each rank has the norm of the rows that it holds."""
        return list(lengths)

    def anywhere(self, flag: bool) -> bool:
        """Whether something is true of the rows of any rank."""
        return flag

    def common(self, reason: str) -> str:
        """The first reason that the rows of a rank give, empty if none does."""
        return reason

    def whole_shape(self, parameter: nn.Parameter) -> torch.Size:
        """The shape of a parameter of which this rank may hold some rows."""
        return parameter.shape

    def part_of(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """What this rank holds of a tensor of the shape of a whole parameter."""
        return whole

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, without a graph."""
        return tensor

    def joined(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """The tensors of all ranks along an axis in which their lengths may differ, in the order of the ranks."""
        return tensor

    def gathered(self, value: Result) -> list[Result]:
        """The values of all ranks, in their order; any that can be pickled."""
        return [value]

    def first(self, value: Result) -> Result:
        """The value of the first rank."""
        return value

    def write_first(self, tensors: Sequence[Tensor]) -> None:
        """Write the values of the first rank into the tensors."""

    def draw_alike(self, generator: torch.Generator) -> None:
        """Give a source of random numbers the state of the first rank's."""

    def reasons(self, own: Sequence[str]) -> list[str]:
        """Per place the first reason that a rank has, empty if none has one."""
        return list(own)

    def mean_of(self, numbers: Sequence[float]) -> list[float]:
        """The mean of each number over the ranks."""
        return list(numbers)

    def any(self, flag: bool) -> bool:
        """Whether it is true on any rank."""
        return flag

    def agree(self, **facts: Any) -> None:
        """Check that facts are the same on all ranks; an underscore in a name is a space.

        Raises:
            ValueError: one is not; the sentence has two of its values.
        """

    def agree_on(self, what: str, tensors: Iterable[Tensor]) -> None:
        """As :meth:`agree`, on whole numbers in tensors."""

    def together(self, work: Callable[[], Result]) -> Result:
        """The result of ``work``; an exception that it raises on one rank is an ``EndedElsewhere`` on the others.

        ``work`` calls :meth:`commit` as the last thing that may still be undone.
        """
        return work()

    def commit(self) -> None:
        """Wait for all ranks.

        Raises:
            EndedElsewhere: one of them raised an exception.
        """


ALONE = Group()
