"""Null-space steps with one forward pass per batch against the same steps with one per step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from teleport import NullSpace
from teleport._engine.batch_loss import BatchLoss
from teleport._frozen_forward.backward_graph import backward_graph_of
from teleport._frozen_forward.frozen_forward import FrozenForward, recorded
from teleport._frozen_forward.recorded_graph import GraphRecorder, Untraceable
from teleport._tracing.layer_tracer import LayerTracer
from tests.teleport.attentive import NETWORKS
from tests.teleport.networks import Calls, batches_of, cross_entropy, mlp
from tests.teleport.whole_models import MODELS, loss

RUN_AGAIN = {"conv2d circular"}
"""Networks whose backward pass writes in place into its results, so that the forward pass runs at each step."""


def both(make: Callable[[], tuple[nn.Module, list[Any]]], loss: Any = cross_entropy, **settings: Any) -> list[Any]:
    """Models and reports of the same teleport, with the forward pass run per step and per batch."""
    results = []
    for forward in ("each", "once"):
        model, batches = make()
        results.append((model, NullSpace(forward=forward, **settings)(model, batches, loss)))
    return results


def assert_same(results: list[Any]) -> None:
    """Parameters and gradient norms to 1e-10."""
    (one, expected), (other, found) = results
    assert not expected.no_op
    for name, parameter in one.named_parameters():
        torch.testing.assert_close(other.get_parameter(name), parameter, rtol=1e-10, atol=1e-10, msg=name)
    for batch, same in zip(expected.batches, found.batches, strict=True):
        assert same.stopped == batch.stopped
        norms = [[record.gradient_norm for record in one_batch.trace] for one_batch in (batch, same)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-10)
        assert same.loss_after == pytest.approx(batch.loss_after, rel=1e-10)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_every_layer_use(network, caplog):
    def make() -> Any:
        model, batch = network.make()
        return model, [batch, (batch[0].flip(0) * 0.5, batch[1])]

    with caplog.at_level(logging.DEBUG, "teleport"):
        assert_same(both(make, lr=1.0, steps=4, relative_cap=2.0))
    assert bool(caplog.messages) == (network.name in RUN_AGAIN)


@pytest.mark.parametrize("name", MODELS)
def test_every_whole_model(name, caplog):
    build, batch_of = MODELS[name]

    def make() -> Any:
        torch.manual_seed(1)
        model = build().double()
        return model, [batch_of() for _ in range(2)]

    with caplog.at_level(logging.DEBUG, "teleport"):
        assert_same(both(make, loss, lr=1.0, steps=4, relative_cap=2.0))
    assert not caplog.messages


@pytest.mark.parametrize(
    "settings",
    [
        {"step": "cap", "relative_cap": 1.5},
        {"step": "cap", "objective": "log_gradient_norm", "lr": 0.1},
        {"objective_params": "moved", "step": "fixed", "lr": 0.3},
        {"step": "fixed", "lr": 0.3, "cap": 0.9},
    ],
    ids=str,
)
def test_every_step_rule(settings):
    def make() -> Any:
        torch.manual_seed(4)
        return mlp().double(), batches_of(3)

    assert_same(both(make, steps=4, **settings))


def test_number_of_forward_passes_is_independent_of_steps():
    calls = []
    for steps in (2, 9):
        model = mlp().double()
        counted = [0]
        model.register_forward_hook(lambda *_, counted=counted: counted.__setitem__(0, counted[0] + 1))
        NullSpace(lr=0.1, steps=steps, step="fixed")(model, batches_of(2), cross_entropy)
        calls += counted
    assert calls[0] == calls[1]


def test_no_forward_pass_for_known_values():
    """Per batch: the loss before and after the event, the start (recorded and traced in one pass) and the end."""
    model, counted = mlp().double(), []
    model.register_forward_hook(lambda *_: counted.append(None))
    report = NullSpace(lr=0.1, steps=4, step="fixed")(model, batches_of(3), cross_entropy)
    assert report.steps == 12
    assert len(counted) == 4 * 3 - 2  # the first batch's loss before and the last one's after are its start and end


def test_operations_of_the_layer_tracer_are_not_recorded():
    model, batch = next(network for network in NETWORKS if network.name == "attention").make()
    objective = BatchLoss(lambda: cross_entropy(model, batch), list(model.parameters()))
    tracer = LayerTracer(dict(model.named_parameters()), shared_objective=True, deferred=True)
    traced = BatchLoss(lambda: tracer.trace(objective.evaluate), objective.parameters)
    _, alone = recorded(objective)
    _, both = recorded(traced, aside=lambda: tracer.paused)
    assert [operation.func for operation in both.operations] == [operation.func for operation in alone.operations]
    assert tracer.recorded


@pytest.mark.parametrize("settings", [{"threshold": 0.9}, {"objective": "curvature"}, {"forward": "each"}], ids=str)
def test_changing_forward_pass_is_run_at_each_step(settings):
    counted = []
    for steps in (2, 4):
        model = mlp().double()
        counted.append(0)
        model.register_forward_hook(lambda *_: counted.append(counted.pop() + 1))
        NullSpace(lr=0.1, steps=steps, step="fixed", guard="none", **settings)(model, batches_of(1), cross_entropy)
    assert counted[1] > counted[0]


def test_single_precision_agrees_with_double():
    def make(dtype: torch.dtype) -> Any:
        torch.manual_seed(4)
        return mlp(64).to(dtype), [(inputs.to(dtype), targets) for inputs, targets in batches_of(2)]

    (_, plain), (model, report) = both(lambda: make(torch.float32), lr=0.3, steps=4, step="fixed")
    double, batches = make(torch.float64)
    NullSpace(lr=0.3, steps=4, step="fixed", forward="each")(double, batches, cross_entropy)
    for found, expected in zip(model.parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    assert report.batches[1].gradient_norm_after == pytest.approx(plain.batches[1].gradient_norm_after, rel=1e-4)


def test_gradient_norm_of_a_frozen_forward_pass_is_that_of_the_model():
    """After a move in the null space of the layer inputs, by an independent projection."""
    model, (batch,) = mlp().double(), batches_of(1)
    objective = BatchLoss(lambda: cross_entropy(model, batch), list(model.parameters()))
    start, record = recorded(objective)
    weight = model[2].weight
    frozen = FrozenForward(objective, record, start, [weight])
    assert frozen.point(False).norm == pytest.approx(start.norm, rel=1e-12)
    inputs = model[1](model[0](batch[0])).detach()
    unseen = torch.eye(24).double() - torch.linalg.pinv(inputs) @ inputs
    with torch.no_grad():
        weight += torch.randn(24, 24).double() @ unseen
    assert frozen.point(False).norm == pytest.approx(objective.point(False).norm, rel=1e-10)
    assert abs(frozen.point(False).norm / start.norm - 1) > 0.1
    step = 1e-6 * torch.randn(24, 24).double() @ unseen
    (direction,) = frozen.ascent_direction(frozen.point(True), [weight])
    before = frozen.point(False).half_square
    with torch.no_grad():
        weight += step
    gained = float((frozen.point(False).half_square - before).detach())
    assert gained == pytest.approx(float((direction * step).sum()), rel=1e-4)


def _scaled(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.last(net.middle(torch.tanh(net.first(x))).relu_())


def test_layers_whose_outputs_are_overwritten(caplog):
    def make() -> Any:
        torch.manual_seed(6)
        model = Calls(_scaled, first=nn.Linear(6, 24), middle=nn.Linear(24, 24), last=nn.Linear(24, 3))
        return model.double(), batches_of(2)

    with caplog.at_level(logging.DEBUG, "teleport"):
        assert_same(both(make, lr=0.3, steps=3, step="fixed"))
    assert not caplog.messages


def test_a_layer_that_is_computed_again_in_the_backward_pass(caplog):
    """Its derivative is no single product, so it is projected after it is formed."""

    def make() -> Any:
        torch.manual_seed(6)
        layers = {"first": nn.Linear(6, 24), "middle": nn.Linear(24, 24), "last": nn.Linear(24, 3)}
        return Calls(_checkpointed, **layers).double(), batches_of(2)

    with caplog.at_level(logging.DEBUG, "teleport"):
        assert_same(both(make, lr=0.3, steps=3, step="fixed"))
    assert not caplog.messages


def _checkpointed(net: Any, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(net.first(x))
    return net.last(checkpoint(lambda y: torch.tanh(net.middle(y)), hidden, use_reentrant=False))


def test_untraceable_evaluation_is_run_at_each_step(caplog):
    """A sparse gradient has no single memory address to identify it by."""

    def make() -> Any:
        torch.manual_seed(7)
        model = nn.Sequential(nn.Embedding(9, 24, sparse=True), nn.Flatten(), nn.Linear(48, 24), nn.Tanh())
        model.append(nn.Linear(24, 3))
        return model.double(), [(torch.randint(9, (4, 2)), torch.arange(4) % 3)]

    with caplog.at_level(logging.DEBUG, "teleport"):
        assert_same(both(make, lr=0.3, steps=3, step="fixed"))
    assert "run again at each step" in caplog.text


def test_overwritten_record_raises():
    weight, inputs = nn.Parameter(torch.randn(3)), torch.randn(3)
    with GraphRecorder() as record:
        product = weight * inputs
    assert backward_graph_of(record, [product], [weight]).run({weight: torch.ones(3)})[1].equal(inputs)
    inputs.mul_(2)
    with pytest.raises(Untraceable, match="overwritten"):
        backward_graph_of(record, [product], [weight])


def test_views_of_an_overwritten_weight_are_identified():
    """The version counter of a view made below autograd is set late."""
    weight = nn.Parameter(torch.randn(3, 2))
    with torch.no_grad():
        weight.mul_(2)
    with GraphRecorder() as record:
        product = (weight.t()[1:] * 3).t()
    graph = backward_graph_of(record, [product], [weight])
    other = torch.randn(3, 2)
    (end,) = graph.gradients
    assert graph.run({weight: other})[end].equal(other[:, 1:] * 3)
