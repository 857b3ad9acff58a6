"""Keys and values that are appended to an empty cache, as language models do by default, keep their groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import teleport


class Cached(nn.Module):
    """Attention of two heads, whose keys and values are appended to an empty cache (``empty``) or to those before."""

    def __init__(self, empty):
        super().__init__()
        self.empty = empty
        self.query, self.key, self.value, self.out = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x, past=None):
        queries, keys, values = (
            layer(x).view(*x.shape[:2], 2, 3).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        if past is None and self.empty:
            past = torch.tensor([], dtype=x.dtype), torch.tensor([], dtype=x.dtype)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=-2), torch.cat([past[1], values], dim=-2)
        self.cache = keys.detach(), values.detach()
        made = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(made.transpose(1, 2).flatten(2))


def groups(model, batch):
    found = teleport.find_symmetries(model, batch)
    return sorted((each.group, each.units, each.copies, each.dimension) for each in found.vertices)


def test_an_empty_cache_pins_nothing():
    """The groups are those of the same model without a cache."""
    torch.manual_seed(0)
    batch = torch.randn(2, 5, 6).double()
    found = groups(Cached(empty=True).double(), batch)
    assert found == groups(Cached(empty=False).double(), batch)
    assert [each for each in found if each[0] == "general linear"] == [("general linear", 3, 2, 18)] * 2


@pytest.mark.parametrize("group", ["permutation", "orthogonal", "general", "all"])
def test_decoding_with_a_cache_gives_the_same_outputs_afterwards(group):
    """The second part attends to the first one, of which the cache is made with the changed weights."""
    torch.manual_seed(0)
    model, batch = Cached(empty=True).double(), torch.randn(2, 5, 6).double()
    first, second = torch.randn(3, 4, 6).double(), torch.randn(3, 2, 6).double()

    def decoded():
        with torch.no_grad():
            model(first)
            return model(second, model.cache)

    before = decoded()
    teleport.find_symmetries(model, batch).sample(group, torch.Generator().manual_seed(1)).apply(model)
    assert torch.allclose(decoded(), before, rtol=1e-10, atol=1e-10)
