"""Rotary embeddings keep rotations of pairs with a factor; what only looks like one keeps what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import teleport
from tests.teleport.rotary import OTHERS, ROTARY, Rotary


def kept(model, batch, other, groups=("permutation", "orthogonal", "general", "all")):
    """The symmetries; the outputs on another batch must be the same after elements of all groups."""
    found = teleport.find_symmetries(model, batch)
    with torch.no_grad():
        before = model(other)
        for group in groups:
            element = found.sample(group, torch.Generator().manual_seed(1))
            element.apply(model)
            assert torch.allclose(model(other), before, rtol=1e-9, atol=1e-9), group
            element.inverse().apply(model)
    return found


@pytest.mark.parametrize("name", ROTARY)
def test_pairs_of_a_head_are_turned_and_stretched(name):
    """One complex number per pair and key head; the queries of a key head carry its inverse."""
    torch.manual_seed(0)
    model = Rotary(ROTARY[name]).double()
    found = kept(model, torch.randn(2, 5, 5).double(), torch.randn(3, 9, 5).double())
    pairs = [each for each in found.vertices if each.group == "scaled plane rotation"]
    assert [(each.units, each.copies, each.dimension) for each in pairs] == [(2, 8, 16)]
    assert set(pairs[0].acts_on) == {"query.weight", "query.bias", "key.weight", "key.bias"}
    assert any("rotary" in reason for reason in pairs[0].reasons)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_rotary_embedding_is_not_taken_for_one(name):
    torch.manual_seed(0)
    model = Rotary(OTHERS[name]).double()
    found = kept(model, torch.randn(2, 5, 5).double(), torch.randn(3, 9, 5).double())
    assert not [each for each in found.vertices if each.group == "scaled plane rotation" and each.copies == 8]


class Normed(nn.Module):
    """A residual stream under a norm that is a function of it."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        self.embed, self.head = nn.Linear(5, 6), nn.Linear(6, 7)
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.down(self.up(self.norm(x)).sigmoid())
        return self.head(self.norm(x))


def centered(x):
    return x - x.mean(-1, keepdim=True)


NORMS = {
    "pow": (lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.1), "orthogonal"),
    "product": (lambda x: x / (x * x).mean(-1, keepdim=True).add(0.1).sqrt(), "orthogonal"),
    "operator": (lambda x: x * ((x**2).sum(-1, keepdim=True) + 0.1) ** -0.5, "orthogonal"),
    "square": (lambda x: x / (torch.square(x.float()).mean(-1, keepdim=True) + 0.1).to(x.dtype), "orthogonal"),
    "vector_norm": (lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True), "orthogonal"),
    "norm": (lambda x: x / (x.norm(dim=-1, keepdim=True) + 0.1), "orthogonal"),
    "normalize": (lambda x: F.normalize(x, dim=-1), "orthogonal"),
    "rms_norm": (lambda x: F.rms_norm(x, (6,)), "orthogonal"),
    "layer_norm": (lambda x: F.layer_norm(x, (6,)), "mean-keeping orthogonal"),
    "by hand": (lambda x: centered(x) / (centered(x).pow(2).mean(-1, keepdim=True) + 0.1), "mean-keeping orthogonal"),
    "var": (lambda x: centered(x) / (x.var(-1, keepdim=True) + 0.1).sqrt(), "mean-keeping orthogonal"),
    "cubes": (lambda x: x / (x.pow(3).mean(-1, keepdim=True) ** 2 + 1), "permutation"),
    "squares elsewhere": (lambda x: x / (x.pow(2).mean(-1, keepdim=True) + 0.1) + 0.1 * x.pow(2), "permutation"),
    "squares kept": (lambda x: (lambda s: x / (s.mean(-1, keepdim=True) + 1) + s.amax(-1, True))(x**2), "permutation"),
    "largest": (lambda x: x / (x.pow(2).amax(-1, keepdim=True) + 1), "permutation"),
    "ones": (lambda x: F.rms_norm(x + 1, (6,)), "mean-keeping orthogonal"),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_by_hand_keep_rotations(name):
    torch.manual_seed(0)
    norm, group = NORMS[name]
    model = Normed(norm).double()
    exact = name != "square"  # squares in single precision
    tries = ("permutation", "orthogonal", "general", "all") if exact else ()
    found = kept(model, torch.randn(2, 3, 5).double(), torch.randn(4, 7, 5).double(), tries)
    assert {each.group for each in found.vertices if "embed.weight" in each.acts_on} == {group}


@pytest.mark.parametrize(
    "function",
    [
        lambda h: h + h.flip(1),
        lambda h: h + h.roll(1, 1),
        lambda h: h * torch.arange(1.0, 4, dtype=h.dtype)[:, None] + h.flip(1),
        lambda h: h.repeat_interleave(2, 1) * h.repeat(1, 2, 1),
        lambda h: torch.cat([h, h[:, [2, 0, 1]]], 1) * torch.cat([h, h], 1),
        lambda h: h[:, :1] * h[:, 1:2] + h.sum(1, keepdim=True),
        lambda h: F.avg_pool1d(h.mT, 3, 1, 1).mT + h,
    ],
)
def test_pinned_heads_that_meet_have_no_elements_of_their_own(function):
    """Heads that stay in their order may each have a matrix, but not if one head is added to another."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(5, 12), nn.LazyLinear(4)

        def forward(self, x):
            return self.last(function(self.first(x).unflatten(-1, (3, 4))))

    torch.manual_seed(0)
    model = Heads().double()
    batch = torch.randn(2, 5).double()
    model(batch)
    kept(model, batch, torch.randn(5, 5).double())


def test_heads_with_constants_of_their_own_have_matrices_of_their_own():
    """As under the slopes of ALiBi, per head."""

    class Slopes(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = nn.Linear(5, 12), nn.Linear(5, 12), nn.Linear(5, 12)
            self.out = nn.Linear(12, 3)

        def forward(self, x):
            query, key, value = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.query, self.key, self.value))
            distance = torch.arange(x.shape[1], dtype=x.dtype)[None] - torch.arange(x.shape[1], dtype=x.dtype)[:, None]
            scores = query @ key.mT + torch.tensor([1.0, 0.5, 0.25], dtype=x.dtype)[:, None, None] * distance
            return self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    torch.manual_seed(0)
    found = kept(Slopes().double(), torch.randn(2, 4, 5).double(), torch.randn(3, 6, 5).double())
    assert [(each.group, each.units, each.copies) for each in found.vertices] == [("general linear", 4, 3)] * 2


def before_a_write(h):
    """One half is negated before the whole is doubled, the other is read after it."""
    h = h.clone()
    first, second = h[..., :4], h[..., 4:]
    turned = -second
    h.mul_(2)
    return torch.cat((turned, first), -1) + h


def before_a_shift(h):
    h = h.clone()
    first, second = h[..., :4], h[..., 4:]
    turned = -second
    first += 1
    return torch.cat((turned, first), -1) + h


def before_a_copy(h):
    h = h.clone()
    first, second = h[..., :4], h[..., 4:]
    turned = -second
    second.copy_(first)
    return torch.cat((turned, first), -1) + h


def constant_written_between(h):
    first, second = h.chunk(2, -1)
    factors, others = torch.linspace(0.1, 1, 4, dtype=h.dtype), torch.linspace(1, 2, 4, dtype=h.dtype)
    turned = first * factors - second * others
    factors.mul_(2)
    return torch.cat((turned, second * factors + first * others), -1)


def ones_written_by_numpy(h):
    """Torch does not count the write."""
    ones = torch.ones(8, dtype=h.dtype)
    ones.numpy()[2] = 3.0
    return h * ones


def square_written(h):
    square = h.pow(2)
    square[..., 0].mul_(3.0)
    return h * square.mean(-1, keepdim=True)


def copies_that_differ(h):
    twice = torch.arange(1, 5, dtype=h.dtype).repeat(2)
    return h * (twice * torch.arange(8, dtype=h.dtype))


@pytest.mark.parametrize(
    "function",
    [
        before_a_write,
        before_a_shift,
        before_a_copy,
        constant_written_between,
        ones_written_by_numpy,
        square_written,
        copies_that_differ,
    ],
)
def test_writes_in_between_keep_the_function(function):
    """What was understood of a tensor does not hold for what is written to it later."""

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(function(self.first(x)))

    torch.manual_seed(0)
    with torch.no_grad():
        kept(Written().double(), torch.randn(2, 5).double(), torch.randn(6, 5).double())
