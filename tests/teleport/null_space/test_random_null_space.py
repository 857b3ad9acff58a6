"""The random control: the loss is unchanged, the length is as set, the direction is uniform and reproducible."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teleport import NullSpace, RandomNullSpace
from tests.teleport.attentive import NETWORKS
from tests.teleport.networks import PLAIN, batches_of, changes, cross_entropy
from tests.teleport.reference import null_projection

FEW = settings(derandomize=True, max_examples=12, deadline=None)


def moved_by(method, network=PLAIN, batches=None):
    """The move of each parameter that moved, and the report."""
    model, batch = network.make()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    report = method(model, [batch] if batches is None else batches, cross_entropy)
    moves = {name: value - start[name] for name, value in model.state_dict().items()}
    return {name: move for name, move in moves.items() if move.any()}, start, report


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_outputs_are_unchanged_and_the_same_parameters_move_as_with_null_space(network):
    model, batch = network.make()
    outputs = model(batch[0]).detach()
    report = RandomNullSpace(length=0.5)(model, [batch], cross_entropy)
    assert float((model(batch[0]).detach() - outputs).norm() / outputs.norm()) < 1e-10
    other, _ = network.make()
    well = NullSpace(lr=1.0, relative_cap=5.0)(other, [batch], cross_entropy)
    assert set(network.moving) <= {name for name, change in changes(report).items() if change > 1e-3}
    assert set(changes(report)) == set(changes(well))
    assert all(layer.reason for layer in report.layers if not layer.relative_change)


@FEW
@given(st.floats(1e-4, 10.0), st.integers(-5, 2**40))
def test_the_length_is_as_set(length, seed):
    moves, start, report = moved_by(RandomNullSpace(length=length, seed=seed, relative_cap=None))
    assert set(moves) == {"2.weight", "2.bias", "4.weight", "4.bias"}
    distance = math.sqrt(sum(float(move.square().sum()) for move in moves.values()))
    weights = math.sqrt(sum(float(start[name].square().sum()) for name in moves))
    assert distance / weights == pytest.approx(length, rel=1e-9)
    assert (report.steps, report.batches[0].stopped, report.accepted) == (1, "steps done", True)
    assert report.loss_after == pytest.approx(report.loss_before, rel=1e-11)


@FEW
@given(st.floats(1.05, 5.0), st.integers(0, 9))
def test_a_long_move_is_shortened_to_the_cap(factor, seed):
    model, batch = PLAIN.make()
    report = RandomNullSpace(length=1e3, seed=seed, relative_cap=factor)(model, [batch], cross_entropy)
    cap = factor * report.gradient_norm_before
    assert report.batches[0].stopped == "cap reached"
    assert 0.98 * cap <= report.gradient_norm_after <= cap
    again = RandomNullSpace(cap=report.gradient_norm_after / 2)(model, [batch], cross_entropy)
    assert (again.batches[0].stopped, again.no_op) == ("above cap", True)


@pytest.mark.slow
def test_the_direction_is_uniform_on_the_sphere_of_the_null_space():
    """Each coordinate in that space has mean 0 and mean square 1/k, and coordinates are uncorrelated."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)).double()
    inputs = torch.randn(2, 2).double()
    batch = (inputs, torch.tensor([0, 1]))
    seen = torch.tanh(model[0](inputs)).detach().numpy()
    values, vectors = np.linalg.eigh(null_projection(seen))
    basis = vectors[:, values > 0.5]  # [4, 2]: for each row of the weight
    start, draws = copy.deepcopy(model.state_dict()), 600
    coordinates = []
    for seed in range(draws):
        model.load_state_dict(start)
        RandomNullSpace(seed=seed)(model, [batch], cross_entropy)
        move = (model[2].weight.detach() - start["2.weight"]).numpy()
        coordinates.append((move @ basis).ravel() / np.linalg.norm(move))
    points = np.array(coordinates)
    k = points.shape[1]
    assert k == 4
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-9)  # no part is outside the null space
    assert np.abs(points.mean(0)).max() < 4 / math.sqrt(k * draws)
    spread = points.T @ points / draws
    assert np.abs(spread - np.eye(k) / k).max() < 4 * math.sqrt(2 / (k * (k + 2) * draws))


def cosine(one, other):
    """Of two moves, over all their parameters; in double precision."""
    assert set(one) == set(other)
    vectors = [torch.cat([move[name].flatten().double() for name in sorted(move)]) for move in (one, other)]
    return float(F.cosine_similarity(*vectors, dim=0))


def test_random_moves_depend_on_the_seed_and_the_number_of_event_and_batch():
    one, _, _ = moved_by(RandomNullSpace(seed=1))
    torch.manual_seed(99)
    again, _, _ = moved_by(RandomNullSpace(seed=1))
    other, _, _ = moved_by(RandomNullSpace(seed=2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)

    method = RandomNullSpace(seed=1)
    moves = [moved_by(method)[0] for _ in range(2)]  # two events, from the same weights
    assert cosine(moves[0], one) == pytest.approx(1)
    assert abs(cosine(*moves)) < 0.5
    _, batch = PLAIN.make()
    twice, _, _ = moved_by(RandomNullSpace(seed=1), batches=[batch, batch])
    assert 0.5 < cosine(twice, one) < 0.9  # the sum of two directions, nearly perpendicular


@pytest.mark.parametrize("batches", [1, 3])
def test_rounding_does_not_change_the_direction(batches):
    """One unit in the last place of one weight, two threads, and single precision."""
    few = batches_of(batches)

    def moved(dtype=torch.float64, threads=1, change=0):
        model, _ = PLAIN.make()
        model.to(dtype)
        with torch.no_grad():
            weight = model[2].weight.view(-1)
            weight[0] = torch.nextafter(weight[0], weight[0] + change)
        start, before = copy.deepcopy(model.state_dict()), torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            RandomNullSpace(seed=5)(model, [(inputs.to(dtype), labels) for inputs, labels in few], cross_entropy)
        finally:
            torch.set_num_threads(before)
        moves = {name: value - start[name] for name, value in model.state_dict().items()}
        return {name: move for name, move in moves.items() if move.any()}

    plain = moved()
    assert cosine(plain, moved(change=1)) > 0.999
    assert cosine(plain, moved(threads=2)) > 0.999
    assert cosine(plain, moved(dtype=torch.float32)) > 0.999


def test_a_batch_that_stays_does_not_change_the_direction_of_the_next():
    """The first batch is above the cap if its loss is scaled up."""
    batch = PLAIN.make()[1]

    def second_move(scale):
        model, starts = PLAIN.make()[0], {}
        report = RandomNullSpace(length=1e-3, seed=3, cap=100.0)(
            model,
            [scale, 1.0],
            lambda net, factor: factor * cross_entropy(net, batch),
            callback=lambda progress: starts.setdefault(progress.batch, copy.deepcopy(model.state_dict())) and None,
        )
        moves = {name: value - starts[1][name] for name, value in model.state_dict().items()}
        return report.batches[0].stopped, {name: move for name, move in moves.items() if move.any()}

    (stopped, moved), (stayed, alone) = second_move(1.0), second_move(1e6)
    assert (stopped, stayed) == ("steps done", "above cap")
    assert cosine(moved, alone) > 0.999


def test_an_event_with_a_generator_of_its_own_is_resumed_from_saved_weights():
    batches = batches_of(2)
    unbroken, _ = PLAIN.make()
    method = RandomNullSpace()
    method(unbroken, batches, cross_entropy, generator=torch.Generator().manual_seed(0))
    saved = copy.deepcopy(unbroken.state_dict())
    method(unbroken, batches, cross_entropy, generator=torch.Generator().manual_seed(1))
    resumed, _ = PLAIN.make()
    resumed.load_state_dict(saved)
    RandomNullSpace()(resumed, batches, cross_entropy, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in unbroken.state_dict().items())


def test_it_moves_if_the_gradient_is_constant():
    """The loss is linear in the moved weights: no objective of the gradient moves them, the control does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 3)).double()
    model[0].requires_grad_(False)
    _, batch = PLAIN.make()
    report = RandomNullSpace()(model, [batch], cross_entropy, constraint=[batch])
    assert report.gradient_norm_after == pytest.approx(report.gradient_norm_before, rel=1e-12)
    assert report.relative_change == pytest.approx(0.1, rel=0.3)


def test_a_network_without_a_null_space_does_not_move():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    report = RandomNullSpace()(model, batches_of(1), cross_entropy)
    assert (report.no_op, report.batches[0].stopped) == (True, "nothing moves")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"length": 0}, "length must be above 0"),
        ({"cap": -1}, "cap must be above 0"),
        ({"threshold": 2}, "threshold must be above 0 and at most 1"),
        ({"guard": "maybe"}, "guard must be one of transaction, none"),
        ({"seed": 2**64}, r"seed must be from -2\*\*63 to below 2\*\*64"),
    ],
)
def test_arguments_outside_their_range(arguments, said):
    with pytest.raises(ValueError, match=said):
        RandomNullSpace(**arguments)
