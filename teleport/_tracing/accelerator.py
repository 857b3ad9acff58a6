"""The accelerator of this machine, in all versions of torch that are supported."""

from __future__ import annotations

import torch


def current_accelerator() -> torch.device | None:
    """The accelerator; ``None`` if there is none, which torch 2.6 says by an exception."""
    try:
        return torch.accelerator.current_accelerator()
    except RuntimeError:
        return None
