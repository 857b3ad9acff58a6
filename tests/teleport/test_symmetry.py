"""Symmetry teleportation: what each variant keeps, what the published ones lose, and whom they are compared with."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teleport import Symmetry, UnsupportedModel
from teleport.actions import Inputs, conjugate
from teleport.activations import Activation
from teleport.ascent import Objective
from teleport.chains import adjacent_pairs
from teleport.stack import Stack
from tests.teleport.networks import cross_entropy
from tests.teleport.symmetry_reference import SLOPE, teleport_2022, teleport_2024

VARIANTS = ["2022", "2024", "corrected"]


def mlp(*sizes: int, bias: bool = True, activation=None, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out, bias=bias), activation or nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers[:-1]).to(dtype)


def batch_of(samples: int, features: int = 12, dtype: torch.dtype = torch.float64):
    torch.manual_seed(samples)
    return torch.randn(samples, features).to(dtype), torch.arange(samples) % 3


def stack_of(model: nn.Module, batch, variant: str) -> tuple[Stack, Objective]:
    def evaluate():
        return cross_entropy(model, batch)

    chains = adjacent_pairs(evaluate, dict(model.named_parameters()))
    return Stack(chains.pairs, Symmetry(variant).rule), Objective(evaluate, list(model.parameters()))


def leaky(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, SLOPE * values)


def arrays(model: nn.Module) -> list[np.ndarray]:
    return [parameter.detach().numpy().copy() for parameter in model.parameters()]


# ------------------------------------------------------------------------------------------------- what is kept


@settings(max_examples=12, deadline=None)
@given(
    widths=st.lists(st.integers(5, 9), min_size=1, max_size=3),
    samples=st.integers(1, 5),
    bias=st.booleans(),
    steps=st.integers(1, 3),
)
def test_corrected_keeps_the_loss_where_the_inputs_have_full_column_rank(widths, samples, bias, steps):
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
def test_2024_keeps_the_loss_of_one_pair_where_the_hidden_value_has_full_column_rank(activation):
    model, batch = mlp(12, 9, 3, activation=activation), batch_of(6)
    report = Symmetry("2024", lr=0.05, steps=4, step="fixed")(model, [batch], cross_entropy)
    (entry,) = report.batches
    assert entry.steps == 4
    assert abs(entry.loss_after - entry.loss_before) < 1e-9 * abs(entry.loss_before)
    assert report.layers[0].residual < 1e-9


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

    missed = np.linalg.norm(output(arrays(model)) - output(before)) / np.linalg.norm(output(before))
    assert missed > 1e-5
    assert report.layers[0].residual == pytest.approx(missed, rel=1e-9)
    assert report.layers[1].residual is None


def test_the_lower_layers_new_weight_is_the_least_squares_solution():
    """s^-1((I+T) s(V X)) on 60 samples of 7 dimensions, against numpy's lstsq."""
    torch.manual_seed(0)
    lower, upper, columns, element = (torch.randn(*shape).double() for shape in ((5, 7), (3, 5), (7, 60), (5, 5)))
    element = element / 20
    activation = Activation("leaky_relu", F.leaky_relu, (SLOPE,))
    moved, _ = conjugate(upper, Inputs(columns), lower, element, activation, inverse="exact", complement=True)
    mixed = (np.eye(5) + element.numpy()) @ leaky((lower @ columns).numpy())
    wanted = np.where(mixed > 0, mixed, mixed / SLOPE)
    solution = np.linalg.lstsq(columns.numpy().T, wanted.T, rcond=None)[0].T
    np.testing.assert_allclose(moved.numpy(), solution, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------------------------------------- at T = 0


def weights_at_zero(model: nn.Module, batch, variant: str) -> list[np.ndarray]:
    stack, _ = stack_of(model, batch, variant)
    zeros = [torch.zeros(len(pair.lower.weight.parameter), dtype=torch.float64).diag() for pair in stack.pairs]
    return [matrix.numpy() for matrix in stack.act(stack.read(), zeros).weights]


def test_corrected_is_the_identity_at_zero():
    model, batch = mlp(12, 9, 8, 3), batch_of(5)
    stack, _ = stack_of(model, batch, "corrected")
    for moved, start in zip(weights_at_zero(model, batch, "corrected"), stack.read(), strict=True):
        np.testing.assert_allclose(moved, start.numpy(), rtol=0, atol=1e-13)


def test_2022_keeps_of_the_lower_weight_what_the_inputs_span():
    model, batch = mlp(12, 9, 3, bias=False), batch_of(5)
    columns = batch[0].numpy().T
    lower, upper = weights_at_zero(model, batch, "2022")
    np.testing.assert_allclose(lower, arrays(model)[0] @ columns @ np.linalg.pinv(columns), atol=1e-12)
    assert np.array_equal(upper, arrays(model)[1])
    assert np.linalg.norm(lower - arrays(model)[0]) > 0.1


def test_2024_keeps_of_the_upper_weight_what_the_hidden_value_spans():
    model, batch = mlp(12, 9, 3, bias=False), batch_of(5)
    hidden = leaky(arrays(model)[0] @ batch[0].numpy().T)
    lower, upper = weights_at_zero(model, batch, "2024")
    np.testing.assert_allclose(upper, arrays(model)[1] @ hidden @ np.linalg.pinv(hidden), atol=1e-12)
    assert np.array_equal(lower, arrays(model)[0])
    assert np.linalg.norm(upper - arrays(model)[1]) > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_data_at_zero(variant):
    """A rate that is next to nothing moves T next to nothing: corrected keeps all data, the published lose theirs."""
    model, batch, other = mlp(12, 9, 3), batch_of(5), batch_of(50)
    before = model(other[0]).detach()
    Symmetry(variant, lr=1e-13, steps=1, step="fixed", guard="none")(model, [batch], cross_entropy)
    change = float((model(other[0]).detach() - before).norm() / before.norm())
    assert change < 1e-11 if variant == "corrected" else change > 0.05


def test_first_order_against_exact_inverse():
    torch.manual_seed(0)
    lower, upper, columns, element = (torch.randn(*shape).double() for shape in ((5, 7), (3, 5), (7, 6), (5, 5)))
    activation = Activation("leaky_relu", F.leaky_relu, (SLOPE,))

    def uppers(scale):
        return [
            conjugate(*(upper, Inputs(columns), lower, scale * element, activation), inverse=inverse, complement=False)[
                1
            ]
            for inverse in ("exact", "first_order")
        ]

    exact, first = uppers(1e-3)
    group = torch.eye(5, dtype=torch.float64) + 1e-3 * element
    torch.testing.assert_close(exact @ group, upper, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(first, upper @ (2 * torch.eye(5, dtype=torch.float64) - group), rtol=1e-12, atol=1e-12)
    half_exact, half_first = uppers(5e-4)
    ratio = float((exact - first).norm() / (half_exact - half_first).norm())
    assert ratio == pytest.approx(4, rel=0.02)  # they differ by U T^2


# --------------------------------------------------------------------------------------------------- directions


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("samples", [5, 40])
def test_the_direction_of_t_against_finite_differences(variant, samples):
    model, batch = mlp(12, 6, 5, 3), batch_of(samples)
    stack, objective = stack_of(model, batch, variant)
    ray = stack.ray()
    start = stack.read()
    ray.aim(objective.ascent_direction(ray.at_zero(objective), stack.parameters))

    def half_squared_norm(elements):
        stack.write(stack.act(start, elements).weights)
        return objective.point(False).norm ** 2 / 2

    torch.manual_seed(0)
    for number, direction in enumerate(ray.directions):
        probe = torch.randn_like(direction)
        step = 1e-6
        sides = []
        for sign in (1, -1):
            elements = [torch.zeros_like(each) for each in ray.directions]
            elements[number] = sign * step * probe
            sides.append(half_squared_norm(elements))
        measured = (sides[0] - sides[1]) / (2 * step)
        assert float((direction * probe).sum()) == pytest.approx(measured, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("samples", [5, 40])
def test_2022_step_for_step(samples):
    model, (inputs, targets) = mlp(12, 7, 6, 3, bias=False), batch_of(samples)
    weights = [parameter.detach() for parameter in model.parameters()]
    wanted = teleport_2022([weight.clone() for weight in weights], inputs.T, targets, lr=0.05, steps=3)
    method = Symmetry("2022", lr=0.1, steps=3, step="fixed", guard="none")  # the rate is for half the square
    assert method(model, [(inputs, targets)], cross_entropy).steps == 3
    for parameter, expected in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.detach(), expected.detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("samples", [5, 40])
@pytest.mark.parametrize("cap", [10.0, 1.2, 0.75])  # passes three steps or one or none of 5 samples
def test_2024_step_for_step(samples, cap):
    model, (inputs, targets) = mlp(12, 7, 6, 3, bias=False), batch_of(samples)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    wanted, steps = teleport_2024(weights, inputs.T, targets, lr=0.05, steps=3, cap=cap)
    method = Symmetry("2024", lr=0.1, steps=3, step="fixed", guard="none", cap=cap)
    report = method(model, [(inputs, targets)], cross_entropy)
    assert report.steps == steps
    for parameter, expected in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.detach(), expected.detach(), rtol=1e-8, atol=1e-10)


# ------------------------------------------------------------------------------------------- caps, guard, report


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


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loss_that_moved_is_put_back(variant):
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
def test_numbers_that_run_away_end_the_ascent(variant, guard):
    model, batch = mlp(12, 9, 3), batch_of(5)
    report = Symmetry(variant, lr=1e200, steps=5, step="fixed", guard=guard)(model, [batch], cross_entropy)
    (entry,) = report.batches
    if guard == "none":
        assert entry.stopped == "not finite"
    else:
        assert not entry.accepted
        assert all(np.isfinite(values).all() for values in arrays(model))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_twice_and_no_trace(variant, dtype):
    model = nn.Sequential(mlp(12, 9, 8, dtype=dtype), nn.LeakyReLU(), nn.Dropout(0.5), mlp(8, 3, dtype=dtype)).train()
    model[2].register_buffer("count", torch.zeros(1))
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    twin = copy.deepcopy(model)
    batches = [batch_of(5, dtype=dtype), batch_of(4, dtype=dtype)]
    state = torch.random.get_rng_state()
    method = Symmetry(variant, lr=0.02, steps=2, step="fixed", guard="none")
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


# -------------------------------------------------------------------------------------------------- what is refused


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
    with pytest.raises(UnsupportedModel, match=r"'0\.weight' stands alone.*layer_norm"):
        Symmetry("2024")(model, [batch_of(5)], cross_entropy)


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
