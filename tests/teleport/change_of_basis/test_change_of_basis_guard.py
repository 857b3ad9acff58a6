"""What a change of basis promises: undone where outputs or the loss move, and after an exception."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from teleport import ChangeOfBasis
from tests.teleport.networks import cross_entropy
from tests.teleport.quivers import stack
from tests.teleport.residual import moved, values


class Drifting(nn.Module):
    """A model whose outputs grow with the number of its evaluations, by a counter that cannot be set back."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.inner, self.calls = stack(5, 7, 3, activation=activation), itertools.count(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + next(self.calls)


@pytest.mark.parametrize("again", [False, True])
def test_outputs_that_move_are_undone(again):
    model = Drifting(nn.Tanh)
    batch = torch.randn(4, 5).double()
    method = ChangeOfBasis(0.5, "inter", activations="teleport")
    if again:
        model = ChangeOfBasis(0.5, "inter", activations="teleport", guard="none")(model, [batch]).model
    start = values(unwrapped) if (unwrapped := getattr(model, "module", model)) else {}
    taus = [each.tau for each in getattr(model, "activations", [])]
    report = method(model, [batch])
    assert (report.accepted, report.no_op, report.steps) == (False, True, 0)
    assert report.batches[0].stopped == "rolled back"
    assert "of the largest, more than the tolerance 0.001" in report.batches[0].reason
    assert not moved(unwrapped, start)
    assert report.model is model
    assert [each.tau for each in getattr(model, "activations", [])] == taus
    assert bool((report.change.tau == 1).all())
    assert len(report.group) == 0


@pytest.mark.parametrize("with_loss", [False, True])
def test_an_exception_puts_parameters_and_activations_back(with_loss):
    batch = (torch.randn(4, 5).double(), torch.arange(4) % 3)
    method = ChangeOfBasis(0.5, "inter", activations="teleport")
    for fails in range(1, 8):
        torch.manual_seed(fails)
        plain = stack(5, 7, 3, activation=nn.Tanh)
        model = method(plain, [batch]).model
        start, taus, calls = values(plain), [each.tau for each in model.activations], []

        def evaluate(net: nn.Module, batch: Any, fails: int = fails, calls: list[int] = calls) -> Tensor:
            calls.append(1)
            if len(calls) == fails:
                raise KeyError("on purpose")
            return cross_entropy(net, batch) if with_loss else net(batch[0])

        arguments = {"loss_fn" if with_loss else "forward": evaluate}
        if fails <= 3:
            with pytest.raises(KeyError):
                method(model, [batch], **arguments)
        else:
            try:
                method(model, [batch], **arguments)
            except KeyError:
                pass
            else:
                continue
        assert not moved(plain, start)
        assert [each.tau for each in model.activations] == taus


def test_with_a_loss_it_is_measured():
    model = stack(5, 7, 6, 3)
    batches = [(torch.randn(4, 5).double(), torch.arange(4) % 3) for _ in range(2)]
    gradients = torch.autograd.grad(cross_entropy(model, batches[1]), list(model.parameters()))
    report = ChangeOfBasis(0.9)(model, batches, cross_entropy)
    assert report.loss_after == pytest.approx(report.loss_before, rel=1e-12)
    factors = [report.group.get(parameter, torch.ones(())) for parameter in model.parameters()]
    pairs = zip(gradients, factors, strict=True)
    expected = math.sqrt(sum(float((gradient / factor).square().sum()) for gradient, factor in pairs))
    assert report.batches[1].gradient_norm_after == pytest.approx(expected, rel=1e-10)
    assert report.difference is None


def test_a_loss_that_reads_the_weights_itself_is_not_fooled():
    model = stack(5, 7, 3)
    batch = (torch.randn(4, 5).double(), torch.arange(4) % 3)

    def penalised(net: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(net, batch) + sum(parameter.square().sum() for parameter in net.parameters())

    before = float(penalised(model, batch).detach())
    ChangeOfBasis(0.9)(model, [batch], penalised)
    assert float(penalised(model, batch).detach()) == pytest.approx(before, rel=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"range": 1.0}, "range must be below 1"),
        ({"sampling": "outer"}, "sampling must be one of intra"),
        ({"activations": "all"}, "activations must be one of keep, teleport"),
        ({"guard": "some"}, "guard must be one of transaction, none"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChangeOfBasis(**arguments)


def test_bad_calls():
    model = stack(5, 7, 3)
    with pytest.raises(ValueError, match="at least one batch"):
        ChangeOfBasis()(model, [])
    with pytest.raises(ValueError, match="forward returned no floating-point tensor"):
        ChangeOfBasis()(model, [torch.randn(4, 5).double()], forward=lambda net, x: net(x).argmax(1))
