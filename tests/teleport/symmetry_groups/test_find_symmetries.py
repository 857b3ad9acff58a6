"""The groups that are found: their dimensions against the rank of a Jacobian, and the names of what reduces them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import teleport
from tests.teleport.symmetry_networks import Adapted, Attention, Images, Rotatable


def null_dimension(model, inputs):
    """The dimension of the null space of the map from the parameters to the outputs on many inputs."""
    moving = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    jacobians = jacrev(lambda values: functional_call(model, values, (inputs,)))(moving)
    rows = inputs.shape[:-1].numel() * model(inputs).shape[-1]
    whole = torch.cat([each.reshape(rows, -1) for each in jacobians.values()], 1)
    return whole.shape[1] - int(torch.linalg.matrix_rank(whole, rtol=1e-9))


def group_of(model, batch, start):
    """The groups of the vertices with this name."""
    found = teleport.find_symmetries(model, batch)
    return [(each.group, each.units, each.copies) for each in found.vertices if each.name.startswith(start)]


@pytest.mark.parametrize(
    ("make", "dimension"),
    [
        (lambda: nn.Sequential(nn.Linear(5, 3, bias=False), nn.Linear(3, 4, bias=False)), 9),
        (lambda: nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 4)), 12 - 0),
        (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)), 6),
        (lambda: nn.Sequential(nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 4)), 0),
        (lambda: Adapted(2), 4),
        (lambda: Rotatable(4), 6),
    ],
)
def test_the_dimension_is_that_of_the_null_space(make, dimension):
    """Where theory says so. A bias under a second linear map is a translation besides, which is no group on axes."""
    torch.manual_seed(0)
    model, inputs = make().double(), torch.randn(60, 5).double()
    translations = 3 if dimension == 12 else 0
    found = teleport.find_symmetries(model, inputs[:2])
    assert found.dimension == dimension - translations
    assert null_dimension(model, inputs) == dimension


def test_attention_has_a_matrix_per_head():
    """Two general linear groups per head; a bias of keys moves no output besides."""
    torch.manual_seed(0)
    model, inputs = Attention(2, 2, norm=False).double(), torch.randn(12, 4, 5).double()
    found = teleport.find_symmetries(model, inputs[:1])
    assert [(each.group, each.units, each.copies) for each in found.vertices if each.units == 4] == [
        ("general linear", 4, 2)
    ] * 2
    assert found.dimension <= null_dimension(model, inputs)
    assert found.dimension >= 2 * 2 * 16 + 8 * 8


def test_rotary_embeddings_pin_queries_and_keys_by_name():
    model, batch = Attention(4, 2, rotary=True), torch.randn(2, 3, 5)
    assert ("general linear", 4, 2) in group_of(model, batch, "value.weight")
    assert ("general linear", 4, 2) not in group_of(model, batch, "query.weight")
    assert ("permutation", 2, 2) in group_of(model, batch, "query.weight")


def test_queries_of_one_key_head_are_permuted():
    """Four query heads on two key heads: two orders of key heads, and two in each."""
    found = group_of(Attention(4, 2), torch.randn(2, 3, 5), "query.weight")
    assert ("permutation", 2, 1) in found
    assert ("permutation", 2, 2) in found


def test_groups_of_a_convolution_are_permuted_with_their_channels():
    found = teleport.find_symmetries(Images().eval(), torch.randn(1, 3, 6, 6))
    by_name = {each.name: each for each in found.vertices}
    assert all(each.group == "permutation" for name, each in by_name.items() if not name.startswith("last"))
    assert by_name["last.weight[axis 0]"].group == "general linear"
    assert "norm.running_var" in by_name["first.weight[axis 0]"].acts_on


def test_an_odd_function_leaves_signs():
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    assert group_of(model, torch.randn(2, 5), "0.weight") == [("signed permutation", 6, 1)]


class Unread(nn.Module):
    """One branch by the length of the batch."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.other = nn.Linear(5, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x):
        hidden = self.first(x).relu()
        return self.last(hidden) if len(x) < 5 else self.other(hidden)


class Through(nn.Module):
    """A function of the hidden layer."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(5, 6), nn.Linear(6, 2), function
        self.register_buffer("weights", torch.rand(6))

    def forward(self, x):
        return self.last(self.function(self.first(x), self))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Unread(), "no evaluation reached 'other.weight'"),
        (Through(lambda h, model: h.cumsum(-1)), "torch.Tensor.cumsum"),
        (Through(lambda h, model: h * model.weights), "buffer"),
        (Through(lambda h, model: h.sort(-1).values), "torch.Tensor.sort"),
        (Through(lambda h, model: torch.fft.rfft(h).abs()[..., :1].expand_as(h)), "torch.fft.rfft"),
        (Through(lambda h, model: torch.from_numpy(h.detach().numpy()) * 1.0), "numpy"),
        (Through(lambda h, model: h[..., [1, 0, 2, 3, 4, 5]]), "Tensor.__getitem__"),
        (Through(lambda h, model: torch.stack([h[..., i] for i in range(6)], -1)), "selects units"),
        (Through(lambda h, model: h.flip(-1)), "moves units"),
        (Through(lambda h, model: h * torch.arange(6.0)), "fixed axis"),
    ],
)
def test_what_is_not_understood_pins_by_name(model, reason):
    found = teleport.find_symmetries(model, torch.randn(2, 5))
    assert not [each for each in found.vertices if "first.weight" in each.acts_on]
    assert reason in str(found)


class Heads(nn.Module):
    """Units in heads, and a function of them."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(5, 12), nn.LazyLinear(2), function

    def forward(self, x):
        return self.last(self.function(self.first(x).unflatten(-1, (3, 4))).flatten(1))


@pytest.mark.parametrize(
    "function",
    [
        lambda h: torch.einsum("bhd,bgd->bhg", h, h),
        lambda h: h - h.mean(1, keepdim=True),
        lambda h: h.softmax(1),
        lambda h: (h[:, :, None] * h[:, None]).tanh().sum(-1),
        lambda h: h @ h.mT,
        lambda h: h.round().to(torch.int64).to(h.dtype) + h.long() * 0.5,
        lambda h: torch.eye(20, dtype=h.dtype)[(h.abs() * 3).long().clamp(max=19)].sum(-2),
        lambda h: h * h[:, :1],
        lambda h: nn.functional.scaled_dot_product_attention(h, h, h),
        lambda h: torch.einsum("h,bhd->bhd", torch.ones(3, dtype=h.dtype), h).tanh() * h.mean(1, keepdim=True),
        lambda h: h.repeat_interleave(2, 1) * h.repeat(1, 2, 1),
        lambda h: h[:, :1].expand(-1, 3, -1).reshape(len(h), -1) * h.flatten(1),
        lambda h: torch.cat([h, h.flip(1)], 1).cumsum(-1),
    ],
)
def test_units_that_meet_across_heads_keep_the_function(function):
    """Heads that are compared with each other have no elements of their own."""
    torch.manual_seed(0)
    model = Heads(function).double()
    model(torch.randn(2, 5).double())
    found, other = teleport.find_symmetries(model, torch.randn(2, 5).double()), torch.randn(9, 5).double()
    with torch.no_grad():
        before = model(other)
        for group in ("permutation", "all"):
            element = found.sample(group, torch.Generator().manual_seed(1))
            element.apply(model)
            assert torch.allclose(before, model(other), rtol=1e-9, atol=1e-9)
            element.inverse().apply(model)


def test_a_frozen_weight_stays_and_its_axes_with_it():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    model[0].weight.requires_grad_(False)
    found = teleport.find_symmetries(model, torch.randn(2, 5))
    assert not found.vertices
    assert found.dimension == 0
    assert found.pinned["0.weight"] == "it requires no gradient"
    assert "0.weight stays" in found.pinned["2.weight"]


def test_a_tied_weight_meets_its_own_inverse():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mid = nn.Embedding(9, 6), nn.Linear(6, 6, bias=False)

        def forward(self, tokens):
            x = self.embed(tokens)
            return (x + self.mid(x)) @ self.embed.weight.t()

    found = teleport.find_symmetries(Tied(), torch.randint(9, (2, 4)))
    assert [(each.group, each.units) for each in found.vertices] == [("orthogonal", 6)]
    assert "inverse" in found.vertices[0].reasons[-1]
    assert found.dimension == 15


def test_the_summary_and_its_plain_form():
    found = teleport.find_symmetries(Adapted(), torch.randn(2, 5))
    assert str(found).startswith("symmetries: 1 vertices, dimension 4")
    assert "base.weight stays: it requires no gradient" in str(found)
    assert found.to_dict()["vertices"][0]["acts_on"] == {
        "down.weight": "axis 0 (output)",
        "up.weight": "axis 1 (input)",
    }
