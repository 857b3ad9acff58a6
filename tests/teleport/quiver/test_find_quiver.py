"""The quiver that is found keeps the function, at any factors that it leaves free, and leaves free what it should."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teleport._quiver.find_quiver import QuiverTracer, find_quiver
from teleport._quiver.quiver import Freedom
from tests.teleport.joined_networks import NETWORKS
from tests.teleport.networks import Calls, weight
from tests.teleport.random_graphs import graphs
from tests.teleport.teleported import error, free, quiver_of


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_is_kept(name, in_place):
    network = NETWORKS[name]
    model, inputs = network.make()
    difference, quiver = error(model, *inputs, in_place=in_place)
    assert difference < 1e-9
    shares = free(quiver)
    assert {weight: shares[weight] for weight in network.free} == dict.fromkeys(network.free, 1.0)
    if in_place:
        assert {weight: shares[weight] for weight in network.pinned} == dict.fromkeys(network.pinned, 0.0)
        assert not quiver.sites
    assert all(quiver.reasons[weight] for weight, share in shares.items() if share < 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_another_input_is_computed_the_same(name):
    """What was read off one input holds on all."""
    model, inputs = NETWORKS[name].make()
    others = [torch.randn(each.shape, dtype=each.dtype) for each in inputs]
    before = model(*others)
    error(model, *inputs)
    torch.testing.assert_close(model(*others), before, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(graphs(), st.booleans())
def test_random_graphs_are_kept(made, in_place):
    model, x = made
    difference, _ = error(model, x, in_place=in_place)
    assert difference < 1e-9


def test_the_calls_of_activations_are_counted():
    """Those through which no channel goes, too: the teleported form tells calls apart by their number."""
    model = Calls(
        lambda net, x: net.last(F.relu(net.first(F.relu(x))).tanh()), first=nn.Linear(5, 4), last=nn.Linear(4, 3)
    )
    quiver = find_quiver(lambda: model(torch.randn(2, 5)), dict(model.named_parameters()), in_place=False)
    assert quiver.calls == {"torch.nn.functional.relu": 2, "torch.Tensor.tanh": 1}
    assert [(site.function, site.call) for site in quiver.sites] == [(F.relu, 1), (torch.Tensor.tanh, 0)]


def test_solving_changes_none_of_its_inputs():
    """The same constraints and uses give the same quiver, as often as they are solved."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    model.register_parameter("shift", nn.Parameter(torch.randn(7).double()))
    tracer = QuiverTracer(dict(model.named_parameters()), in_place=False, frozen_stay=True)
    inputs = torch.randn(4, 5).double()
    tracer.trace_run(
        lambda: model[4](torch.tanh(model[2](torch.relu(model[0](inputs)) + model.shift))), "it is an output"
    )
    one, two = tracer.result(), tracer.result()
    assert one.reasons == two.reasons
    assert len(one.sites) == len(two.sites) > 0
    assert torch.equal(one.freedom, two.freedom)
    assert one.scaled.keys() == two.scaled.keys()
    for name, scaled in one.scaled.items():
        assert torch.equal(scaled.output_class, two.scaled[name].output_class)
        assert torch.equal(scaled.input_class, two.scaled[name].input_class)
    assert int((one.freedom == Freedom.NONZERO).sum()) == 14


def test_a_result_adds_no_constraint_to_its_tracer():
    """Also where a parameter that no evaluation read pins the channels in its reach."""
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    model.register_parameter("unread", nn.Parameter(torch.randn(7).double()))
    tracer = QuiverTracer(dict(model.named_parameters()), in_place=True, frozen_stay=True)
    tracer.trace_run(lambda: model(torch.randn(4, 5).double()), "it is an output")
    before = tracer.state.variables.constraints
    quiver = tracer.result()
    after = tracer.state.variables.constraints
    assert "'unread'" in quiver.reasons["0.weight"]
    assert [len(getattr(after, kind)) for kind in ("equal", "inverse", "pinned", "positive")] == [
        len(getattr(before, kind)) for kind in ("equal", "inverse", "pinned", "positive")
    ]
    assert before.count == after.count


def test_a_bias_of_one_number_joins_the_channels():
    torch.manual_seed(0)
    model = Calls(
        lambda net, x: net.last(F.linear(x, net.first, net.shift).relu()),
        first=weight(4, 5),
        shift=weight(1),
        last=nn.Linear(4, 2),
    ).double()
    model.shift = nn.Parameter(model.shift.detach().reshape(()))
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert free(quiver)["first"] == 1.0
    assert len(set(quiver.channel_classes["first"].tolist())) == 1


def test_the_reason_of_a_weight_is_that_of_its_pinned_channels():
    """Two channels are outputs; the others enter a ReLU, which is no reason to stay."""
    torch.manual_seed(0)
    layers = {"first": nn.Linear(5, 4), "last": nn.Linear(2, 2)}

    def forward(net, x):
        hidden = net.first(x).relu()
        return net.last(hidden[:, :2]), hidden[:, 2:]

    model, x = Calls(forward, **layers).double(), torch.randn(6, 5).double()
    difference, quiver = error(model, x)
    assert difference < 1e-9
    assert free(quiver) == {"first.weight": 0.5, "last.weight": 0.0}
    assert "output" in quiver_of(model, x).reasons["first.weight"]
    assert "relu" not in quiver_of(model, x).reasons["first.weight"]


@pytest.mark.parametrize("name", ["first", "last"])
def test_a_parameter_that_is_returned_stays(name):
    torch.manual_seed(0)
    layers = {"first": nn.Linear(5, 4), "last": nn.Linear(4, 2)}
    model = Calls(lambda net, x: (net.last(net.first(x).relu()), getattr(net, name).weight), **layers).double()
    difference, quiver = error(model, torch.randn(6, 5).double())
    assert difference < 1e-9
    assert free(quiver)["first.weight"] == 0.0
