"""The replicas of a model on the ranks of a group: equal before a teleport, evaluated as one function, moved alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from teleport._errors import UnsupportedModel
from teleport._processes.group import Group
from teleport._undone import always_undone

Result = TypeVar("Result")

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of so many bytes."""


def as_one_replica(group: Group, model: nn.Module, work: Callable[[], Result]) -> Result:
    """The result of ``work``, which evaluates and moves the replicas of all ranks alike.

    Meanwhile each replica has the buffers of the first rank, as of the next forward pass of a
    ``DistributedDataParallel``; afterwards its own again.

    Raises:
        ValueError: the replicas have different parameters or buffers.
        UnsupportedModel: evaluations of the model write into its parameters.
    """
    if group.alone:
        return work()
    for name, module in model.named_modules():
        if getattr(module, "max_norm", None) is not None:
            raise UnsupportedModel(
                f"'{name}' has max_norm, so that each evaluation writes into its weight: the replicas of several "
                "processes would part; use it without, or teleport with process_group='alone'"
            )
    buffers = dict(model.named_buffers())
    group.agree(shapes_of_buffers={name: list(buffer.shape) for name, buffer in buffers.items()})
    if not group.holds_parts:
        _check_equal(group, dict(model.named_parameters()))
    own = [(buffer, buffer.detach().clone()) for buffer in buffers.values()]

    def put_back() -> None:
        with torch.no_grad():
            for buffer, value in own:
                buffer.copy_(value)

    def shared() -> Result:
        group.write_first(list(buffers.values()))
        return work()

    return always_undone(shared, put_back)


def _check_equal(group: Group, named: Mapping[str, Tensor]) -> None:
    """Refuse parameters that are not the same on all ranks, bit for bit."""
    everyone = group.gathered({name: _summary(parameter) for name, parameter in named.items()})
    for rank, other in enumerate(everyone):
        if other.keys() != everyone[0].keys():
            raise ValueError(f"rank {rank} has another model than rank 0: the names of its parameters differ")
        for name, summary in other.items():
            if summary != everyone[0][name]:
                raise ValueError(
                    f"'{name}' is not the same on rank {rank} as on rank 0: make the replicas equal first, as "
                    "DistributedDataParallel does, or teleport with process_group='alone'"
                )


def _summary(parameter: Tensor) -> tuple[list[int], str, bool, int]:
    """Shape, precision, whether it is trained, and the sum of its bits as whole numbers."""
    values = torch.view_as_real(parameter.detach()) if parameter.is_complex() else parameter.detach()
    bits = values.contiguous().view(_BITS[values.element_size()])
    return list(parameter.shape), str(parameter.dtype), parameter.requires_grad, int(bits.sum(dtype=torch.int64))
