"""Constructors without arguments on models of others: they move, bound the gradient norm, and keep the loss.

And the unit of ``lr``: what a step moves, and what it does not depend on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleport import LevelSet, NullSpace, Orbit, RandomNullSpace, Rescaling, Symmetry
from teleport._symmetry.group_path import GroupPath
from tests.teleport.methods import CLASSES, scale_units
from tests.teleport.networks import cross_entropy
from tests.teleport.symmetric import VARIANTS, batch_of, layers_of
from tests.teleport.symmetric import mlp as plain
from tests.teleport.vision import torchvision

TOLERANCE = 1e-3


class Head(nn.Module):
    """A linear layer on the last position of a sequence model."""

    def __init__(self, body: nn.Module, width: int, batch_twice: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.twice = body, nn.Linear(width, 10), batch_twice

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.body(inputs, inputs) if self.twice else self.body(inputs)
        return self.head((outputs[0] if isinstance(outputs, tuple) else outputs)[:, -1])


class Attention(nn.Module):
    """Attention, a layer norm and a GELU network."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.m, self.n = nn.Linear(5, 48), nn.MultiheadAttention(48, 4, batch_first=True), nn.LayerNorm(48)
        self.f, self.g, self.o = nn.Linear(48, 96), nn.Linear(96, 48), nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        h = self.e(x)
        h = self.n(h + self.m(h, h, h, need_weights=False)[0])
        return self.o((h + self.g(F.gelu(self.f(h))))[:, -1])


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    return Head(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), 64)


def vision_transformer() -> nn.Module:
    """Its last layer is zero as it is built, at which the gradient norm is stationary."""
    model = torchvision().models.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10)
    model.heads.head.reset_parameters()
    return model


def by_name(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of torchvision with random weights."""
    return lambda: getattr(torchvision().models, name)(num_classes=10, **options)


Made = Callable[[], nn.Module]
INCEPTION = {"aux_logits": False, "init_weights": False}
MODELS: dict[str, tuple[Made, tuple[int, ...]]] = {
    "attention": (Attention, (3, 6, 5)),
    "mlp": (
        lambda: nn.Sequential(*[m for i in (12, 64) for m in (nn.Linear(i, 64), nn.Tanh())], nn.Linear(64, 7)),
        (16, 12),
    ),
    "TransformerEncoder": (encoder, (4, 6, 64)),
    "Transformer": (lambda: Head(nn.Transformer(64, 4, 1, 1, 128, batch_first=True), 64, True), (4, 6, 64)),
    "GRU": (lambda: Head(nn.GRU(12, 48, 2, batch_first=True), 48), (6, 7, 12)),
    "LSTM": (lambda: Head(nn.LSTM(12, 48, 2, batch_first=True), 48), (6, 7, 12)),
    "RNN": (lambda: Head(nn.RNN(12, 48, 2, batch_first=True), 48), (6, 7, 12)),
    "squeezenet1_1": (by_name("squeezenet1_1"), (2, 3, 64, 64)),
    "VisionTransformer": (vision_transformer, (3, 3, 32, 32)),
    "SwinTransformer": (
        lambda: torchvision().models.SwinTransformer([4, 4], 24, [1, 1], [2, 4], [4, 4], num_classes=10),
        (2, 3, 32, 32),
    ),
}
LARGE: dict[str, tuple[Made, tuple[int, ...]]] = {
    "shufflenet_v2_x0_5": (by_name("shufflenet_v2_x0_5"), (4, 3, 32, 32)),
    "mnasnet0_5": (by_name("mnasnet0_5"), (4, 3, 32, 32)),
    "resnet18": (by_name("resnet18"), (4, 3, 32, 32)),
    "densenet121": (by_name("densenet121"), (2, 3, 32, 32)),
    "alexnet": (by_name("alexnet"), (4, 3, 64, 64)),
    "efficientnet_b0": (by_name("efficientnet_b0"), (2, 3, 32, 32)),
    "regnet_y_400mf": (by_name("regnet_y_400mf"), (4, 3, 32, 32)),
    "googlenet": (by_name("googlenet", **INCEPTION), (2, 3, 32, 32)),
    "inception_v3": (by_name("inception_v3", **INCEPTION), (2, 3, 75, 75)),
    "convnext_tiny": (by_name("convnext_tiny"), (2, 3, 32, 32)),
    "efficientnet_v2_s": (by_name("efficientnet_v2_s"), (2, 3, 32, 32)),
    "mnasnet1_3": (by_name("mnasnet1_3"), (2, 3, 32, 32)),
    "mobilenet_v2": (by_name("mobilenet_v2"), (2, 3, 32, 32)),
    "mobilenet_v3_small": (by_name("mobilenet_v3_small"), (2, 3, 32, 32)),
    "regnet_x_400mf": (by_name("regnet_x_400mf"), (2, 3, 32, 32)),
    "resnet50": (by_name("resnet50"), (2, 3, 32, 32)),
    "resnext50_32x4d": (by_name("resnext50_32x4d"), (2, 3, 32, 32)),
    "shufflenet_v2_x1_5": (by_name("shufflenet_v2_x1_5"), (2, 3, 32, 32)),
    "squeezenet1_0": (by_name("squeezenet1_0"), (2, 3, 64, 64)),
    "shufflenet_v2_x1_0": (by_name("shufflenet_v2_x1_0"), (2, 3, 32, 32)),
}
EVERY = [*MODELS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


def loss_and_norm(model: nn.Module, batch: Any) -> tuple[float, float]:
    """In evaluation mode, as a teleport evaluates."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    loss = cross_entropy(model, batch)
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    for module, mode in modes:
        module.training = mode
    square = sum(float(gradient.double().square().sum()) for gradient in gradients if gradient is not None)
    return float(loss.detach()), math.sqrt(square)


@pytest.mark.parametrize("name", EVERY)
def test_the_null_space_moves_any_model_within_its_bounds(name):
    make, shape = (MODELS | LARGE)[name]
    torch.manual_seed(0)
    model, batch = make(), (torch.randn(*shape), torch.arange(shape[0]) % 7)
    loss, norm = loss_and_norm(model, batch)
    report = NullSpace()(model, [batch], cross_entropy)
    loss_after, norm_after = loss_and_norm(model, batch)
    assert report.batches[0].accepted, report.batches[0].reason
    assert 1.01 < norm_after / norm < 2.0001
    assert norm_after == pytest.approx(report.gradient_norm_after, rel=1e-3)
    assert abs(loss_after - loss) <= TOLERANCE * max(1.0, loss)
    assert report.drift == pytest.approx(loss_after / loss - 1, abs=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        RandomNullSpace,
        LevelSet,
        Rescaling,
        *[lambda v=v: Symmetry(v) for v in VARIANTS],
        lambda: Orbit(scale_units, (24,)),
    ],
    ids=["random", "levelset", "rescaling", *VARIANTS, "orbit"],
)
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_no_method_of_defaults_harms(make, size):
    """Also where the gradient is far from 1 in size. What a guard rolled back has not moved."""
    model, batches = CLASSES.make(batches=3)

    def loss_fn(net: nn.Module, batch: Any) -> Tensor:
        return size * CLASSES.loss_fn(net, batch)

    def norm(batch: Any) -> float:
        gradients = torch.autograd.grad(loss_fn(model, batch), list(model.parameters()))
        return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))

    cap = 2 * sum(norm(batch) for batch in batches) / len(batches)
    report = make()(model, batches, loss_fn)
    for batch in report.batches:
        assert not batch.accepted or batch.gradient_norm_after <= max(cap, batch.gradient_norm_before) * (1 + 1e-9)
        rise = batch.loss_after - batch.loss_before
        assert not batch.accepted or rise <= TOLERANCE * max(1.0, batch.loss_before)
    assert norm(batches[len(report.batches) - 1]) <= cap * (1 + 1e-9)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not report.no_op or not report.accepted


def relu_network(scale: float, dtype: torch.dtype) -> nn.Sequential:
    """Three layers without biases, all weights times ``scale``: the outputs are times its cube."""
    torch.manual_seed(3)
    layers = [nn.Linear(one, other, bias=False) for one, other in ((6, 24), (24, 24), (24, 3))]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "method", [NullSpace(), NullSpace(path="shortest"), NullSpace(step="fixed"), LevelSet(steps=3)]
)
def test_the_scale_of_the_weights_and_of_the_loss_changes_nothing(method, dtype):
    """Scales are powers of 2, exact; gradients and their products come near the ends of single precision."""
    x, y = torch.randn(5, 6, dtype=dtype), torch.arange(5) % 3
    results = []
    for weights, losses in ((1.0, 1.0), (0.125, 1.0), (64.0, 1.0), (8.0, 2.0**-30), (1.0, 2.0**-50), (0.5, 2.0**40)):
        if isinstance(method, LevelSet) and losses != 1:  # its tolerance is of the loss itself
            continue

        def loss_fn(net, batch, weights=weights, losses=losses):
            return losses * F.cross_entropy(net(batch[0]) / weights**3, batch[1])

        model = relu_network(weights, dtype)
        report = method(model, [(x, y)], loss_fn)
        moved = torch.cat([parameter.detach().flatten() / weights for parameter in model.parameters()])
        results.append((moved, report.gradient_norm_after / report.gradient_norm_before, report.steps))
    (expected, grown, steps), *others = results
    assert steps > 0
    assert grown > 1.01
    for moved, ratio, count in others:
        assert count == steps
        assert ratio == pytest.approx(grown, rel=1e-5 if dtype == torch.float32 else 1e-12)
        torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("lr", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize("forward", ["once", "each"])
def test_a_step_moves_the_weights_by_lr_times_their_norm(lr, forward):
    """Of those that can move: the first layer cannot."""
    model, [batch] = CLASSES.make()
    start = {name: value.detach().clone() for name, value in model.named_parameters() if not name.startswith("0.")}
    NullSpace(lr=lr, steps=1, step="fixed", guard="none", forward=forward)(model, [batch], CLASSES.loss_fn)
    square = sum(float((model.get_parameter(name) - value).detach().square().sum()) for name, value in start.items())
    norm = math.sqrt(sum(float(value.square().sum()) for value in start.values()))
    assert math.sqrt(square) == pytest.approx(lr * norm, rel=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_of_a_group_element_is_lr_times_the_norm_of_the_identity(variant):
    """The same step as one of that length along the gradient in T."""
    made, batch = plain(12, 6, 5, 3), batch_of(5)
    layers, objective = layers_of(made, batch, variant)
    path = GroupPath(layers)
    path.compute_directions(objective.ascent_direction(path.evaluate_at_zero(objective), layers.parameters))
    size = math.sqrt(sum(float(direction.square().sum()) for direction in path.directions))
    identity = math.sqrt(sum(len(direction) for direction in path.directions))
    results = []
    for settings in ({"lr": 0.03}, {"lr": 0.03 * identity / size, "lr_unit": "absolute"}):
        model = plain(12, 6, 5, 3)
        Symmetry(variant, steps=1, step="fixed", guard="none", **settings)(model, [batch], cross_entropy)
        results.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_step_of_the_level_set_is_lr_times_the_norm_of_the_parameters():
    """Along ``H g / |g|^2``, less its part along g that the constraint takes away, on ``1/2 w^T diag(h) w``."""
    curvatures, w = torch.tensor([1.0, 9.0]).double(), torch.tensor([8.0, -2.0]).double()
    model = nn.Module()
    model.value = nn.Parameter(w.clone())
    LevelSet(lr=1e-3, steps=1)(model, [curvatures], lambda net, h: (h * net.value.square()).sum() / 2)
    g = curvatures * w
    q = curvatures * g / (g @ g)
    rho = 1e-3 * w.norm() / q.norm()
    expected = w + rho * (q - (q @ g) / (g @ g) * g)
    torch.testing.assert_close(model.value.detach(), expected, rtol=1e-12, atol=0)
