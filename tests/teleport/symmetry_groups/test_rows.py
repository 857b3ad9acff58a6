"""Rows of tensors, as processes hold them of shards: the action on them alone, against that on the whole tensor."""

from __future__ import annotations

import itertools

import pytest
import torch

import teleport
from teleport._symmetry_groups.families import Block, blocks_of
from teleport._symmetry_groups.gathers import Gathers
from tests.teleport.symmetry_groups.test_group_change import NETWORKS


@pytest.mark.parametrize("group", ["permutation", "all"])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_that_are_not_mixed_move_by_themselves(name, group):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = make().double().eval()
    element = teleport.find_symmetries(model, torch.randn(2, *shape).double()).sample(
        group, torch.Generator().manual_seed(0)
    )
    companions = {each.variable: each.companions for each in element.actions}
    alone = []
    for key, tensor in element.tensors(model).items():
        blocks, whole = list(blocks_of(element.axes[key])), element.acted(key, tensor)
        if any(block.moves_rows(companions) for block in blocks):
            continue
        alone.append(key)
        cuts = [0, 1, max(1, tensor.shape[0] // 2), tensor.shape[0]]
        for first, end in itertools.pairwise(cuts):
            rows = tensor[first:end].detach().clone()
            parts = [block.in_rows(first, end) for block in blocks]
            element._apply_all(rows, [part for part in parts if part is not None], Gathers())
            torch.testing.assert_close(rows, whole[first:end], rtol=1e-13, atol=1e-13)
    assert alone


def block(axes: tuple[int, ...], variables: tuple[int, ...]) -> Block:
    spans = tuple((0, 2 ** axes.count(axis)) for axis in range(2))
    return Block(spans, (2,) * len(axes), variables, (False,) * len(axes), axes)


@pytest.mark.parametrize(
    ("axes", "variables", "companions", "moves"),
    [
        ((0, 1), (-1, 3), (), False),
        ((0, 1), (3, -1), (), True),
        ((0, 1), (3, 3), (), True),
        ((0, 0, 1), (-1, 3, -1), (), True),
        ((0, 1), (4, 3), (4,), True),  # another element per row
        ((0, 1, 1), (-1, 4, 3), (4,), False),
        ((0, 1, 1), (4, 4, 3), (4,), True),
    ],
)
def test_what_mixes_rows_is_told(axes, variables, companions, moves):
    assert block(axes, variables).moves_rows({3: companions}) is moves


def test_a_block_outside_of_the_rows_has_no_part():
    made = Block(((4, 3), (0, 2)), (3, 2), (-1, 3), (False, False), (0, 1))
    assert made.in_rows(0, 4) is None
    assert made.in_rows(7, 9) is None
    part = made.in_rows(5, 9)
    assert part is not None
    assert part.spans == ((0, 2), (0, 2))
    part = made.in_rows(2, 5)
    assert part is not None
    assert (part.spans, part.sizes) == (((2, 1), (0, 2)), (1, 2))
