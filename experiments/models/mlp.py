"""Fully connected networks."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from math import prod

from torch import nn

from experiments.configuration.model_config import MLPConfig
from experiments.models.activations import activation
from experiments.models.checks import require_positive
from experiments.tasks import Spec

FITS = ("image", "sequence", "series")


def build(config: MLPConfig, spec: Spec) -> nn.Sequential:
    """Flattening, then a linear layer and an activation per hidden width, then a linear head.

    Without a width it is a linear model. Shapes: input [b, *spec.input_shape], output [b, spec.outputs].

    Raises:
        UserError: a width below 1, or an unknown activation.
    """
    require_positive("model.widths", config.widths)
    sizes = [prod(spec.input_shape), *config.widths]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (fan_in, fan_out) in enumerate(pairwise(sizes), 1):
        layers[f"linear{number}"] = nn.Linear(fan_in, fan_out, bias=config.bias)
        layers[f"activation{number}"] = activation(config.activation)
    layers["head"] = nn.Linear(sizes[-1], spec.outputs, bias=config.bias)
    return nn.Sequential(layers)
