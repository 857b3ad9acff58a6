"""Teleports over positions: what they are fitted over, and that models stay as they are while positions grow."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from experiments.benchmarks.positions import FULL, GRADIENT, STEPS, summary


def test_every_teleport_takes_its_steps_at_every_number_of_positions(measured):
    assert measured.positions.unique().tolist() == [16, 64]
    assert (measured.steps_taken[measured.method != GRADIENT] == STEPS).all()


def test_exponents_are_a_models_own_and_leave_out_what_took_no_step(measured):
    rows = [(model, positions, power) for model, power in (("a", 1), ("b", 2)) for positions in (4, 8, 16)]
    table = pd.DataFrame(rows, columns=["model", "positions", "power"])
    table["seconds"] = 3.0 * table["positions"] ** table["power"]
    table = pd.concat([table.assign(method=GRADIENT, steps_taken=0), table.assign(method="nullspace", steps_taken=8)])
    idle = (table["method"] == "nullspace") & (table["positions"] == 16)
    table.loc[idle, ["seconds", "steps_taken"]] = 0.1, 0
    ratios, fits = summary(table.assign(samples=8)).values()
    assert fits["model"].tolist() == ["a", "a", "b", "b"]
    assert fits["slope"].tolist() == pytest.approx([1, 1, 2, 2])
    assert fits["values"].tolist() == [3, 2, 3, 2]
    assert ratios[GRADIENT].tolist() == [1.0] * 6


def test_cases_of_a_model_differ_in_positions_alone():
    inputs: dict[str, list[tuple[int, ...]]] = {}
    for case in FULL:
        inputs.setdefault(case.model, []).append(tuple(case.spec.input_shape))
        outputs = case.build()(torch.randn(2, *case.spec.input_shape))
        assert outputs.shape == (2, case.spec.outputs)
    assert inputs == {
        "cnn 32-64-128": [(3, side, side) for side in (8, 16, 32, 64)],
        "transformer 4 x 256": [(length, 32) for length in (16, 32, 64, 128)],
    }
