from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data.subset import subset
from experiments.errors import UserError


@given(st.integers(1, 200), st.integers(1, 300), st.integers(1, 300))
def test_smaller_choices_begin_larger_ones(available, a, b):
    small, large = sorted((a, b))
    few, many = subset(available, small, "k").tolist(), subset(available, large, "k").tolist()
    assert len(few) == min(small, available)
    assert len(set(few)) == len(few)
    assert set(few) <= set(many) <= set(range(available))
    if large < available:
        assert many[: len(few)] == few


def test_all_are_in_order():
    assert subset(5, None, "k").tolist() == subset(5, 9, "k").tolist() == [0, 1, 2, 3, 4]


def test_none_of_them_is_an_error():
    with pytest.raises(UserError, match=r"data\.train_samples is 0"):
        subset(5, 0, "data.train_samples")
