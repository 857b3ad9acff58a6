"""Weight normalisation whose second derivative is right.

Input: the modules of a model. Output: whether one is normalised by torch's fused operation, and a mode of torch
functions in which that operation is composed of others.

The fused operation (``torch._weight_norm`` of 2.13; in both spellings of ``weight_norm`` unless ``dim=None``) has a
backward pass that takes the norms of the forward pass for constants when it is differentiated itself. So Hessian-vector
products are wrong in the entries of directions (``findings/weight-norm-second-derivative.sh``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode


def has_weight_norm(modules: Iterable[nn.Module]) -> bool:
    """Whether one of the modules is, or has a hook of, torch's weight normalisation."""
    return any(
        isinstance(module, _WeightNorm)
        or any(isinstance(hook, WeightNorm) for hook in module._forward_pre_hooks.values())
        for module in modules
    )


class ComposedWeightNorm(TorchFunctionMode):
    """Each fused operation is a norm, a quotient and a product. Tracers within see it as torch's one operation."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (_weight_norm if func is torch._weight_norm else func)(*args, **kwargs or {})


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))
