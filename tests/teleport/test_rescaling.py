"""Rescaling: the same function on any data, a gradient norm that lands, the minimum, and what stays."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from teleport import Rescaling, TeleportReport
from tests.teleport.networks import CLASSES, Calls, changes, cross_entropy
from tests.teleport.rescalable import PASSED, STOPPED, cnns, flat_batch, hidden, image_batch, mlps

MODELS = st.one_of(mlps(), cnns())


def gradient_norm(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    gradients = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()), allow_unused=True)
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None))


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).detach().norm() / reference.detach().norm())


def mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers[:-1]).double()


@settings(deadline=None, max_examples=60, derandomize=True)
@given(MODELS, st.sampled_from(["ascent", "balance"]))
def test_the_function_stays_on_any_data(made, mode):
    model, batch = made
    others = 3 * torch.randn(20, *batch[0].shape[1:]).double()
    before = model(others)
    report = Rescaling(mode, lr=0.3, steps=10)(model, [batch], cross_entropy)
    assert relative_error(model(others), before) < 1e-12
    assert all(layer.reason for layer in report.layers if not layer.relative_change)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(MODELS, st.sampled_from(["ascent", "balance"]))
def test_the_closed_form_is_the_gradient_norm(made, mode):
    model, batch = made
    before = gradient_norm(model, batch)
    report = Rescaling(mode, lr=0.3, steps=10)(model, [batch], cross_entropy)
    (only,) = report.batches
    assert only.trace[0].gradient_norm == pytest.approx(before, rel=1e-10)
    assert only.trace[-1].gradient_norm == pytest.approx(gradient_norm(model, batch), rel=1e-10)
    assert only.gradient_norm_after == pytest.approx(gradient_norm(model, batch), rel=1e-10)
    norms = [record.gradient_norm for record in only.trace]
    assert norms == sorted(norms, reverse=mode == "balance")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.5, 4.0])
def test_the_ascent_lands_on_the_cap(dtype, factor):
    model = mlp(5, 8, 8, CLASSES).to(dtype)
    batch = flat_batch()[0].to(dtype), flat_batch()[1]
    cap = factor * gradient_norm(model, batch)
    for method in (Rescaling(cap=cap), Rescaling(relative_cap=factor)):
        moved = copy.deepcopy(model)
        report = method(moved, [batch], cross_entropy)
        assert report.batches[0].stopped == "cap reached"
        assert 0.98 * cap <= gradient_norm(moved, batch) <= cap * (1 + 1e-5)
    report = Rescaling(cap=cap)(moved, [batch], cross_entropy)
    assert (report.batches[0].stopped, report.no_op) == ("above cap", True)


def test_a_fixed_step_may_pass_the_cap():
    model, batch = mlp(5, 8, CLASSES), flat_batch()
    cap = 1.2 * gradient_norm(model, batch)
    report = Rescaling(lr=1.5, step="fixed", cap=cap)(model, [batch], cross_entropy)
    assert (report.batches[0].steps, report.batches[0].stopped) == (1, "cap reached")
    assert gradient_norm(model, batch) > 1.05 * cap


def factors_of(report: TeleportReport, parameter: nn.Parameter) -> Tensor:
    assert report.group is not None
    return report.group[parameter]


def test_the_bound_holds_over_the_whole_event():
    model = mlp(5, 8, CLASSES)
    report = Rescaling(bound=0.5, lr=0.2)(model, [flat_batch() for _ in range(3)], cross_entropy)
    log_tau = factors_of(report, model[0].bias).log()
    assert float(log_tau.abs().max()) == pytest.approx(0.5, rel=1e-12)
    assert report.batches[0].stopped == "bound reached"


def test_a_step_changes_no_log_tau_by_more_than_the_rate():
    model = mlp(5, 8, CLASSES)
    report = Rescaling(bound=5.0, lr=0.2, steps=1)(model, [flat_batch()], cross_entropy)
    assert float(factors_of(report, model[0].bias).log().abs().max()) == pytest.approx(0.2, rel=1e-12)


def test_batches_are_taken_in_turn_and_each_stays_below_the_cap():
    model, batches = mlp(5, 8, 8, CLASSES), [flat_batch() for _ in range(4)]
    report = Rescaling(relative_cap=3.0)(model, batches, cross_entropy)
    cap = 3.0 * sum(gradient_norm(mlp_, batch) for mlp_, batch in zip([model] * 4, batches, strict=True)) / 4
    assert len(report.batches) == 4
    assert gradient_norm(model, batches[-1]) == pytest.approx(report.gradient_norm_after, rel=1e-10)
    assert cap > report.gradient_norm_after
    assert abs(report.drift) < 1e-12  # exact on all batches, whichever was climbed


def test_one_hidden_layer_is_balanced_in_closed_form():
    """tau = sqrt(|gradient of a row and its bias| / |gradient of the column|), after which both are as long."""
    model, batch = mlp(5, 8, CLASSES), flat_batch()
    above, bias, below, _ = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()))
    expected = ((above.square().sum(1) + bias.square()) / below.square().sum(0)) ** 0.25
    report = Rescaling("balance", bound=20.0)(model, [batch], cross_entropy)
    torch.testing.assert_close(factors_of(report, model[0].bias), expected, rtol=1e-10, atol=0)
    above, bias, below, _ = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()))
    torch.testing.assert_close(above.square().sum(1) + bias.square(), below.square().sum(0), rtol=1e-9, atol=0)


def test_balancing_takes_all_batches_together_and_is_idempotent():
    model, batches = mlp(5, 8, 8, CLASSES), [flat_batch() for _ in range(3)]
    mean = sum(gradient_norm(model, batch) ** 2 for batch in batches) / 3
    report = Rescaling("balance", bound=20.0)(model, batches, cross_entropy)
    assert [batch.stopped for batch in report.batches] == ["minimum reached"] * 3
    least = sum(gradient_norm(model, batch) ** 2 for batch in batches) / 3
    assert least < mean
    assert report.batches[0].trace[-1].gradient_norm ** 2 == pytest.approx(least, rel=1e-10)
    again = Rescaling("balance", bound=20.0)(model, batches, cross_entropy)
    assert again.relative_change < 1e-8


@pytest.mark.parametrize("case", STOPPED)
def test_what_stops_a_factor_is_said(case):
    build, stay, word, move = STOPPED[case]
    model, batch = build(), flat_batch()
    before, others = model(batch[0]), torch.randn(6, 5).double()
    elsewhere = model(others)
    report = Rescaling(lr=0.5)(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    assert relative_error(model(others), elsewhere) < 1e-12
    layers = {layer.name: layer for layer in report.layers}
    for name in stay:
        assert layers[f"{name}.weight"].relative_change == 0
        assert word in layers[f"{name}.weight"].reason
    assert {name for name, change in changes(report).items() if change} == {f"{name}.weight" for name in move}


@pytest.mark.parametrize("case", PASSED)
def test_what_a_factor_passes_through(case):
    build, images = PASSED[case]
    model, batch = build(), image_batch() if images else flat_batch()
    others = torch.randn_like(batch[0])
    before = model(others)
    report = Rescaling(lr=0.5, steps=3)(model, [batch], cross_entropy)
    assert relative_error(model(others), before) < 1e-12
    assert report.batches[0].trace[-1].gradient_norm == pytest.approx(gradient_norm(model, batch), rel=1e-10)
    assert changes(report)["first.weight"] > 0.01


def test_a_channel_that_is_the_loss_stays():
    model, batch = mlp(5, 8, 1), flat_batch()

    def loss_fn(model, batch):
        return model(batch[0]).mean()

    report = Rescaling(lr=0.5)(model, [batch], loss_fn)
    assert abs(report.drift) < 1e-14
    assert report.layers[1].reason == "its output is the loss"
    assert report.layers[0].relative_change > 0


def test_what_is_frozen_stays_and_with_it_its_channels():
    model = mlp(5, 8, 8, CLASSES)
    model[2].weight.requires_grad_(False)
    frozen = model[2].weight.clone()
    report = Rescaling()(model, [flat_batch()], cross_entropy)
    assert torch.equal(model[2].weight, frozen)
    assert report.no_op
    assert "requires no gradient" in report.layers[0].reason


def test_grouped_convolutions_stay():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, CLASSES)
    ).double()  # fmt: skip
    report = Rescaling()(model, [image_batch()], cross_entropy)
    assert report.no_op
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert "conv2d" in reasons["0.weight"]
    assert "conv2d" in reasons["2.weight"]


def test_two_readers_are_both_divided():
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


def test_a_channel_is_repeated_over_its_flattened_positions():
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
def test_a_key_undoes_its_query(causal, mode):
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


def test_one_projection_for_query_and_key_stays():
    model = attention(2, shared=True)
    batch = torch.randn(6, 5, 8).double(), torch.arange(6) % CLASSES
    before = model(batch[0])
    report = Rescaling(lr=0.5)(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    assert changes(report)["query.weight"] == 0


@pytest.mark.parametrize("mode", ["ascent", "balance"])
def test_a_key_made_from_its_query_is_tied_to_itself(mode):
    """The key's weight would be multiplied by the same factors twice, once a row and once a column."""

    def forward(net, x):
        query = net.first(x)
        return net.last(F.scaled_dot_product_attention(query, net.middle(query), x[..., :4])).mean(1)

    model, batch = hidden(forward), (torch.randn(6, 3, 5).double(), torch.arange(6) % CLASSES)
    before = model(batch[0])
    report = Rescaling(mode, lr=0.5)(model, [batch], cross_entropy)
    assert relative_error(model(batch[0]), before) < 1e-12
    assert report.no_op
    assert "tied to each other" in report.layers[0].reason


def test_a_key_of_two_queries_stays():
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
    moved = changes(report)
    assert not any(moved[f"{name}.weight"] for name in ("first", "second", "key"))
    assert moved["value.weight"] > 0  # read twice by one layer, and divided there


def test_batches_that_show_different_networks_pin():
    """The second batch sees a tanh."""
    model = hidden(lambda net, x: net.last(net.middle(net.first(x) if len(x) == 6 else net.first(x).tanh())))
    longer = torch.randn(7, 5).double(), torch.arange(7) % CLASSES
    report = Rescaling()(model, [flat_batch(), longer], cross_entropy)
    assert report.no_op
    assert "tanh" in report.layers[0].reason
    assert "its uses differ" in report.layers[1].reason


def test_the_guard_undoes_what_an_evaluation_did_not_show():
    """A loss that reads a weight through numpy's memory, taken long before."""
    model, batch = mlp(5, 8, CLASSES), flat_batch()
    memory = model[0].weight.detach().numpy()
    start = model[0].weight.detach().clone()

    def loss_fn(model, batch):
        return cross_entropy(model, batch) + float((memory**2).sum())

    report = Rescaling(tolerance=1e-6)(model, [batch], loss_fn)
    assert (report.accepted, report.no_op, report.group) == (False, True, {})
    assert torch.equal(model[0].weight, start)
    assert "tolerance" in report.batches[0].reason
    kept = Rescaling(guard="none")(model, [batch], loss_fn)
    assert not kept.no_op


def test_a_channel_without_gradient_stays():
    model, batch = mlp(5, 8, CLASSES), flat_batch()
    with torch.no_grad():
        model[0].bias[3] = -1e3
    model[1] = nn.ReLU()  # through which that channel is never active
    for mode in ("ascent", "balance"):
        report = Rescaling(mode, bound=1.0)(model, [batch], cross_entropy)
        assert float(factors_of(report, model[0].bias)[3]) == 1


def test_nothing_else_is_touched():
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, CLASSES)).double()
    twin, batch, state = copy.deepcopy(model), flat_batch(), torch.get_rng_state()
    Rescaling()(model, [batch], cross_entropy)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(one, other)
    Rescaling()(twin, [batch], cross_entropy)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "up"}, "mode must be one of ascent, balance"),
        ({"bound": 0.0}, "bound must be above 0"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"steps": -1}, "steps must not be negative"),
        ({"step": "big"}, "step must be one of"),
        ({"cap": 0.0}, "cap must be above 0"),
        ({"relative_cap": math.nan}, "relative_cap must be above 0"),
        ({"guard": "some"}, "guard must be one of"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Rescaling(**options)
