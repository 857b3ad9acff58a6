"""Models and surroundings that are awkward to teleport: right, or refused by name, and nothing left behind."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from teleport import ChangeOfBasis, LevelSet, NullSpace, RandomNullSpace, Rescaling, UnsupportedModel

METHODS = {
    "null space": NullSpace(relative_cap=2.0, steps=2),
    "random": RandomNullSpace(),
    "level set": LevelSet(steps=2),
    "rescaling": Rescaling(relative_cap=2.0),
    "change of basis": ChangeOfBasis(),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def batch(rows: int = 8, width: int = 40) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, width), torch.randn(rows, 3)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 3))


BUFFERS = {
    "coo": lambda: torch.eye(10).to_sparse(),
    "csr": lambda: torch.eye(10).to_sparse_csr(),
    "csc": lambda: torch.eye(10).to_sparse_csc(),
    "bsr": lambda: torch.eye(10).to_sparse_bsr(2),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "meta": lambda: torch.ones(3, device="meta"),
    "none": lambda: None,
}


@every_method
@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.filterwarnings("ignore:.*beta state.*", "ignore:.*prototype.*")
def test_a_buffer_of_any_layout_is_left_alone(method, kind):
    model = net()
    model.register_buffer("held", BUFFERS[kind]())
    held = model.held
    assert method(model, [batch()], loss_fn).accepted
    assert model.held is held


@every_method
def test_a_buffer_written_under_inference_mode_is_left_alone(method):
    model = net()
    with torch.inference_mode():
        model.register_buffer("average", model(batch()[0]).mean(0))
    before = model.average.clone()
    assert method(model, [batch()], loss_fn).accepted
    assert torch.equal(model.average, before)


class Counting(nn.Module):
    """Writes to a sparse buffer and to one of inference mode in each evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        with torch.inference_mode():
            self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.sparse.mul_(2)
        with torch.inference_mode():
            self.calls += 1
        return self.body(x)


@every_method
def test_what_evaluations_write_to_awkward_buffers_is_undone(method):
    model = Counting()
    method(model, [batch()], loss_fn)
    assert torch.equal(model.sparse.to_dense(), torch.eye(3))
    assert float(model.calls) == 0


class OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return torch.tanh(x @ weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = gradient * (1 - torch.tanh(x @ weight.t()) ** 2)
        return gradient @ weight, gradient.t() @ x


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(40, 64), nn.Linear(64, 32, bias=False), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(OnceDifferentiable.apply(torch.relu(self.first(x)), self.middle.weight))


@pytest.mark.parametrize("method", [NullSpace(relative_cap=2.0), LevelSet()])
def test_an_operation_without_a_second_derivative_is_named(method):
    torch.manual_seed(0)
    model = Custom()
    before = [each.clone() for each in model.parameters()]
    with pytest.raises(UnsupportedModel, match="'OnceDifferentiable' is marked once_differentiable"):
        method(model, [batch()], loss_fn)
    assert all(torch.equal(each, old) for each, old in zip(model.parameters(), before, strict=True))


def test_methods_of_first_order_take_it():
    torch.manual_seed(0)
    assert RandomNullSpace()(Custom(), [batch()], loss_fn).accepted


class Reentrant(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x.detach().requires_grad_(), use_reentrant=True))


@every_method
def test_reentrant_checkpointing_is_refused(method):
    with pytest.raises(UnsupportedModel, match="use_reentrant=False"):
        method(Reentrant(nn.Linear(40, 64)), [batch()], loss_fn)


class Nested(torch.autograd.Function):
    """Recomputes in its backward pass, as some libraries' checkpointing does."""

    @staticmethod
    def forward(ctx, module, x):
        ctx.module = module
        ctx.save_for_backward(x)
        return module(x).detach()

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            ctx.module(ctx.saved_tensors[0].detach()).backward(gradient)
        return None, None


class Hidden(Reentrant):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(Nested.apply(self.body, x.detach().requires_grad_()))


@every_method
def test_gradients_that_autograd_grad_does_not_find_are_refused(method):
    model = Hidden(nn.Linear(40, 64))
    before = [each.clone() for each in model.parameters()]
    with pytest.raises(UnsupportedModel, match=r"does not reach 'body\.weight'.*Nested"):
        method(model, [batch()], loss_fn)
    assert all(torch.equal(each, old) for each, old in zip(model.parameters(), before, strict=True))
    assert all(each.grad is None for each in model.parameters())


@every_method
def test_a_complex_parameter_is_taken(method):
    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(40, 32), nn.Linear(32, 48), nn.Linear(48, 3)
            self.phase = nn.Parameter(torch.randn(32, dtype=torch.cfloat))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.middle((self.first(x) * self.phase).abs())))

    torch.manual_seed(0)
    model, data = Fourier(), batch()
    found = torch.autograd.grad(loss_fn(model, data), list(model.parameters()))
    expected = sum(float(each.abs().double().square().sum()) for each in found) ** 0.5
    report = method(model, [data], loss_fn)
    assert report.gradient_norm_before == pytest.approx(expected, rel=1e-5)


@every_method
def test_autocast_around_the_call_sees_moved_weights(method):
    """The loss that the report gives is the one of the weights as they are."""
    model, data = net(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        model(data[0])
        report = method(model, [data], loss_fn)
        inside = model(data[0]).detach()
        loss = float(loss_fn(model, data))
    assert report.loss_after == pytest.approx(loss, rel=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(data[0]), inside)


@every_method
def test_cached_parametrizations_are_computed_anew(method):
    model, data = net(), batch()
    nn.utils.parametrizations.weight_norm(model[0])
    with parametrize.cached():
        model(data[0])
        report = method(model, [data], loss_fn)
    assert report.loss_after == pytest.approx(float(loss_fn(model, data)), rel=1e-4)


@every_method
def test_a_loss_that_freezes_a_parameter_leaves_its_flag(method):
    def freezing(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
        model[0].weight.requires_grad_(False)
        return loss_fn(model, data)

    model = net()
    with contextlib.suppress(ValueError, RuntimeError):
        method(model, [batch()], freezing)
    assert model[0].weight.requires_grad
