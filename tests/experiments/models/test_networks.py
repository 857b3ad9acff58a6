"""VGG16, ResNet18 and DenseNet121 for small images, against torchvision's own and published counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from experiments.configuration.model_config import NetworkConfig
from experiments.data.compat import torchvision
from experiments.errors import UserError
from experiments.models.activations import ACTIVATIONS
from experiments.models.registry import build_model
from experiments.tasks import Spec

CIFAR10 = Spec("image", (3, 32, 32), 10)
NETWORKS = ["vgg16", "resnet18", "densenet121"]


def network(name, spec=CIFAR10, **keys):
    return build_model(NetworkConfig(name=name, **{"width": 0.125, **keys}), spec)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("vgg16", 14_714_688 + 5130),  # the convolutions of torchvision's VGG16, and a linear head
        ("resnet18", 11_173_962),  # the count that reports on CIFAR-10 give
        ("densenet121", 7_978_856 - 9408 + 1728 - 1_025_000 + 10_250),  # torchvision's; other stem, other head
    ],
)
def test_parameters_are_as_many_as_published(name, published):
    assert parameters(network(name, width=1.0)) == published


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_follow_the_width(name):
    quarter, half = (network(name, width=width) for width in (0.25, 0.5))
    for small, large in zip(quarter.modules(), half.modules(), strict=True):
        if isinstance(small, nn.Conv2d):
            assert large.out_channels == 2 * small.out_channels
    assert 3.5 < parameters(half) / parameters(quarter) < 4.1


def torchvisions(name):
    """torchvision's network, without values yet, with the stem, and for VGG16 the head, of small images."""
    models = torchvision().models
    if name == "vgg16":
        model = models.vgg16(num_classes=10)
        model.avgpool, model.classifier = nn.Identity(), nn.Linear(512, 10)
    elif name == "resnet18":
        model = models.resnet18(num_classes=10)
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    else:
        model = models.densenet121(num_classes=10)
        model.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.features.pool0 = nn.Identity()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_at_full_width_it_is_torchvisions_network(name):
    ours = network(name, width=1.0, init="kaiming")
    with torch.device("meta"):
        theirs = torchvisions(name)
    theirs.to_empty(device="cpu")
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 32, 32)
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_activation_is_the_one_that_is_asked_for(name):
    x = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    state, outputs = network(name, init="kaiming").state_dict(), {}
    for activation, factory in ACTIVATIONS.items():
        model = network(name, activation=activation).eval()
        model.load_state_dict(state)
        wanted = type(factory())
        found = {type(module) for module in model.modules() if not list(module.children())}
        assert wanted in found
        assert found & {type(other()) for other in ACTIVATIONS.values()} == {wanted}
        called = []
        with Called(called):
            outputs[activation] = model(x)
        assert ("relu" in called) == (activation == "relu")
    values = list(outputs.values())
    assert all(not torch.allclose(one, other) for one in values for other in values if one is not other)


class Called(TorchFunctionMode):
    """Notes the names of the torch functions that are called."""

    def __init__(self, names):
        super().__init__()
        self.names = names

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__.rstrip("_"))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_an_activation_reads_is_not_overwritten(name):
    """A hook may hold what enters an activation, as the feature maps of a figure are taken."""
    model, held = network(name), []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _, inputs, output: held.append((inputs[0], output)))
    model(torch.randn(2, 3, 32, 32))
    assert held
    assert all((before < 0).any() and torch.equal(before.relu(), after) for before, after in held)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 64, 48)])
def test_other_colours_and_larger_images(name, shape):
    assert network(name, Spec("image", shape, 7))(torch.randn(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("side", [1, 8, 28])
def test_a_residual_network_takes_images_of_any_size(side):
    model = network("resnet18", Spec("image", (1, side, side), 10)).eval()
    assert model(torch.randn(2, 1, side, side)).shape == (2, 10)


@pytest.mark.parametrize(("name", "least"), [("vgg16", 32), ("densenet121", 8)])
def test_images_that_are_too_small_are_a_sentence(name, least):
    small = Spec("image", (1, least - 1, least), 10)
    with pytest.raises(UserError) as caught:
        network(name, small)
    assert str(caught.value) == (
        f"model '{name}' takes images of at least {least}x{least}, but the data's are {least - 1}x{least}; "
        f"data.image_size={least} resizes them"
    )
    fits = Spec("image", (1, least, least), 10)
    assert network(name, fits).eval()(torch.randn(2, 1, least, least)).shape == (2, 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_bad_values(name):
    with pytest.raises(UserError, match=r"model\.width takes numbers above 0, got 0"):
        network(name, width=0.0)
    with pytest.raises(UserError, match=r"unknown model\.activation 'swish'"):
        network(name, activation="swish")
