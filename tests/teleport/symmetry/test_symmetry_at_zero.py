"""The group action at T = 0, at which only the corrected one is the identity, and near it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport import Symmetry
from teleport._symmetry.group_actions import LayerInputs, conjugate
from teleport._tracing.activations import ElementwiseActivation
from tests.teleport.networks import cross_entropy
from tests.teleport.symmetric import VARIANTS, arrays, batch_of, layers_of, leaky, mlp
from tests.teleport.symmetry_reference import SLOPE


def weights_at_zero(model: nn.Module, batch, variant: str) -> list[np.ndarray]:
    layers, _ = layers_of(model, batch, variant)
    zeros = [torch.zeros(len(pair.lower.weight.parameter), dtype=torch.float64).diag() for pair in layers.pairs]
    return [matrix.numpy() for matrix in layers.act(layers.matrices(), zeros).weights]


def test_corrected_is_the_identity_at_zero():
    model, batch = mlp(12, 9, 8, 3), batch_of(5)
    layers, _ = layers_of(model, batch, "corrected")
    for moved, start in zip(weights_at_zero(model, batch, "corrected"), layers.matrices(), strict=True):
        np.testing.assert_allclose(moved, start.numpy(), rtol=0, atol=1e-13)


def test_2022_projects_the_lower_weight_onto_the_span_of_the_inputs():
    model, batch = mlp(12, 9, 3, bias=False), batch_of(5)
    columns = batch[0].numpy().T
    lower, upper = weights_at_zero(model, batch, "2022")
    np.testing.assert_allclose(lower, arrays(model)[0] @ columns @ np.linalg.pinv(columns), atol=1e-12)
    assert np.array_equal(upper, arrays(model)[1])
    assert np.linalg.norm(lower - arrays(model)[0]) > 0.1


def test_2024_projects_the_upper_weight_onto_the_span_of_the_hidden_value():
    model, batch = mlp(12, 9, 3, bias=False), batch_of(5)
    hidden = leaky(arrays(model)[0] @ batch[0].numpy().T)
    lower, upper = weights_at_zero(model, batch, "2024")
    np.testing.assert_allclose(upper, arrays(model)[1] @ hidden @ np.linalg.pinv(hidden), atol=1e-12)
    assert np.array_equal(lower, arrays(model)[0])
    assert np.linalg.norm(upper - arrays(model)[1]) > 0.1


@pytest.mark.parametrize(("variant", "projected"), [("2022", 0), ("2024", 1), ("corrected", None)])
def test_a_negligible_rate_leaves_the_weights_of_the_action_at_zero(variant, projected):
    model, batch = mlp(12, 9, 3, bias=False), batch_of(5)
    before, inputs = arrays(model), batch[0].numpy().T
    layer_inputs = {0: inputs, 1: leaky(before[0] @ inputs)}
    Symmetry(variant, lr=1e-14, steps=2, step="fixed", guard="none")(model, [batch], cross_entropy)
    for layer, (old, new) in enumerate(zip(before, arrays(model), strict=True)):
        kept = old @ layer_inputs[layer] @ np.linalg.pinv(layer_inputs[layer]) if layer == projected else old
        np.testing.assert_allclose(new, kept, rtol=0, atol=1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_data_at_zero(variant):
    """At a negligible rate corrected keeps the outputs on all data, and the published variants change them."""
    model, batch, other = mlp(12, 9, 3), batch_of(5), batch_of(50)
    before = model(other[0]).detach()
    Symmetry(variant, lr=1e-13, steps=1, step="fixed", guard="none")(model, [batch], cross_entropy)
    change = float((model(other[0]).detach() - before).norm() / before.norm())
    assert change < 1e-11 if variant == "corrected" else change > 0.05


def test_first_order_against_exact_inverse():
    torch.manual_seed(0)
    lower, upper, columns, element = (torch.randn(*shape).double() for shape in ((5, 7), (3, 5), (7, 6), (5, 5)))
    activation = ElementwiseActivation("leaky_relu", F.leaky_relu, (SLOPE,))

    def uppers(scale):
        return [
            conjugate(
                *(upper, LayerInputs(columns), lower, scale * element, activation), inverse=inverse, complement=False
            )[1]
            for inverse in ("exact", "first_order")
        ]

    exact, first = uppers(1e-3)
    group = torch.eye(5, dtype=torch.float64) + 1e-3 * element
    torch.testing.assert_close(exact @ group, upper, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(first, upper @ (2 * torch.eye(5, dtype=torch.float64) - group), rtol=1e-12, atol=1e-12)
    half_exact, half_first = uppers(5e-4)
    ratio = float((exact - first).norm() / (half_exact - half_first).norm())
    assert ratio == pytest.approx(4, rel=0.02)  # they differ by U T^2
