"""Symmetry teleportation keeps the loss of its batch, or reports the residual."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teleport import Symmetry
from teleport._symmetry.group_actions import LayerInputs, conjugate
from teleport._tracing.activations import ElementwiseActivation
from tests.teleport.networks import cross_entropy
from tests.teleport.symmetric import VARIANTS, arrays, batch_of, leaky, mlp
from tests.teleport.symmetry_reference import SLOPE


@settings(max_examples=12, deadline=None)
@given(
    widths=st.lists(st.integers(5, 9), min_size=1, max_size=3),
    samples=st.integers(1, 5),
    bias=st.booleans(),
    steps=st.integers(1, 3),
)
def test_corrected_keeps_the_loss_if_the_inputs_have_full_column_rank(widths, samples, bias, steps):
    model, batch = mlp(12, *widths, 3, bias=bias), batch_of(samples)
    outputs = model(batch[0]).detach()
    report = Symmetry("corrected", lr=0.05, steps=steps, relative_cap=3.0)(model, [batch], cross_entropy)
    (entry,) = report.batches
    assert abs(entry.loss_after - entry.loss_before) < 1e-9 * abs(entry.loss_before)
    torch.testing.assert_close(model(batch[0]).detach(), outputs, rtol=1e-8, atol=1e-10)
    assert all(layer.residual is None or layer.residual < 1e-9 for layer in report.layers)
    assert entry.gradient_norm_after > entry.gradient_norm_before
    assert all(layer.relative_change > 0 for layer in report.layers if layer.kind == "linear")


@pytest.mark.parametrize("activation", [nn.LeakyReLU(SLOPE), nn.Tanh(), nn.ELU(), nn.Sigmoid(), nn.GELU()], ids=str)
def test_2024_keeps_the_loss_of_one_pair_if_the_hidden_value_has_full_column_rank(activation):
    model, batch = mlp(12, 9, 3, activation=activation), batch_of(6)
    report = Symmetry("2024", lr=0.05, steps=4, step="fixed", lr_unit="absolute", relative_cap=None)(
        model, [batch], cross_entropy
    )
    (entry,) = report.batches
    assert entry.steps == 4
    assert abs(entry.loss_after - entry.loss_before) < 1e-9 * abs(entry.loss_before)
    assert report.layers[0].residual < 1e-9


def test_with_more_samples_than_inputs_2024_keeps_the_loss_up_to_the_hidden_width_and_corrected_does_not():
    """6 samples of 4 features span the whole input space, but their 9 hidden values are still independent."""
    changes = {}
    for variant in ("2024", "corrected"):
        model, batch = mlp(4, 9, 3), batch_of(6, features=4)
        method = Symmetry(variant, lr=0.05, steps=3, step="fixed", guard="none")
        report = method(model, [batch], cross_entropy)
        changes[variant] = abs(report.drift) / report.batches[0].loss_before, report.layers[0].residual
    assert max(changes["2024"]) < 1e-9
    assert min(changes["corrected"]) > 1e-6


def test_2022_with_the_exact_inverse_keeps_the_loss_of_one_pair_and_the_published_one_does_not():
    losses = {}
    for inverse in ("exact", "first_order"):
        model, batch = mlp(12, 9, 3), batch_of(6)
        method = Symmetry("2022", lr=0.2, steps=2, step="fixed", guard="none", inverse=inverse)
        losses[inverse] = method(model, [batch], cross_entropy).batches[0]
    assert losses["exact"].loss_after == pytest.approx(losses["exact"].loss_before, rel=1e-11)
    assert abs(losses["first_order"].loss_after - losses["first_order"].loss_before) > 1e-8


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_residual_is_that_of_the_weights_before_and_after(variant, bias):
    """More samples than dimensions: the pair's output on the batch, recomputed with numpy."""
    model, (inputs, targets) = mlp(12, 7, 3, bias=bias), batch_of(60)
    before = arrays(model)
    method = Symmetry(variant, lr=0.5, steps=1, step="fixed", guard="none", inverse=None)
    report = method(model, [(inputs, targets)], cross_entropy)

    def output(parameters):
        hidden = leaky(inputs.numpy() @ parameters[0].T + (parameters[1] if bias else 0))
        return hidden @ parameters[2 if bias else 1].T

    change = np.linalg.norm(output(arrays(model)) - output(before)) / np.linalg.norm(output(before))
    assert change > 1e-5
    assert report.layers[0].residual == pytest.approx(change, rel=1e-9)
    assert report.layers[1].residual is None


def test_the_lower_layers_new_weight_is_the_least_squares_solution():
    """s^-1((I+T) s(V X)) on 60 samples of 7 dimensions, against numpy's lstsq."""
    torch.manual_seed(0)
    lower, upper, columns, element = (torch.randn(*shape).double() for shape in ((5, 7), (3, 5), (7, 60), (5, 5)))
    element = element / 20
    activation = ElementwiseActivation("leaky_relu", F.leaky_relu, (SLOPE,))
    moved, _ = conjugate(upper, LayerInputs(columns), lower, element, activation, inverse="exact", complement=True)
    mixed = (np.eye(5) + element.numpy()) @ leaky((lower @ columns).numpy())
    wanted = np.where(mixed > 0, mixed, mixed / SLOPE)
    solution = np.linalg.lstsq(columns.numpy().T, wanted.T, rcond=None)[0].T
    np.testing.assert_allclose(moved.numpy(), solution, rtol=1e-10, atol=1e-12)
