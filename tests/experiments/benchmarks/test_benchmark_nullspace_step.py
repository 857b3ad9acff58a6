"""The table of a step's cost: steps are taken, and each row says how many layers took them."""

from __future__ import annotations

import pytest
import torch

from experiments.benchmarks.nullspace_step import FULL, GRADIENT, MANY, METHODS, summary


def test_all_steps_are_taken_by_layers_that_have_null_dimensions(measured):
    steps = measured[measured.method != GRADIENT]
    assert (steps.steps_taken == MANY).all()
    assert (steps.moved >= 2).all()
    exact = steps.set_index("method").null_dimensions
    assert exact["once"] == exact["each"] == 2 * (33 - 8)  # 8 samples, and inputs of 32 and a bias


def test_a_gradient_evaluation_is_the_unit(measured):
    table = next(iter(summary(measured).values()))
    assert (table[GRADIENT] == 1).all()
    assert set(METHODS) < set(table.columns)


@pytest.mark.parametrize("case", FULL, ids=lambda case: case.model)
def test_models_fit_their_data(case):
    outputs = case.build()(torch.randn(2, *case.spec.input_shape))
    assert outputs.shape == (2, case.spec.outputs)
