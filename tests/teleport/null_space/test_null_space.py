"""The method: level sets in double precision, Algorithm 1 step by step, and arguments that are refused."""

from __future__ import annotations

import copy
import itertools
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport import NullSpace
from tests.teleport.attentive import NETWORKS
from tests.teleport.networks import PLAIN, batches_of, changes, cross_entropy, mlp
from tests.teleport.reference import algorithm_one


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_outputs_are_unchanged_while_the_gradient_norm_grows(network):
    model, batch = network.make()
    outputs = model(batch[0]).detach()
    report = NullSpace(lr=1.0, steps=6, relative_cap=5.0)(model, [batch], cross_entropy)
    assert float((model(batch[0]).detach() - outputs).norm() / outputs.norm()) < 1e-10
    norms = [record.gradient_norm for record in report.batches[0].trace]
    assert len(norms) > 2 or norms[-1] > 4.8 * norms[0]  # several steps, or one that ended at the cap
    assert all(later > earlier for earlier, later in itertools.pairwise(norms))
    assert not report.no_op
    moved = {name for name, change in changes(report).items() if change > 1e-9}
    assert set(network.moving) <= moved
    assert all(layer.reason for layer in report.layers if not layer.relative_change)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_the_first_layer_has_no_gradient_in_its_null_space(network):
    """With the constraint as a separate argument, so that the layer is not skipped."""
    model, batch = network.make()
    report = NullSpace(steps=1)(model, [batch], cross_entropy, constraint=[batch])
    first = next(layer for layer in report.layers if layer.kind != "parameter")  # in the order of use
    assert all(share < 1e-20 for share in first.surviving)
    assert first.relative_change == 0
    assert "rounding" in first.reason or "span all" in first.reason


def test_skipping_the_first_layer_changes_nothing():
    whole, batch = PLAIN.make()
    skipping = copy.deepcopy(whole)
    forced = NullSpace(lr=1.0, steps=3)(whole, [batch], cross_entropy, constraint=[batch])
    skipped = NullSpace(lr=1.0, steps=3)(skipping, [batch], cross_entropy)
    assert next(layer for layer in skipped.layers if layer.name == "0.weight").ranks == []
    assert next(layer for layer in forced.layers if layer.name == "0.weight").ranks == [4]
    for one, other in zip(whole.parameters(), skipping.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_a_normalisation_before_the_first_layer_leaves_it_a_surviving_share():
    """The inputs of the first linear layer then depend on a parameter."""
    _, batch = PLAIN.make()
    model = nn.Sequential(nn.LayerNorm(6), mlp()).double()
    report = NullSpace(lr=1.0, steps=2, forward="each")(model, [batch], cross_entropy)
    assert changes(report)["1.0.weight"] > 1e-9
    assert next(layer for layer in report.layers if layer.name == "1.0.weight").surviving[0] > 1e-8
    assert report.batches[0].loss_after == pytest.approx(report.batches[0].loss_before, rel=1e-12)


def test_a_first_layer_that_is_called_twice_is_not_skipped():
    """Its second inputs depend on it; the inputs of both calls are protected."""
    torch.manual_seed(2)
    model = nn.ModuleDict({"twice": nn.Linear(24, 24), "last": nn.Linear(24, 3)}).double()
    batch = (torch.randn(4, 24).double(), torch.arange(4) % 3)

    def loss(net, batch):
        once = torch.tanh(net["twice"](batch[0]))
        return F.cross_entropy(net["last"](torch.tanh(net["twice"](once))), batch[1])

    report = NullSpace(lr=1.0, steps=3, relative_cap=5.0)(model, [batch], loss)
    layer = next(layer for layer in report.layers if layer.name == "twice.weight")
    assert layer.ranks == [8]
    assert layer.relative_change > 1e-9
    assert report.batches[0].loss_after == pytest.approx(report.batches[0].loss_before, rel=1e-10)


@pytest.mark.parametrize("cap", [float("inf"), 0.9])
def test_the_steps_match_an_independent_implementation_of_algorithm_1(cap):
    torch.manual_seed(4)
    model = mlp().double()
    linear = [model[0], model[2], model[4]]
    weights, biases = [m.weight.detach().clone() for m in linear], [m.bias.detach().clone() for m in linear]
    batches = batches_of(3)
    expected = algorithm_one(weights, biases, batches, lr=0.3, steps=4, cap=cap)
    method = NullSpace(lr=0.3, steps=4, step="fixed", cap=cap, guard="none", lr_unit="absolute", relative_cap=None)
    report = method(model, batches, cross_entropy)
    norms = [record.gradient_norm for batch in report.batches for record in batch.trace]
    assert norms == pytest.approx(expected, rel=1e-10)
    if cap < 1:
        assert any(batch.stopped in ("cap reached", "above cap") for batch in report.batches)
    for module, weight, bias in zip(linear, weights, biases, strict=True):
        torch.testing.assert_close(module.weight.detach(), weight.detach(), atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(module.bias.detach(), bias.detach(), atol=1e-10, rtol=1e-10)


def test_no_steps_is_bit_identical_to_no_teleport():
    model, batch = PLAIN.make()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    report = NullSpace(steps=0)(model, [batch], cross_entropy)
    assert report.no_op
    assert report.steps == 0
    assert report.gradient_norm_after == report.gradient_norm_before
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("network", [NETWORKS[10], NETWORKS[16], NETWORKS[-2]], ids=str)
def test_same_seed_same_numbers(network):
    results = []
    for _ in range(2):
        model, batch = network.make(torch.float32)
        report = NullSpace(lr=1.0, steps=3, relative_cap=4.0)(model, [batch, batch], cross_entropy)
        results.append((model.state_dict(), [b.trace for b in report.batches]))
    assert results[0][1] == results[1][1]
    assert all(torch.equal(value, results[1][0][name]) for name, value in results[0][0].items())


def test_a_narrow_network_is_a_no_op_and_the_report_says_so(caplog):
    """The small MLP (16, 10) has no null space from 32 samples on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.LeakyReLU(), nn.Linear(16, 10), nn.LeakyReLU(), nn.Linear(10, 10))
    start = copy.deepcopy(model.state_dict())
    batch = (torch.rand(200, 64), torch.arange(200) % 10)
    with caplog.at_level(logging.INFO, "teleport"):
        report = NullSpace(lr=50.0)(model, [batch], cross_entropy)
    assert report.no_op
    assert report.batches[0].stopped == "nothing moves"
    assert {layer.name: bool(layer.reason) for layer in report.layers} == dict.fromkeys(
        ["0.weight", "2.weight", "4.weight"], True
    )
    assert "its inputs span all 17 dimensions" in report.reasons()
    assert "moved nothing" in caplog.text
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_convolutions_with_more_positions_than_dimensions_do_not_move():
    """At the numerical rank only the head moves."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3)
    )
    batch = (torch.randn(8, 1, 8, 8), torch.arange(8) % 3)
    report = NullSpace(lr=10.0, relative_cap=3.0)(model, [batch], cross_entropy)
    assert changes(report)["5.weight"] > 1e-6
    assert changes(report)["2.weight"] == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("network", [NETWORKS[0], NETWORKS[13], NETWORKS[-1]], ids=str)
def test_lower_precisions(network, dtype, tolerance):
    model, batch = network.make(dtype)
    outputs = model(batch[0]).detach().float()
    report = NullSpace(lr=1.0, relative_cap=3.0, tolerance=0.05)(model, [batch], cross_entropy)
    assert report.accepted
    assert report.gradient_norm_after >= report.gradient_norm_before
    assert float((model(batch[0]).detach().float() - outputs).norm() / outputs.norm()) < tolerance
    assert {p.dtype for p in model.parameters()} == {dtype}
    if dtype == torch.float32:
        assert not report.no_op


def test_frozen_parameters_do_not_move():
    for frozen in ("2.weight", "2.bias"):
        model, batch = PLAIN.make()
        parameter = dict(model.named_parameters())[frozen]
        parameter.requires_grad_(False)
        value = parameter.clone()
        report = NullSpace(lr=1.0, relative_cap=3.0)(model, [batch], cross_entropy)
        assert torch.equal(parameter, value)
        assert changes(report)["4.weight"] > 0
        assert (changes(report).get("2.weight", 0) > 0) == (frozen == "2.bias")
        assert report.batches[0].loss_after == pytest.approx(report.batches[0].loss_before, rel=1e-12)


def test_an_optimizer_continues_with_the_same_parameters():
    model, batch = PLAIN.make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    cross_entropy(model, batch).backward()
    optimizer.step()
    identities = [id(parameter) for parameter in model.parameters()]
    momenta = [optimizer.state[p]["momentum_buffer"].clone() for p in model.parameters()]
    NullSpace(lr=1.0, relative_cap=3.0)(model, [batch], cross_entropy)
    assert [id(parameter) for parameter in model.parameters()] == identities
    kept = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(kept, momenta, strict=True))
    moved = model[2].weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model[2].weight, moved)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"cap": -1}, "cap must be above 0"),
        ({"relative_cap": 0}, "relative_cap must be above 0"),
        ({"tolerance": 0}, "tolerance must be above 0"),
        ({"steps": -1}, "steps must not be negative"),
        ({"threshold": 0}, "threshold must be above 0 and at most 1"),
        ({"threshold": 1.5}, "threshold must be above 0 and at most 1"),
        ({"step": "big"}, "step must be one of cap, fixed"),
        ({"guard": "maybe"}, "guard must be one of transaction, none"),
        ({"objective_params": "some"}, "objective_params must be one of all, moved"),
    ],
)
def test_arguments_outside_their_range_are_refused_in_one_sentence(arguments, said):
    with pytest.raises(ValueError, match=said) as error:
        NullSpace(**arguments)
    assert len(str(error.value).splitlines()) == 1


def test_calls_that_make_no_sense_are_refused():
    model, batch = PLAIN.make()
    with pytest.raises(ValueError, match="at least one batch"):
        NullSpace()(model, [], cross_entropy)
    with pytest.raises(ValueError, match="at least one batch"):
        NullSpace()(model, [batch], cross_entropy, constraint=[])
    with pytest.raises(ValueError, match="scalar tensor"):
        NullSpace()(model, [batch], lambda net, b: net(b[0]))
    with pytest.raises(ValueError, match="scalar tensor"):
        NullSpace()(model, [batch], lambda net, b: 1.0)
    with pytest.raises(ValueError, match="does not depend on any trainable parameter"):
        NullSpace()(model, [batch], lambda net, b: net(b[0]).sum().detach())
    with pytest.raises(ValueError, match="no trainable parameter"):
        NullSpace()(model.requires_grad_(False), [batch], cross_entropy)
