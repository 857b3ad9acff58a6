"""Balance: the function stays, the fixed point conditions hold, and independent solvers find the same factors."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from teleport import Balance, ChangeOfBasis, UnsupportedModel, preview, transport_state
from tests.teleport.rescalable import relative_error
from tests.teleport.vision import torchvision

CRITERIA = ["minimal_norm", "equal_norm", "path_conditioning"]


def network(*widths: int, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(4)
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(widths):
        layers += [nn.Linear(width, following, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def inputs(width: int, count: int = 5) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Residual(nn.Module):
    """A residual sum, a tied weight, a grouped convolution and a norm: shared, tied and pinned factors."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.outer = nn.Conv2d(8, 4, 1)
        self.tied = nn.Linear(4, 4)
        self.leave = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.enter(x)).relu()
        x = x + self.outer(self.inner(x).relu())
        x = torch.max_pool2d(x, 2).mean((2, 3)).relu()
        return self.leave(self.tied(self.tied(x).relu()).relu())


def residual() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(2)
    model = Residual().double().eval()
    nn.init.normal_(model.norm.bias)
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2.0)
    return model, torch.randn(2, 3, 6, 6).double()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_function_stays_and_the_point_is_the_same_from_every_rescaling(criterion):
    model, batch = residual()
    scrambled = copy.deepcopy(model)
    ChangeOfBasis(sampling="positive", range=30.0, seed=3)(scrambled, [batch])
    others = 3 * torch.randn(7, 3, 6, 6).double()
    expected = model(others)
    for each in (model, scrambled):
        report = Balance(criterion)(each, [batch])
        assert relative_error(each(others), expected) < 1e-12
        assert report.imbalance_after < 1e-12 < report.imbalance_before
        assert report.criterion_after < report.criterion_before
    for one, other in zip(model.parameters(), scrambled.parameters(), strict=True):
        assert relative_error(other, one) < 1e-11
    again = Balance(criterion)(model, [batch])
    assert again.relative_change < 1e-11


def test_two_layers_have_a_closed_form():
    """The p-norm of the incoming and of the outgoing weights of a unit both become the root of their product."""
    for p in (1.0, 2.0, 3.0):
        model = network(6, 9, 3, bias=False)
        first, last = model[0].weight.detach().norm(p, dim=1), model[2].weight.detach().norm(p, dim=0)
        report = Balance("equal_norm", p=p)(model, [inputs(6)])
        expected = (last / first).sqrt()
        torch.testing.assert_close(report.group[model[0].weight].flatten(), expected, rtol=1e-13, atol=0)
        torch.testing.assert_close(model[0].weight.detach().norm(p, dim=1), (first * last).sqrt(), rtol=1e-13, atol=0)
        torch.testing.assert_close(model[2].weight.detach().norm(p, dim=0), (first * last).sqrt(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("criterion", ["minimal_norm", "equal_norm"])
def test_incoming_and_outgoing_norms_are_equal_in_each_layer(criterion):
    """With biases among the incoming ones for ``minimal_norm``, without them for ``equal_norm``."""
    model = network(6, 12, 5, 9, 3)
    Balance(criterion)(model, [inputs(6)])
    linear = [module for module in model if isinstance(module, nn.Linear)]
    for layer, reader in itertools.pairwise(linear):
        incoming = layer.weight.square().sum(1)
        if criterion == "minimal_norm":
            incoming = incoming + layer.bias.square()
        torch.testing.assert_close(incoming, reader.weight.square().sum(0), rtol=1e-12, atol=0)


def scaled(model: nn.Sequential, log_factors: np.ndarray) -> list[torch.Tensor]:
    """The parameters after factors per hidden unit, written out by hand."""
    linear = [module for module in model if isinstance(module, nn.Linear)]
    sizes = [len(module.bias) for module in linear[:-1]]
    cut = list(torch.tensor(log_factors).exp().split(sizes))
    into, out = [torch.ones(linear[0].in_features).double(), *cut], [*cut, torch.ones(len(linear[-1].bias)).double()]
    parameters = []
    for module, before, after in zip(linear, into, out, strict=True):
        parameters += [after[:, None] * module.weight.detach() / before, after * module.bias.detach()]
    return parameters


def paths(parameters: list[torch.Tensor]) -> torch.Tensor:
    """``G_ii`` by definition: every path of the network, entry by entry, and its derivatives."""
    weights, biases = parameters[::2], parameters[1::2]
    sums = [torch.zeros_like(each) for each in parameters]

    def walk(layer: int, unit: int, entry: float, along: list[tuple[int, tuple[int, ...]]]) -> None:
        if layer == len(weights):
            for number, place in along:
                sums[number][place] += (entry / float(parameters[number][place])) ** 2
            return
        for following in range(len(weights[layer])):
            weight = float(weights[layer][following, unit])
            walk(layer + 1, following, entry * weight, [*along, (2 * layer, (following, unit))])

    for unit in range(weights[0].shape[1]):
        walk(0, unit, 1.0, [])
    for layer, bias in enumerate(biases):
        for unit in range(len(bias)):
            walk(layer + 1, unit, float(bias[unit]), [(2 * layer + 1, (unit,))])
    return torch.cat([each.flatten() for each in sums])


def objective(criterion: str, model: nn.Sequential, log_factors: np.ndarray) -> float:
    """The criteria by their definitions, without closed forms."""
    parameters = scaled(model, log_factors)
    if criterion == "minimal_norm":
        return math.log(sum(float(each.square().sum()) for each in parameters))
    if criterion == "equal_norm":
        return math.log(sum(float(each.square().sum()) for each in parameters[::2]))
    magnitudes = paths(parameters)
    return float(magnitudes.mean().log() - magnitudes.log().mean())


@pytest.mark.parametrize("criterion", [*CRITERIA[:2], pytest.param(CRITERIA[2], marks=pytest.mark.slow)])
def test_a_general_solver_finds_the_same_factors_from_the_definition(criterion):
    model = network(3, 4, 2, 2)
    given = copy.deepcopy(model)
    report = Balance(criterion)(model, [inputs(3)])
    found = torch.cat([report.group[model[number].bias] for number in (0, 2)]).log().numpy()
    solved = minimize(lambda x: objective(criterion, given, x), np.zeros(6), tol=1e-10)
    assert np.abs(found - solved.x).max() < 1e-4
    assert objective(criterion, given, found) <= solved.fun + 1e-12


def test_the_divergence_of_path_conditioning_is_that_of_the_paths():
    model = network(3, 4, 2, 2)
    before = paths(scaled(model, np.zeros(6)))
    report = Balance("path_conditioning")(model, [inputs(3)])
    after = paths(scaled(model, np.zeros(6)))
    for value, magnitudes in ((report.criterion_before, before), (report.criterion_after, after)):
        count = len(magnitudes)
        expected = count * float(magnitudes.mean().log()) - float(magnitudes.log().sum())
        assert value == pytest.approx(expected, rel=1e-10)


def test_coordinate_descent_in_any_order_ends_at_the_same_point():
    """ENorm's updates, one unit after the other, in two orders."""
    model = network(4, 6, 5, 3, bias=False)
    balanced = copy.deepcopy(model)
    Balance("equal_norm")(balanced, [inputs(4)])
    for order in (range(2), reversed(range(2))):
        weights = [module.weight.detach().clone() for module in model if isinstance(module, nn.Linear)]
        layers = list(order)
        for _ in range(300):
            for layer in layers:
                factors = (weights[layer + 1].norm(dim=0) / weights[layer].norm(dim=1)).sqrt()
                weights[layer] *= factors[:, None]
                weights[layer + 1] /= factors
        for weight, module in zip(weights, [each for each in balanced if isinstance(each, nn.Linear)], strict=True):
            torch.testing.assert_close(module.weight.detach(), weight, rtol=1e-11, atol=1e-14)


@pytest.mark.slow
def test_a_deep_network_far_from_balance_is_balanced():
    model = network(5, *[8] * 30, 3)
    with torch.no_grad():
        for number, module in enumerate(each for each in model if isinstance(each, nn.Linear)):
            module.weight.mul_(10.0 ** (3 * (-1) ** number))
    report = Balance()(model, [inputs(5)])
    assert report.imbalance_after < 1e-12


def test_a_channel_of_zero_weights_keeps_its_factor_and_the_others_move():
    model = network(6, 8, 7, 3)
    with torch.no_grad():
        model[0].weight[2] = model[0].bias[2] = 0
        model[4].weight[:, 5] = 0
        model[2].weight[:, 3] = 0
    report = Balance()(model, [inputs(6)])
    first, second = report.group[model[0].bias], report.group[model[2].bias]
    assert first[2] == first[3] == second[5] == 1
    assert int((first != 1).sum()) == 6
    assert int((second != 1).sum()) == 6
    assert report.imbalance_after < 1e-12


def test_attention_is_balanced_head_by_head():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    batch = torch.randn(3, 4, 8).double()
    expected = layer(batch)
    report = Balance()(layer, [batch])
    assert relative_error(layer(batch), expected) < 1e-13
    weight, bias = layer.self_attn.in_proj_weight.detach(), layer.self_attn.in_proj_bias.detach()
    query, key, value = (weight.square().sum(1) + bias.square()).split(8)
    torch.testing.assert_close(query, key, rtol=1e-12, atol=0)
    read = layer.self_attn.out_proj.weight.detach().square().sum(0)
    torch.testing.assert_close(value, read, rtol=1e-12, atol=0)
    assert report.accepted


def test_paths_are_refused_where_there_are_none():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with pytest.raises(UnsupportedModel, match=r"path_conditioning.*this model calls .*multi_head_attention_forward"):
        Balance("path_conditioning")(layer, [torch.randn(3, 4, 8)])
    with pytest.raises(UnsupportedModel, match=r"this model calls .*gelu"):
        Balance("path_conditioning")(nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 2)), [torch.randn(2, 3)])


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"criterion": "norm"}, "criterion must be one of minimal_norm, equal_norm, path_conditioning, got 'norm'"),
        ({"p": 0.0}, "p must be above 0, got 0.0"),
        ({"p": math.inf}, "p must be finite, got inf"),
        ({"guard": "loss"}, "guard must be one of"),
    ],
)
def test_settings_out_of_range_are_refused(settings, mistake):
    with pytest.raises(ValueError, match=mistake):
        Balance(**settings)


def test_a_preview_leaves_no_trace_and_the_report_has_the_numbers():
    model = network(6, 8, 3)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    report = preview(Balance(), model, [inputs(6)], None)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    norm = math.sqrt(sum(float(each.square().sum()) for each in before[:3]))
    assert report.criterion_before == pytest.approx(norm, rel=1e-14)
    assert report.to_dict()["criterion_after"] == report.criterion_after < norm
    assert f"criterion {norm:.6g} -> {report.criterion_after:.6g}" in str(report)


def test_momentum_follows_in_the_middle_of_training():
    """Two runs of SGD with momentum 0: one balanced with its state; the next update is the transformed one."""
    model = network(6, 8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs(6)).square().sum().backward()
        optimizer.step()
    buffers = {each: optimizer.state[each]["momentum_buffer"].clone() for each in model.parameters()}
    report = Balance()(model, [inputs(6)])
    transport_state(optimizer, report)
    for parameter, factors in report.group.items():
        torch.testing.assert_close(optimizer.state[parameter]["momentum_buffer"] * factors, buffers[parameter])


@pytest.mark.slow
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_residual_network_of_torchvision(criterion):
    torch.manual_seed(0)
    model = torchvision().models.resnet18(num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 2.0)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
    batch, others = torch.randn(1, 3, 32, 32), torch.randn(2, 3, 48, 48)
    expected = model(others)
    report = Balance(criterion)(model, [batch])
    assert relative_error(model(others), expected) < 1e-4
    assert report.imbalance_after < 1e-10
    assert report.criterion_after < report.criterion_before
    inner = model.layer1[0]
    if criterion != "path_conditioning":
        incoming = inner.bn1.weight.double().square()
        if criterion == "minimal_norm":
            incoming = incoming + inner.bn1.bias.double().square()
        torch.testing.assert_close(incoming, inner.conv2.weight.double().square().sum((0, 2, 3)), rtol=1e-5, atol=0)
