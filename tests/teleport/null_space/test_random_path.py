"""``NullSpace(path="random")``: as far as the ascent goes, in a random direction of the same null space."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from teleport import NullSpace
from tests.teleport.networks import CONVOLUTIONS, PLAIN, batches_of, cross_entropy, mlp


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def values(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def moved(method, model, batches, seed=None, **options):
    """The displacement by a method, the moved copy of the model and the report."""
    after = copy.deepcopy(model)
    if seed is not None:
        options["generator"] = torch.Generator().manual_seed(seed)
    report = method(after, batches, cross_entropy, **options)
    return values(after) - values(model), after, report


SETTINGS = [
    {},
    {"forward": "each"},
    {"step": "fixed", "lr": 0.01, "relative_cap": None},
    {"lr_unit": "absolute", "lr": 1e-3, "steps": 3},
    {"memory": "60MB"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("network", [PLAIN, CONVOLUTIONS[0]], ids=lambda network: network.name)
def test_it_goes_as_far_as_the_ascent_and_keeps_the_outputs(network, settings):
    model, batch = network.make()
    ascent, _, _ = moved(NullSpace(**settings), model, [batch])
    first, after, report = moved(NullSpace(path="random", **settings), model, [batch], seed=1)
    second, _, _ = moved(NullSpace(path="random", **settings), model, [batch], seed=2)
    assert ascent.norm() > 0
    for step in (first, second):
        assert float(step.norm()) == pytest.approx(float(ascent.norm()), rel=1e-9)
    cosines = [
        float(a @ b) / float(a.norm() * b.norm()) for a, b in ((first, ascent), (second, ascent), (first, second))
    ]
    assert max(map(abs, cosines)) < 0.9
    torch.testing.assert_close(after(batch[0]), model(batch[0]), rtol=1e-9, atol=1e-9)
    (each,) = report.batches
    assert (each.steps, each.accepted) == (1, True)
    assert each.gradient_norm_after == pytest.approx(gradient_norm(after, batch), rel=1e-9)


def gradient_norm(model: nn.Module, batch) -> float:
    gradients = torch.autograd.grad(cross_entropy(model, batch), list(model.parameters()))
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def test_directions_come_from_the_generator_alone():
    model, batches = mlp(), batches_of(2)
    method = NullSpace(path="random")
    one, same, other = (moved(method, model, batches, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    with pytest.raises(ValueError, match=r"draws its directions: pass generator=torch\.Generator\(\) as well"):
        method(copy.deepcopy(model), batches, cross_entropy)


def test_a_batch_on_which_the_ascent_stays_moves_nothing():
    model, batches = mlp(), batches_of(1)
    step, _, report = moved(NullSpace(path="random", cap=1e-9, relative_cap=None), model, batches, seed=1)
    assert not step.any()
    assert report.batches[0].steps == 0


def test_what_follows_the_callback_sees_the_move_alone():
    seen = []
    model, batches = mlp(), batches_of(1)

    def callback(event):
        seen.append(event)

    _, _, report = moved(NullSpace(path="random"), model, batches, seed=1, callback=callback)
    assert len(report.batches[0].trace) == 2
    assert len(seen) == len(report.batches[0].trace)
