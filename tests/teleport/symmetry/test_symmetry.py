"""Symmetry teleportation: its guard and report, and the models that it refuses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleport import Symmetry, UnsupportedModel
from tests.teleport.networks import cross_entropy
from tests.teleport.symmetric import VARIANTS, arrays, batch_of, mlp


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loss_that_changed_is_rolled_back(variant):
    """60 samples of 12 dimensions leave a residual far above the tolerance."""
    model, batch = mlp(12, 9, 3), batch_of(60)
    before = arrays(model)
    report = Symmetry(variant, lr=5.0, steps=2, step="fixed", tolerance=1e-6)(model, [batch], cross_entropy)
    (entry,) = report.batches
    assert not entry.accepted
    assert "more than the tolerance" in entry.reason
    assert report.layers[0].residual > 1e-4
    assert all(np.array_equal(one, other) for one, other in zip(before, arrays(model), strict=True))
    assert report.gradient_norm_after == report.gradient_norm_before


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("guard", ["transaction", "none"])
def test_non_finite_values_end_the_ascent(variant, guard):
    model, batch = mlp(12, 9, 3), batch_of(5)
    report = Symmetry(variant, lr=1e200, steps=5, step="fixed", guard=guard, relative_cap=None)(
        model, [batch], cross_entropy
    )
    (entry,) = report.batches
    if guard == "none":
        assert entry.stopped == "not finite"
    else:
        assert not entry.accepted
        assert all(np.isfinite(values).all() for values in arrays(model))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_deterministic_and_leaves_no_trace(variant, dtype):
    model = nn.Sequential(mlp(12, 9, 8, dtype=dtype), nn.LeakyReLU(), nn.Dropout(0.5), mlp(8, 3, dtype=dtype)).train()
    model[2].register_buffer("count", torch.zeros(1))
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    twin = copy.deepcopy(model)
    batches = [batch_of(5, dtype=dtype), batch_of(4, dtype=dtype)]
    state = torch.random.get_rng_state()
    method = Symmetry(variant, lr=0.02, steps=2, step="fixed", guard="none", relative_cap=None)
    report = method(model, batches, cross_entropy)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    method(twin, batches, cross_entropy)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.requires_grad
        assert one.dtype == dtype
    assert [parameter.grad is None for parameter in model.parameters()] == [False, True, True, True, True, True]
    assert model.training
    assert model[2].training
    assert not report.no_op
    assert [entry.steps for entry in report.batches] == [2, 2]
    assert report.method == "symmetry"
    assert report.seconds > 0


def test_float32_keeps_the_loss_to_its_own_precision():
    model, batch = mlp(12, 9, 8, 3, dtype=torch.float32), batch_of(5, dtype=torch.float32)
    report = Symmetry("corrected", lr=0.05, relative_cap=1.5)(model, [batch], cross_entropy)
    assert report.batches[0].loss_after == pytest.approx(report.batches[0].loss_before, rel=1e-5)
    assert report.gradient_norm_after > report.gradient_norm_before


def test_layers_outside_of_pairs_stay_with_their_reason():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), mlp(16, 8, 3, dtype=torch.float32)).double()
    batch = torch.randn(5, 1, 4, 4).double(), torch.arange(5) % 3
    kept = model[0].weight.detach().clone()
    report = Symmetry("corrected", lr=0.05)(model, [batch], cross_entropy)
    assert torch.equal(model[0].weight, kept)
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert "conv2d" in reasons["0.weight"]
    assert reasons["2.0.weight"] == reasons["2.2.weight"] == ""
    assert report.batches[0].loss_after == pytest.approx(report.batches[0].loss_before, rel=1e-11)


@pytest.mark.parametrize("variant", ["2022", "corrected"])
@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.ReLU(), "relu"),
        (nn.Tanh(), "tanh"),
        (nn.ELU(), "elu"),
        (nn.Sigmoid(), "sigmoid"),
        (nn.LeakyReLU(0.0), "leaky_relu of slope 0"),
    ],
)
def test_activations_without_an_inverse_are_refused_by_name(variant, activation, name):
    model = mlp(12, 9, 3, activation=activation)
    before = arrays(model)
    with pytest.raises(UnsupportedModel, match=rf"variant {variant} .* {name} between '0\.weight' and '2\.weight'"):
        Symmetry(variant)(model, [batch_of(5)], cross_entropy)
    assert all(np.array_equal(one, other) for one, other in zip(before, arrays(model), strict=True))


def test_a_network_without_a_pair_is_refused_by_its_layer():
    model = nn.Sequential(nn.Linear(12, 9), nn.LayerNorm(9), nn.Linear(9, 3)).double()
    with pytest.raises(UnsupportedModel, match=r"'0\.weight' is the lower layer of no pair.*layer_norm"):
        Symmetry("2024")(model, [batch_of(5)], cross_entropy)


def test_layers_under_vmap_stay_with_their_reason():
    model = nn.ModuleList([mlp(12, 9, 3), mlp(12, 9, 3)])

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        plain, wrapped = model
        return F.cross_entropy(plain(batch[0]) + torch.vmap(wrapped)(batch[0]), batch[1])

    report = Symmetry("2024")(model, [batch_of(5)], loss_fn)
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert "linear" not in reasons["0.0.weight"]
    assert "linear" in reasons["1.0.weight"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "2023"}, "variant must be one of"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"steps": -1}, "steps must not be negative"),
        ({"step": "big"}, "step must be one of"),
        ({"cap": -1.0}, "cap must be above 0"),
        ({"guard": "some"}, "guard must be one of"),
        ({"inverse": "second_order"}, "inverse must be one of"),
        ({"variant": "2024", "inverse": "exact"}, "2024 has no inverse"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Symmetry(**arguments)


def test_no_steps_move_nothing():
    model, batch = mlp(12, 9, 3), batch_of(5)
    report = Symmetry(steps=0)(model, [batch], cross_entropy)
    assert report.no_op
    assert report.batches[0].stopped == "steps done"
