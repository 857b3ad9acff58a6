"""The batches of a run. Each depends on its number alone, so that a resumed run needs no replay."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from experiments.configuration.config import TrainingConfig
from experiments.run.seeding import Stream, generator
from experiments.tasks import Split

Batch = tuple[Tensor, Tensor]


def steps_per_epoch(split: Split, training: TrainingConfig) -> int:
    """Optimizer steps per epoch; a split that is smaller than a batch is one batch."""
    whole, rest = divmod(len(split), training.batch_size)
    return max(1, whole + (rest > 0 and training.last_batch != "drop"))


def smallest_batch(split: Split, training: TrainingConfig) -> int:
    """Samples of the smallest batch of an epoch."""
    whole, rest = divmod(len(split), training.batch_size)
    if training.last_batch == "spread":
        return len(split) // steps_per_epoch(split, training)
    return rest if whole == 0 or (rest and training.last_batch == "keep") else training.batch_size


def last_step_of(training: TrainingConfig, per_epoch: int) -> int:
    """The number of optimizer steps of a run of ``per_epoch`` steps per epoch."""
    return min(training.epochs * per_epoch, training.max_steps or sys.maxsize)


class TrainingBatches:
    """The training batch of each optimizer step: an epoch is a permutation of the split, cut into batches.

    A split of 10 000 samples has 39 batches of 256 and, of ``last_batch: keep``, one of 16, whose gradient is noisy and
    after which the losses are evaluated. ``drop`` leaves the rest of an epoch out, other samples in each epoch;
    ``spread`` makes all batches of an epoch of the same size, within one sample: 40 of 250.

    Args:
        split: the training split.
        training: its ``batch_size`` and ``last_batch``.
        seed: of the run.
        device: of the task.
    """

    def __init__(self, split: Split, training: TrainingConfig, seed: int, device: torch.device) -> None:
        self.split = split
        self.seed = seed
        self.device = device
        self.per_epoch = steps_per_epoch(split, training)
        self._size, self._spread = training.batch_size, training.last_batch == "spread"
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, step: int) -> Batch:
        """Inputs and targets of the optimizer step ``step`` (from 0), augmented if the split is."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            source = generator(self.seed, Stream.ORDER, epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.split), generator=source).to(self.device)
        index = self._order[self._start(position) : self._start(position + 1)]
        # a generator takes as long to make as a small batch to look up
        source = generator(self.seed, Stream.AUGMENTATION, step) if self.split.augments else None
        return self.split.batch(index, source)

    def _start(self, position: int) -> int:
        """The first sample of a batch in the order of its epoch."""
        return position * len(self.split) // self.per_epoch if self._spread else position * self._size


def draw_batches(
    split: Split, batches: int, samples: int, source: torch.Generator, device: torch.device
) -> list[Batch]:
    """``batches`` times ``samples`` different samples of the split, drawn from ``source``, without augmentation."""
    orders = [torch.randperm(len(split), generator=source) for _ in range(batches)]
    return [split.batch(order[:samples].to(device)) for order in orders]
