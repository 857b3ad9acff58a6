"""The parameters and buffers of a model as this process holds them, for moves that act on one after the other.

Of a sharded parameter a process holds some rows. A move that acts on each row by itself needs no others; one that mixes
rows takes the parameter as a whole, gathered for it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from teleport._engine.on_shards import ShardedModel
from teleport._engine.sharded import with_whole_parameters
from teleport._processes.group import ALONE, Group
from teleport._processes.ranks import group_of
from teleport._processes.shards import Rows, Shards
from teleport._tracing.replicas import is_sharded


class HeldTensors:
    """Tensors of a model by name, each whole or as the rows that this process holds.

    Args:
        named: the tensors of the model.
        group: of the processes that may hold rows of them; all of these make the same calls then.

    Attributes:
        group: the same.
        own: by name what this process holds, in the memory of the model.
    """

    def __init__(self, named: Mapping[str, Tensor], group: Group = ALONE) -> None:
        self.group = group
        self.own = dict(named)
        self._rows: dict[str, Rows] = {}
        if isinstance(group, Shards):
            for own, rows in group.rows.items():
                self.own[rows.name], self._rows[rows.name] = own, rows

    @classmethod
    def of(cls, model: nn.Module, group: Group = ALONE) -> HeldTensors:
        """The parameters and buffers of a model."""
        return cls({**dict(model.named_buffers()), **dict(model.named_parameters())}, group)

    def rows(self, name: str) -> Rows | None:
        """The rows of a tensor that this process holds; ``None`` if it holds all of it."""
        return self._rows.get(name)

    def shape(self, name: str) -> list[int] | None:
        """The shape of a whole tensor; ``None`` if the model has none of this name."""
        if name not in self.own:
            return None
        return list(self._rows[name].shape if name in self._rows else self.own[name].shape)

    def value(self, name: str) -> Tensor:
        """A tensor as a whole: the model's own one, or gathered into new memory."""
        rows, own = self._rows.get(name), self.own[name]
        if rows is None or not isinstance(self.group, Shards):
            return own.detach()
        return self.group.gather([(own, rows)])[0]

    @torch.no_grad()
    def write(self, name: str, value: Tensor) -> None:
        """Set a tensor, of which this process keeps what it holds.

        Args:
            name: of the tensor.
            value: of the shape of the whole one.
        """
        rows = self._rows.get(name)
        self.own[name].copy_(value if rows is None else value[rows.first : rows.end])

    @torch.no_grad()
    def rewrite(self, name: str, work: Callable[[Tensor], None]) -> None:
        """Let ``work`` change a tensor in place, as a whole."""
        whole = self.value(name)
        work(whole)
        if name in self._rows:
            self.write(name, whole)


def move_tensors(model: nn.Module, work: Callable[[HeldTensors], None]) -> None:
    """Let ``work`` move the tensors of a model, which may be sharded over processes; all of these call this then.

    An exception on one of them leaves the shards of all as they were.

    Args:
        model: any module. Shards of rows (``fully_shard``) move as rows; of another form they are made whole meanwhile.
        work: changes the tensors in place.

    Raises:
        EndedElsewhere: ``work`` raised an exception in another process.
    """
    shard = next((each for each in model.parameters() if is_sharded(each)), None)
    if shard is None:
        work(HeldTensors.of(model))
        return
    mesh = shard.device_mesh  # type: ignore[attr-defined]
    group = group_of(mesh.get_group() if mesh.ndim == 1 else None, model)
    sharded = ShardedModel.of(group, model)
    if sharded is None:
        with_whole_parameters(group, model, lambda: _all_or_none(HeldTensors.of(model), group, work))
    else:
        _all_or_none(HeldTensors.of(model, sharded.group), sharded.group, work)


def _all_or_none(held: HeldTensors, group: Group, work: Callable[[HeldTensors], None]) -> None:
    """Let ``work`` move tensors in all processes of a group, or in none."""
    before = {name: own.detach().clone() for name, own in held.own.items()}

    def together() -> None:
        work(held)
        group.commit()

    try:
        group.together(together)
    except BaseException:
        with torch.no_grad():
            for name, value in before.items():
                held.own[name].copy_(value)
        raise
