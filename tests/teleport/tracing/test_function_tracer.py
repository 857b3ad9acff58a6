"""The function tracer tells which parameters a call receives and reads, and finds reads below the functions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from teleport._tracing.function_tracer import FunctionTracer, TracedCall
from teleport._tracing.ownership import Owners
from tests.teleport.traps import scripted_product


class Recorder(FunctionTracer):
    """Keeps the calls that it sees, and evaluates something itself before and after each."""

    def __init__(self, **parameters: nn.Parameter) -> None:
        super().__init__(Owners(parameters))
        self.parameters = parameters
        self.calls: list[TracedCall] = []

    def before(self, func, args, kwargs):
        assert self.paused
        return float(sum(parameter.detach().sum() for parameter in self.parameters.values()))

    def after(self, call: TracedCall) -> None:
        assert self.paused
        assert all(bool(parameter.isfinite().all()) for parameter in self.parameters.values())
        self.calls.append(call)


def recorder() -> Recorder:
    return Recorder(a=nn.Parameter(torch.randn(3, 3)), b=nn.Parameter(torch.randn(3)))


X = torch.randn(2, 3)


@pytest.mark.parametrize(
    ("evaluate", "given", "read"),
    [
        (lambda a, b: nn.functional.linear(X, a, b), {"a": 1, "b": 1}, {"a", "b"}),
        (lambda a, b: torch.addmm(b, a, a), {"a": 2, "b": 1}, {"a", "b"}),
        (lambda a, b: a.t(), {"a": 1}, set()),
        (lambda a, b: a.shape, {"a": 1}, set()),
        (lambda a, b: a.tolist(), {"a": 1}, {"a"}),
        (lambda a, b: a.data_ptr(), {"a": 1}, {"a"}),
        (lambda a, b: torch.stack([b, b]), {"b": 2}, {"b"}),
    ],
)
def test_given_and_read_parameters(evaluate, given, read):
    tracer = recorder()
    tracer.trace(lambda: evaluate(*tracer.parameters.values()))
    (call,) = tracer.calls
    assert dict(call.given) == given
    assert call.read == read
    assert not tracer.unseen_reasons()


def test_a_call_without_parameters_does_not_concern_it_and_the_result_is_returned():
    tracer = recorder()
    assert torch.equal(tracer.trace(lambda: X.exp()), X.exp())
    assert not tracer.calls


def test_before_sees_the_arguments_as_they_were():
    tracer = recorder()
    total = float(sum(parameter.detach().sum() for parameter in tracer.parameters.values()))

    def evaluate() -> None:
        with torch.no_grad():
            tracer.parameters["a"].zero_()

    tracer.trace(evaluate)
    assert tracer.calls[0].prepared == pytest.approx(total)
    assert float(tracer.parameters["a"].detach().abs().sum()) == 0


def input_gradient(a):
    inputs = X.clone().requires_grad_()
    return torch.autograd.grad((inputs @ a).sum(), inputs)


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda a, b: scripted_product(X, a),
        lambda a, b: input_gradient(a),
        lambda a, b: torch.func.grad(lambda x: (x @ a).sum())(X),
    ],
)
def test_reads_below_the_functions_are_found(evaluate):
    tracer = recorder()
    tracer.trace(lambda: evaluate(*tracer.parameters.values()))
    assert list(tracer.unseen_reasons()) == ["a"]
    assert "below the torch functions" in tracer.unseen_reasons()["a"]
