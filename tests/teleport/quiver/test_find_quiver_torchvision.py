"""Models that were not written for this: the families of torchvision, and which share of their channels is free."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.teleport.teleported import error
from tests.teleport.vision import torchvision

# name -> the least share of channels that is free in place, with positive factors where there is a ReLU
FAST = {"squeezenet1_1": 0.7, "shufflenet_v2_x0_5": 0.4}
SLOW = {
    "resnet18": 0.4,
    "vgg11_bn": 0.5,
    "densenet121": 0.7,
    "googlenet": 0.4,
    "inception_v3": 0.4,
    "mobilenet_v2": 0.01,
    "mobilenet_v3_small": 0.05,
    "efficientnet_b0": 0.01,
    "convnext_tiny": 0.2,
    "vit_b_16": 0.4,
    "swin_t": 0.4,
    "swin_v2_t": 0.2,
    "mnasnet0_5": 0.4,
    "regnet_y_400mf": 0.4,
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A model in double precision whose every layer matters, with statistics of an input; and another input."""
    size = {"inception_v3": 96}.get(name, 64)
    options = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    options |= {"image_size": size} if name.startswith("vit") else {}
    torch.manual_seed(0)
    model = torchvision().models.get_model(name, weights=None, **options)
    if name.startswith("vgg"):  # the same head, narrower: 119 million weights take memory and show nothing more
        for place, (fan_in, fan_out) in {0: (512 * 7 * 7, 64), 3: (64, 64), 6: (64, 10)}.items():
            model.classifier[place] = nn.Linear(fan_in, fan_out)
    model = model.double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the statistics of what it sees
        for parameter in model.parameters():  # some heads begin at zero
            parameter.add_(0.02 * torch.randn_like(parameter))
        model.train()(torch.randn(2, 3, size, size).double())
    return model.eval(), torch.randn(1, 3, size, size).double()


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_family_is_kept_and_has_free_channels(name, in_place):
    model, x = made(name)
    with torch.no_grad():
        seen, other = model(x), model(x.flip(2))
    assert float((seen - other).abs().max()) > 1e-3 * float(seen.abs().max())
    difference, quiver = error(model, x, in_place=in_place)
    assert difference < 1e-9
    share = float((torch.cat(list(quiver.channel_classes.values())) > 0).double().mean())
    assert share >= {**FAST, **SLOW}[name]
