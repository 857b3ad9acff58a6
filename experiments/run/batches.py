"""The batches of a run. Each depends on its number alone, so that a resumed run needs no replay."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from experiments.configuration.config import TrainingConfig
from experiments.run.seeding import Stream, generator
from experiments.tasks import Split

Batch = tuple[Tensor, Tensor]


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Optimizer steps per epoch; the last batch may be smaller."""
    return math.ceil(len(split) / batch_size)


def last_step_of(training: TrainingConfig, per_epoch: int) -> int:
    """The number of optimizer steps of a run of ``per_epoch`` steps per epoch."""
    return min(training.epochs * per_epoch, training.max_steps or sys.maxsize)


class TrainingBatches:
    """The training batch of each optimizer step: an epoch is a permutation of the split, cut into batches."""

    def __init__(self, split: Split, batch_size: int, seed: int, device: torch.device) -> None:
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.per_epoch = steps_per_epoch(split, batch_size)
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, step: int) -> Batch:
        """Inputs and targets of the optimizer step ``step`` (from 0), augmented if the split is."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            source = generator(self.seed, Stream.ORDER, epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.split), generator=source).to(self.device)
        index = self._order[position * self.batch_size : (position + 1) * self.batch_size]
        # a generator takes as long to make as a small batch to look up
        source = generator(self.seed, Stream.AUGMENTATION, step) if self.split.augments else None
        return self.split.batch(index, source)


def draw_batches(
    split: Split, batches: int, samples: int, source: torch.Generator, device: torch.device
) -> list[Batch]:
    """``batches`` times ``samples`` different samples of the split, drawn from ``source``, without augmentation."""
    orders = [torch.randperm(len(split), generator=source) for _ in range(batches)]
    return [split.batch(order[:samples].to(device)) for order in orders]
