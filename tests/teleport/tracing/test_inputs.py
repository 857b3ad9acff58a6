"""Batches that are mappings are passed as keyword arguments; nested tensors and flex attention are refused by name."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from teleport import ChangeOfBasis, NullSpace, RandomNullSpace, Rescaling, UnsupportedModel


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 8).double(), nn.Linear(8, 3).double()

    def forward(self, values: Tensor, shift: Tensor | None = None) -> Any:
        hidden = torch.relu(self.first(values))
        return {"logits": self.last(hidden) if shift is None else self.last(hidden) + shift}


class OneMapping(Named):
    def forward(self, values: Any, shift: Tensor | None = None) -> Any:
        return super().forward(values["values"])


X, SHIFT = torch.randn(4, 5).double(), torch.ones(3).double()


@pytest.mark.parametrize("activations", ["keep", "teleport"])
@pytest.mark.parametrize(
    "batch", [{"values": X}, UserDict(values=X), {"values": X, "shift": SHIFT}, ({"values": X}, torch.arange(4))]
)
def test_a_mapping_is_passed_as_keyword_arguments(batch, activations):
    model = Named()
    before = model(X)["logits"].detach()
    report = ChangeOfBasis(0.9, "inter", activations=activations)(model, [batch])
    assert report.channels == (8, 0, 3)
    torch.testing.assert_close(report.model(X)["logits"].detach(), before, rtol=1e-10, atol=1e-12)
    again = ChangeOfBasis(0.9, "inter", activations=activations)(report.model, [batch])
    assert again.channels == (8, 0, 3)


def test_a_model_that_takes_one_mapping_gets_it_whole():
    assert ChangeOfBasis()(OneMapping(), [{"values": X, "other": 0}]).channels == (8, 0, 3)


METHODS = [ChangeOfBasis(), Rescaling(), NullSpace(), RandomNullSpace()]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_tensors_are_refused_in_a_sentence(layout, method):
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    start = [each.detach().clone() for each in model.parameters()]
    batch = torch.nested.nested_tensor([torch.randn(3, 5), torch.randn(2, 5)], layout=layout)

    def loss_fn(net: nn.Module, nested: Tensor) -> Tensor:
        return torch.cat(net(nested).unbind()).square().mean()

    with pytest.raises(UnsupportedModel, match=r"a nested \(or jagged\) tensor enters torch\.nn\.functional\.linear"):
        method(model, [batch], loss_fn)
    assert all(torch.equal(each, old) for each, old in zip(model.parameters(), start, strict=True))


class Flexible(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 48), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.first(x).view(2, 4, 3, 2, 8).permute(2, 0, 3, 1, 4)
        attended = flex_attention(query, key, value)
        assert isinstance(attended, Tensor)
        return self.last(attended.transpose(1, 2).reshape(2, 4, 16))


@pytest.mark.slow  # the compiler is imported
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_flex_attention_without_a_backward_pass_is_refused_in_a_sentence(method):
    with pytest.raises(UnsupportedModel, match="flex_attention has no backward pass on this device"):
        method(Flexible(), [torch.randn(2, 4, 16)], lambda net, x: net(x).square().mean())
