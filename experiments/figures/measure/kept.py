"""What a change of basis reaches of a network and leaves of its outputs, on networks whose every parameter counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport import ChangeOfBasis, LayerReport
from teleport._tracing.outputs import difference

FORMS: dict[str, Literal["keep", "teleport"]] = {"in place": "keep", "teleported activations": "teleport"}
"""How a change of basis is applied -> what becomes of activations."""

_OUTPUT = "it is an output"  # why an output's channels carry 1


@torch.no_grad()
def settle(model: nn.Module, inputs: Tensor) -> None:
    """Give a network that was just made values at which its every parameter counts, in place; to evaluation mode.

    What starts as a constant hides what is done to it: a head or a token of zeros, a layer scale of 1e-6. Zeros are
    drawn from a normal distribution of deviation 0.1, other constants uniformly from 0.5 to 1.5.

    A batch norm gets one scale for all of its channels, their root mean square on ``inputs``, so that the signals of
    deep networks neither grow nor fade. Each channel's own mean and deviation would be what training gives, but on
    random weights some channels hardly vary, and dividing by that blows up their rounding, teleport or not (single
    precision alone then moves the outputs of torchvision's ResNet101 by 3e-4).
    """
    for parameter in model.parameters():
        low, high = parameter.aminmax()
        if low == high == 0:
            parameter.normal_(std=0.1)
        elif low == high:
            parameter.uniform_(0.5, 1.5)

    def scale(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        norm.get_buffer("running_mean").zero_()
        norm.get_buffer("running_var").fill_(args[0].square().mean())

    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(scale) for norm in norms]
    model.eval()(inputs)
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def rounding(model: nn.Module, inputs: Tensor) -> float:
    """How far a network's outputs in single precision are from those in double, relative to the largest."""
    single = model(inputs)
    double = model.double()(inputs.double())
    model.float()
    return difference([double], [single.double()])


def teleport_once(
    model: nn.Module, inputs: Tensor, form: str, sampling: Any, range: float, seed: int
) -> dict[str, Any]:
    """Teleport ``model`` and say what was reached and what is left; nothing is undone.

    Returns:
        how many ``channels`` there are but for the outputs', and of these ``free``, ``shared`` and ``pinned``;
        ``pinned_by``, operations with how many they pin; ``moved``, ``|V - W| / |V|`` over all parameters; and
        ``difference``, ``max |difference| / max |output|`` on ``inputs``.
    """
    method = ChangeOfBasis(range, sampling, activations=FORMS[form], guard="none", seed=seed)
    report = method(model, [inputs])
    assert report.change is not None
    norm = sum(parameter.double().square().sum().item() for parameter in model.parameters()) ** 0.5
    moved = report.change.inverse().distance(model) / norm
    return census(report.layers) | {"moved": moved, "difference": report.difference}


def census(layers: Sequence[LayerReport]) -> dict[str, Any]:
    """``channels``, ``free``, ``shared``, ``pinned`` and ``pinned_by`` of all layers; outputs are not counted."""
    hidden = [layer for layer in layers if layer.reason != _OUTPUT]
    counts = {name: sum(getattr(layer, name) for layer in hidden) for name in ("free", "shared", "pinned")}
    by: Counter[str] = Counter()
    for layer in hidden:
        by[_operation(layer.reason)] += layer.pinned
    pinned_by = ", ".join(f"{name} {count}" for name, count in by.most_common() if count)
    return {"channels": sum(counts.values()), **counts, "pinned_by": pinned_by}


def _operation(reason: str) -> str:
    """The torch function that a reason names, or else the reason itself."""
    entered = re.search(r"enters (?:\w+\.)*(\w+)", reason)
    return entered[1] if entered else reason
