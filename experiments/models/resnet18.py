"""ResNet18 for small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from experiments.configuration.model_config import NetworkConfig
from experiments.data.compat import torchvision
from experiments.models.activations import replace_relus
from experiments.models.checks import require_positive
from experiments.models.width import narrowed
from experiments.tasks import Spec

FITS = ("image",)


def build(config: NetworkConfig, spec: Spec) -> nn.Sequential:
    """ResNet18 (He et al. 2016) with the usual stem for small images: a 3x3 convolution of stride 1, no max pooling.

    Its blocks, and the names and order of its parameters, are torchvision's. At ``width`` 1 and ten classes it has
    11 173 962 parameters.

    Shapes: input [b, *spec.input_shape] of any height and width, output [b, spec.outputs].

    Raises:
        UserError: a width that is not above 0, or an unknown activation.
    """
    require_positive("model.width", [config.width])
    channels = [narrowed(planes, config.width) for planes in (64, 128, 256, 512)]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(spec.input_shape[0], channels[0], 3, padding=1, bias=False)
    layers["bn1"] = nn.BatchNorm2d(channels[0])
    layers["relu"] = nn.ReLU()
    fan_in = channels[0]
    for number, fan_out in enumerate(channels, 1):
        layers[f"layer{number}"] = _stage(fan_in, fan_out, stride=1 if number == 1 else 2)
        fan_in = fan_out
    layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(fan_in, spec.outputs)
    model = nn.Sequential(layers)
    replace_relus(model, config.activation)
    return model


def _stage(fan_in: int, fan_out: int, stride: int) -> nn.Sequential:
    """Two basic blocks, the first with the stage's stride; a skip that changes the shape is a 1x1 convolution."""
    block = torchvision().models.resnet.BasicBlock
    skip = None
    if stride > 1:
        skip = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out))
    return nn.Sequential(block(fan_in, fan_out, stride, skip), block(fan_out, fan_out))
