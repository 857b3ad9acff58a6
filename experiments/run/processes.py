"""The processes of a run under ``torchrun``, which train one model together; without it there is one.

Each takes its part of every batch. The loss of a part counts by its share of the samples, so that the mean over the
processes, of losses as of gradients, is that of the whole batch. The first process evaluates and writes; what it finds
is sent to the others, which take the same decisions.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from experiments.configuration.config import Config
from experiments.errors import UserError
from experiments.run.launched import Place, place

Result = TypeVar("Result")

TIMEOUT = timedelta(days=1)
"""How long they wait for each other: torchrun ends all if one ends, and the first one may evaluate for long."""


@dataclass(frozen=True)
class Processes(Place):
    """This process among all of them."""

    def device(self, device: torch.device) -> torch.device:
        """The device of this process, if all have those of a kind."""
        if self.size == 1 or device.type == "cpu" or device.index is not None:
            return device
        return torch.device(device.type, self.local)

    def share(self, make: Callable[[], Result]) -> Result:
        """What ``make`` returns in the first process, where alone it is called; it can be pickled."""
        if self.size == 1:
            return make()
        sent = [make() if self.first else None]
        distributed.broadcast_object_list(sent, src=0)
        return sent[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait for the other processes."""
        if self.size > 1:
            distributed.barrier()

    def part(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """This process's part of the samples of a batch (inputs, targets)."""
        if self.size == 1:
            return batch
        inputs, targets = batch
        return inputs.tensor_split(self.size)[self.rank], targets.tensor_split(self.size)[self.rank]

    def weighted(self, loss: Tensor, samples: int, own: int) -> Tensor:
        """The mean loss of ``own`` samples, such that the mean over the processes is that of all ``samples``."""
        return loss if self.size * own == samples else loss * (self.size * own / samples)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.size == 1:
            return values
        total = values.double()
        distributed.all_reduce(total)
        return total / self.size

    def replica(self, model: nn.Module) -> nn.Module:
        """The model for training steps, whose gradients are means over the processes."""
        if self.size == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)

    def check(self, config: Config, samples: int) -> None:
        """Refuse batches of which a process would get nothing.

        Args:
            config: of the run.
            samples: of the smallest batch of training.

        Raises:
            UserError: the sentence has the key.
        """
        sizes = {"training.batch_size (or the last batch of an epoch)": samples}
        if config.teleport.name != "none":
            sizes["teleport.samples"] = config.teleport.samples
        for key, size in sizes.items():
            if size < self.size:
                raise UserError(f"{key} is {size} and there are {self.size} processes: each needs a sample of a batch")


ALONE = Processes()


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Meet the other processes, if there are any.

    Args:
        device: of the run; NCCL connects CUDA devices, gloo all others.
    """
    here = place()
    processes = Processes(here.rank, here.local, here.size)
    if processes.size == 1:
        yield processes
        return
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=distributed.PrefixStore(f"attempt {attempt}", store),  # else addresses of processes that ended are read
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    try:
        yield processes
    finally:
        distributed.destroy_process_group()
