"""The state of each optimizer, carried through factors: the trajectories before and after correspond.

If ``W' = f W``, an optimizer whose update has the unit ``lr * gradient^(2 - k)`` takes ``W'`` through ``f`` times the
trajectory of ``W`` at the rates ``f^k lr``: ``k`` is 2 for a step along the gradient, 1 for one along a normalised
gradient, 0 for one in the unit of the parameter. All factors are powers of two, so the two agree to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import transport_state

FACTORS = (2.0, -4.0, 0.5, -0.25)

# name -> (arguments, the power k of the rates)
TORCH: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any], int]] = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}, 2),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, 2),
    "adam": (torch.optim.Adam, {"eps": 0.0}, 1),
    "amsgrad": (torch.optim.Adam, {"eps": 0.0, "amsgrad": True}, 1),
    "adamw": (torch.optim.AdamW, {"eps": 0.0, "weight_decay": 0.0}, 1),
    "nadam": (torch.optim.NAdam, {"eps": 0.0}, 1),
    "radam": (torch.optim.RAdam, {"eps": 0.0}, 1),
    "sparse adam": (torch.optim.SparseAdam, {"eps": 1e-300}, 1),
    "adamax": (torch.optim.Adamax, {"eps": 0.0}, 1),
    "adagrad": (torch.optim.Adagrad, {"eps": 0.0}, 1),
    "rmsprop": (torch.optim.RMSprop, {"eps": 0.0}, 1),
    "rmsprop with momentum": (torch.optim.RMSprop, {"eps": 0.0, "momentum": 0.9, "centered": True}, 1),
    "adadelta": (torch.optim.Adadelta, {"lr": 1.0}, 0),
    "adafactor": (torch.optim.Adafactor, {"eps": (0.0, 1e-300)}, 0),
    "asgd": (torch.optim.ASGD, {"t0": 2, "lambd": 0.0}, 2),
    "rprop": (torch.optim.Rprop, {"step_sizes": (0.0, 1e9)}, 0),
}
MUON = getattr(torch.optim, "Muon", None)  # since torch 2.9
if MUON is not None:
    TORCH["muon"] = (MUON, {"weight_decay": 0.0}, 1)
OTHERS: dict[str, tuple[dict[str, Any], int]] = {
    "lion_pytorch.Lion": ({}, 1),
    "adabelief_pytorch.AdaBelief": ({"eps": 0.0, "weight_decay": 0.0, "print_change_log": False}, 1),
    "schedulefree.AdamWScheduleFree": ({"eps": 0.0}, 1),
    "schedulefree.SGDScheduleFree": ({}, 2),
    "pytorch_optimizer.AdaBelief": ({"eps": 0.0}, 1),
    "pytorch_optimizer.AdaMax": ({"eps": 0.0}, 1),
    "pytorch_optimizer.AdamC": ({"eps": 0.0}, 1),
    "pytorch_optimizer.Adan": ({"eps": 0.0}, 1),
    "pytorch_optimizer.AdEMAMix": ({"eps": 0.0}, 1),
    "pytorch_optimizer.ADOPT": ({"eps": 0.0}, 1),
    "pytorch_optimizer.Lion": ({}, 1),
    "pytorch_optimizer.RAdam": ({"eps": 0.0}, 1),
    "pytorch_optimizer.ScheduleFreeAdamW": ({"eps": 0.0}, 1),
    "pytorch_optimizer.ScheduleFreeSGD": ({"eps": 0.0}, 2),
    "pytorch_optimizer.SignSGD": ({}, 1),
    "pytorch_optimizer.Tiger": ({"weight_decay": 0.0}, 1),
}


def loss_of(weights: Tensor) -> Tensor:
    """A function without symmetries: gradients change from step to step, and none vanishes."""
    coupling = torch.arange(1.0, 17.0, dtype=torch.float64).reshape(4, 4).sin()
    return (weights.square().sum() + (coupling @ weights).cosh().sum() + weights.sin().sum()) / 4


def take_step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], factors: list[float]) -> None:
    """A step on the loss as a function of ``parameters / factors``."""
    weights = torch.cat([p.reshape(1) / f for p, f in zip(parameters, factors, strict=True)])
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss_of(weights), parameters), strict=True):
        parameter.grad = gradient.to_sparse() if isinstance(optimizer, torch.optim.SparseAdam) else gradient
    optimizer.step()


def assert_trajectories_correspond(make: Callable[..., Any], arguments: dict[str, Any], power: int) -> None:
    """Eight steps, factors with transported state, then eight steps of both."""
    start = torch.tensor([0.3, -0.7, 0.9, 0.4], dtype=torch.float64)
    shape = (1, 1) if make is MUON else (1,)  # Muon takes matrices alone
    plain = [nn.Parameter(each.reshape(shape).clone()) for each in start]
    options = {"lr": 2.0**-6} | arguments
    optimizer = make([{"params": [p], "lr": options["lr"]} for p in plain], **options)
    _train(optimizer)
    for _ in range(8):
        take_step(optimizer, plain, [1.0] * 4)
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.Adadelta):
            group["eps"] = 0.0  # its first steps need another
    moved = [nn.Parameter(f * p.detach()) for f, p in zip(FACTORS, plain, strict=True)]
    other = make([{"params": [p], "lr": options["lr"]} for p in moved], **options)
    _train(other)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    transport_state(other, {p: torch.full(shape, f, dtype=torch.float64) for f, p in zip(FACTORS, moved, strict=True)})
    for factor, group, parameter in zip(FACTORS, other.param_groups, moved, strict=True):
        group["lr"] *= abs(factor) ** power
        if "lr_max" in group:  # of an optimizer without a schedule, which weighs iterates by its rates
            group["lr_max"] *= abs(factor) ** power
            group["weight_sum"] *= abs(factor) ** (2 * power)
        if isinstance(optimizer, torch.optim.ASGD):
            other.state[parameter]["eta"] *= factor**power  # its rate
    for _ in range(8):
        take_step(optimizer, plain, [1.0] * 4)
        take_step(other, moved, list(FACTORS))
        before = torch.cat([p.detach().flatten() for p in plain])
        after = torch.cat([p.detach().flatten() / f for p, f in zip(moved, FACTORS, strict=True)])
        torch.testing.assert_close(after, before, rtol=1e-9, atol=0)
    assert not torch.allclose(before, start, rtol=1e-3)


@pytest.mark.parametrize("name", TORCH)
def test_optimizers_of_torch_follow_the_factors_times_the_trajectory(name):
    assert_trajectories_correspond(*TORCH[name])


@pytest.mark.parametrize("name", OTHERS)
def test_optimizers_of_other_packages_follow_the_factors_times_the_trajectory(name):
    package, _, kind = name.partition(".")
    make = getattr(pytest.importorskip(package), kind)
    assert_trajectories_correspond(make, *OTHERS[name])


@pytest.mark.parametrize(
    ("name", "option"), [("adabelief_pytorch.AdaBelief", "amsgrad"), ("pytorch_optimizer.AdaBelief", "ams_bound")]
)
def test_the_largest_variances_of_adabelief_follow_too(name, option):
    package, _, kind = name.partition(".")
    make = getattr(pytest.importorskip(package), kind)
    arguments, power = OTHERS[name]
    optimizer = make([nn.Parameter(torch.ones(1))], lr=0.1, **arguments, **{option: True})
    optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
    optimizer.step()
    assert any("max_exp_avg" in entry for state in optimizer.state.values() for entry in state)
    assert_trajectories_correspond(make, arguments | {option: True}, power)


def test_every_optimizer_of_torch_is_known_or_refused():
    """A class that a later torch brings needs a rule, or a reason."""
    base = torch.optim.Optimizer
    classes = {each for each in vars(torch.optim).values() if isinstance(each, type) and issubclass(each, base)}
    assert classes - {kind for kind, *_ in TORCH.values()} == {base, torch.optim.LBFGS}


def test_averages_over_rows_and_columns_are_refused():
    parameter = nn.Parameter(torch.ones(3, 4))
    optimizer = torch.optim.Adafactor([parameter])
    parameter.grad = torch.ones(3, 4)
    optimizer.step()
    with pytest.raises(ValueError, match=r"Adafactor keeps a state that no rule transports \(col_var, row_var\)"):
        transport_state(optimizer, {parameter: torch.full((3, 4), 2.0)})


def test_the_one_history_of_lbfgs_is_refused_wherever_its_first_parameter_is():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.LBFGS([first, second], lr=0.1, max_iter=3)
    transport_state(optimizer, {second: torch.full((2,), 2.0)})  # no history yet
    optimizer.step(lambda: _backward((first * second).square().sum()))
    before = copy.deepcopy(optimizer.state_dict()["state"])
    for moved in (first, second):
        with pytest.raises(ValueError, match="LBFGS keeps one history of all its parameters together"):
            transport_state(optimizer, {moved: torch.full((2,), 2.0)})
    assert str(optimizer.state_dict()["state"]) == str(before)


class Normalising(torch.optim.Optimizer):
    """Averages ``g / |g|`` in ``exp_avg``, as ADOPT and LaProp do."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                average = state.setdefault("exp_avg", torch.zeros_like(parameter))
                average.lerp_(parameter.grad / parameter.grad.abs(), 0.1)
                parameter.sub_(average, alpha=group["lr"])


def test_an_unknown_optimizer_is_refused_until_its_rule_is_registered():
    class Fresh(Normalising):
        def step(self, closure: Any = None) -> None:
            super().step(closure)

    parameter = nn.Parameter(torch.ones(2))
    optimizer = Fresh([parameter], lr=0.1)
    parameter.grad = torch.ones(2)
    optimizer.step()
    before = optimizer.state[parameter]["exp_avg"].clone()
    with pytest.raises(ValueError, match=r"no rule is known for the state of .*Fresh; .* teleport\.register_optimizer"):
        transport_state(optimizer, {parameter: torch.full((2,), 4.0)})
    assert torch.equal(optimizer.state[parameter]["exp_avg"], before)
    teleport.register_optimizer(Fresh, {"exp_avg": lambda value, factors: value * factors.sign()})
    assert_trajectories_correspond(Fresh, {}, 1)


def test_a_subclass_has_its_base_classs_rule_unless_it_steps_by_itself():
    class Named(torch.optim.Adam):
        """Only its constructor differs."""

        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, lr=lr, eps=0.0)

    class Stepping(torch.optim.Adam):
        def step(self, closure: Any = None) -> None:
            super().step(closure)

    assert_trajectories_correspond(Named, {}, 1)
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Stepping([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(ValueError, match=r"no rule is known for the state of .*Stepping"):
        transport_state(optimizer, {parameter: torch.full((2,), 4.0)})


@pytest.mark.parametrize("factor", [0.0, float("inf"), float("nan")])
def test_factors_that_cannot_be_divided_by_are_refused(factor):
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(ValueError, match="must be finite and not zero"):
        transport_state(optimizer, {parameter: torch.tensor([1.0, factor])})
    assert torch.equal(optimizer.state[parameter]["momentum_buffer"], torch.ones(2))


def test_rules_of_another_type_are_refused():
    with pytest.raises(TypeError, match="takes a class of optimizers"):
        teleport.register_optimizer(nn.Linear, {})
    with pytest.raises(TypeError, match="'exp_avg' must be a power of the factors or a function, got '-1'"):
        teleport.register_optimizer(Normalising, {"exp_avg": "-1"})


def _train(optimizer: torch.optim.Optimizer) -> None:
    """Schedule-free optimizers have modes."""
    if hasattr(optimizer, "train"):
        optimizer.train()


def _backward(loss: Tensor) -> Tensor:
    loss.backward()
    return loss
