"""The steps of T: their direction, the published programs step for step, and the cap."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from teleport import Symmetry
from teleport._symmetry.group_path import GroupPath
from tests.teleport.networks import cross_entropy
from tests.teleport.symmetric import VARIANTS, arrays, batch_of, layers_of, mlp
from tests.teleport.symmetry_reference import teleport_2022, teleport_2024

PUBLISHED: dict[str, Any] = {"lr_unit": "absolute", "step": "fixed", "guard": "none", "relative_cap": None}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("samples", [5, 40])
def test_the_direction_of_t_against_finite_differences(variant, samples):
    model, batch = mlp(12, 6, 5, 3), batch_of(samples)
    layers, objective = layers_of(model, batch, variant)
    path = GroupPath(layers)
    start = layers.matrices()
    path.compute_directions(objective.ascent_direction(path.evaluate_at_zero(objective), layers.parameters))

    def half_squared_norm(elements):
        layers.write(layers.act(start, elements).weights)
        return objective.point(False).norm ** 2 / 2

    torch.manual_seed(0)
    for number, direction in enumerate(path.directions):
        probe = torch.randn_like(direction)
        step = 1e-6
        sides = []
        for sign in (1, -1):
            elements = [torch.zeros_like(each) for each in path.directions]
            elements[number] = sign * step * probe
            sides.append(half_squared_norm(elements))
        measured = (sides[0] - sides[1]) / (2 * step)
        assert float((direction * probe).sum()) == pytest.approx(measured, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("samples", [5, 40])
def test_2022_step_for_step(samples):
    model, (inputs, targets) = mlp(12, 7, 6, 3, bias=False), batch_of(samples)
    weights = [parameter.detach() for parameter in model.parameters()]
    wanted = teleport_2022([weight.clone() for weight in weights], inputs.T, targets, lr=0.05, steps=3)
    method = Symmetry("2022", lr=0.1, steps=3, **PUBLISHED)  # the rate is that of half the square
    assert method(model, [(inputs, targets)], cross_entropy).steps == 3
    for parameter, expected in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.detach(), expected.detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("samples", [5, 40])
@pytest.mark.parametrize("cap", [10.0, 1.2, 0.75])  # allows three steps, one or none with 5 samples
def test_2024_step_for_step(samples, cap):
    model, (inputs, targets) = mlp(12, 7, 6, 3, bias=False), batch_of(samples)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    wanted, steps = teleport_2024(weights, inputs.T, targets, lr=0.05, steps=3, cap=cap)
    method = Symmetry("2024", lr=0.1, steps=3, cap=cap, **PUBLISHED)
    report = method(model, [(inputs, targets)], cross_entropy)
    assert report.steps == steps
    for parameter, expected in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.detach(), expected.detach(), rtol=1e-8, atol=1e-10)


def test_steps_land_on_the_cap():
    model, batch = mlp(12, 9, 8, 3), batch_of(5)
    report = Symmetry("corrected", lr=0.5, steps=8, relative_cap=1.7)(model, [batch], cross_entropy)
    (entry,) = report.batches
    assert entry.stopped == "cap reached"
    assert 0.98 * 1.7 <= entry.gradient_norm_after / entry.gradient_norm_before <= 1.7
    norms = [record.gradient_norm for record in entry.trace]
    assert all(later > earlier for earlier, later in itertools.pairwise(norms))


@pytest.mark.parametrize("variant", VARIANTS)
def test_above_the_cap_nothing_moves(variant):
    model, batch = mlp(12, 9, 3), batch_of(5)
    before = arrays(model)
    report = Symmetry(variant, cap=1e-3, step="fixed", guard="none")(model, [batch], cross_entropy)
    assert report.batches[0].stopped == "above cap"
    assert report.no_op
    assert all(np.array_equal(one, other) for one, other in zip(before, arrays(model), strict=True))
