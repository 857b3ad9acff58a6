"""The samples of a split that a run uses."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.errors import UserError


def subset(available: int, wanted: int | None, key: str) -> Tensor:
    """The numbers of the samples to use, int64 on the CPU: the first ``wanted`` of one fixed shuffle.

    If ``wanted`` is ``None`` or at least ``available``, all samples are used in order. The shuffle depends only on
    ``available``, so that a smaller subset is contained in every larger one.

    Raises:
        UserError: ``wanted`` is below 1; ``key`` names the configuration's key.
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"{key} is {wanted}, expected a number of samples from 1 up, or null for all")
    if wanted is None or wanted >= available:
        return torch.arange(available)
    return torch.randperm(available, generator=torch.Generator().manual_seed(0))[:wanted]
