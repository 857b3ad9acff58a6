"""How the rows of parameters scale that a process holds, of a model that is sharded over several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from teleport._processes.group import Group
from teleport._processes.shards import Rows, Shards
from teleport._quiver.quiver import Scaled


def in_rows(group: Group, scaled: Mapping[str, Scaled]) -> dict[str, Scaled]:
    """How what this process holds scales: ``scaled`` itself, or the rows of sharded parameters, by name.

    Parameters of which it holds no row are left out.

    Args:
        group: of the processes.
        scaled: of whole parameters.
    """
    if not isinstance(group, Shards):
        return dict(scaled)
    held = {rows.name: (parameter, rows) for parameter, rows in group.rows.items() if rows.held}
    return {name: _in_rows(each, *held[name]) for name, each in scaled.items() if name in held}


def _in_rows(scaled: Scaled, parameter: nn.Parameter, rows: Rows) -> Scaled:
    sides = (_of_rows(side, rows).to(parameter.device) for side in (scaled.output_class, scaled.input_class))
    return Scaled(parameter, *sides)


def _of_rows(side: Tensor, rows: Rows) -> Tensor:
    """The rows held of what has one row per row of the parameter; all of what is the same for all rows."""
    return side[rows.first : rows.end] if side.shape[0] == rows.shape[0] else side


class FactorsOfShards(Mapping[nn.Parameter, Tensor]):
    """The factors of sharded parameters, computed on access, by the parameters that the optimizer knows.

    They are sharded as these, or whole on each process if they are the same for all rows.

    Args:
        group: of the processes.
        scaled: of the whole parameters that moved, by name.
        tau: ``[classes]``.
    """

    def __init__(self, group: Shards, scaled: Mapping[str, Scaled], tau: Tensor) -> None:
        held = {rows.name: (group.shards[parameter], rows) for parameter, rows in group.rows.items()}
        self._of = {held[name][0]: (each, held[name][1]) for name, each in scaled.items()}
        self._tau = tau

    def __getitem__(self, shard: nn.Parameter) -> Tensor:
        from torch.distributed.tensor import DTensor, Replicate  # imports of a process that shards

        scaled, rows = self._of[shard]
        factors = scaled.factors(self._tau)
        mesh, placements = shard.device_mesh, shard.placements  # type: ignore[attr-defined]
        if factors.shape[0] == rows.shape[0]:
            own = _of_rows(factors, rows).contiguous().to(shard.device)
            shape, stride = factors.shape, factors.contiguous().stride()
            return DTensor.from_local(own, mesh, placements, run_check=False, shape=shape, stride=stride)
        return DTensor.from_local(factors.to(shard.device), mesh, [Replicate()] * mesh.ndim, run_check=False)

    def __iter__(self) -> Iterator[nn.Parameter]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)
