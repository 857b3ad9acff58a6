"""The random numbers of a run.

The global generators are seeded once per run, for the initialisation of the model and for dropout. Each choice of data
has a generator of its own, made from the seed, a purpose and a number. Data therefore do not depend on other draws, and
a resumed run needs no replay.
"""

from __future__ import annotations

import os
import random
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """The purpose of a generator, and what its number counts."""

    ORDER = 0  # the permutation of the training split, by epoch
    AUGMENTATION = 1  # of a training batch, by step
    TELEPORT = 2  # the batches of a teleport, by event
    CONSTRAINT = 3  # the constraint's own batches, by event
    EVALUATION = 4  # the training samples that the training loss is measured on
    DRAW = 5  # the draws of a teleport, by event
    TRIAL = 6  # the batches that a teleport is tried on, by event
    HELD_OUT = 7  # the batches that a teleport measures its drift on, by event


def generator(seed: int, stream: Stream, number: int = 0) -> torch.Generator:
    """A generator on the CPU that depends on its arguments only."""
    high, low = np.random.SeedSequence((seed, int(stream), number)).generate_state(2)
    return torch.Generator().manual_seed(int(high) << 32 | int(low))


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, and make torch choose deterministic kernels if it has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when its first handle is made
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - a model of the user's own may draw from it
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # filling it costs time, and no code reads such memory
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
