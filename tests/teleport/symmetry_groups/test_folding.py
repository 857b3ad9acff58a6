"""Norm weights folded on request: the function stays, rotations pass, and the inverse brings the weights back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import teleport
from tests.teleport.symmetry_groups.test_find_symmetries import null_dimension


class ByHand(nn.Module):
    """As in T5 and Llama."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        mean = x.to(x.dtype).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(mean + 0.1)).to(x.dtype)


NORMS = {
    "RMSNorm": (lambda: nn.RMSNorm(6, eps=0.1), "orthogonal"),
    "by hand": (lambda: ByHand(6), "orthogonal"),
    "LayerNorm": (lambda: nn.LayerNorm(6), "mean-keeping orthogonal"),
}


class Stream(nn.Module):
    """A residual stream of two blocks under norms with weights; a layer scale besides."""

    def __init__(self, norm, read=None):
        super().__init__()
        self.embed, self.head = nn.Linear(5, 6), nn.Linear(6, 9)
        self.first, self.second, self.last = norm(), norm(), norm()
        self.up, self.down, self.other = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 6)
        self.scale, self.read = nn.Parameter(torch.ones(6)), read
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.uniform_(parameter, 0.5, 1.5)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.down(self.up(self.first(x)).sigmoid())
        x = x + self.scale * self.other(self.second(x))
        x = self.last(x)
        return self.head(x if self.read is None else self.read(x))


def made(name, read=None):
    torch.manual_seed(0)
    return Stream(NORMS[name][0], read).double(), torch.randn(2, 3, 5).double()


@pytest.mark.parametrize("name", NORMS)
def test_rotations_pass_norms_whose_weights_are_folded(name):
    model, batch = made(name)
    old, other = copy.deepcopy(model.state_dict()), torch.randn(4, 7, 5).double()
    before = model(other).detach()
    report = teleport.ChangeOfBasis(group="all", fold_norms=True)(model, [batch])
    assert report.accepted
    assert set(report.symmetries.folded) == {"first.weight", "scale", "second.weight", "last.weight"}
    assert [each.group for each in report.symmetries.vertices if "embed.weight" in each.acts_on] == [NORMS[name][1]]
    assert torch.allclose(model(other), before, rtol=1e-11, atol=1e-11)
    assert all(bool((model.get_parameter(each) == 1).all()) for each in report.symmetries.folded)
    assert "folded (4)" in str(report)
    fresh = made(name)[0]
    fresh.load_state_dict(model.state_dict())
    assert torch.allclose(fresh(other), before, rtol=1e-11, atol=1e-11)
    report.change.inverse().apply(model)
    for key, value in model.state_dict().items():
        assert torch.allclose(value, old[key], rtol=1e-10, atol=1e-10), key


def test_a_change_folds_the_weights_of_another_model_of_the_class():
    model, batch = made("RMSNorm")
    report = teleport.ChangeOfBasis(group="orthogonal", fold_norms=True)(model, [batch])
    other = made("RMSNorm")[0]
    for parameter in other.parameters():
        nn.init.uniform_(parameter, 0.3, 0.9)
    before = other(batch).detach()
    report.change.apply(other)
    assert torch.allclose(other(batch), before, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", NORMS)
def test_without_request_nothing_is_folded(name):
    model, batch = made(name)
    old = model.first.weight.clone()
    report = teleport.ChangeOfBasis(group="orthogonal")(model, [batch])
    assert torch.equal(model.first.weight, old)
    assert report.symmetries.folded == ()
    assert all("orthogonal" not in each.group for each in report.symmetries.vertices)


def test_dimension_with_folding_is_at_most_that_of_the_null_space():
    """15 of the rotations of 6 units, and a factor per weight that multiplies units, are there."""
    model, batch = made("RMSNorm")
    found = teleport.find_symmetries(model, batch, fold_norms=True)
    assert found.dimension == 15 + 24
    assert null_dimension(model, torch.randn(40, 3, 5).double()) >= found.dimension


def test_an_element_refuses_weights_that_are_not_folded():
    model, batch = made("RMSNorm")
    found = teleport.find_symmetries(model, batch, fold_norms=True)
    element = found.sample("orthogonal", torch.Generator().manual_seed(0))
    before, outputs = copy.deepcopy(model.state_dict()), model(batch)
    with pytest.raises(ValueError, match=r"'first.weight' is not one.*folding\(\)"):
        element.apply(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    element.apply(found.folding().apply(model))
    assert torch.allclose(model(batch), outputs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (torch.sigmoid, "torch.sigmoid"),
        (lambda x: x * x.sigmoid().mean(-1, keepdim=True), "torch.Tensor.sigmoid"),
    ],
)
def test_weights_whose_reader_is_not_linear_stay_by_name(read, reason):
    model, batch = made("RMSNorm", read)
    before = model(batch).detach()
    report = teleport.ChangeOfBasis(group="all", fold_norms=True)(model, [batch])
    assert "last.weight" not in report.symmetries.folded
    assert "not folded" in report.symmetries.pinned["last.weight"]
    assert reason in report.symmetries.pinned["last.weight"]
    assert torch.allclose(model(batch), before, rtol=1e-11, atol=1e-11)


def test_weights_with_a_zero_stay_by_name():
    model, batch = made("RMSNorm")
    with torch.no_grad():
        model.first.weight[2] = 0
    found = teleport.find_symmetries(model, batch, fold_norms=True)
    assert found.pinned["first.weight"] == "not folded: an element is zero or not finite"


def test_a_tied_reader_stays():
    """The embedding reads what the last norm makes, and makes the stream itself."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm, self.inner = nn.Embedding(9, 6), nn.RMSNorm(6), nn.Linear(6, 6)
            nn.init.uniform_(self.norm.weight, 0.5, 1.5)

        def forward(self, tokens):
            x = self.embed(tokens)
            return F.linear(self.norm(x + self.inner(x).tanh()), self.embed.weight)

    torch.manual_seed(0)
    model, tokens = Tied().double(), torch.randint(9, (2, 4))
    before = model(tokens).detach()
    report = teleport.ChangeOfBasis(group="all", fold_norms=True)(model, [tokens])
    assert report.symmetries.folded == ()
    assert "not folded" in report.symmetries.pinned["norm.weight"]
    assert torch.allclose(model(tokens), before, rtol=1e-11, atol=1e-11)


def test_of_two_norms_that_are_added_one_is_folded():
    """Both weights would need the factors of one linear map."""

    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.inner, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.first, self.second = nn.RMSNorm(6), nn.RMSNorm(6)
            for norm in (self.first, self.second):
                nn.init.uniform_(norm.weight, 0.5, 1.5)

        def forward(self, x):
            x = self.embed(x)
            return self.head(self.first(x) + self.second(self.inner(x)))

    torch.manual_seed(0)
    model, batch = Added().double(), torch.randn(3, 5).double()
    before = model(batch).detach()
    report = teleport.ChangeOfBasis(group="all", fold_norms=True, guard="none")(model, [batch])
    assert torch.allclose(model(batch), before, rtol=1e-11, atol=1e-11)
    assert report.symmetries.folded == ("first.weight",)
    assert "'first.weight', too" in report.symmetries.pinned["second.weight"]


def test_folding_is_not_of_factors():
    with pytest.raises(ValueError, match="fold_norms"):
        teleport.ChangeOfBasis(fold_norms=True)
