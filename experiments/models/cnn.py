"""Plain convolutional networks."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from experiments.configuration.model_config import CNNConfig
from experiments.errors import UserError
from experiments.models.activations import activation
from experiments.models.checks import require_some
from experiments.tasks import Spec

FITS = ("image",)


def build(config: CNNConfig, spec: Spec) -> nn.Sequential:
    """For each entry of ``channels`` a 3x3 convolution (padding 1), an activation and a 2x2 max pooling; a linear head.

    Wu et al. 2025 state three layers; channels 32-64-128, the pooling and the flattened head are our assumptions.
    On 32x32 images the head then takes 128 * 4 * 4 = 2048 numbers.

    Shapes: input [b, *spec.input_shape], output [b, spec.outputs].

    Raises:
        UserError: no channels or channels below 1, an unknown activation, or images too small for the poolings.
    """
    require_some("model.channels", config.channels)
    colours, height, width = spec.input_shape
    shrink = 2 ** len(config.channels)
    if min(height, width) < shrink:
        raise UserError(
            f"model.channels lists {len(config.channels)} convolutions, each followed by a 2x2 pooling, which takes "
            f"images of at least {shrink}x{shrink}, but the data's are {height}x{width}"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (fan_in, fan_out) in enumerate(pairwise([colours, *config.channels]), 1):
        layers[f"conv{number}"] = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        layers[f"activation{number}"] = activation(config.activation)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(config.channels[-1] * (height // shrink) * (width // shrink), spec.outputs)
    return nn.Sequential(layers)
