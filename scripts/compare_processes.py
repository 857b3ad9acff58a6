"""Every method in several processes against one: replicas with parts of the batches, and shards of ``fully_shard``.

    python scripts/compare_processes.py          # writes results/robustness/processes.csv

A transformer of two blocks in double precision, three batches of eight samples. A process group of gloo has two or
four ranks, each with its part of every batch; with shards each block and the root are one unit of ``fully_shard``.
The largest difference is over all parameters after the event, relative to the largest number among them; ``replicas``
says whether all ranks hold the same bits, ``moved`` by how much the event moved a parameter.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
import torch.nn.functional as F
from torch import Tensor, distributed, nn

import teleport

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results" / "robustness" / "processes.csv"
COLUMNS = ("method", "form", "processes", "difference", "replicas", "moved", "torch")
REPLICAS, SHARDS = "replicas", "shards"

Method = Callable[..., teleport.TeleportReport]

METHODS: dict[str, Callable[[], Method]] = {
    "NullSpace": lambda: teleport.NullSpace(steps=3),
    'NullSpace(path="shortest")': lambda: teleport.NullSpace(steps=3, path="shortest"),
    'NullSpace(path="random")': lambda: teleport.NullSpace(steps=3, path="random"),
    "RandomNullSpace": teleport.RandomNullSpace,
    "LevelSet": lambda: teleport.LevelSet(steps=3),
    "Rescaling": lambda: teleport.Rescaling(steps=3),
    "Balance": teleport.Balance,
    "Symmetry": lambda: teleport.Symmetry("corrected", lr=0.01, step="cap", guard="transaction"),
    "PseudoTeleport": teleport.PseudoTeleport,
    "ChangeOfBasis": teleport.ChangeOfBasis,
    **{
        f'ChangeOfBasis(group="{group}")': lambda group=group: teleport.ChangeOfBasis(group=group)  # type: ignore[misc]
        for group in ("permutation", "orthogonal", "general", "all")
    },
}


class Block(nn.Module):
    """Attention of two heads and an MLP around a residual stream of RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(8)
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8, bias=False) for _ in range(4))
        self.up, self.activation, self.down = nn.Linear(8, 12), nn.LeakyReLU(0.1), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        """``[samples, length, 8]`` from the same."""
        inputs = self.norm(x)
        heads = [each(inputs).unflatten(-1, (2, 4)).transpose(1, 2) for each in (self.query, self.key, self.value)]
        x = x + self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return x + self.down(self.activation(self.up(x)))


class Network(nn.Module):
    """Two blocks between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.blocks, self.head = nn.Linear(6, 8), nn.ModuleList([Block(), Block()]), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``[samples, 3]`` from ``[samples, length, 6]``."""
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean(1)


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    """The cross entropy of a batch."""
    return F.cross_entropy(model(batch[0]), batch[1])


def network() -> nn.Module:
    """The same network in each process."""
    torch.manual_seed(0)
    return Network().double()


def batches(rank: int = 0, size: int = 1) -> list[tuple[Tensor, Tensor]]:
    """A rank's parts of three batches."""
    source = torch.Generator().manual_seed(1)
    whole = [torch.randn(8, 2, 6, generator=source, dtype=torch.float64) for _ in range(3)]
    return [(each.chunk(size)[rank], (torch.arange(8) % 3).chunk(size)[rank]) for each in whole]


def whole(parameter: Tensor) -> Tensor:
    """A copy of a parameter, gathered if it is sharded."""
    gathered = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    return gathered.detach().clone()


def moved(name: str, form: str = "", rank: int = 0, size: int = 1) -> list[Tensor] | str:
    """The parameters after an event, or the sentence in which it is refused."""
    model = network()
    if form == SHARDS:
        from torch.distributed.fsdp import fully_shard

        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
    method, given = METHODS[name](), [model, batches(rank, size)]
    options = {"generator": torch.Generator().manual_seed(2)} if "random" in name else {}
    try:
        method(*given) if name == "Balance" else method(*given, loss_of, **options)
    except (teleport.UnsupportedModel, ValueError) as error:
        return str(error)
    return [whole(each) for each in model.parameters()]


def _rank(rank: int, size: int, folder: str, form: str) -> None:
    torch.set_num_threads(1)
    store, limit = f"file://{folder}/store", timedelta(seconds=120)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=limit)
    torch.save({name: moved(name, form, rank, size) for name in METHODS}, Path(folder) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def of_ranks(form: str, size: int) -> list[dict[str, Any]]:
    """What each rank ended with, by method."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (size, folder, form), nprocs=size)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(size)]


def largest(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference, relative to the largest number."""
    scale = max(float(each.abs().max()) for each in other)
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / scale


def rows() -> list[dict[str, Any]]:
    """One row per method, form and number of processes."""
    found, start = [], [whole(each) for each in network().parameters()]
    alone = {name: moved(name) for name in METHODS}
    for form in (REPLICAS, SHARDS):
        for size in (2, 4):
            ranks = of_ranks(form, size)
            for name in METHODS:
                one, first = alone[name], ranks[0][name]
                row = {"method": name, "form": form, "processes": size, "torch": torch.__version__}
                if isinstance(first, str) or isinstance(one, str):
                    found.append({**row, "difference": "", "replicas": f"refused: {first}", "moved": ""})
                    continue
                same = all(torch.equal(a, b) for each in ranks[1:] for a, b in zip(first, each[name], strict=True))
                numbers = {"difference": f"{largest(first, one):.1e}", "moved": f"{largest(one, start):.1e}"}
                found.append({**row, **numbers, "replicas": "same bits" if same else "differ"})
    return found


def main() -> int:
    """Write the table; 1 if replicas differ, or a method from one process by more than 1e-10."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    found = rows()
    for row in found:
        print(
            "  ".join(
                f"{row[column]!s:{width}}" for column, width in zip(COLUMNS, (34, 9, 2, 8, 10, 8, 0), strict=True)
            )
        )
    with TABLE.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(found)
    wrong = [row for row in found if row["replicas"] == "differ" or float(row["difference"] or 0) > 1e-10]
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
