"""VGG16 for small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from experiments.configuration.model_config import NetworkConfig
from experiments.data.compat import torchvision
from experiments.models.activations import replace_relus
from experiments.models.checks import require_image, require_positive
from experiments.models.width import narrowed
from experiments.tasks import Spec

FITS = ("image",)


def build(config: NetworkConfig, spec: Spec) -> nn.Sequential:
    """VGG16 (Simonyan and Zisserman 2015, configuration D) for small images: 13 convolutions and a linear head.

    Without batch norm, as in the code of Armenta et al. 2023. The five poolings reduce an image of 32x32 to one
    position; for larger images the mean over positions is taken. So the head has 512 inputs; it replaces the three
    layers for ImageNet. At ``width`` 1 and ten classes there are 14 719 818 parameters.

    Shapes: input [b, *spec.input_shape] of at least 32x32, output [b, spec.outputs].

    Raises:
        UserError: the images are too small for the poolings, the width is not above 0, or the activation is unknown.
    """
    require_positive("model.width", [config.width])
    require_image("vgg16", spec, 32)
    vgg = torchvision().models.vgg
    channels = [entry if entry == "M" else narrowed(entry, config.width) for entry in vgg.cfgs["D"]]
    features = vgg.make_layers(channels)
    features[0] = nn.Conv2d(spec.input_shape[0], channels[0], 3, padding=1)
    replace_relus(features, config.activation)
    head = nn.Linear(narrowed(512, config.width), spec.outputs)
    return nn.Sequential(
        OrderedDict(features=features, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=head)
    )
