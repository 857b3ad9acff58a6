"""Parts of tensors on which variables act: the view of a block, its factors in another order, actions on all parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.axis_state import Axes
from teleport._symmetry_groups.families import Block, blocks_of


def part_of(tensor: Tensor, block: Block) -> Tensor:
    """The view of a tensor that a block is."""
    for axis, (start, length) in enumerate(block.spans):
        tensor = tensor.narrow(axis, start, length)
    return tensor


def leading_first(values: Tensor, places: Sequence[int]) -> Tensor:
    """Values with some factors first, in this order."""
    return values.movedim(list(places), list(range(len(places))))


def flat(values: Tensor, places: Sequence[int]) -> Tensor:
    """``[copies, units, others]``: ``places`` are the factors of the copies and, last, of the units."""
    moved = leading_first(values, places)
    sizes = moved.shape[: len(places)]
    return moved.reshape(torch.Size(sizes[:-1]).numel(), sizes[-1], -1)


@torch.no_grad()
def act_on(axes: Mapping[str, Axes], actions: Sequence[AxisAction], tensors: Mapping[str, Tensor]) -> None:
    """Let actions act on tensors in place, one after the other.

    Args:
        axes: of the tensors, by name.
        actions: in the order in which they act.
        tensors: float64, by name.
    """
    for name, tensor in tensors.items():
        for block, todo in _acting(axes.get(name, ()), actions):
            part = part_of(tensor, block)
            values = part.reshape(block.sizes)
            for each in todo:
                values = each.on(values, block)
            part.copy_(values.reshape(part.shape))


def _acting(axes: Axes, actions: Sequence[AxisAction]) -> Iterator[tuple[Block, list[AxisAction]]]:
    for block in blocks_of(axes):
        todo = [each for each in actions if each.variable in block.variables]
        if todo:
            yield block, todo
