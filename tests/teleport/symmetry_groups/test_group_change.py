"""What the groups do: the same outputs on other inputs, from ordinary files, undone by their inverses."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import teleport
from tests.teleport.random_graphs import graphs
from tests.teleport.symmetry_networks import Adapted, Attention, Images, Packed, Rotatable
from tests.teleport.vision import torchvision

NETWORKS = {
    "attention": (Attention, (4, 5)),
    "grouped queries": (lambda: Attention(4, 2), (3, 5)),
    "rotary": (lambda: Attention(4, 2, rotary=True), (3, 5)),
    "packed": (Packed, (4, 6)),
    "encoder": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), (3, 6)),
    "images": (Images, (3, 6, 6)),
    "adapted": (Adapted, (5,)),
    "rotatable": (Rotatable, (5,)),
}


def moved(before, after):
    """The largest difference, relative to the largest value."""
    return float((before - after).abs().max() / before.abs().max())


@pytest.mark.parametrize(
    "group", ["permutation", "all", *(pytest.param(name, marks=pytest.mark.slow) for name in ("orthogonal", "general"))]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_kept_on_other_inputs(name, group):
    """Of other batch sizes and lengths, by a fresh model that loads the weights."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = make().double().eval()
    before = copy.deepcopy(model)
    report = teleport.ChangeOfBasis(group=group, seed=1)(model, [torch.randn(2, *shape).double()])
    assert report.accepted
    assert report.difference < 1e-12
    fresh = make().double().eval()
    fresh.load_state_dict(model.state_dict())
    other = torch.randn(3, *(shape if len(shape) != 2 else (7, shape[1]))).double()
    with torch.no_grad():
        assert moved(before(other), fresh(other)) < 1e-12
    if any(getattr(part, "actions", ()) for part in report.change.parts):
        assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters(), strict=True))
    report.change.inverse().apply(model)
    for old, new in zip(before.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(old, new) if group == "permutation" else torch.allclose(old, new, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(graphs())
def test_random_graphs_keep_their_outputs(made):
    net, x = made
    found = teleport.find_symmetries(net, x)
    other = torch.randn_like(x)
    with torch.no_grad():
        before = net(other)
        for group in ("permutation", "all"):
            element = found.sample(group, torch.Generator().manual_seed(0))
            element.apply(net)
            for old, new in zip(before, net(other), strict=True):
                assert torch.allclose(old, new, rtol=1e-8, atol=1e-8 * float(old.abs().max()))
            element.inverse().apply(net)


def test_statistics_of_batch_norm_move_and_come_back():
    torch.manual_seed(0)
    model = Images().train()
    before = model.norm.running_mean.clone()
    report = teleport.ChangeOfBasis(group="permutation")(model, [torch.randn(2, 3, 6, 6)])
    assert not torch.equal(before, model.norm.running_mean)
    assert torch.equal(before.sort().values, model.norm.running_mean.sort().values)
    assert int(model.norm.num_batches_tracked) == 0
    assert model.training
    report.change.inverse().apply(model)
    assert torch.equal(before, model.norm.running_mean)


def test_a_loss_is_measured_and_no_factors_are_reported():
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1))
    batch = (torch.randn(4, 5), torch.randn(4, 1))
    report = teleport.ChangeOfBasis(group="all")(model, [batch], lambda m, b: (m(b[0]) - b[1]).square().mean())
    assert report.accepted
    assert report.loss_after == pytest.approx(report.loss_before, rel=1e-5)
    assert report.group is None
    assert set(report.carriers) == {model[0].weight, model[0].bias, model[2].weight}


def test_a_parameter_that_is_read_outside_of_torch_stays():
    """A parameter whose memory is handed out stays, by name."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.last(self.first(x).relu()) + self.first.weight.detach().numpy()[0, 0].item()

    model = Hidden()
    before = copy.deepcopy(model.state_dict())
    report = teleport.ChangeOfBasis(group="permutation")(model, [torch.randn(2, 5)])
    assert all(torch.equal(old, new) for old, new in zip(before.values(), model.state_dict().values(), strict=True))
    assert "first.weight" in report.symmetries.pinned


def test_half_precision_is_multiplied_in_double():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 4)).bfloat16()
    before = copy.deepcopy(model)
    report = teleport.ChangeOfBasis(group="orthogonal")(model, [torch.randn(2, 16).bfloat16()])
    x = torch.randn(5, 16)
    assert report.accepted
    assert moved(before.float()(x), copy.deepcopy(model).float()(x)) < 0.02
    assert model[0].weight.dtype == torch.bfloat16


def test_elements_compose_and_are_of_one_model():
    model, x = Attention().double(), torch.randn(2, 3, 5).double()
    found = teleport.find_symmetries(model, x)
    draw = torch.Generator().manual_seed(0)
    first, second = found.sample("all", draw), found.sample("all", draw)
    one, two = copy.deepcopy(model), copy.deepcopy(model)
    second.apply(first.apply(one))
    second.compose(first).apply(two)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b)
    with pytest.raises(ValueError, match="of another model"):
        first.apply(Attention(2, 2).double())


@pytest.mark.parametrize(
    ("settings", "call", "sentence"),
    [
        ({"group": "rotation"}, {}, "group must be"),
        ({"group": "all", "activations": "teleport"}, {}, "scaling"),
        ({"group": "all"}, {"keep_modes": True}, "keep_modes"),
        ({"group": "all"}, {"batches": []}, "at least one batch"),
    ],
)
def test_mistakes_are_told(settings, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        teleport.ChangeOfBasis(**settings)(nn.Linear(5, 2), **{"batches": [torch.randn(2, 5)], **call})


def classifiers():
    """The names of torchvision's classifiers, but for one that needs over 10 GB in double precision."""
    models = torchvision().models
    return [name for name in models.list_models(module=models) if name != "vit_h_14"]


def judged(name, size):
    """How far a permutation, and all groups together, move the outputs of a torchvision model."""
    torch.manual_seed(0)
    model = torchvision().models.get_model(name, weights=None).double().eval()
    for parameter in model.parameters():
        if parameter.dim() == 1 or not bool(parameter.any()):
            nn.init.normal_(parameter, 0.5, 0.1)
    found = teleport.find_symmetries(model, torch.randn(1, 3, size, size).double())
    x = torch.randn(2, 3, size, size).double()
    moves = []
    with torch.no_grad():
        before = model(x)
        for group in ("permutation", "all"):
            element = found.sample(group, torch.Generator().manual_seed(0))
            element.apply(model)
            moves.append(moved(before, model(x)))
            element.inverse().apply(model)
    return found, moves


@pytest.mark.slow
def test_a_residual_network_is_permuted():
    found, moves = judged("resnet18", 32)
    assert max(moves) < 1e-10
    assert found.log10_permutations > 5000
    assert list(found.pinned) == ["fc.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("name", classifiers())
def test_torchvision_classifiers_are_permuted(name):
    size = 299 if "inception" in name else 224 if name.startswith(("vit", "maxvit")) else 96
    found, moves = judged(name, size)
    assert max(moves) < 1e-8
    assert found.log10_permutations > 500
