"""The null spaces whose cost is compared are the same space, and the angle that says so is one."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks.basis import (
    AIMS,
    DEFICIENT,
    DOUBLE,
    EVEN,
    FULL,
    SINGLE,
    SPREAD,
    STREAMED,
    Case,
    sine,
    summary,
)
from teleport._spaces.subspace import Subspace


def test_all_find_as_many_dimensions_as_the_inputs_were_made_of(measured):
    assert (measured["rank"] == measured.independent).all()
    double = measured[measured.method != SINGLE]
    assert (double.sine < 1e-12).all()
    assert (measured.sine < 1e-4).all()


def test_what_is_kept_does_not_grow_with_positions(measured):
    kept = measured[measured.method == STREAMED].set_index(["positions", "independent"]).kept_bytes
    assert kept[64, 16] == kept[128, 16] == 32 * 32 * 8
    assert kept[8, 8] == 8 * 32 * 8
    whole = measured[measured.method == SINGLE]
    assert whole.kept_bytes.tolist() == (whole.width * whole.positions * 4).tolist()


@settings(max_examples=25, deadline=None)
@given(st.floats(0, math.pi / 2), st.booleans())
def test_the_sine_of_two_planes_at_an_angle(angle, complement):
    plane = torch.eye(4, dtype=torch.float64)[:, :2]
    turned = plane.clone()
    turned[[1, 2], 1] = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    left = torch.zeros(4, 2, dtype=torch.float64)
    left[[1, 2], 0] = torch.tensor([-math.sin(angle), math.cos(angle)], dtype=torch.float64)
    left[3, 1] = 1
    found = Subspace([2], 4, (left if complement else turned)[None], complement)
    assert sine(plane, found) == pytest.approx(math.sin(angle), abs=1e-12)


def test_spaces_of_other_dimensions_are_as_far_apart_as_can_be():
    identity = torch.eye(4, dtype=torch.float64)
    assert sine(identity[:, :2], Subspace([3], 4, identity[None, :, :3], complement=False)) == 1


def test_the_aims_read_the_cases_they_are_about():
    columns = ["method", "width", "positions", "independent", "decades", "seconds", "sine", "kept_bytes"]
    cells = [(Case(positions=200, independent=200), 6.0, 8), (Case(), 4.0, 8), (Case(independent=1024), 7.0, 8)]
    cells += [(Case(positions=16384), 9.0, 12), (EVEN, 6.5, 8)]
    cells += [(case, 1.5 + (case.independent == 198), 8) for case in DEFICIENT]
    cells += [(case, 1.25 * (case.positions / 200), 8) for case in SPREAD]
    table = pd.DataFrame(
        [(STREAMED, *vars(case).values(), 1.0, 1e-7 * slow, kept) for case, slow, kept in cells]
        + [(DOUBLE, *vars(case).values(), slow, 0.0, 99) for case, slow, _ in cells],
        columns=columns,
    )
    assert [aim.figure(table) for aim in AIMS] == pytest.approx([6.0, 6.5, 4.0, 7.0, 1.5, 1.25, 9e-7, 1.5])
    part = table[table.independent != 198]
    assert math.isnan(AIMS[4].figure(part))
    assert AIMS[5].figure(part) == 1.25


@pytest.mark.parametrize("case", [Case(64, 40, 20), Case(64, 40, 40, 3), Case(64, 80, 30, 2)])
def test_inputs_have_the_rank_and_the_spread_of_their_case(case):
    torch.manual_seed(0)
    inputs = case.inputs()
    assert inputs.shape == (case.positions, case.width)
    assert inputs.dtype == torch.float32
    singular = torch.linalg.svdvals(inputs.double())
    assert int((singular > 1e-6 * singular[0]).sum()) == case.independent
    if case.decades:
        spread = float((singular[0] / singular[case.independent - 1]).log10())
        assert spread == pytest.approx(case.decades, rel=1e-3)


def test_the_slope_is_over_positions_alone(measured):
    assert {case.width for case in FULL} == {1024}
    exponents = summary(measured)["exponents (1 is linear)"]
    assert set(exponents.axis) == {"positions"}
    assert (exponents["values"] == 2).all()
