"""The metric of moves on held-out inputs, against dense matrices."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from teleport import NullSpace
from teleport._null_space.held_out import HeldOutInputs, LayerForm, SeenNullSpace
from teleport._spaces.representation import Representation
from tests.teleport.networks import PLAIN, batches_of, changes, cross_entropy, mlp
from tests.teleport.reference import null_projection


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("count", [0, 3, 40])
@pytest.mark.parametrize("samples", [2, 6])
def test_the_metric_of_a_layer_is_that_of_dense_matrices(samples, count, groups, dtype):
    batch, seen = torch.randn(groups, samples, 8, dtype=dtype), torch.randn(groups, count, 8, dtype=dtype)
    inputs = []
    for rows in (batch, seen):
        inputs.append(Representation(8, groups, dtype, ones=False))
        inputs[-1].update(rows)
    null_space = SeenNullSpace(inputs[0].subspace(1.0), inputs[1] if count else None)
    form, move = LayerForm(null_space, 0.3), torch.randn(groups, 5, 8, dtype=torch.float64)
    squares, solved, trace = 0.0, [], 0.0
    for rows, others, matrix in zip(batch.double().numpy(), seen.double().numpy(), move.numpy(), strict=True):
        projection = null_projection(rows)
        within = projection @ others.T @ others @ projection
        squares += np.trace(matrix @ (within + 0.3 * projection) @ matrix.T)
        solved.append(matrix @ projection @ np.linalg.inv(within + 0.3 * np.eye(8)))
        trace += np.trace(within)
    assert form.square(move) == pytest.approx(squares, rel=1e-6)
    assert form.solve(move).numpy() == pytest.approx(np.stack(solved), abs=1e-6)
    assert null_space.trace == pytest.approx(trace, rel=1e-6)


@pytest.mark.parametrize("constrained", [False, True])
def test_a_layer_of_constant_inputs_is_measured_if_it_may_move(constrained, monkeypatch):
    """It may with a constraint of other samples."""
    model, batch = PLAIN.make()
    constraint = batches_of(1, 3) if constrained else None
    method, before = NullSpace(path="least_drift", relative_cap=None, lr=1e-3), copy.deepcopy(model)
    measured: dict[str, Any] = {}
    of = HeldOutInputs.of
    monkeypatch.setattr(
        HeldOutInputs,
        "of",
        lambda self, layers: (
            measured.update({layer.name: each for layer, each in of(self, layers)}) or of(self, layers)
        ),
    )
    report = method(model, [batch], cross_entropy, constraint=constraint, held_out=batches_of(2))
    kept = constraint[0] if constraint else batch
    with torch.no_grad():
        assert float(cross_entropy(model, kept)) == pytest.approx(float(cross_entropy(before, kept)), abs=1e-12)
    assert (changes(report)["0.weight"] > 0) == constrained
    assert set(measured) == {"2.weight", "4.weight"} | ({"0.weight"} if constrained else set())
    for layer, function in {"0.weight": nn.Identity(), "2.weight": before[:2], "4.weight": before[:4]}.items():
        if layer in measured:
            with torch.no_grad():
                rows = torch.cat([torch.cat([function(x), torch.ones(len(x), 1)], 1) for x, _ in batches_of(2)])
            assert measured[layer].gram[0].numpy() == pytest.approx((rows.T @ rows).numpy(), abs=1e-10)


def test_layers_without_null_dimensions_on_the_first_batch_stay():
    """They are not measured, and the batches may be read but once."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 30), nn.Tanh(), nn.Linear(30, 3)).double()
    batches = [batches_of(1, n)[0] for n in (20, 4)]
    held_out = batches_of(3)

    def moved(method, batches, **options):
        report = method(copy.deepcopy(model), batches, cross_entropy, **options)
        assert all(each.steps and each.accepted for each in report.batches)
        return changes(report)

    gentle = {"lr": 1e-3, "steps": 2, "relative_cap": None}
    both = moved(NullSpace(path="least_drift", **gentle), batches, held_out=held_out)
    assert both["2.weight"] == 0 < both["4.weight"]
    assert moved(NullSpace(path="shortest", **gentle), batches)["2.weight"] > 0
    assert moved(NullSpace(path="least_drift", **gentle), batches[1:], held_out=held_out)["2.weight"] > 0


@pytest.mark.parametrize("layout", ["transposed", "contiguous"])
def test_weights_of_any_layout_move_alike_with_a_frozen_forward_pass(layout):
    """Gradients that come projected have a layout of their own."""
    torch.manual_seed(4)
    model, ends = mlp(40).double(), []
    if layout == "transposed":
        model[2].weight = nn.Parameter(model[2].weight.detach().t().contiguous().t())
        assert not model[2].weight.is_contiguous()
    for forward in ("once", "each"):
        end = copy.deepcopy(model)
        method = NullSpace(path="least_drift", lr=1.0, forward=forward)
        method(end, batches_of(1, 16), cross_entropy, held_out=batches_of(4))
        ends.append(end[2].weight.detach().numpy())
    assert ends[0] == pytest.approx(ends[1], abs=1e-10)
    assert abs(ends[0] - model[2].weight.detach().numpy()).max() > 1e-3
