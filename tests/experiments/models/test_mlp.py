"""Fully connected networks and activations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import SPECS, batch

from experiments.configuration.model_config import MLPConfig
from experiments.errors import UserError
from experiments.models.activations import activation
from experiments.models.registry import build_model
from experiments.tasks import Spec


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@given(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=4), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_parameters_are_weights_and_biases_of_each_layer(inputs, widths, outputs):
    model = build_model(MLPConfig(name="mlp", widths=widths), Spec("series", (1, inputs), outputs))
    sizes = [inputs, *widths, outputs]
    assert count(model) == sum(sizes[i] * sizes[i + 1] + sizes[i + 1] for i in range(len(sizes) - 1))


def test_a_model_without_biases_has_the_weights_alone():
    model = build_model(MLPConfig(name="mlp", widths=[7, 4], bias=False), Spec("series", (1, 9), 3))
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(7, 9), (4, 7), (3, 4)]


def test_the_papers_networks_on_mnist():
    mnist = Spec("image", (1, 28, 28), 10)
    assert count(build_model(MLPConfig(name="mlp", widths=[16, 10]), mnist)) == 784 * 16 + 16 + 16 * 10 + 10 + 110
    large = build_model(MLPConfig(name="mlp", widths=[1024, 1024]), mnist)
    assert count(large) == 784 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 10 + 10


def test_outputs_are_those_of_matrix_products():
    model = build_model(MLPConfig(name="mlp", widths=[6, 5], activation="tanh"), SPECS["image"]).double()
    x = batch(SPECS["image"]).double()
    weights, biases = list(model.parameters())[::2], list(model.parameters())[1::2]
    hidden = x.reshape(3, -1)
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden = torch.tanh(hidden @ weight.T + bias)
    torch.testing.assert_close(model(x), hidden @ weights[-1].T + biases[-1])


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", lambda x: max(x, 0.0)),
        ("leaky_relu", lambda x: x if x > 0 else 0.1 * x),
        ("tanh", math.tanh),
        ("elu", lambda x: x if x > 0 else math.expm1(x)),
        ("gelu", lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2)))),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
    ],
)
def test_activations_against_their_formulas(name, function):
    points = torch.linspace(-3, 3, 13, dtype=torch.float64)
    expected = torch.tensor([function(float(point)) for point in points], dtype=torch.float64)
    torch.testing.assert_close(activation(name)(points), expected)


def test_bad_values():
    with pytest.raises(UserError, match=r"unknown model\.activation 'rel' \(did you mean 'relu'\?\)"):
        build_model(MLPConfig(name="mlp", widths=[3], activation="rel"), SPECS["image"])
    with pytest.raises(UserError, match=r"model\.widths takes numbers above 0, got 8, 0"):
        build_model(MLPConfig(name="mlp", widths=[8, 0]), SPECS["image"])
