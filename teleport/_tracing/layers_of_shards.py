"""The traced layers of a model of which each process holds some rows of every parameter.

Tracers see whole parameters, gathered for an evaluation. The rows of a weight that a process holds are rows of the
layer's matrix, and a projection acts on its columns: it needs nothing of the other processes. Where that is not so (a
transposed weight, groups, a bias in other rows than its weight), the layer's tensors are gathered for the projection.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleport._processes.shards import Rows, Shards
from teleport._tracing.layer_tracer import TracedLayers
from teleport._tracing.layers import Block, Layer

NO_ROWS = "it uses a part of a sharded parameter that is no range of its rows"


def layers_of_shards(group: Shards, traced: TracedLayers) -> TracedLayers:
    """The layers in the rows that this process holds; their blocks are of the parameters in ``group.rows``.

    Args:
        group: of the processes that hold rows.
        traced: with blocks of whole parameters.
    """
    held = {rows.name: (parameter, rows) for parameter, rows in group.rows.items()}
    layers, pinned = dict[str, Layer](), dict(traced.pinned)
    for name, layer in traced.layers.items():
        found = _in_rows(group, layer, held)
        if found is None:
            pinned[name] = NO_ROWS
        else:
            layers[name] = found
    return TracedLayers(layers, {name: traced.representations[name] for name in layers}, pinned)


def _in_rows(group: Shards, layer: Layer, held: Mapping[str, tuple[nn.Parameter, Rows]]) -> Layer | None:
    ranges = [_range(block) for block in layer.blocks]
    if any(each is None for each in ranges):
        return None
    own = []  # per block: the first row held of it, and how many
    for block, each in zip(layer.blocks, ranges, strict=True):
        assert each is not None
        rows = held[block.owner][1]
        first = min(max(each[0], rows.first), each[1])
        own.append((first - each[0], max(0, min(each[1], rows.end) - first)))
    parts = [_part(block, *held[block.owner], *each) for block, each in zip(layer.blocks, own, strict=True)]
    weight, bias = parts[0], parts[1] if len(parts) > 1 else None
    if layer.groups == 1 and not layer.transposed and _of_rows(layer.weight) and _alike(group, own):
        return dataclasses.replace(layer, weight=weight, bias=bias)
    values = {each.name: getattr(layer, each.name) for each in dataclasses.fields(layer)}
    return GatheredLayer(**values | {"weight": weight, "bias": bias}, whole=layer, group=group)


def _range(block: Block) -> tuple[int, int] | None:
    """The rows of its parameter that a block covers, the first one and the one behind the last."""
    shape = block.parameter.shape
    if block.shape.numel() == shape.numel():
        return 0, shape[0]
    length = shape[1:].numel()
    if not _of_rows(block) or block.offset % length:
        return None
    first = block.offset // length
    return first, first + block.shape[0]


def _of_rows(block: Block) -> bool:
    """Whether the first axis of a block is that of its parameter."""
    return block.shape[1:] == block.parameter.shape[1:] and block.stride == block.parameter.stride()


def _alike(group: Shards, own: list[tuple[int, int]]) -> bool:
    """Whether every process holds the same rows of all blocks."""
    return not group.any(len({each for each in own if each[1]}) > 1 or len({each[1] for each in own}) > 1)


def _part(block: Block, parameter: nn.Parameter, rows: Rows, first: int, count: int) -> Block:
    """The rows of a block from ``first`` on, in the memory of the rows of its parameter that are held."""
    length = rows.shape[1:].numel()
    begin = block.offset // length + first - rows.first
    shape = torch.Size([count, *rows.shape[1:]])
    return Block(block.owner, parameter, shape, parameter.stride(), begin * length if count else 0)


@dataclass(frozen=True)
class GatheredLayer(Layer):
    """A layer of which the rows held are no rows of its matrices.

    Its matrices here are the elements held, ``[1, 1, elements]``.

    Attributes:
        whole: the layer with blocks of whole parameters.
        group: of the processes.
    """

    whole: Layer = dataclasses.field(kw_only=True, compare=False, repr=False)
    group: Shards = dataclasses.field(kw_only=True, compare=False, repr=False)

    def gather(self, tensors: Mapping[nn.Parameter, Tensor]) -> Tensor:
        """See :class:`Layer`."""
        return torch.cat([block.within(tensors[block.parameter]).flatten() for block in self.blocks])[None, None]

    def projected(self, tensors: Mapping[nn.Parameter, Tensor], project: Callable[[Tensor], Tensor]) -> Tensor:
        """See :class:`Layer`; the whole tensors of this layer are gathered for it."""
        rows = [self.group.rows[block.parameter] for block in self.blocks]
        held = [tensors[block.parameter] for block in self.blocks]
        wholes = self.group.gather(zip(held, rows, strict=True))
        named = [block.parameter for block in self.whole.blocks]
        part = project(self.whole.gather(dict(zip(named, wholes, strict=True))))
        made = {parameter: torch.zeros_like(whole) for parameter, whole in zip(named, wholes, strict=True)}
        self.whole.scatter(part, made)
        own = {
            block.parameter: made[parameter][each.first : each.end]
            for block, parameter, each in zip(self.blocks, named, rows, strict=True)
        }
        return self.gather(own)

    def scatter(self, matrix: Tensor, tensors: Mapping[nn.Parameter, Tensor]) -> None:
        """See :class:`Layer`."""
        sizes = [block.shape.numel() for block in self.blocks]
        for block, part in zip(self.blocks, torch.split(matrix.flatten(), sizes), strict=True):
            block.within(tensors[block.parameter]).copy_(part.reshape(block.shape))
