"""One gather per axis against the actions one after the other: the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import teleport
from teleport._symmetry_groups import gathers
from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.families import Block
from teleport._symmetry_groups.gathers import Gathers
from teleport._symmetry_groups.parts import act_on
from tests.teleport.symmetry_networks import Attention, Images, Packed

NETWORKS = {
    "attention": (lambda: Attention(4, 2), (2, 3, 5)),
    "packed": (Packed, (2, 4, 6)),
    "images": (Images, (2, 3, 6, 6)),
}


@pytest.mark.parametrize("chunk", [7, gathers.CHUNK])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gets_the_same_bits(name, dtype, chunk, monkeypatch):
    monkeypatch.setattr(gathers, "CHUNK", chunk)
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = make().eval()
    found = teleport.find_symmetries(model, torch.randn(shape), fold_norms=True)
    found.folding().apply(model)
    element = found.sample("permutation", torch.Generator().manual_seed(0))
    model.to(dtype)
    expected = {key: value.detach().clone() for key, value in element.tensors(model).items()}
    before = copy.deepcopy(expected)
    act_on(element.axes, element.actions, expected)
    element.apply(model)
    assert any(not torch.equal(before[name], value) for name, value in expected.items())
    for key, value in element.tensors(model).items():
        assert torch.equal(value, expected[key]), key


def random_action(variable: int, units: int, copies: int = 1, companions: tuple[int, ...] = ()) -> AxisAction:
    generator = torch.Generator().manual_seed(variable)
    order = torch.rand(copies, units, generator=generator).argsort(1)
    signs = torch.where(torch.rand(copies, units, dtype=torch.float64, generator=generator) < 0.5, -1.0, 1.0)
    return AxisAction(variable, companions, order=order, signs=signs)


@pytest.mark.parametrize("moved", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_any_axes_of_a_tensor_are_reordered(moved, monkeypatch):
    monkeypatch.setattr(gathers, "CHUNK", 50)
    sizes = (5, 6, 7)
    block = Block(tuple((0, size) for size in sizes), sizes, (1, 2, 3), (False, True, False), (0, 1, 2))
    actions = [random_action(axis + 1, sizes[axis]) for axis in moved]
    values = torch.randn(sizes, generator=torch.Generator().manual_seed(0))
    expected = values
    for each in actions:
        expected = each.on(expected, block)
    assert Gathers().apply(values, block, actions)
    assert torch.equal(values, expected)


def test_orders_that_depend_on_another_axis_are_left_to_others():
    block = Block(((0, 3), (0, 4)), (3, 4), (1, 2), (False, False), (0, 1))
    values = torch.randn(3, 4)
    before = values.clone()
    assert not Gathers().apply(values, block, [random_action(2, 4, copies=3, companions=(1,))])
    matrix = torch.eye(4, dtype=torch.float64)[None]
    assert not Gathers().apply(values, block, [AxisAction(2, (), matrix=matrix, inverse=matrix)])
    assert not Gathers().apply(values.t(), block, [random_action(2, 4)])
    assert torch.equal(values, before)


def test_a_part_of_a_tensor_and_one_that_is_transposed_move_like_others():
    """Whole rows, and channels of a convolution in another memory format."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)).eval()
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    found = teleport.find_symmetries(model, torch.randn(2, 3, 8, 8))
    element = found.sample("permutation", torch.Generator().manual_seed(0))
    for one, two in zip(element.apply(model).parameters(), element.apply(other).parameters(), strict=True):
        assert torch.equal(one, two)
