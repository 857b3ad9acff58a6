"""Landings on the cap: what is counted, and that polynomials are told from what is none."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from experiments.benchmarks.landing import AIMS, CAPS, FULL, METHODS, Network, counted, mlp, polynomial
from teleport import NullSpace
from teleport._engine import ascent
from teleport._engine.capped_step import BELOW_CAP
from tests.teleport.networks import PLAIN, cross_entropy


def test_twelve_networks_are_measured():
    assert len(FULL) == 12
    for network in FULL.values():
        inputs, targets = network.batch(torch.float32)
        assert network.make().eval()(inputs).shape == (len(targets), 10)


def test_every_long_step_lands_and_the_most_is_not_below_the_mean(measured):
    assert len(measured) == len(CAPS) * len(METHODS)
    long = measured[measured.method == "long steps"]
    assert (long.landings == long.searches).all()
    assert (measured.lowest.dropna() >= BELOW_CAP).all()
    assert (measured.most >= measured.evaluations.fillna(0)).all()
    assert (measured.landings <= measured.searches).all()


def test_the_counted_evaluations_are_those_of_the_model():
    """With the forward pass run at each step: one per trial, the start and the losses after the event besides."""
    calls = []
    for cap in (2.0, None):
        model, batch = PLAIN.make()
        model.register_forward_hook(lambda *_: calls.append(1))
        before = len(calls)
        with counted() as searches:
            NullSpace(steps=1, lr=10.0 if cap else 1e-3, relative_cap=cap, forward="each")(
                model, [batch], cross_entropy
            )
        (norms,) = searches.evaluated
        assert searches.landed == [cap is not None]
        assert len(calls) - before == len(norms) + 1
    assert ascent.capped_step is not None
    assert ascent.capped_step.__name__ == "capped_step"


@pytest.mark.parametrize("hidden", [1, 2])
def test_residuals_show_the_degree(hidden):
    """Twice the number of moving layers."""
    moving, residuals = polynomial(Network(partial(mlp, hidden, 24, nn.Tanh, 6), (5, 6)))
    assert moving == hidden
    assert max(residuals[hidden - 1 :]) < 1e-12
    assert all(residual > 1e-6 for residual in residuals[: hidden - 1])


def test_aims_weigh_each_landing(measured):
    mean, most = (aim.figure(measured) for aim in AIMS)
    weighed = (measured.evaluations * measured.landings).sum() / measured.landings.sum()
    assert mean == pytest.approx(weighed)
    assert most == measured.most.max()
