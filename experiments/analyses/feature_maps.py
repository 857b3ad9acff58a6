"""What a layer of a network says of an input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def feature_maps(model: nn.Module, modules: Sequence[nn.Module], inputs: Any) -> tuple[list[Tensor], Tensor]:
    """The outputs of ``modules`` and of ``model`` for ``inputs``; of a module that is called often, of its last call.

    Args:
        model: in the mode in which it is looked at.
        modules: of ``model``.
        inputs: a batch.
    """
    found: dict[int, Tensor] = {}

    def keep(place: int) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
            found[place] = output.detach().clone()

        return hook

    handles = [module.register_forward_hook(keep(place)) for place, module in enumerate(modules)]
    try:
        outputs = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [found[place] for place in range(len(modules))], outputs
