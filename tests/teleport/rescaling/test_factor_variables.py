"""Operations that preserve a factor, operations that pin it, and the reasons in the report."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from teleport import Rescaling
from tests.teleport.networks import CLASSES, Calls, changes, cross_entropy, without_unused
from tests.teleport.rescalable import (
    PINNED,
    PRESERVED,
    factors_of,
    flat_batch,
    gradient_norm,
    hidden,
    image_batch,
    mlp,
    relative_error,
)


@pytest.mark.parametrize("case", PINNED)
def test_operations_that_pin_a_factor_are_named_in_the_report(case):
    build, pinned, word, scaled = PINNED[case]
    model, batch = build(), flat_batch()
    before, others = model(batch[0]), torch.randn(6, 5).double()
    elsewhere = model(others)
    report = Rescaling(lr=0.5)(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    assert relative_error(model(others), elsewhere) < 1e-12
    layers = {layer.name: layer for layer in report.layers}
    for name in pinned:
        assert layers[f"{name}.weight"].relative_change == 0
        assert word in layers[f"{name}.weight"].reason
    assert {name for name, change in changes(report).items() if change} == {f"{name}.weight" for name in scaled}


@pytest.mark.parametrize("case", PRESERVED)
def test_operations_that_preserve_a_factor(case):
    build, images = PRESERVED[case]
    batch = image_batch() if images else flat_batch()
    model = without_unused(build(), cross_entropy, batch)
    others = torch.randn_like(batch[0])
    before = model(others)
    report = Rescaling(lr=0.5, steps=3)(model, [batch], cross_entropy)
    assert relative_error(model(others), before) < 1e-12
    assert report.batches[0].trace[-1].gradient_norm == pytest.approx(gradient_norm(model, batch), rel=1e-10)
    assert changes(report)["first.weight"] > 0.01


def test_a_channel_that_is_the_loss_is_pinned():
    model, batch = mlp(5, 8, 1), flat_batch()

    def loss_fn(model, batch):
        return model(batch[0]).mean()

    report = Rescaling(lr=0.5)(model, [batch], loss_fn)
    assert abs(report.drift) < 1e-14
    assert report.layers[1].reason == "its output is the loss"
    assert report.layers[0].relative_change > 0


def test_a_frozen_weight_pins_its_channels():
    model = mlp(5, 8, 8, CLASSES)
    model[2].weight.requires_grad_(False)
    frozen = model[2].weight.clone()
    report = Rescaling()(model, [flat_batch()], cross_entropy)
    assert torch.equal(model[2].weight, frozen)
    assert report.no_op
    assert "requires no gradient" in report.layers[0].reason


def test_a_grouped_convolution_is_divided_group_by_group():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, CLASSES)
    ).double()  # fmt: skip
    batch = image_batch()
    before, weight = model(batch[0]), model[2].weight.detach().clone()
    report = Rescaling(lr=0.5)(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    first, second = factors_of(report, model[0].bias), factors_of(report, model[2].bias)
    read = torch.stack([first[:2], first[:2], first[2:], first[2:]])
    torch.testing.assert_close(model[2].weight[:, :, 0, 0], weight[:, :, 0, 0] * second[:, None] / read)


def test_two_layers_that_read_a_channel_are_both_divided():
    def forward(net, x):
        h = net.first(x).relu()
        return net.last(h) * net.middle(h).sum(1, keepdim=True)

    model, batch = hidden(forward), flat_batch()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    before = model(batch[0])
    report = Rescaling(lr=0.5)(model, [batch], cross_entropy)
    tau = factors_of(report, model.first.bias)
    assert float((tau - 1).abs().max()) > 0.1
    for name in ("last.weight", "middle.weight"):
        moved = dict(model.named_parameters())[name]
        torch.testing.assert_close(moved, weights[name] / tau, rtol=1e-12, atol=0)
    assert relative_error(model(batch[0]), before) < 1e-12


def test_the_factor_of_a_channel_is_repeated_over_flattened_positions():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES)).double()
    head = model[3].weight.detach().clone()
    report = Rescaling(lr=0.5)(model, [image_batch()], cross_entropy)
    tau = factors_of(report, model[0].bias)
    torch.testing.assert_close(model[3].weight, head / tau.repeat_interleave(4), rtol=1e-12, atol=0)


def attention(heads: int, causal: bool = False, shared: bool = False) -> nn.Module:
    def forward(net, x):
        x = net.norm(x)
        query, key, value = (
            layer(x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for layer in (net.query, net.query if shared else net.key, net.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return net.output(mixed.transpose(1, 2).flatten(2)).mean(1)

    parts = {name: nn.Linear(8, 8) for name in ("query", "key", "value")}
    return Calls(forward, norm=nn.LayerNorm(8), output=nn.Linear(8, CLASSES), **parts).double()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mode", ["ascent", "balance"])
def test_a_key_has_the_inverse_factor_of_its_query(causal, mode):
    model = attention(2, causal)
    batch = torch.randn(6, 5, 8).double(), torch.arange(6) % CLASSES
    before, norm = model(batch[0]), gradient_norm(model, batch)
    report = Rescaling(mode, lr=0.5, steps=40)(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    assert report.batches[0].trace[-1].gradient_norm == pytest.approx(gradient_norm(model, batch), rel=1e-10)
    assert (gradient_norm(model, batch) > norm) == (mode == "ascent")
    moved = changes(report)
    assert all(moved[f"{name}.weight"] for name in ("norm", "query", "key", "value"))
    product = factors_of(report, model.query.bias) * factors_of(report, model.key.bias)
    torch.testing.assert_close(product, torch.ones(8).double(), rtol=1e-12, atol=0)


def test_one_projection_for_query_and_key_is_pinned():
    model = attention(2, shared=True)
    batch = torch.randn(6, 5, 8).double(), torch.arange(6) % CLASSES
    before = model(batch[0])
    report = Rescaling(lr=0.5)(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    assert changes(report)["query.weight"] == 0


@pytest.mark.parametrize("mode", ["ascent", "balance"])
def test_a_key_computed_from_its_query_is_pinned(mode):
    """The rows and the columns of the key's weight would be multiplied by the same factors."""

    def forward(net, x):
        query = net.first(x)
        return net.last(F.scaled_dot_product_attention(query, net.middle(query), x[..., :4])).mean(1)

    model, batch = hidden(forward), (torch.randn(6, 3, 5).double(), torch.arange(6) % CLASSES)
    before = model(batch[0])
    report = Rescaling(mode, lr=0.5)(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    assert report.no_op
    assert "both the inputs and the outputs of one weight" in report.layers[0].reason


def test_a_key_of_two_queries_has_their_inverse_factor():
    def forward(net, x):
        key, value = net.key(x), net.value(x)
        mixed = [F.scaled_dot_product_attention(query(x), key, value) for query in (net.first, net.second)]
        return net.last(torch.cat(mixed, -1)).mean(1)

    parts = {name: nn.Linear(5, 4) for name in ("first", "second", "key", "value")}
    model = Calls(forward, last=nn.Linear(8, CLASSES), **parts).double()
    batch = torch.randn(6, 3, 5).double(), torch.arange(6) % CLASSES
    before = model(batch[0])
    report = Rescaling(lr=0.5)(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    first, second, key = (factors_of(report, getattr(model, name).bias) for name in ("first", "second", "key"))
    assert torch.equal(first, second)
    torch.testing.assert_close(first * key, torch.ones(4).double(), rtol=1e-12, atol=0)
    assert changes(report)["value.weight"] > 0  # one layer reads it twice and is divided


def test_a_channel_is_pinned_if_it_is_pinned_on_one_of_the_batches():
    """The second batch passes through a tanh."""
    model = hidden(lambda net, x: net.last(net.middle(net.first(x) if len(x) == 6 else net.first(x).tanh())))
    longer = torch.randn(7, 5).double(), torch.arange(7) % CLASSES
    before = model(longer[0])
    report = Rescaling(lr=0.5)(model, [flat_batch(), longer], cross_entropy)
    assert relative_error(model(longer[0]), before) < 1e-12
    assert "tanh" in report.layers[0].reason
    assert report.layers[0].relative_change == 0
    assert report.layers[1].relative_change > 0
