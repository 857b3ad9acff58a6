"""What an optimizer remembers, carried through a rescaling."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import teleport
from teleport import Rescaling, transport_state
from tests.teleport.networks import CLASSES, cross_entropy
from tests.teleport.rescalable import flat_batch

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, eps=0.0),
    "amsgrad": lambda parameters: torch.optim.Adam(parameters, lr=0.01, eps=0.0, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, eps=0.0, weight_decay=0.0),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01, eps=0.0),
}
EXPONENTS = {"momentum_buffer": 1, "exp_avg": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2, "sum": 2, "step": 0}
SCALE_FREE = ["adam", "amsgrad", "adamw", "adagrad"]


def network() -> nn.Module:
    layers = [nn.Linear(5, 6), nn.LeakyReLU(), nn.Linear(6, 6), nn.LeakyReLU(), nn.Linear(6, CLASSES)]
    return nn.Sequential(*layers).double()


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad()
        cross_entropy(model, flat_batch()).backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_that_of_the_gradients_elementwise_and_so_is_the_next_step(name):
    plain = network()
    optimizer = OPTIMIZERS[name](plain.parameters())
    take_steps(plain, optimizer, 3, seed=1)
    moved = copy.deepcopy(plain)
    other = OPTIMIZERS[name](moved.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    report = Rescaling(lr=0.5, steps=3)(moved, [flat_batch()], cross_entropy)
    transport_state(other, report.group)
    pairs = list(zip(plain.parameters(), moved.parameters(), strict=True))
    factors = {before: (after / before).detach() for before, after in pairs}
    assert max(float((factor - 1).abs().max()) for factor in factors.values()) > 0.5
    for before, after in pairs:
        assert set(optimizer.state[before]) == set(other.state[after])
        for key, value in optimizer.state[before].items():
            expected = value / factors[before] ** EXPONENTS[key] if EXPONENTS[key] else value
            torch.testing.assert_close(other.state[after][key], expected, rtol=1e-10, atol=0)

    starts = [(before.detach().clone(), after.detach().clone()) for before, after in pairs]
    take_steps(plain, optimizer, 1, seed=2)
    take_steps(moved, other, 1, seed=2)
    for (before, after), (start_before, start_after) in zip(pairs, starts, strict=True):
        step = (before - start_before).detach()
        expected = step if name in SCALE_FREE else step / factors[before]
        torch.testing.assert_close((after - start_after).detach(), expected, rtol=1e-7, atol=1e-12)


def test_the_summed_squares_of_adagrad_are_those_of_a_history_in_the_new_coordinates():
    """The same gradients taken at the teleported weights, at a rate of almost nothing."""
    plain = network()
    optimizer = torch.optim.Adagrad(plain.parameters(), lr=1e-12)
    moved = copy.deepcopy(plain)
    take_steps(plain, optimizer, 4, seed=1)
    report = Rescaling(lr=0.5, steps=3)(moved, [flat_batch()], cross_entropy)
    there = torch.optim.Adagrad(moved.parameters(), lr=1e-12)
    take_steps(moved, there, 4, seed=1)
    twins = dict(zip(moved.parameters(), plain.parameters(), strict=True))
    transport_state(optimizer, {twins[parameter]: factors for parameter, factors in report.group.items()})
    for after, before in twins.items():
        torch.testing.assert_close(optimizer.state[before]["sum"], there.state[after]["sum"], rtol=1e-6, atol=1e-20)


def test_an_unknown_state_is_an_error_that_changes_nothing():
    model = network()
    optimizer = torch.optim.Adafactor(model.parameters())
    take_steps(model, optimizer, 2, seed=1)
    before = copy.deepcopy(optimizer.state_dict())
    report = Rescaling(lr=0.5)(model, [flat_batch()], cross_entropy)
    with pytest.raises(ValueError, match=r"Adafactor keeps a state that no rule transports \(col_var, row_var\)"):
        transport_state(optimizer, report.group)
    for index, state in before["state"].items():
        for key, value in state.items():
            assert torch.equal(optimizer.state_dict()["state"][index][key], value)


def test_without_a_history_there_is_nothing_to_do():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = Rescaling(lr=0.5)(model, [flat_batch()], cross_entropy)
    transport_state(optimizer, report.group)
    assert not optimizer.state
    take_steps(model, optimizer, 1, seed=1)
    transport_state(optimizer, report.group)  # plain SGD's buffer is None
    transport_state(optimizer, {})


def test_a_report_without_factors_is_refused_in_a_sentence():
    model = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batch = torch.randn(3, 4).double()
    report = teleport.NullSpace(lr=0.1)(model, [batch], lambda net, x: net(x).square().mean())
    for given in (report, report.group):
        with pytest.raises(ValueError, match="no factors to transport the optimizer's state by"):
            transport_state(optimizer, given)
    with pytest.raises(TypeError, match="an optimizer and then the factors, got TeleportReport first"):
        transport_state(report, optimizer)
    with pytest.raises(TypeError, match=r"takes the factors as report\.group, got list"):
        transport_state(optimizer, [1.0])


def test_the_report_itself_serves_as_its_factors():
    model = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batch = torch.randn(3, 4).double()
    model(batch).square().mean().backward()
    optimizer.step()
    before = {p: optimizer.state[p]["momentum_buffer"].clone() for p in model.parameters()}
    report = teleport.Rescaling()(model, [batch], lambda net, x: net(x).square().mean())
    transport_state(optimizer, report)
    assert report.group
    for parameter, factors in report.group.items():
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], before[parameter] / factors)
