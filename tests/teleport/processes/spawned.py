"""Real processes with a gloo process group, which call a function each and hand back its results."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import distributed

TIMEOUT = timedelta(seconds=60)


def results_of_ranks(function: Callable[[int, int], Any], size: int) -> list[Any]:
    """``function(rank, size)`` of each of ``size`` processes; a function of a module. What it returns is tensors and
    plain values; ``None`` of a process that ended before."""
    if not distributed.is_available():
        pytest.skip("torch has no process groups here")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (size, folder, function), nprocs=size)
        files = [Path(folder) / f"{rank}.pt" for rank in range(size)]
        return [torch.load(file, weights_only=False) if file.exists() else None for file in files]


def _rank(rank: int, size: int, folder: str, function: Callable[[int, int], Any]) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=TIMEOUT)
    torch.save(function(rank, size), Path(folder) / f"{rank}.pt")
    with contextlib.suppress(RuntimeError):  # a rank that ended in its test
        distributed.barrier()
    distributed.destroy_process_group()
