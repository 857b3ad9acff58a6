"""Several processes that teleport one model together, and how they fail together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, distributed, nn

from teleport._processes.group import ALONE, Group

Result = TypeVar("Result")


class EndedElsewhere(RuntimeError):
    """Another rank of the group ended the teleport with an exception."""


class Ranks(Group):
    """Several processes.

    Before each exchange the ranks tell each other that they got as far. A rank on which an exception was raised tells
    that instead, at the exchange that the others come to.

    Args:
        processes: an initialised process group that this process is in.
        device: of the model; its tensors are exchanged there.
    """

    def __init__(self, processes: distributed.ProcessGroup, device: torch.device) -> None:
        self.processes = processes
        self.device = device
        self.size = distributed.get_world_size(processes)
        self.rank = distributed.get_rank(processes)
        self._source = distributed.get_global_rank(processes, 0)
        self._over = False  # the ranks wait for nobody any more: after a commit, an exception or a broken connection

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """See :class:`Group`; one exchange for all tensors."""
        dense = [tensor if tensor.layout is torch.strided else tensor.to_dense() for tensor in tensors]
        return list(_applied(_Mean, self, dense)) if dense else []

    def plain_mean(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The means without a graph, summed in the widest precision of the tensors, at least in single."""
        real = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
        widest = torch.float32
        for tensor in real:
            widest = torch.promote_types(widest, tensor.dtype)
        whole = torch.cat([tensor.detach().to(self.device, widest).flatten() for tensor in real])
        parts = torch.split(self._reduced(whole).div_(self.size), [tensor.numel() for tensor in real])
        means = [part.to(tensor).view(tensor.shape) for part, tensor in zip(parts, real, strict=True)]
        pairs = zip(means, tensors, strict=True)
        return tuple(torch.view_as_complex(mean) if tensor.is_complex() else mean for mean, tensor in pairs)

    def sum(self, tensor: Tensor) -> Tensor:
        """See :class:`Group`."""
        own = tensor.detach().to(self.device, copy=True, memory_format=torch.contiguous_format)
        return self._reduced(own).to(tensor.device)

    def joined(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """See :class:`Group`."""
        lengths = self.gathered(tensor.shape[dim])
        moved = tensor.detach().movedim(dim, 0).to(self.device)
        padded = moved.new_zeros(max(lengths), *moved.shape[1:])
        padded[: len(moved)] = moved
        parts = [torch.empty_like(padded) for _ in lengths]
        self._exchange(lambda: distributed.all_gather(parts, padded, group=self.processes))
        whole = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
        return whole.movedim(0, dim).to(tensor.device)

    def gathered(self, value: Result) -> list[Result]:
        """See :class:`Group`."""
        values: list[Any] = [None] * self.size
        self._exchange(lambda: distributed.all_gather_object(values, value, group=self.processes))
        return values

    def first(self, value: Result) -> Result:
        """See :class:`Group`."""
        return self.gathered(value if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def write_first(self, tensors: Sequence[Tensor]) -> None:
        """See :class:`Group`."""
        for tensor in tensors:
            sent = tensor.detach().to(self.device, copy=True, memory_format=torch.contiguous_format)
            self._exchange(partial(distributed.broadcast, sent, self._source, group=self.processes))
            with torch.no_grad():
                tensor.copy_(sent)

    def draw_alike(self, generator: torch.Generator) -> None:
        """See :class:`Group`."""
        generator.set_state(self.first(generator.get_state()))

    def reasons(self, own: Sequence[str]) -> list[str]:
        """See :class:`Group`."""
        return [next(filter(None, each), "") for each in zip(*self.gathered(list(own)), strict=True)]

    def mean_of(self, numbers: Sequence[float]) -> list[float]:
        """See :class:`Group`."""
        sums = self._reduced(torch.tensor(list(numbers), dtype=torch.float64, device=self.device))
        return [float(each) / self.size for each in sums]

    def any(self, flag: bool) -> bool:
        """See :class:`Group`."""
        return bool(self._reduced(torch.tensor([int(flag)], device=self.device)).item())

    def agree(self, **facts: Any) -> None:
        """See :class:`Group`."""
        everyone = self.gathered(facts)
        for name, mine in everyone[0].items():
            for rank, other in enumerate(everyone):
                if other[name] != mine:
                    raise ValueError(
                        f"the ranks of a teleport need the same {name.replace('_', ' ')}: rank 0 has {mine!r}, rank "
                        f"{rank} has {other[name]!r}"
                    )

    def agree_on(self, what: str, tensors: Iterable[Tensor]) -> None:
        """See :class:`Group`."""
        found = hashlib.sha256()
        for tensor in tensors:
            found.update(str(tensor.tolist()).encode())
        self.agree(**{what: found.hexdigest()[:8]})

    def together(self, work: Callable[[], Result]) -> Result:
        """See :class:`Group`."""
        try:
            return work()
        except Exception:
            if not self._over:
                self._meet(raised=True)
            raise

    def commit(self) -> None:
        """See :class:`Group`."""
        self._meet()
        self._over = True

    def _reduced(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        self._exchange(lambda: distributed.all_reduce(tensor, group=self.processes))
        return tensor

    def _exchange(self, call: Callable[[], Any]) -> None:
        self._meet()
        self._connected(call)

    def _meet(self, raised: bool = False) -> None:
        """Learn whether all ranks got here; the number of one that ``raised`` is known to the others."""
        highest = torch.tensor([self.rank + 1 if raised else 0], device=self.device)
        self._over = self._over or raised
        maximum = distributed.ReduceOp.MAX
        self._connected(lambda: distributed.all_reduce(highest, maximum, group=self.processes))
        if (number := int(highest.item())) and not raised:
            self._over = True
            raise EndedElsewhere(
                f"rank {number - 1} ended this teleport with an exception, which is told there; the parameters of all "
                "ranks are what they were"
            )

    def _connected(self, call: Callable[[], Any]) -> None:
        """Make a call; after an error of the connection, another rank may be gone, and none is waited for."""
        try:
            call()
        except Exception:
            self._over = True
            raise


Processes: TypeAlias = "distributed.ProcessGroup | Literal['alone'] | None"  # a text, as torch may be built without it
"""``None`` for all processes of ``torch.distributed`` (or those of a ``DistributedDataParallel``), ``"alone"`` for none
but this one, or a process group."""


def group_of(processes: Processes | Group, model: nn.Module) -> Group:
    """The group that teleports ``model`` together.

    Raises:
        ValueError: another word, or a process group that this process is not in.
    """
    if isinstance(processes, Group):
        return processes
    if isinstance(processes, str) and processes != "alone":
        raise ValueError(f"process_group must be a process group, 'alone' or None, got {processes!r}")
    if processes == "alone" or not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    if processes is None and isinstance(model, nn.parallel.DistributedDataParallel):
        processes = model.process_group
    found = distributed.group.WORLD if processes is None else processes
    if found is None or distributed.get_rank(found) < 0:
        raise ValueError("process_group is a group that this process is not in")
    if distributed.get_world_size(found) == 1:
        return ALONE
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return Ranks(found, device)


def _applied(function: type[torch.autograd.Function], group: Ranks, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = function.apply(group, *tensors)  # type: ignore[no-untyped-call]
    return found


class _Mean(torch.autograd.Function):
    """The mean over the ranks. What is computed from it is the same on all ranks, and so is its gradient, which each
    rank's own tensor gets as a whole: the mean over the ranks is taken at the parameters."""

    @staticmethod
    def forward(ctx: Any, group: Ranks, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.group = group
        return group.plain_mean(tensors)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_applied(_Same, ctx.group, outer)


class _Same(torch.autograd.Function):
    """What is the same on all ranks, as each of them uses it: the adjoint of :class:`_Mean`."""

    @staticmethod
    def forward(ctx: Any, group: Ranks, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.group = group
        return tuple(tensor.clone() for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_applied(_Mean, ctx.group, outer)
