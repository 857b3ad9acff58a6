"""Which samples of a split a run uses."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.errors import UserError


def subset(available: int, wanted: int | None, key: str) -> Tensor:
    """The numbers of the samples to use, int64 on the CPU: the first ``wanted`` of one fixed shuffle.

    ``None``, or as many as there are or more, is all of them in order. The shuffle depends on ``available`` alone, so
    a smaller choice is part of every larger one.

    Raises:
        UserError: ``wanted`` is below 1; ``key`` names the configuration's key.
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"{key} is {wanted}, expected a number of samples from 1 up, or null for all")
    if wanted is None or wanted >= available:
        return torch.arange(available)
    return torch.randperm(available, generator=torch.Generator().manual_seed(0))[:wanted]
