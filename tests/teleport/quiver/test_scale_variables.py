"""Classes against a slow reference that searches the scale variables one by one."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from teleport._quiver.quiver import Freedom
from teleport._quiver.scale_variables import ScaleVariables, components, solve

PAIRS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=8)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_components_are_scipys(edges):
    left, right = (torch.tensor([edge[i] for edge in edges], dtype=torch.int64) for i in (0, 1))
    found = components(30, left, right)
    graph = coo_array((torch.ones(len(left)).numpy(), (left.numpy(), right.numpy())), shape=(30, 30))
    expected = torch.from_numpy(connected_components(graph, directed=False)[1])
    assert torch.equal(found[:, None] == found, expected[:, None] == expected)
    assert bool((found <= torch.arange(30)).all())


def reached(start: int, equal: list[tuple[int, int]], inverse: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """All scale variables that one factor determines, each with the power of the factor."""
    seen, todo = set(), [(start, 1)]
    while todo:
        variable, power = todo.pop()
        if (variable, power) not in seen:
            seen.add((variable, power))
            for pairs, sign in ((equal, 1), (inverse, -1)):
                todo += [(b, sign * power) for a, b in pairs if a == variable]
                todo += [(a, sign * power) for a, b in pairs if b == variable]
    return seen


@settings(deadline=None, max_examples=200, derandomize=True)
@given(PAIRS, PAIRS, st.sets(st.integers(1, 9), max_size=2), st.sets(st.integers(1, 9), max_size=2))
def test_classes_are_the_variables_that_one_factor_determines(equal, inverse, pinned, positive):
    variables = ScaleVariables()
    assert variables.fresh((3, 3)).tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    for pairs, inverted in ((equal, False), (inverse, True)):
        for first, second in pairs:
            variables.join(torch.tensor([first]), torch.tensor([second]), "constrained to 1", inverse=inverted)
    variables.only_positive(torch.tensor(sorted(positive), dtype=torch.int64), "positive")
    variables.pin(torch.tensor(sorted(pinned), dtype=torch.int64), "pinned")
    classes = solve(variables.constraints)
    together = {variable: reached(variable, equal, inverse) for variable in range(1, 10)}
    for variable, members in together.items():
        own = int(classes.of[variable])
        kept = any(member in pinned for member, _ in members) or (variable, -1) in members
        assert (own == 0) == kept
        if kept:
            continue
        sign = Freedom.POSITIVE if any(member in positive for member, _ in members) else Freedom.NONZERO
        assert classes.freedom[own] == sign
        for other in range(1, 10):
            assert (int(classes.of[other]) == own) == ((other, 1) in members)
            assert (int(classes.of[other]) == int(classes.inverse[own])) == ((other, -1) in members)
    assert classes.freedom[0] == Freedom.PINNED
    assert classes.inverse[0] == -1


def test_the_first_reason_is_kept():
    variables = ScaleVariables()
    made = variables.fresh((3,))
    variables.join(made, torch.zeros(3, dtype=torch.int64), "a constant")
    variables.pin(made, "later")
    classes = solve(variables.constraints)
    assert [classes.reasons[int(number)] for number in classes.reason[made]] == ["a constant"] * 3
