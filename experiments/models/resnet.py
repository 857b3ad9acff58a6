"""Residual networks that halve the image by strides."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from experiments.configuration.model_config import ResNetConfig
from experiments.models.activations import activation
from experiments.models.checks import require_positive, require_some
from experiments.tasks import Spec

FITS = ("image",)


def conv_norm(fan_in: int, fan_out: int, stride: int, norm: bool) -> nn.Sequential:
    """A 3x3 convolution and, with ``norm``, a batch norm, whose shift replaces the bias of the convolution.

    Shapes: [b, fan_in, h, w] -> [b, fan_out, ceil(h / stride), ceil(w / stride)].
    """
    conv = nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(fan_out)) if norm else nn.Sequential(conv)


class ResidualBlock(nn.Module):
    """``act(x + second(act(first(x))))`` on equal shapes, [b, channels, h, w] (He et al. 2016, the basic block)."""

    def __init__(self, channels: int, activation_name: str, norm: bool) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels, 1, norm)
        self.inner_activation = activation(activation_name)
        self.second = conv_norm(channels, channels, 1, norm)
        self.outer_activation = activation(activation_name)

    def forward(self, x: Tensor) -> Tensor:
        """[b, channels, h, w] -> the same shape."""
        return self.outer_activation(x + self.second(self.inner_activation(self.first(x))))


def build(config: ResNetConfig, spec: Spec) -> nn.Sequential:
    """One stage per entry of ``channels``, then the mean over positions and a linear head.

    A stage is a strided 3x3 convolution to its channels, a norm, an activation and a residual block, so that every
    skip connects equal shapes without a projection. The first stage strides by ``stem_stride``, the others by 2.
    Wu et al. 2025 state strides instead of pooling, channels 64-128-256-512 and skips between equal shapes; the number
    of blocks is an assumption of this suite.

    Shapes: input [b, *spec.input_shape] of any height and width, output [b, spec.outputs].

    Raises:
        UserError: no channels, channels or a stride below 1, or an unknown activation.
    """
    require_some("model.channels", config.channels)
    require_positive("model.stem_stride", [config.stem_stride])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (fan_in, fan_out) in enumerate(pairwise([spec.input_shape[0], *config.channels]), 1):
        stride = config.stem_stride if number == 1 else 2
        layers[f"down{number}"] = conv_norm(fan_in, fan_out, stride, config.norm)
        layers[f"activation{number}"] = activation(config.activation)
        layers[f"block{number}"] = ResidualBlock(fan_out, config.activation, config.norm)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(config.channels[-1], spec.outputs)
    return nn.Sequential(layers)
