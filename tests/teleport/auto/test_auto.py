"""Auto: moves that the training bears are kept, others are undone, within a budget."""

from __future__ import annotations

import copy
import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import teleport


def loss_fn(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def problem(batches=8, lr=0.1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))
    data = [(torch.randn(16, 12), torch.randint(5, (16,))) for _ in range(batches)]
    return model, data, torch.optim.SGD(model.parameters(), lr=lr)


class Ruin:
    """A method that keeps its promise on the batch, as it reports, and ruins the training."""

    def __init__(self, by=100.0):
        self.by = by
        self.inner = teleport.NullSpace(relative_cap=2.0)

    def __call__(self, model, batches, loss_fn, *, generator=None, callback=None, keep_modes=False):
        report = self.inner(model, batches, loss_fn, generator=generator, callback=callback)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(self.by)
        return report


def test_a_move_is_the_methods_own_and_the_loss_on_the_batch_is_kept():
    model, data, optimizer = problem()
    alone = copy.deepcopy(model)
    expected = teleport.NullSpace(path="shortest", lr=0.3, steps=3)(alone, data[:1], loss_fn)
    loss = float(loss_fn(model, data[0]).detach())
    report = teleport.Auto(optimizer, horizon=4)(model, data, loss_fn)
    assert report.accepted
    assert report.method == "auto"
    assert float(loss_fn(model, data[0]).detach()) == pytest.approx(loss, abs=1e-5)
    assert report.gradient_norm_after == pytest.approx(expected.gradient_norm_after)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_the_trial_is_that_of_real_training_steps():
    model, data, optimizer = problem()
    auto = teleport.Auto(optimizer, horizon=5)
    before = copy.deepcopy(model)
    report = auto(model, data, loss_fn)
    probes, training = data[1:2], data[2:]
    for start, expected in ((before, report.trial.without), (model, report.trial.moved)):
        own = copy.deepcopy(start)
        sgd = torch.optim.SGD(own.parameters(), lr=0.1)
        for batch in training[:5]:
            sgd.zero_grad()
            loss_fn(own, batch).backward()
            sgd.step()
        losses = [float(loss_fn(own, batch)) for batch in probes]
        assert sum(losses) / len(losses) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("by", [100.0, math.nan])
def test_a_move_that_ruins_the_training_is_undone(by):
    model, data, optimizer = problem(16)
    before = copy.deepcopy(model.state_dict())
    auto = teleport.Auto(optimizer, horizon=4, method=Ruin(by))
    report = auto(model, data, loss_fn)
    assert not report.accepted
    assert report.no_op
    assert "undone: after 4 steps" in report.batches[0].reason
    assert report.gradient_norm_after == report.gradient_norm_before
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert "undone" in str(report)
    json.dumps(report.to_dict(), allow_nan=False)


def test_an_exception_in_the_second_rollout_undoes_the_move():
    model, data, optimizer = problem()
    before, calls = copy.deepcopy(model.state_dict()), 0

    def sometimes(own, batch):
        nonlocal calls
        calls += own.training
        if calls == 6:
            raise RuntimeError("stop")
        return loss_fn(own, batch)

    with pytest.raises(RuntimeError, match="stop"):
        teleport.Auto(optimizer, horizon=4)(model, data, sometimes)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("total", [None, 4000])
def test_the_events_of_a_training_stay_within_their_share(total):
    model, data, optimizer = problem(4)
    auto = teleport.Auto(optimizer, horizon=2, share=0.05, total_steps=total)
    events = []
    for step in range(1500):
        if auto.before_step(model, data[step % 4], loss_fn) is not None:
            events.append(step)
        assert auto.spent <= 0.05 * (total or step)
    assert events
    assert events[0] < (10 if total else 1500)
    assert len(auto.reports) == len(events)


def test_events_in_vain_become_rarer():
    model, data, optimizer = problem(4)
    auto = teleport.Auto(optimizer, horizon=2, share=0.5, method=Ruin())
    events = [step for step in range(1500) if auto.before_step(model, data[step % 4], loss_fn) is not None]
    gaps = [later - earlier for earlier, later in itertools.pairwise(events)]
    assert len(gaps) >= 4
    assert gaps[-1] >= 4 * gaps[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"share": 0}, ValueError, "share must be above 0 and at most 1, got 0"),
        ({"share": 2.0}, ValueError, "share must be above 0 and at most 1"),
        ({"growth": "a"}, TypeError, "growth must be a number"),
        ({"tolerance": -1}, ValueError, "tolerance must be above 0"),
        ({"horizon": 1.5}, TypeError, "whole number"),
        ({"optimizer": "sgd"}, TypeError, "optimizer must be a torch.optim.Optimizer, got str"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    _, _, optimizer = problem()
    with pytest.raises(error, match=message):
        teleport.Auto(**{"optimizer": optimizer} | arguments)


def test_too_few_batches():
    model, data, optimizer = problem(2)
    with pytest.raises(ValueError, match="three batches or more are needed"):
        teleport.Auto(optimizer)(model, data, loss_fn)
    with pytest.raises(ValueError, match="three batches or more are needed"):
        teleport.assess(model, data, loss_fn, optimizer)


def test_an_assessment_is_true_and_moves_nothing():
    model, data, optimizer = problem(10)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
    found = teleport.assess(model, data, loss_fn, optimizer, horizon=4)
    torch.testing.assert_close((model.state_dict(), optimizer.state_dict(), torch.get_rng_state()), before)
    gradients = torch.autograd.grad(loss_fn(model, data[0]), list(model.parameters()))
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    assert found.gradient_norm == pytest.approx(norm, rel=1e-5)
    families = {family.name: family for family in found.families}
    own = copy.deepcopy(model)
    report = teleport.NullSpace(path="shortest", lr=0.3, steps=3)(own, data[:1], loss_fn)
    assert families["null space"].growth == pytest.approx(report.gradient_norm_after / norm, rel=1e-4)
    pairs = list(zip(own.parameters(), model.parameters(), strict=True))
    distance = math.sqrt(sum(float((new - old).square().sum()) for new, old in pairs))
    size = math.sqrt(sum(float(old.square().sum()) for _, old in pairs))
    assert families["null space"].distance == pytest.approx(distance / size, rel=1e-4)
    assert families["random move"].distance == pytest.approx(families["null space"].distance, rel=1e-4)
    assert set(found.rates) == {1.0, 1.5, 2.0}
    assert str(found).count("\n") >= 4
    assert all(len(line) <= 160 for line in str(found).splitlines())


def test_no_go_has_its_reasons():
    model, data, optimizer = problem(10, lr=1e-4)
    found = teleport.assess(model, data, loss_fn, optimizer, horizon=8, rates=(1, 1000), steps_left=10)
    assert not found.go
    assert any("raise the rate first" in reason for reason in found.reasons)
    assert any("10 are left" in reason for reason in found.reasons)
    narrow = nn.Linear(3, 2)
    batches = [(torch.randn(16, 3), torch.randint(2, (16,))) for _ in range(4)]
    found = teleport.assess(narrow, batches, loss_fn, torch.optim.SGD(narrow.parameters(), lr=0.1), horizon=2)
    assert not found.go
    assert "the null space offers no move" in found.reasons[0]
