"""Layer statistics: ranks, shares and changes against independent computations."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from teleport import BatchReport, LayerReport, NullSpace, NullSpaceLayerReport, TeleportReport
from teleport._null_space.layer_statistics import LayerStatistics
from teleport._tracing.layer_tracer import trace_layers
from tests.teleport.networks import LINEAR, cross_entropy
from tests.teleport.reference import null_projection


def test_share_rank_and_change_of_a_layer():
    model, batch = LINEAR[0].make()
    before = copy.deepcopy(model)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(cross_entropy(model, batch), parameters, create_graph=True)
    objective = sum(gradient.square().sum() for gradient in gradients) / 2
    weight, bias = torch.autograd.grad(objective, [model[2].weight, model[2].bias])
    matrix = torch.cat([weight, bias[:, None]], 1).numpy()
    inputs = torch.tanh(model[0](batch[0])).detach().numpy()
    projection = null_projection(np.concatenate([inputs, np.ones((len(inputs), 1))], 1))
    expected = np.square(matrix @ projection).sum() / np.square(matrix).sum()

    report = NullSpace(lr=1.0, steps=9, relative_cap=4.0, forward="each")(model, [batch, batch], cross_entropy)
    layer = next(layer for layer in report.layers if layer.name == "2.weight")
    assert report.batches[1].stopped == "above cap"
    assert (layer.kind, layer.dimension, layer.ranks) == ("linear", 25, [4])  # at the cap nothing is decomposed
    assert layer.null_dimensions == [21]
    assert layer.surviving[0] == pytest.approx(expected, rel=1e-9)
    old, new = (torch.cat([m[2].weight.flatten(), m[2].bias]).detach() for m in (before, model))
    assert layer.relative_change == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-9)
    assert layer.reason == ""
    assert report.relative_change == max(other.relative_change for other in report.layers)


@pytest.mark.parametrize("groups", [1, 2])
def test_shares_are_of_whole_gradients(groups):
    """Each is the share of an event on its batch alone; steps are so short that the batches meet the same weights."""
    torch.manual_seed(0)
    layers = nn.Conv1d(4, 12, 1), nn.Tanh(), nn.Conv1d(12, 6, 3, padding=1, groups=groups), nn.Tanh(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(18, 3)).double()
    batches = [(torch.randn(1, 4, 3).double(), torch.tensor([label])) for label in (0, 1, 2)]
    method = NullSpace(lr=1e-9, steps=2, forward="each")
    alone = [method(copy.deepcopy(model), [batch], cross_entropy) for batch in batches]
    together = method(model, batches, cross_entropy)
    assert sum(len(layer.surviving) for layer in together.layers) >= 2
    for number, layer in enumerate(together.layers):
        for share, report in zip(layer.surviving, alone, strict=False):
            assert share == pytest.approx(report.layers[number].surviving[0], rel=1e-6)


def test_a_layer_that_moved_in_one_batch_only_has_no_reason():
    """It has no null space on the first batch and one on the second."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    wide = (torch.randn(40, 6).double(), torch.arange(40) % 3)
    narrow = (torch.randn(3, 6).double(), torch.arange(3) % 3)
    report = NullSpace(lr=1.0, steps=2, lr_unit="absolute", relative_cap=None)(model, [wide, narrow], cross_entropy)
    assert [batch.stopped for batch in report.batches] == ["nothing moves", "steps done"]
    layer = next(layer for layer in report.layers if layer.name == "2.weight")
    assert (layer.ranks, layer.reason) == ([9, 3], "")
    assert not report.no_op


def test_a_layer_that_is_pinned_on_some_batches_has_a_reason_only_if_it_never_moved():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    batch = (torch.randn(3, 6).double(), torch.arange(3) % 3)

    def loss(net, data):
        plain = cross_entropy(net, data[:2])
        return plain + net[2].weight.square().sum() if data[2] else plain

    method = NullSpace(lr=1.0, steps=2, guard="none")
    for penalised in ((True, False), (False, True)):
        both = method(copy.deepcopy(model), [(*batch, each) for each in penalised], loss)
        assert {layer.name: layer.reason for layer in both.layers}["2.weight"] == ""
    only = method(copy.deepcopy(model), [(*batch, True)], loss)
    assert "square" in {layer.name: layer.reason for layer in only.layers}["2.weight"]


def test_a_cap_below_the_norm_at_the_start_is_the_reason():
    model, batch = LINEAR[0].make()
    report = NullSpace(cap=1e-6)(model, [batch], cross_entropy)
    assert report.no_op
    assert report.batches[0].stopped == "above cap"
    assert "no step was taken or kept (above cap): 2.weight (linear)" in report.reasons()


@pytest.mark.parametrize("scale", [1e-35, 1.0, 1e25])
@pytest.mark.parametrize(("ratio", "real"), [(1.0, True), (1e-5, True), (1.5e-6, False), (1e-8, False)])
def test_projections_are_distinguished_from_rounding_at_any_scale(scale, ratio, real):
    """The limit is 16 units of single precision, 1.9e-6; the squared norms may overflow or underflow."""
    model, batch = LINEAR[0].make()
    named = dict(model.named_parameters())
    layer = trace_layers(lambda b: cross_entropy(model, b), [batch], named, shared_objective=False).layers["2.weight"]
    matrix = torch.full((1, 5, 9), scale)
    assert LayerStatistics().above_rounding(layer, matrix, ratio * matrix, record=False) == real


def test_sums_of_an_event():
    batches = [
        BatchReport(2.0, 2.0, 1.0, 3.0, steps=4, stopped="steps done"),
        BatchReport(2.0, 9.0, 1.0, 3.0, steps=2, stopped="rolled back", accepted=False, reason="moved"),
    ]
    layers = [
        NullSpaceLayerReport("a", "linear", 5, ranks=[2, 5], relative_change=0.5),
        LayerReport("b", "linear", 2, reason="no"),
    ]
    report = TeleportReport("nullspace", 2.0, 3.0, 1.0, 3.0, batches, layers, 0.1)
    assert report.steps == 4
    assert report.accepted
    assert report.drift == pytest.approx(0.5)
    assert report.relative_change == 0.5
    assert not report.no_op
    assert layers[0].null_dimensions == [3, 0]
    assert report.reasons() == "no: b (linear)"
    assert TeleportReport("nullspace", 0.5, 0.6, 1.0, 1.0, [], [], 0.0).drift == pytest.approx(0.1)
    assert TeleportReport("nullspace", 0.5, 0.6, 1.0, 1.0, [], [], 0.0).no_op
