"""How many channels a change of basis scales, and how far it changes the outputs, of untrained networks.

Constant initial values are replaced first, so that every parameter affects the outputs. This module imports torch:
subjects import it inside their measuring functions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from teleport import ChangeOfBasis, ChannelReport
from teleport._tracing.outputs import difference

FORMS: dict[str, Literal["keep", "teleport"]] = {"in place": "keep", "teleported activations": "teleport"}
"""How a change of basis is applied -> the ``activations`` option of :class:`teleport.ChangeOfBasis`."""

_OUTPUT = "it is an output"  # the reason reported for channels of outputs, whose change of basis is 1


@torch.no_grad()
def replace_constants(model: nn.Module, inputs: Tensor) -> None:
    """Replace constant initial values in place, so that every parameter affects the outputs; sets evaluation mode.

    A constant parameter can hide a wrong teleport: a head or a token of zeros, a layer scale of 1e-6. Zeros are drawn
    from a normal distribution of standard deviation 0.1, other constants uniformly from 0.5 to 1.5.

    A batch norm gets the same scale for all of its channels, their root mean square on ``inputs``, so that signals
    neither grow nor vanish in deep networks. Per-channel means and deviations, which training would give, amplify
    rounding errors on random weights, since some channels hardly vary: single precision alone then changes the outputs
    of torchvision's ResNet101 by 3e-4, without any teleport.
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
def rounding_error(model: nn.Module, inputs: Tensor) -> float:
    """The difference between a network's outputs in single and in double precision, relative to the largest output."""
    single = model(inputs)
    double = model.double()(inputs.double())
    model.float()
    return difference([double], [single.double()])


def teleport_once(
    model: nn.Module, inputs: Tensor, form: str, sampling: Any, range: float, seed: int
) -> dict[str, Any]:
    """Teleport ``model`` in place, without a guard, and measure the channels scaled and the change of the outputs.

    Args:
        model: any network.
        inputs: a batch of its inputs.
        form: a key of :data:`FORMS`.
        sampling: ``intra`` or ``inter``.
        range: of the change of basis.
        seed: of the change of basis.

    Returns:
        the number of hidden ``channels``, and of these ``free``, ``shared`` and ``pinned``; ``pinned_by``, the
        operations that pin channels, each with the number of them; ``moved``, ``|V - W| / |V|`` over all parameters;
        and ``difference``, ``max |difference| / max |output|`` on ``inputs``.
    """
    method = ChangeOfBasis(range, sampling, activations=FORMS[form], guard="none", seed=seed)
    report = method(model, [inputs])
    assert report.change is not None
    norm = sum(parameter.double().square().sum().item() for parameter in model.parameters()) ** 0.5
    moved = report.change.inverse().distance(model) / norm
    return count_channels(report.layers) | {"moved": moved, "difference": report.difference}


def count_channels(layers: Sequence[ChannelReport]) -> dict[str, Any]:
    """``channels``, ``free``, ``shared``, ``pinned`` and ``pinned_by`` over all layers but those of outputs."""
    hidden = [layer for layer in layers if layer.reason != _OUTPUT]
    counts = {name: sum(getattr(layer, name) for layer in hidden) for name in ("free", "shared", "pinned")}
    by: Counter[str] = Counter()
    for layer in hidden:
        by[_operation(layer.reason)] += layer.pinned
    pinned_by = ", ".join(f"{name} {count}" for name, count in by.most_common() if count)
    return {"channels": sum(counts.values()), **counts, "pinned_by": pinned_by}


def _operation(reason: str) -> str:
    """The torch function named in a reason, or else the reason itself."""
    entered = re.search(r"enters (?:\w+\.)*(\w+)", reason)
    return entered[1] if entered else reason
