"""What scripts/fuzz/reports.py found, each kind as a small case."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import ChangeOfBasis, LevelSet, NullSpace, Orbit, Progress, Rescaling
from teleport._engine.parameter_statistics import relative_change
from tests.teleport.methods import ROWS, unchanged, values

every_method = pytest.mark.parametrize("row", ROWS, ids=str)


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(3)
    layers = nn.Linear(6, 24), nn.LeakyReLU(0.1), nn.Linear(24, 24), nn.LeakyReLU(0.1), nn.Linear(24, 3)
    return nn.Sequential(*layers).to(dtype)


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    return torch.randn(5, 6).to(dtype), torch.randn(5, 3).to(dtype)


def loss_fn(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(model(data[0]), data[1])


@every_method
@pytest.mark.parametrize("view", ["detach", "data", "t"])
def test_a_buffer_that_shares_memory_with_a_weight_moves_with_it(row, view):
    """The move is not written over by the buffer's old values, and the report is true."""
    model = net()
    weight = model[2].weight
    shared = {"detach": weight.detach(), "data": weight.data, "t": weight.detach().t()}[view]
    model[2].register_buffer("seen", shared)
    start = values(model)
    report = row.make()(model, [batch()], loss_fn)
    after = report.model or model
    assert not torch.equal(weight, start["2.weight"])
    assert torch.equal(model[2].seen, weight.t() if view == "t" else weight)
    assert report.loss_after == pytest.approx(float(loss_fn(after, batch()).detach()), rel=1e-5)


@every_method
def test_after_an_exception_a_buffer_that_shares_memory_is_what_it_was(row):
    model, calls = net(), []
    model[0].register_buffer("seen", model[0].weight.detach())
    before = model[0].seen.clone()

    def failing(each: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("on purpose")
        return loss_fn(each, data)

    with pytest.raises(KeyError):
        row.make()(model, [batch(), batch()], failing)
    assert torch.equal(model[0].seen, before)
    assert torch.equal(model[0].weight, before)


class Normalised(nn.Module):
    """Writes to a buffer of which a parameter is a part."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()
        self.register_buffer("whole", torch.ones(6))
        self.scale = nn.Parameter(self.whole[:3])

    def forward(self, x: Tensor) -> Tensor:
        self.whole[3:] += 1
        return self.body(x) * self.scale


def test_a_buffer_around_a_parameter_is_restored_but_for_the_parameter():
    model = Normalised()
    assert LevelSet(steps=2)(model, [batch()], loss_fn).accepted
    assert torch.equal(model.whole[3:], torch.ones(3))
    assert not torch.equal(model.scale, torch.ones(3))
    assert torch.equal(model.whole[:3], model.scale)


@every_method
@pytest.mark.parametrize("error", [StopIteration, RuntimeError, KeyboardInterrupt])
def test_what_a_callback_raises_comes_out_as_it_is(row, error):
    raised = error("on purpose")

    def callback(progress: Progress) -> None:
        raise raised

    with pytest.raises(error) as caught:
        row.make()(net(), [batch()], loss_fn, callback=callback)
    assert caught.value is raised


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_under_autocast_the_arithmetic_of_a_method_keeps_its_precision(row, dtype):
    """The model runs in the autocast block around the call, the projections and group actions do not."""
    alone, around = net(dtype), net(dtype)
    data = batch(dtype)

    def own_autocast(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss_fn(model, data)

    expected = row.make()(alone, [data], own_autocast)
    with torch.autocast("cpu", torch.bfloat16):
        found = row.make()(around, [data], loss_fn)
        assert torch.is_autocast_enabled("cpu")
    assert found.gradient_norm_before == pytest.approx(expected.gradient_norm_before, rel=1e-2)
    for one, other in zip(around.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert found.no_op == expected.no_op


def test_a_jagged_buffer_under_inference_mode():
    model = net()
    model.register_buffer("held", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged))
    data = batch()
    with torch.inference_mode():
        assert Rescaling(relative_cap=2.0)(model, [data], loss_fn).accepted


class Packed(nn.Module):
    """Two uses of a packed weight whose rows are not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.randn(10, 12))
        self.packed.data = self.packed.data[:, :6]
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.packed.chunk(2)
        return self.head((x @ one.t()).tanh() + x @ other.t())


def test_parts_of_a_parameter_with_gaps_are_pinned_by_name():
    model = Packed()
    report = NullSpace(relative_cap=2.0)(model, [batch()], loss_fn)
    (layer,) = [each for each in report.layers if each.name.startswith("packed")]
    assert "gaps" in layer.reason


class Recomputed(nn.Module):
    """An activation inside of a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.utils.checkpoint.checkpoint(lambda at: self.one(at).tanh(), x, use_reentrant=False)
        return self.two(hidden)


def test_a_teleported_activation_inside_of_a_checkpoint_is_refused_by_name():
    model = Recomputed()
    start = values(model)
    with pytest.raises(teleport.UnsupportedModel, match="checkpoint"):
        ChangeOfBasis(activations="teleport")(model, [batch()], loss_fn)
    assert all(torch.equal(value, start[name]) for name, value in model.named_parameters())
    assert ChangeOfBasis()(model, [batch()], loss_fn).accepted


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([3.0, 4.0], [3.0, 5.0], 0.2),
        ([0.0, 0.0], [0.0, 2.0], 2.0),
        ([math.inf, 4.0], [math.inf, 5.0], 0.25),
        ([math.nan, 4.0], [math.nan, 4.0], 0.0),
        ([1.0, 4.0], [math.nan, 4.0], math.inf),
        ([1.0, 4.0], [math.inf, 4.0], math.inf),
    ],
)
def test_relative_change_of_values_that_are_not_finite(before, after, expected):
    assert relative_change(torch.tensor(before), torch.tensor(after)) == pytest.approx(expected)


def renormalised() -> nn.Sequential:
    """An embedding that every evaluation renormalises, in front of a linear map."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4, max_norm=0.5), nn.Flatten(), nn.Linear(12, 3))


def test_what_evaluations_write_to_a_parameter_is_no_move():
    model, data = renormalised(), (torch.randint(7, (4, 3)), torch.randn(4, 3))
    start = values(model)
    orbit = Orbit(lambda theta, weights: {"2.bias": weights["2.bias"] * theta.exp()}, lr=0.1, steps=2, guard="none")
    report = orbit(model, [data], loss_fn)
    assert torch.equal(model[0].weight, start["0.weight"])
    assert [layer.name for layer in report.layers if layer.relative_change] == ["2.bias"]


class Complex(nn.Module):
    """Its first parameter is complex."""

    def __init__(self) -> None:
        super().__init__()
        self.wave = nn.Parameter(torch.randn(6, 6, dtype=torch.complex64))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x.to(torch.complex64) @ self.wave).abs())


def test_an_orbit_of_a_real_parameter_beside_a_complex_one():
    """theta is real, whatever the first parameter is."""
    model = Complex()
    orbit = Orbit(lambda theta, weights: {"head.weight": weights["head.weight"] * theta.exp()}, lr=0.01, guard="none")
    report = orbit(model, [batch()], loss_fn)
    assert [layer.name for layer in report.layers if layer.relative_change] == ["head.weight"]
    imaginary = Orbit(lambda theta, weights: {"head.weight": weights["head.weight"] + 0j * theta})
    with pytest.raises(ValueError, match=r"complex values of 'head.weight', which is real"):
        imaginary(model, [batch()], loss_fn)


@pytest.mark.parametrize(
    "method",
    [
        LevelSet(),
        NullSpace(objective="sharpness", cap=1e9),
        Orbit(lambda theta, weights: {"0.weight": weights["0.weight"] * theta.exp()}),
    ],
    ids=["level set", "sharpness", "orbit"],
)
def test_an_expanded_parameter_is_refused_where_it_would_move(method):
    model = net()
    model[0].weight.data = model[0].weight.data[:1].expand(24, 6)
    start = values(model)
    with pytest.raises(teleport.UnsupportedModel, match="has elements that share memory"):
        method(model, [batch()], loss_fn)
    assert all(torch.equal(value, start[name]) for name, value in model.named_parameters())


def test_evaluations_after_the_end_of_a_method_do_not_move_what_they_renormalise():
    """``max_norm`` of an embedding writes at each evaluation; the report is of the parameters that are left."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 8, max_norm=0.5), nn.Flatten(), nn.Linear(16, 3)).double()
    batches = [(torch.randint(6, (4, 2)), torch.randint(3, (4,))) for _ in range(3)]
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    method = teleport.LevelSet(lr=0.3, steps=3)
    report = method(model, batches, lambda own, batch: nn.functional.cross_entropy(own(batch[0]), batch[1]))
    for layer in report.layers:
        now = dict(model.named_parameters())[layer.name].detach()
        change = (now - before[layer.name]).norm() / before[layer.name].norm()
        assert float(change) == pytest.approx(layer.relative_change, rel=1e-9)


def test_what_an_evaluation_writes_is_no_step_of_the_level_set():
    """An embedding with ``max_norm`` scales its rows as they are read; the gradient is 0, so that no step is taken."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 3, max_norm=1.0), nn.Linear(3, 1))
    before = values(model)
    report = LevelSet(steps=1)(model, [torch.tensor([1, 2])], lambda net, data: 0 * net(data).sum())
    assert (report.batches[0].stopped, report.no_op) == ("stationary", True)
    assert unchanged(model, before)
