"""How exactly products of matrices are computed."""

from __future__ import annotations

import torch


def single_is_cut_short(device: torch.device) -> bool:
    """Whether products in single precision may round their factors to less: under autocast, as TF32 or as bfloat16."""
    if torch.is_autocast_enabled(device.type):
        return True
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # it was set per backend, which this function does not read
        return True
