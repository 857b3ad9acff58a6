"""Coordinate descent against all permutations of tiny networks, enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

import teleport

UNITS = 4
ORDERS = list(itertools.permutations(range(UNITS)))


def network(hidden, seed):
    torch.manual_seed(seed)
    sizes = [3, *[UNITS] * hidden, 2]
    layers = [each for one, two in itertools.pairwise(sizes) for each in (nn.Linear(one, two).double(), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def arrays(model):
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]


def squared(first, second, orders):
    """The squared distance with the hidden units of the second network in these orders."""
    orders = [None, *orders, None]
    total = 0.0
    for number, ((weight, bias), (other, shift)) in enumerate(zip(first, second, strict=True)):
        rows = slice(None) if orders[number + 1] is None else list(orders[number + 1])
        columns = slice(None) if orders[number] is None else list(orders[number])
        total += np.square(weight - other[rows][:, columns]).sum() + np.square(bias - shift[rows]).sum()
    return total


@pytest.mark.parametrize("seed", range(5))
def test_one_hidden_layer_reaches_the_optimum(seed):
    a, b = network(1, seed), network(1, 100 + seed)
    least = min(squared(arrays(a), arrays(b), [order]) for order in ORDERS)
    found = teleport.match(a, b, [torch.randn(2, 3).double()], group="permutation")
    assert found.distance_after**2 == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_no_order_of_one_layer_alone_comes_nearer(seed):
    """A fixed point of Algorithm 1 of Ainsworth et al. 2023: each layer at its best with the others held."""
    a, b = network(3, seed), network(3, 100 + seed)
    found = teleport.match(a, b, [torch.randn(2, 3).double()], group="permutation")
    first, second, same = arrays(a), arrays(found.model), ORDERS[0]
    for layer in range(3):
        for order in ORDERS:
            orders = [order if each == layer else same for each in range(3)]
            assert squared(first, second, orders) >= found.distance_after**2 - 1e-12


@pytest.mark.slow
def test_two_hidden_layers_reach_the_optimum_from_random_starts():
    """Never below the least of all 576 pairs of orders, and that itself from 20 starts."""
    for seed in range(8):
        a, b = network(2, seed), network(2, 100 + seed)
        least = min(squared(arrays(a), arrays(b), orders) for orders in itertools.product(ORDERS, repeat=2))
        batch = [torch.randn(2, 3).double()]
        many, once = (
            teleport.match(a, b, batch, group="permutation", restarts=starts).distance_after ** 2 for starts in (20, 0)
        )
        assert many == pytest.approx(least, rel=1e-12)
        assert many <= once * (1 + 1e-12) <= 1.2 * least


def test_signs_are_found_with_the_order():
    """tanh is odd: of one hidden layer all signed permutations of 4 units, enumerated."""
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(3, UNITS), nn.Tanh(), nn.Linear(UNITS, 2)).double() for _ in range(2))
    (weight, bias), (head, end) = arrays(a)
    (other, shift), (reads, last) = arrays(b)
    least = np.inf
    for order in map(list, ORDERS):
        for signs in itertools.product((-1.0, 1.0), repeat=UNITS):
            sign = np.array(signs)
            apart = np.square(weight - sign[:, None] * other[order]).sum() + np.square(bias - sign * shift[order]).sum()
            least = min(least, apart + np.square(head - reads[:, order] * sign).sum() + np.square(end - last).sum())
    found = teleport.match(a, b, [torch.randn(2, 3).double()], group="permutation")
    assert found.distance_after**2 == pytest.approx(least, rel=1e-12)


def test_the_rotation_is_that_of_scipys_procrustes():
    """Two linear layers in a row share rotations of what is between them: the orthogonal Procrustes problem."""
    from scipy.linalg import orthogonal_procrustes

    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(3, UNITS), nn.Linear(UNITS, 2)).double() for _ in range(2))
    (weight, bias), (head, end) = arrays(a)
    (other, shift), (reads, last) = arrays(b)
    stays, moves = (np.vstack([w.T, c, h]) for w, c, h in ((weight, bias, head), (other, shift, reads)))
    turn = orthogonal_procrustes(moves, stays)[0]
    least = np.square(stays - moves @ turn).sum() + np.square(end - last).sum()
    found = teleport.match(a, b, [torch.randn(2, 3).double()], group="orthogonal")
    assert found.distance_after**2 == pytest.approx(least, rel=1e-12)
    nearer = teleport.match(a, b, [torch.randn(2, 3).double()], group="general")
    assert nearer.distance_after < found.distance_after


def test_correlated_units_are_paired_by_activations():
    """Hidden units of which the weights do not tell who is who, but their activations on the inputs do."""
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(3, UNITS), nn.ReLU(), nn.Linear(UNITS, 2)).double() for _ in range(2))
    batches = [torch.randn(50, 3).double() for _ in range(3)]
    x = torch.cat(batches)
    with torch.no_grad():
        hidden = [[model[0](x), model[0](x).relu()] for model in (a, b)]
    gains = sum(np.corrcoef(one.T.numpy(), two.T.numpy())[:UNITS, UNITS:] for one, two in zip(*hidden, strict=True))
    order = linear_sum_assignment(gains, maximize=True)[1]
    found = teleport.match(a, b, batches, by="activations", group="permutation")
    assert torch.equal(found.model[0].weight, b[0].weight[torch.as_tensor(order)])
