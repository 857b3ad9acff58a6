"""Every number of the schemas has bounds, and a number beyond them is refused by its key."""

from __future__ import annotations

import dataclasses
import math
import types
import typing

import pytest

from experiments.configuration.bounds import BOUNDS, Bounds, rounded
from experiments.configuration.config import KEYS_OF_RUNS, Config
from experiments.configuration.validate import resolve
from experiments.errors import UserError
from tests.experiments.small import composed

RESOLVED_ELSEWHERE = {"data.extents", "data.lengths", "model.sizes"}  # read by interpolation into keys that have bounds


def numbers_of(kind: type, path: str) -> set[str]:
    """The dotted keys of a dataclass whose type is a number, a list of numbers, or one of them or nothing."""
    found = set()
    for name, hint in typing.get_type_hints(kind).items():
        key = f"{path}{name}"
        if dataclasses.is_dataclass(hint):
            found |= numbers_of(hint, f"{key}.")
        elif key not in RESOLVED_ELSEWHERE and mentions(hint) & {int, float}:
            found.add(key)
    return found


def mentions(hint: typing.Any) -> set[typing.Any]:
    inner = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) else ()
    return {hint} if not inner else set().union(*map(mentions, inner))


NUMBERS = {"seed"}.union(*(numbers_of(kind, f"{group}.") for group, kinds in KEYS_OF_RUNS.items() for kind in kinds))


def test_every_number_of_a_schema_has_bounds():
    assert set(BOUNDS) == NUMBERS
    assert set(KEYS_OF_RUNS) == {field.name for field in dataclasses.fields(Config)} - {
        "seed",
        "scale",
        "rates",
        "figure",
    }


@pytest.mark.parametrize("bounds", sorted(set(BOUNDS.values()), key=str), ids=str)
def test_no_bounds_hold_for_what_is_not_finite_or_beyond_float32(bounds):
    for value in (math.nan, math.inf, -math.inf, 3.5e38, -3.5e38, [math.nan], [[1]]):
        assert not bounds.hold([value] * bounds.length if bounds.length else value)
    assert bounds.hold(None)


def test_the_ends_of_bounds():
    closed, opened = Bounds(0, 1), Bounds(0, 1, above=True, below=True)
    assert [closed.hold(value) for value in (-0.1, 0, 1, 1.1)] == [False, True, True, False]
    assert [opened.hold(value) for value in (0, 1e-300, 0.999, 1)] == [False, True, True, False]
    assert [Bounds(0, 1, length=2).hold(value) for value in ([0], [0, 1], [0, 2])] == [False, True, False]


def test_a_number_that_a_sweep_computes_is_the_one_that_is_written_down():
    third = 0.1 + 2 * 0.1
    assert third != 0.3
    configs = [
        resolve(composed(f"optimizer.lr={value!r}", f"data.start=[{value!r},1]", *POINT)) for value in (third, 0.3)
    ]
    assert configs[0] == configs[1]
    assert configs[0].data.start == [0.3, 1.0]


POINT = ["data=booth", "model=point"]


@pytest.mark.parametrize("value", [0.1, 1e-10, 123456.789, 0.9999999, 5e-324, 1e300, -0.0, 2.0**-40])
def test_numbers_that_are_written_with_up_to_15_digits_stay(value):
    assert rounded(float(f"{value:.15g}")) == float(f"{value:.15g}")
    assert rounded({"a": [0.30000000000000004, 7, "x", True]}) == {"a": [0.3, 7, "x", True]}


def test_a_number_beyond_its_bounds_is_named():
    with pytest.raises(UserError, match=r"teleport\.seed must be a whole number from 0 to 4294967295, not -1"):
        resolve(composed("teleport=random", "teleport.seed=-1"))
