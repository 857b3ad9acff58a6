"""Steps on functions whose gradient norm is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from teleport._engine.ascent import ascend
from teleport._engine.batch_loss import BatchLoss
from teleport._engine.capped_step import BELOW_CAP, Line, capped_step
from teleport._engine.objectives import half_squared_norm

FEW = settings(derandomize=True, max_examples=25, deadline=None)


def quadratic(curvatures, start):
    """``1/2 w^T diag(h) w`` with gradient ``h w``, and its parameter."""
    h = torch.tensor(curvatures, dtype=torch.float64)
    w = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    return BatchLoss(lambda: (h * w * w).sum() / 2, [w]), w, h


def along(objective, parameter):
    return lambda point: objective.ascent_direction(point, [parameter])


def test_the_direction_is_the_hessian_times_the_gradient():
    matrix = torch.randn(4, 4, dtype=torch.float64)
    hessian = matrix + matrix.T
    w = nn.Parameter(torch.randn(4, dtype=torch.float64))
    objective = BatchLoss(lambda: w @ hessian @ w / 2, [w])
    point = objective.point(differentiable=True)
    gradient = (hessian @ w).detach()
    assert point.norm == pytest.approx(float(gradient.norm()))
    torch.testing.assert_close(objective.ascent_direction(point, [w])[0], hessian @ gradient)


def test_a_linear_loss_has_no_direction():
    w = nn.Parameter(torch.randn(3))
    objective = BatchLoss(lambda: w.sum(), [w])
    assert not objective.ascent_direction(objective.point(True), [w])[0].any()
    went = ascend(objective, [w], along(objective, w), lr=1.0, steps=3, cap=math.inf, rule="cap")
    assert (went.steps, went.stopped) == (0, "no ascent")


@FEW
@given(st.floats(0.1, 3), st.floats(0.1, 2), st.floats(1.05, 100), st.floats(0.01, 1e6))
def test_a_step_ends_within_two_percent_below_the_cap_or_is_whole(curvature, start, factor, lr):
    """On ``h w^2 / 2`` a step of length t multiplies the norm by ``1 + t h^2``."""
    objective, w, _ = quadratic([curvature], [start])
    norm = curvature * start
    cap = factor * norm
    line = Line([w], objective.ascent_direction(objective.point(True), [w]))
    length, _ = capped_step(objective, line, lr, norm, cap, differentiable=False)
    reached = norm * (1 + length * curvature**2)
    assert abs(curvature * float(w.detach())) == pytest.approx(reached)
    if norm * (1 + lr * curvature**2) <= cap:
        assert length == lr
    else:
        assert BELOW_CAP * cap * (1 - 1e-12) <= reached <= cap * (1 + 1e-12)


def test_a_step_that_is_close_below_the_cap_is_not_refined():
    """The norm is ``1 + t`` at length t. A whole step of 3 is too long for a cap of 2; one that ends at 1.97 is not."""
    norms = []
    w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def loss():
        norms.append(float(w.detach()))
        return w * w / 2

    line = Line([w], [torch.ones_like(w)])
    length, point = capped_step(BatchLoss(loss, [w]), line, 3.0, 1.0, 2.0, differentiable=False)
    assert norms[0] == 4.0
    assert norms[-1] == 1.0 + length
    assert [BELOW_CAP * 2.0 <= norm <= 2.0 for norm in norms] == [False] * (len(norms) - 1) + [True]
    assert point is not None
    assert point.norm == norms[-1]


def test_a_step_that_ends_on_the_cap_is_whole():
    w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    loss = BatchLoss(lambda: w * w / 2, [w])
    length, point = capped_step(loss, Line([w], [torch.ones_like(w)]), 1.0, 1.0, 2.0, differentiable=False)
    assert (length, float(w.detach())) == (1.0, 2.0)
    assert point is not None
    assert point.norm == 2.0


def test_a_direction_of_zeros_is_evaluated_once():
    evaluated = []
    w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    loss = BatchLoss(lambda: evaluated.append(None) or w * w / 2, [w])
    assert capped_step(loss, Line([w], [torch.zeros_like(w)]), 3.0, 1.0, 2.0, differentiable=False) == (0, None)
    assert len(evaluated) == 1


def test_a_norm_that_only_falls_leaves_the_parameters_where_they_were():
    objective, w, h = quadratic([1.0, 2.0], [0.3, -0.7])
    before = w.detach().clone()
    line = Line([w], [-(h * w).detach()])
    length, point = capped_step(objective, line, 1e-3, float((h * w).detach().norm()), 10.0, differentiable=False)
    assert (length, point) == (0, None)
    assert torch.equal(w, before)


def test_a_step_past_a_maximum_is_shortened():
    """The gradient of ``-cos w`` is ``sin w``: its size has its maximum at pi / 2."""
    w = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    objective = BatchLoss(lambda: -w.cos(), [w])
    line = Line([w], [torch.ones_like(w)])
    length, _ = capped_step(objective, line, math.pi, math.sin(0.5), math.inf, differentiable=False)
    assert 0 < length < math.pi - 2 * 0.5
    assert abs(math.sin(float(w.detach()))) > math.sin(0.5)


def test_fixed_steps_overshoot_and_then_stop():
    """Fact 6: the check comes before the step; norms are ``h w (1 + lr h^2)^k``."""
    objective, w, _ = quadratic([2.0], [1.0])
    went = ascend(objective, [w], along(objective, w), lr=1.0, steps=8, cap=5.0, rule="fixed")
    assert [record.gradient_norm for record in went.trace] == pytest.approx([2.0, 10.0])
    assert (went.steps, went.stopped) == (1, "cap reached")
    again = ascend(objective, [w], along(objective, w), lr=1.0, steps=8, cap=5.0, rule="fixed")
    assert (again.steps, again.stopped) == (0, "above cap")


def test_capped_steps_end_on_the_cap():
    objective, w, _ = quadratic([2.0], [1.0])
    went = ascend(objective, [w], along(objective, w), lr=0.1, steps=20, cap=5.0, rule="cap")
    assert went.stopped == "cap reached"
    assert 4.9 <= went.end.norm <= 5.0
    whole = [record.gradient_norm for record in went.trace[:-1]]
    assert whole == pytest.approx([2.0 * 1.4**k for k in range(len(whole))])
    assert abs(float(w.detach())) * 2 == pytest.approx(went.end.norm)


def test_steps_without_a_cap_are_whole():
    for rule in ("cap", "fixed"):
        objective, w, _ = quadratic([1.0, 0.5], [1.0, 1.0])
        went = ascend(objective, [w], along(objective, w), lr=0.5, steps=3, cap=math.inf, rule=rule)
        assert (went.steps, went.stopped) == (3, "steps done")
        expected = torch.tensor([1.5**3, 1.125**3], dtype=torch.float64)
        torch.testing.assert_close(w.detach(), expected)


@pytest.mark.parametrize("rule", ["cap", "fixed"])
def test_whole_steps_are_evaluated_once(rule):
    evaluated = []
    w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    loss = BatchLoss(lambda: evaluated.append(None) or w * w / 2, [w])
    went = ascend(loss, [w], along(loss, w), lr=0.5, steps=3, cap=math.inf, rule=rule)
    assert went.steps == 3
    assert len(evaluated) == 1 + 3


def test_no_steps_evaluate_once_and_move_nothing():
    objective, w, _ = quadratic([1.0], [1.0])
    went = ascend(objective, [w], along(objective, w), lr=0.5, steps=0, cap=math.inf, rule="cap")
    assert went.end is went.start
    assert float(w.detach()) == 1.0


def test_a_step_into_infinity_is_shortened_or_told():
    w = nn.Parameter(torch.tensor(1.0))
    objective = BatchLoss(lambda: w.exp(), [w])
    line = Line([w], [torch.tensor(1.0)])
    length, _ = capped_step(objective, line, 1e4, math.e, math.inf, differentiable=False)
    assert length > 0
    assert math.isfinite(float(w.detach().exp()))
    w.data.fill_(1.0)
    went = ascend(objective, [w], lambda point: [torch.tensor(1e4)], lr=1.0, steps=3, cap=math.inf, rule="fixed")
    assert went.stopped == "not finite"
    assert len(went.trace) == 2


def test_norm_of_half_precision_gradients_does_not_overflow():
    gradients = [torch.full((4,), 300.0, dtype=torch.float16), torch.full((3,), 2.0, dtype=torch.bfloat16)]
    assert float(half_squared_norm(gradients)) == pytest.approx((4 * 300.0**2 + 3 * 4.0) / 2)


def test_sparse_gradients_count():
    embedding = nn.Embedding(5, 2, sparse=True)
    loss = embedding(torch.tensor([1, 1, 3])).sum()
    (gradient,) = torch.autograd.grad(loss, [embedding.weight])
    assert gradient.is_sparse
    assert float(half_squared_norm([gradient])) == pytest.approx((2 * 2.0**2 + 2 * 1.0) / 2)
