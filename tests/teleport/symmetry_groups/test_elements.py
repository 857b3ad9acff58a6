"""Orders and signs on the units of a tensor against a loop over copies and units."""

from __future__ import annotations

import pytest
import torch

from teleport._symmetry_groups.axis_action import AxisAction
from teleport._symmetry_groups.elements import random_order, random_signs
from teleport._symmetry_groups.families import Block

HEAD, UNIT = 7, 8


def block(sizes, variables) -> Block:
    spans = tuple((0, size) for size in sizes)
    return Block(spans, sizes, variables, (False,) * len(sizes), tuple(range(len(sizes))))


@pytest.mark.parametrize("signs", [True, False])
@pytest.mark.parametrize(
    ("sizes", "variables"),
    [
        ((3, 4), (HEAD, UNIT)),
        ((2, 3, 4, 5), (-1, HEAD, UNIT, -1)),
        ((3, 2, 4), (HEAD, -1, UNIT)),  # apart
        ((4, 2, 3), (UNIT, -1, HEAD)),  # in the other order
    ],
)
def test_each_copy_has_its_own_order(sizes, variables, signs):
    generator = torch.Generator().manual_seed(0)
    order = random_order(3, 4, generator)
    sign = random_signs(3, 4, generator) if signs else None
    values = torch.randn(sizes, generator=generator)
    found = AxisAction(UNIT, (HEAD,), order=order, signs=sign).on(values, block(sizes, variables))
    head, unit = variables.index(HEAD), variables.index(UNIT)
    for copy in range(3):
        for at in range(4):
            source = int(order[copy, at])
            expected = values.select(head, copy).select(unit - (unit > head), source)
            expected = expected * (1.0 if sign is None else float(sign[copy, source]))
            assert torch.equal(found.select(head, copy).select(unit - (unit > head), at), expected)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_order_for_all(place):
    order = random_order(1, 4, torch.Generator().manual_seed(1))
    sizes = tuple(4 if at == place else 3 for at in range(3))
    values = torch.arange(36.0).reshape(sizes)
    variables = tuple(UNIT if at == place else -1 for at in range(3))
    found = AxisAction(UNIT, (), order=order).on(values, block(sizes, variables))
    assert torch.equal(found, values.index_select(place, order[0]))
