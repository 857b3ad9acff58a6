"""Rollouts: the losses of real training steps, and everything as it was afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport._auto.rollout import OptimizerState, Rollout

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=2),
}


def loss_fn(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def problem(optimizer="momentum"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))
    batches = [(torch.randn(8, 6), torch.randint(4, (8,))) for _ in range(6)]
    made = OPTIMIZERS[optimizer](model.parameters())
    step(model, made, batches[0])  # so that the optimizer has a state
    return model, made, batches


def step(model, optimizer, batch):
    model.train()

    def closure():
        optimizer.zero_grad()
        loss = loss_fn(model, batch)
        loss.backward()
        return loss

    optimizer.step(closure)


def everything(model, optimizer):
    """All that a rollout may change, copied."""
    return copy.deepcopy(
        (
            model.state_dict(),
            [module.training for module in model.modules()],
            [parameter.grad for parameter in model.parameters()],
            optimizer.state_dict(),
            torch.get_rng_state(),
        )
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_are_those_of_real_training(optimizer):
    model, made, batches = problem(optimizer)
    train_step = None if optimizer != "lbfgs" else lambda own, batch: step(own, made, batch)
    torch.manual_seed(1)
    found = Rollout(model, made, loss_fn, batches[:3], batches[3:], train_step).losses()
    torch.manual_seed(1)
    for batch in batches[:3]:
        step(model, made, batch)
    model.eval()
    assert found == [float(loss_fn(model, batch)) for batch in batches[3:]]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_it_was(optimizer, fails):
    model, made, batches = problem(optimizer)
    before = everything(model, made)
    calls = 0

    def sometimes(own, batch):
        nonlocal calls
        calls += 1
        if fails and calls == 3:
            raise KeyboardInterrupt
        return loss_fn(own, batch)

    rollout = Rollout(model, made, sometimes, batches[:3], batches[3:])
    if fails:
        with pytest.raises(KeyboardInterrupt):
            rollout.losses(rate=3.0)
    else:
        assert rollout.losses(rate=3.0) == rollout.losses(rate=3.0)
    torch.testing.assert_close(everything(model, made), before, rtol=0, atol=0, equal_nan=True)


def test_the_rate_is_multiplied():
    model, made, batches = problem("sgd")
    raised = Rollout(model, made, loss_fn, batches[:1], batches[3:]).losses(rate=2.0)
    made.param_groups[0]["lr"] = 0.2
    assert raised == Rollout(model, made, loss_fn, batches[:1], batches[3:]).losses()


def test_settings_that_an_optimizer_adds_while_it_steps_are_removed():
    _model, made, _ = problem("sgd")
    held = OptimizerState(made)
    made.param_groups[0]["counter"] = 3
    held.restore()
    assert "counter" not in made.param_groups[0]
