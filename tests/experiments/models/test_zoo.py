"""Any classification model of torchvision."""

from __future__ import annotations

import pytest
import torch

from experiments.configuration.model_config import TorchvisionConfig
from experiments.data.compat import torchvision
from experiments.errors import UserError
from experiments.models.registry import build_model
from experiments.models.zoo import architectures
from experiments.tasks import Spec


def model_of(arch, shape=(3, 64, 64), classes=7, **keys):
    return build_model(TorchvisionConfig(name="torchvision", arch=arch, **keys), Spec("image", shape, classes))


def test_all_classification_models_are_known_and_no_others():
    known = architectures()
    assert {"alexnet", "resnet50", "convnext_tiny", "vit_h_14", "inception_v3", "maxvit_t", "swin_v2_b"} <= set(known)
    assert not {"fcn_resnet50", "raft_small", "r3d_18", "quantized_resnet18", "ssd300_vgg16"} & set(known)


@pytest.mark.parametrize("arch", ["resnet18", "squeezenet1_1", "mobilenet_v2"])
def test_it_is_torchvisions_own(arch):
    torch.manual_seed(5)
    ours = model_of(arch).eval()
    torch.manual_seed(5)
    theirs = torchvision().models.get_model(arch, num_classes=7).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(("arch", "side"), [("googlenet", 64), ("inception_v3", 75)])
def test_auxiliary_classifiers_are_off_in_training_too(arch, side):
    model = model_of(arch, (3, side, side))
    assert model.training
    assert model(torch.randn(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize(
    ("arch", "colours"),
    [("shufflenet_v2_x0_5", 1), ("regnet_y_400mf", 1), ("efficientnet_b0", 3), ("swin_t", 1), ("vit_b_32", 1)],
)
def test_families_at_64_pixels_of_any_colours(arch, colours):
    model = model_of(arch, (colours, 64, 64))
    assert model(torch.randn(2, colours, 64, 64)).shape == (2, 7)


def test_building_draws_what_torchvision_draws_and_leaves_statistics_alone():
    model = model_of("resnet18")
    assert all(int(value) == 0 for key, value in model.state_dict().items() if key.endswith("num_batches_tracked"))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arch", "side", "own"),
    [("alexnet", 32, 63), ("squeezenet1_1", 12, 17), ("vit_b_16", 40, 224), ("maxvit_t", 64, 224)],
)
def test_images_that_do_not_fit_are_a_sentence_that_says_what_does(arch, side, own):
    with pytest.raises(UserError) as caught:
        model_of(arch, (3, side, side))
    message = str(caught.value)
    assert message.startswith(f"model.arch={arch} does not take images of {side}x{side} (")
    assert message.endswith(f"; data.image_size={own} resizes them")
    assert "\n" not in message
    if own < 100:
        assert model_of(arch, (3, own, own)).eval()(torch.randn(1, 3, own, own)).shape == (1, 7)


def test_an_unknown_architecture_is_a_sentence_with_what_is_close():
    with pytest.raises(UserError, match=r"unknown model\.arch 'resnet51' \(did you mean .*resnet50") as caught:
        model_of("resnet51")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"unknown model\.arch 'qqq'; it takes the name of any"):
        model_of("qqq")


@pytest.mark.slow
def test_every_architecture_of_moderate_size_takes_its_own_images():
    refused = []
    for arch in architectures():
        meta = torchvision().models.get_model_weights(arch).DEFAULT.meta
        if meta["num_params"] < 60e6:
            side = 64 if meta["min_size"][0] == 1 else meta["min_size"][0]
            try:
                model_of(arch, (3, side, side))
            except UserError as error:
                refused.append(str(error))
    assert refused == []
