"""DenseNet121 for small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from experiments.configuration.model_config import NetworkConfig
from experiments.data.compat import torchvision
from experiments.models.activations import activation, replace_relus
from experiments.models.checks import require_image, require_positive
from experiments.models.width import narrowed
from experiments.tasks import Spec

FITS = ("image",)


def build(config: NetworkConfig, spec: Spec) -> nn.Sequential:
    """DenseNet121 (Huang et al. 2017) with the usual stem for small images: a 3x3 convolution of stride 1, no pooling.

    Its blocks, and the names and order of its parameters, are torchvision's; ``width`` multiplies the growth rate of 32
    and the stem's 64 channels. At ``width`` 1 and ten classes it has 6 956 426 parameters.

    Shapes: input [b, *spec.input_shape] of at least 8x8, output [b, spec.outputs].

    Raises:
        UserError: images too small for the three poolings, a width that is not above 0, or an unknown activation.
    """
    require_positive("model.width", [config.width])
    require_image("densenet121", spec, 8)
    stem = narrowed(64, config.width)
    whole = torchvision().models.densenet.DenseNet(
        growth_rate=narrowed(32, config.width),
        block_config=(6, 12, 24, 16),
        num_init_features=stem,
        num_classes=spec.outputs,
    )
    features = whole.features
    features.conv0 = nn.Conv2d(spec.input_shape[0], stem, 3, padding=1, bias=False)
    del features.pool0
    replace_relus(features, config.activation)
    # torchvision's forward ends with the function relu, which cannot be replaced by a module.
    return nn.Sequential(
        OrderedDict(
            features=features,
            activation=activation(config.activation),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=whole.classifier,
        )
    )
