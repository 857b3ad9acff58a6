"""Rules of convolutions in every dimension, with groups and transposed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from teleport._quiver.quiver import Freedom
from tests.teleport.networks import Calls
from tests.teleport.teleported import error, free


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_channels_of_a_convolution_are_free_on_both_sides(spatial, kind, groups):
    torch.manual_seed(0)
    make = getattr(nn, f"{kind}{spatial}d")
    layers = {"first": make(2, 4, 2), "middle": make(4, 6, 2, groups=groups), "last": make(6, 2, 1)}
    model = Calls(lambda net, x: net.last(net.middle(net.first(x).relu()).relu()), **layers).double()
    difference, quiver = error(model, torch.randn(3, 2, *[4] * spatial).double())
    assert difference < 1e-9
    assert free(quiver) == {"first.weight": 1.0, "middle.weight": 1.0, "last.weight": 0.0}
    assert len(set(quiver.channel_classes["middle.weight"].flatten().tolist())) == 6
    assert quiver.kinds["middle.weight"] == f"{kind}{spatial}d".lower().replace("convt", "conv_t")


@pytest.mark.parametrize("kind", ["AvgPool", "AdaptiveAvgPool", "MaxPool", "AdaptiveMaxPool"])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_a_mean_passes_factors_of_either_sign_and_a_maximum_positive_ones(spatial, kind):
    torch.manual_seed(0)
    make = getattr(nn, f"Conv{spatial}d")
    layers = {"first": make(2, 4, 2), "last": make(4, 2, 1), "pool": getattr(nn, f"{kind}{spatial}d")(2)}
    model = Calls(lambda net, x: net.last(net.pool(net.first(x))), **layers).double()
    difference, quiver = error(model, torch.randn(3, 2, *[5] * spatial).double())
    assert difference < 1e-9
    freedom = quiver.freedom[quiver.channel_classes["first.weight"]]
    assert freedom.tolist() == [Freedom.POSITIVE if "Max" in kind else Freedom.NONZERO] * 4


class Normalised(nn.Module):
    """A normalisation between two layers; its scale is called ``weight``."""

    def __init__(self, norm: nn.Module, image: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(2, 4, 2) if image else nn.Linear(5, 4), norm
        self.last = nn.Conv1d(4, 2, 1) if image else nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu())


NORMALISATIONS = {
    "layer": lambda: nn.LayerNorm(4),
    "rms": lambda: nn.RMSNorm(4),
    "batch": lambda: nn.BatchNorm1d(4),
    "group": lambda: nn.GroupNorm(2, 4),
    "instance": lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
}


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_a_normalisation_pins_what_it_reads_and_its_scale_is_free(name):
    torch.manual_seed(0)
    image = name in ("batch", "group", "instance")
    model = Normalised(NORMALISATIONS[name](), image).double().eval()
    difference, quiver = error(model, torch.randn(3, 2, 5).double())
    assert difference < 1e-9
    assert free(quiver) == {"first.weight": 0.0, "norm.weight": 1.0, "last.weight": 0.0}
    assert quiver.kinds["norm.weight"] == f"{name} norm"
    assert len(set(quiver.scaled["norm.weight"].output_class.flatten().tolist())) == 4
