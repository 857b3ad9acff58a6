"""Models that run with teleported activations."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleport._change_of_basis.basis_change import BasisChange
from teleport._change_of_basis.teleported import Teleported, TeleportedActivation
from teleport._quiver.find_quiver import find_quiver
from teleport._quiver.quiver import Freedom, Quiver
from teleport._tracing.functions import function_name, torch_function
from tests.teleport.networks import Calls
from tests.teleport.quivers import random_tau, stack, stack_quiver

ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Any]]] = {
    "relu": (nn.ReLU, F.relu),
    "relu in place": (lambda: nn.ReLU(inplace=True), F.relu),
    "leaky relu": (lambda: nn.LeakyReLU(0.2), F.leaky_relu),
    "tanh": (nn.Tanh, torch.tanh),
    "elu": (nn.ELU, F.elu),
    "elu in place": (lambda: nn.ELU(inplace=True), F.elu),
    "gelu": (lambda: nn.GELU(approximate="tanh"), F.gelu),
    "silu": (nn.SiLU, F.silu),
    "sigmoid": (nn.Sigmoid, torch.sigmoid),
}

every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def teleported(
    name: str, dtype: torch.dtype = torch.float64, negative: bool = True
) -> tuple[nn.Module, nn.Module, BasisChange]:
    """A stack as it was, the same teleported, and by what."""
    activation, function = ACTIVATIONS[name]
    model = stack(5, 7, 6, 3, activation=activation, dtype=dtype)
    plain = copy.deepcopy(model)
    homogeneous = name in ("relu", "relu in place", "leaky relu")
    quiver = stack_quiver(model, function)
    for site in quiver.sites:
        site.homogeneous = homogeneous
    quiver.calls = {function_name(function): 2}
    change = BasisChange(quiver, random_tau(quiver, low=0.3, negative=negative))
    return plain, change.apply(model), change


@every_activation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_function_stays(name, dtype):
    plain, moved, _ = teleported(name, dtype)
    x = torch.randn(40, 5).to(dtype)
    assert isinstance(moved, Teleported)
    assert moved(x).dtype == dtype
    expected = plain(x).detach()
    error = (moved(x).detach() - expected).abs().max() / expected.abs().max()
    assert float(error) < 20 * torch.finfo(dtype).eps
    inner = (moved.module(x).detach() - expected).abs().max() / expected.abs().max()
    assert float(inner) > 0.05  # which is not because the parameters stayed


@every_activation
def test_the_gradient_passes_and_an_optimizer_goes_on(name):
    plain, moved, change = teleported(name)
    x, y = torch.randn(9, 5).double(), torch.randn(9, 3).double()
    for each in (plain, moved):
        F.mse_loss(each(x), y).backward()
    for old, new in zip(plain.parameters(), moved.parameters(), strict=True):
        factor = change.group.get(new, torch.ones(()))
        torch.testing.assert_close(new.grad, old.grad / factor, rtol=1e-9, atol=1e-13)
    optimizer = torch.optim.SGD(moved.parameters(), lr=1e-3)
    before = float(F.mse_loss(moved(x), y).detach())
    optimizer.step()
    assert float(F.mse_loss(moved(x), y).detach()) < before


def test_positive_factors_leave_a_homogeneous_activation_alone():
    plain, moved, _ = teleported("relu", negative=False)
    assert isinstance(moved, nn.Sequential)
    x = torch.randn(4, 5).double()
    torch.testing.assert_close(moved(x), plain(x), rtol=1e-12, atol=1e-14)


def test_a_homogeneous_activation_takes_signs_alone():
    _, moved, change = teleported("relu")
    signs = [each.tau for each in moved.activations]
    assert torch.equal(torch.cat(signs), change.tau[1:].sign())


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model: through_file(model, weights_only=False),
}


def through_file(content: Any, weights_only: bool) -> Any:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=weights_only)


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_computes_the_same_and_is_its_own(way):
    _, moved, change = teleported("tanh")
    x = torch.randn(4, 5).double()
    before = moved(x).detach()
    other = COPIES[way](moved)
    assert torch.equal(other(x), before)
    change.inverse().apply(other)
    assert torch.equal(moved(x), before)


def test_the_state_is_that_of_the_module_and_the_factors():
    _, moved, _ = teleported("tanh")
    state = through_file(moved.state_dict(), weights_only=True)
    assert [key for key in state if key != "_extra_state"] == [f"module.{key}" for key in moved.module.state_dict()]
    other = Teleported(stack(5, 7, 6, 3, activation=nn.Tanh))
    other.load_state_dict(state)
    x = torch.randn(4, 5).double()
    assert torch.equal(other(x), moved(x))


def test_modes_are_the_modules():
    model = stack(5, 7, 3)
    model.eval()
    assert not Teleported(model).training
    moved = Teleported(model.train())
    assert moved.training
    assert not moved.eval().module.training


def test_the_precision_of_the_factors_outlasts_a_change_of_the_models():
    plain, moved, _ = teleported("tanh")
    x = torch.randn(40, 5).double()
    expected = plain(x)
    for each in moved.float().activations:
        assert each.tau.dtype == torch.float64
    torch.testing.assert_close(moved(x.float()).double(), expected, rtol=1e-4, atol=1e-6)


def counted(x_calls: int) -> Callable[[Any, Tensor], Tensor]:
    return lambda net, x: net.last(sum(F.relu(net.first(x)) for _ in range(x_calls)))


def test_another_number_of_calls_is_an_error_and_not_another_function():
    model = Calls(counted(2), first=nn.Linear(5, 4), last=nn.Linear(4, 3))
    moved = Teleported(model)
    name = "torch.nn.functional.relu"
    shown = find_quiver(lambda: model(torch.randn(2, 5)), dict(model.named_parameters()), in_place=False)
    moved.multiply([TeleportedActivation(name, 1, -torch.ones(4))], shown.calls)
    assert moved.calls == {name: 2}
    moved(torch.randn(2, 5))
    for calls in (1, 3):
        model.called = counted(calls)
        with pytest.raises(RuntimeError, match=rf"called {name} {calls} times, but 2 times when its basis was changed"):
            moved(torch.randn(2, 5))


def test_inputs_that_the_factors_do_not_fit_are_an_error():
    model = stack(5, 4, 3, dtype=torch.float32)
    moved = Teleported(model)
    moved.multiply([TeleportedActivation("torch.nn.functional.relu", 0, -torch.ones(3))], {})
    with pytest.raises(RuntimeError, match=r"call 0 of torch\.nn\.functional\.relu has an input of shape \[2, 4\]"):
        moved(torch.randn(2, 5))


def test_only_torch_functions_are_named():
    for function in (F.relu, torch.relu, torch.relu_, Tensor.relu, torch.tanh, F.max_pool2d, F.gelu, F.prelu, F.elu):
        assert torch_function(function_name(function)) == function
    with pytest.raises(ValueError, match="has no name in torch"):
        function_name(lambda x: x)
    for name in ("os.system", "torch.os.system", "torch.nn.functional.nothing", "torch"):
        with pytest.raises(ValueError, match="torch has no function named"):
            torch_function(name)


def test_a_call_of_another_function_by_the_same_module_is_left_alone():
    """Sites are told apart by function and by number; the second tanh alone is teleported here."""
    model = Calls(lambda net, x: torch.tanh(torch.tanh(x)) + torch.sigmoid(x))
    moved = Teleported(model)
    tau = torch.tensor([2.0, -0.5, 3.0]).double()
    moved.multiply([TeleportedActivation("torch.tanh", 1, tau)], {"torch.tanh": 2})
    x = torch.randn(4, 3).double()
    expected = tau * torch.tanh(torch.tanh(x) / tau) + torch.sigmoid(x)
    torch.testing.assert_close(moved(x), expected, rtol=1e-14, atol=0)


def test_a_result_in_place_is_seen_through_the_argument():
    def forward(net: Any, x: Tensor) -> Tensor:
        h = x + 1
        F.relu_(h)
        return h

    moved = Teleported(Calls(forward))
    moved.multiply([TeleportedActivation(function_name(F.relu_), 0, -torch.ones(3))], {})
    x = torch.randn(4, 3)
    torch.testing.assert_close(moved(x), -F.relu(-(x + 1)))


def test_quiver_of_positive_freedom_is_not_teleported():
    quiver: Quiver = stack_quiver(model := stack(4, 3, 2), F.relu, Freedom.POSITIVE)
    assert BasisChange(quiver, random_tau(quiver)).apply(model) is model


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("part", ["module", "whole"])
def test_compiled_it_computes_the_same(backend, part):
    """With the backend ``eager`` torch ran the teleported form of a compiled module twice."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, tau = torch.randn(5, 6, dtype=torch.float64), torch.rand(8, dtype=torch.float64) + 0.5
    hidden = module[0](x)
    expected = module[2](tau * torch.tanh(hidden / tau))
    model = Teleported(torch.compile(module, backend=backend) if part == "module" else module)
    model.multiply([TeleportedActivation("torch.tanh", 0, tau)], {"torch.tanh": 1})
    if part == "whole":
        model = torch.compile(model, backend=backend)
    torch._dynamo.reset()
    for _ in range(2):
        assert torch.allclose(model(x), expected, rtol=1e-12)
