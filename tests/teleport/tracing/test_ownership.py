"""Ownership of storage, against the parameters that change if the tensor is written to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teleport._tracing.ownership import Owners, distinct_elements, tensors_in

FEW = settings(derandomize=True, max_examples=25, deadline=None)


@FEW
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 12), st.integers(1, 8))
def test_owners_are_the_parameters_that_change_with_the_tensor(sizes, start, length):
    storage = torch.zeros(sum(sizes) + 24)
    named, at = {}, 2  # some elements are nobody's
    for index, size in enumerate(sizes):
        named[f"p{index}"] = nn.Parameter(storage[at : at + size])
        at += size
    part = storage[start : start + length]
    names = Owners(named).of(part)
    part.fill_(1)
    assert set(names) == {name for name, parameter in named.items() if bool(parameter.detach().any())}


def test_views_belong_to_their_parameter_and_copies_to_nobody():
    p, q = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(2))
    owners = Owners({"p": p, "q": q})
    for view in (p, p.T, p.data, p.detach()[1], p.view(2, 6), p[3:]):
        assert owners.of(view) == ["p"]
    for other in (p.clone(), p[:0], torch.zeros(3), None, torch.zeros(0)):
        assert owners.of(other) == []
    assert owners.shared() == set()


def test_parameters_in_one_anothers_memory_are_told():
    storage = torch.zeros(10)
    named = {name: nn.Parameter(storage[a:b]) for name, a, b in (("a", 0, 4), ("b", 3, 6), ("c", 6, 10))}
    assert Owners(named).shared() == {"a", "b"}


@FEW
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.data())
def test_distinct_elements_never_says_wrongly_yes(shape, data):
    strides = [data.draw(st.integers(0, 6)) for _ in shape]
    tensor = torch.arange(40).as_strided(shape, strides)
    if distinct_elements(tensor):
        assert tensor.unique().numel() == tensor.numel()


@pytest.mark.parametrize("change", [lambda t: t, lambda t: t.T, lambda t: t[:, 1:], lambda t: t[::2], lambda t: t[0]])
def test_views_without_repetition_are_distinct(change):
    assert distinct_elements(change(torch.zeros(4, 5)))
    assert not distinct_elements(torch.zeros(1, 5).expand(4, 5))


def test_tensors_are_found_in_containers():
    a, b, c = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    assert [len(t) for t in tensors_in(((a, [b, 3]), {"x": {"y": (c,)}, "z": None}))] == [1, 2, 3]
