"""The distributions of tau in use (Armenta et al. 2023, section 3.3)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from teleport._arguments import check_choice, check_finite, check_positive

Sampling = Literal["intra", "inter", "positive", "negative", "centered"]

FLOOR = 1e-3
"""No ``|tau|`` is smaller: what is drawn closer to 0 is moved there, as what reads a channel is divided by its tau."""


def check_sampling(sampling: str, range: float, center: float) -> None:
    """Refuse an unknown distribution or an invalid range.

    Raises:
        ValueError: an unknown name, or a range that is not above 0 or, around 1, not below 1.
    """
    check_choice("sampling", sampling, get_args(Sampling))
    check_positive(range=range)
    check_finite(range=range, center=center)
    if sampling in ("intra", "inter") and range >= 1:
        raise ValueError(f"range must be below 1 where sampling is {sampling}, got {range}")


def draw_tau(count: int, sampling: Sampling, range: float, center: float, generator: torch.Generator) -> Tensor:
    """Independent factors ``[count]``, float64, none of them closer to 0 than ``FLOOR``.

    Args:
        count: the number of factors.
        sampling: ``"intra"`` is U(1 - range, 1 + range), ``"inter"`` an equal mix of that and of U(-1 - range,
            -1 + range), ``"positive"`` U(0, range), ``"negative"`` U(-range, 0), ``"centered"`` U(center - range,
            center + range).
        range: the CoB-range sigma.
        center: of ``"centered"``.
        generator: on the CPU, so that devices agree.
    """
    low, high = {
        "intra": (1 - range, 1 + range),
        "inter": (1 - range, 1 + range),
        "positive": (0.0, range),
        "negative": (-range, 0.0),
        "centered": (center - range, center + range),
    }[sampling]
    tau = low + (high - low) * torch.rand(count, dtype=torch.float64, generator=generator)
    if sampling == "inter":
        tau = torch.where(torch.rand(count, dtype=torch.float64, generator=generator) < 0.5, -tau, tau)
    side = torch.where(tau == 0, math.copysign(1.0, low + high), tau.sign())
    return torch.where(tau.abs() < FLOOR, FLOOR * side, tau)
