"""Drift along the orbit of steps whose drift is known, and of optimizers."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from teleport import OrbitTracker
from tests.teleport.orbits.test_orbit_report import batch_of, loss_fn
from tests.teleport.orbits.test_tangents import mlp
from tests.teleport.symmetry_networks import Attention


def trained(make, steps: int, model: nn.Module, batch) -> OrbitTracker:
    tracker, optimizer = OrbitTracker(model, batch[0]), make(model)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
        tracker.step()
    return tracker


def network(name: str):
    torch.manual_seed(11)
    if name == "mlp":
        return mlp(4, 8, 6, 3).double(), batch_of(12, 4)
    return Attention(norm=False).double(), batch_of(3, 4, 5, classes=4)


NETWORKS = ["mlp", pytest.param("attention", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", NETWORKS)
def test_plain_gradient_descent_does_not_move_along_the_orbit(name):
    found = trained(lambda model: torch.optim.SGD(model.parameters(), lr=0.1), 5, *network(name)).report()
    assert max(each.tangent for each in found.steps) < 1e-13
    assert 0 < max(each.drift for each in found.steps) < 1e-2


def matrices(model: nn.Module) -> list[nn.Parameter]:
    return [each for each in model.parameters() if each.dim() == 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
        pytest.param(
            lambda model: torch.optim.Muon(matrices(model), lr=1e-2),
            marks=pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is of torch 2.9"),
        ),
    ],
    ids=["momentum", "adamw", "muon"],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_other_optimizers_move_along_the_orbit(make, name):
    found = trained(make, 5, *network(name)).report()
    assert found.steps[-1].tangent > 1e-3
    assert found.steps[-1].total_drift > 0


def test_what_gradient_flow_keeps_moves_by_the_square_of_the_rate():
    """``|w_in|^2 - |w_out|^2`` of a unit moves by ``lr^2 (|g_in|^2 - |g_out|^2)``: a closed form for one step."""
    torch.manual_seed(12)
    model, batch, rate = mlp(4, 8, 3).double(), batch_of(12, 4), 0.3
    tracker = OrbitTracker(model, batch[0])
    squares = [each.detach().square() for each in model.parameters()]
    whole = (squares[0].sum() + squares[1].sum() + squares[2].sum()).item()
    loss_fn(model, batch).backward()
    first, bias, last = (model[0].weight.grad, model[0].bias.grad, model[2].weight.grad)
    moved = rate**2 * (first.square().sum(1) + bias.square() - last.square().sum(0))
    torch.optim.SGD(model.parameters(), lr=rate).step()
    found = tracker.step()
    assert found.drift == pytest.approx(float(moved.abs().sum()) / whole, rel=1e-9)
    assert found.total_drift == found.drift


def test_a_step_along_the_orbit_is_all_tangent():
    """Small factors on the hidden units."""
    torch.manual_seed(13)
    model, batch = mlp(4, 8, 3).double(), batch_of(12, 4)
    tracker = OrbitTracker(model, batch[0])
    with torch.no_grad():
        factors = 1 + 1e-6 * torch.randn(8, dtype=torch.float64)
        model[0].weight *= factors[:, None]
        model[0].bias *= factors
        model[2].weight /= factors
    found = tracker.step()
    assert found.tangent == pytest.approx(1, abs=1e-5)
    assert found.drift > 1e-7


def test_report_is_plain_and_fits_a_screen():
    model, batch = network("mlp")
    found = trained(lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3), 30, model, batch).report()
    assert found.share == pytest.approx((found.dimension / sum(each.numel() for each in model.parameters())) ** 0.5)
    assert found.dimension == 14
    assert len(str(found).splitlines()) <= 24
    assert len(json.loads(json.dumps(found.to_dict()))["steps"]) == 30
    assert list(found.to_frame()["step"]) == list(range(1, 31))


def test_single_precision_says_what_may_be_rounding():
    model, batch = mlp(4, 8, 3), batch_of(12, 4)
    batch = (batch[0].float(), batch[1])
    found = trained(lambda model: torch.optim.SGD(model.parameters(), lr=1e-2), 1, model, batch).report()
    assert found.steps[0].tangent <= found.steps[0].rounding < 1e-2


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        OrbitTracker(mlp(4, 8, 3).requires_grad_(False), torch.randn(2, 4))
