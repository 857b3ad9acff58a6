"""Parameters with a use that is not understood stay and are named; layers are found with the right names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from teleport import NullSpace
from teleport._tracing.layer_tracer import trace_layers
from tests.teleport.attentive import NETWORKS
from tests.teleport.networks import Calls, cross_entropy, mlp
from tests.teleport.traps import TRAPS
from tests.teleport.understood import UNDERSTOOD

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def teleported(trap):
    """Loss before and after a long unguarded teleport, the parameters that moved, and the report."""
    model, batch = trap.make()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.enable_grad():
        losses = [float(trap.loss(model, batch).detach())]
        held = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        method = NullSpace(lr=30.0, steps=4, relative_cap=20.0, guard="none")
        report = method(model, [batch], trap.loss)
        losses.append(float(trap.loss(model, batch).detach()))
    assert before.keys() == held.keys()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p.detach(), held[name])}
    return losses, moved, report


@pytest.mark.parametrize("trap", TRAPS, ids=str)
def test_parameters_that_are_not_understood_stay_and_are_named(trap):
    (before, after), moved, report = teleported(trap)
    assert abs(after - before) <= 1e-10 * max(1.0, abs(before))
    assert not moved & set(trap.stays)
    reasons = {layer.name: layer.reason for layer in report.layers}
    for name, part in trap.stays.items():
        assert reasons[name]
        assert part in reasons[name]


@pytest.mark.parametrize("trap", UNDERSTOOD, ids=str)
def test_layers_that_are_understood_move_and_the_loss_stays(trap):
    (before, after), moved, _ = teleported(trap)
    assert abs(after - before) <= 1e-10 * max(1.0, abs(before))
    assert set(trap.stays) <= moved


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_every_trainable_parameter_is_in_a_layer_or_has_a_reason(network):
    model, batch = network.make()
    named = dict(model.named_parameters())
    result = trace_layers(lambda b: cross_entropy(model, b), [batch], named, shared_objective=False)
    held = {block.owner for layer in result.layers.values() for block in layer.blocks}
    assert held | set(result.pinned) == set(named)
    assert not held & set(result.pinned)
    assert all(result.pinned.values())


def test_layers_with_the_same_inputs_share_one_representation():
    model = Calls(
        _three_heads,
        first=nn.Linear(6, 8),
        a=nn.Linear(8, 3),
        b=nn.Linear(8, 3),
        c=nn.Linear(8, 3, bias=False),
    )
    batches = [(torch.randn(4, 6), torch.arange(4) % 3) for _ in range(2)]
    result = trace_layers(
        lambda b: cross_entropy(model, b), batches, dict(model.named_parameters()), shared_objective=False
    )
    a, b, c = (result.representations[f"{name}.weight"] for name in "abc")
    assert a is b
    assert a is not c  # no 1 for a bias
    assert (a.positions, c.positions) == (8, 8)


def _three_heads(net, x):
    hidden = torch.tanh(net.first(x))
    return net.a(hidden) + net.b(hidden) * net.c(hidden)


def _on_a_tensor_that_changes(linear):
    inputs = torch.tensor([[1.0, 0, 0]]).double()
    total = linear(inputs).sum()
    inputs.copy_(torch.tensor([[0.0, 1, 0]]))
    return total + linear(inputs).sum()


def test_changed_inputs_are_not_taken_for_the_same():
    """The same tensor before and after an in-place change."""
    linear = nn.Linear(3, 2).double()
    named = dict(linear.named_parameters())
    result = trace_layers(lambda _: _on_a_tensor_that_changes(linear), [None], named, shared_objective=False)
    assert result.representations["weight"].subspace(1.0).rank == 2


class _Own(torch.autograd.Function):
    """A product with a weight that keeps a copy of its inputs for the backward pass."""

    @staticmethod
    def forward(ctx, inputs, weight):
        ctx.save_for_backward(inputs.clone(), weight)
        return nn.functional.linear(inputs, weight)

    @staticmethod
    def backward(ctx, outer):
        inputs, weight = ctx.saved_tensors
        return outer @ weight, outer.T @ inputs


def test_inputs_that_are_overwritten_before_they_are_represented():
    """Otherwise they are represented after the evaluation that the ascent starts from."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"first": nn.Linear(6, 24), "own": nn.Linear(24, 3, bias=False)}).double()
    batch = (torch.randn(4, 6).double(), torch.arange(4) % 3)

    def loss(net, data):
        hidden = torch.tanh(net["first"](data[0])).clone()
        logits = _Own.apply(hidden, net["own"].weight)
        hidden.detach().zero_()
        return nn.functional.cross_entropy(logits, data[1])

    report = NullSpace(lr=1.0, steps=2, step="fixed", guard="none")(model, [batch], loss)
    assert next(layer for layer in report.layers if layer.name == "own.weight").ranks == [4]
    assert report.loss_after == pytest.approx(report.loss_before, rel=1e-10)


def test_waiting_inputs_that_are_overwritten_pin_their_layer():
    """A first use on constant inputs is represented only when there is a second."""
    linear = nn.Linear(3, 2).double()
    named = dict(linear.named_parameters())
    result = trace_layers(lambda _: _on_a_tensor_that_changes(linear), [None], named, shared_objective=True)
    assert not result.layers
    assert "overwritten" in result.pinned["weight"]


def test_unused_parameters_are_named():
    model = mlp()
    model.register_parameter("unused", nn.Parameter(torch.zeros(3)))
    report = NullSpace(steps=1)(model, [(torch.randn(4, 6), torch.arange(4) % 3)], cross_entropy)
    assert "no use of it was traced: unused (parameter)" in report.reasons()


def test_a_layer_inside_a_custom_function_is_not_taken_for_a_first_layer():
    """Inside, nothing requires a gradient, which says nothing about what the inputs depend on."""
    trap = next(trap for trap in UNDERSTOOD if trap.name == "own function")
    _, moved, report = teleported(trap)
    assert "used" in moved
    assert next(layer for layer in report.layers if layer.name == "used").ranks


def test_blocks_of_a_parameter_have_names_of_their_own():
    names = {"packed in one vector": "used[24x24 at 0]", "experts": "used[24x24 at 576]", "attention": None}
    for network in NETWORKS:
        if network.name in names:
            model, batch = network.make()
            named = dict(model.named_parameters())
            result = trace_layers(lambda b, net=model: cross_entropy(net, b), [batch], named, shared_objective=False)
            wanted = names[network.name] or "attention.in_proj_weight[24:48]"
            assert wanted in result.layers
