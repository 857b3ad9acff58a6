"""Each objective's value and gradient against dense derivatives, and what a teleport promises of them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, hessian

from teleport import (
    OBJECTIVES,
    Curvature,
    LogGradientNorm,
    LossAfterStep,
    NullSpace,
    Sharpness,
    SquaredGradientNorm,
    TeleportObjective,
)
from teleport._engine.batch_loss import BatchLoss
from teleport._engine.objectives import objective_of
from tests.teleport.networks import PLAIN, batches_of, cross_entropy

ALL = [SquaredGradientNorm(), LogGradientNorm(), LossAfterStep(0.3), Curvature(), Sharpness(0.2), Sharpness(0.2, False)]


class Problem:
    """A small MLP's loss as a function of one vector, twice over: by the library's words, and by ``torch.func``."""

    def __init__(self) -> None:
        torch.manual_seed(5)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        self.inputs, self.targets = torch.randn(5, 3).double(), torch.tensor([0, 1, 1, 0, 1])
        self.names = [name for name, _ in self.model.named_parameters()]
        self.parameters = list(self.model.parameters())
        self.loss = BatchLoss(lambda: F.cross_entropy(self.model(self.inputs), self.targets), self.parameters)

    @property
    def vector(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.parameters).detach().clone()

    def of(self, vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([parameter.numel() for parameter in self.parameters])
        values = {name: part.view_as(p) for name, part, p in zip(self.names, parts, self.parameters, strict=True)}
        return F.cross_entropy(functional_call(self.model, values, (self.inputs,)), self.targets)


def by_definition(objective: TeleportObjective, problem: Problem, w: torch.Tensor) -> torch.Tensor:
    """The value from the dense gradient and Hessian."""
    g = grad(problem.of)(w)
    if objective.name == "squared_gradient_norm":
        return g @ g / 2
    if objective.name == "log_gradient_norm":
        return (g @ g).log() / 2
    if objective.name == "curvature":
        return g @ hessian(problem.of)(w) @ g / (g @ g)
    if isinstance(objective, LossAfterStep):
        return problem.of(w - objective.lr * g)
    assert isinstance(objective, Sharpness)
    return problem.of(w + objective.radius * g / g.norm()) - problem.of(w)


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_value_and_gradient_by_definition(objective):
    problem = Problem()
    w, point = problem.vector, problem.loss.point(True)
    expected = by_definition(objective, problem, w)
    direction = nn.utils.parameters_to_vector(objective.direction(problem.loss, point, problem.parameters))
    dense = torch.func.grad(lambda vector: by_definition(objective, problem, vector))(w)
    torch.testing.assert_close(direction, dense, rtol=1e-10, atol=1e-12)
    point = problem.loss.point(True)
    for here in (point, problem.loss.point(False)):
        assert objective.value(problem.loss, here) == pytest.approx(float(expected), rel=1e-11)
    assert torch.equal(problem.vector, w)


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_gradient_by_finite_differences_of_the_value(objective):
    problem = Problem()
    w, step = problem.vector, 1e-5

    def value_at(vector: torch.Tensor) -> float:
        nn.utils.vector_to_parameters(vector, problem.parameters)
        return objective.value(problem.loss, problem.loss.point(False))

    numeric = torch.tensor(
        [(value_at(w + step * axis) - value_at(w - step * axis)) / (2 * step) for axis in torch.eye(len(w)).double()]
    )
    nn.utils.vector_to_parameters(w, problem.parameters)
    direction = objective.direction(problem.loss, problem.loss.point(True), problem.parameters)
    torch.testing.assert_close(nn.utils.parameters_to_vector(direction), numeric.double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_a_part_of_the_parameters_gets_its_part_of_the_gradient(objective):
    problem = Problem()
    whole = objective.direction(problem.loss, problem.loss.point(True), problem.parameters)
    part = objective.direction(problem.loss, problem.loss.point(True), [problem.parameters[2], problem.parameters[0]])
    torch.testing.assert_close(part, [whole[2], whole[0]], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_a_parameter_that_enters_linearly_has_the_direction_of_the_loss_alone(objective):
    """In ``f(w) + sum b`` the Hessian has no part for b; only the loss after a step, no difference, falls with b."""
    w, b = (nn.Parameter(torch.tensor(values).double()) for values in ([1.0, 2.0], [3.0]))
    loss = BatchLoss(lambda: w.square().sum() ** 1.5 + b.sum(), [w, b])
    moved, still = objective.direction(loss, loss.point(True), [w, b])
    assert moved.any()
    assert still.tolist() == [1.0 if isinstance(objective, LossAfterStep) else 0.0]


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_a_flat_loss_has_no_direction(objective):
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    loss = BatchLoss(lambda: 0 * w.square().sum(), [w])
    assert not objective.direction(loss, loss.point(True), [w])[0].any()
    assert objective.value(loss, loss.point(True)) in (0.0, -math.inf)


def test_closed_forms_on_a_quadratic():
    """``f = 1/2 w^T h w``: curvature ``sum h^3 w^2 / sum h^2 w^2``, a step leaves ``1/2 sum h (1 - lr h)^2 w^2``."""
    h, start = torch.tensor([1.0, 9.0]).double(), torch.tensor([8.0, -2.0]).double()
    w = nn.Parameter(start.clone())
    loss = BatchLoss(lambda: (h * w * w).sum() / 2, [w])
    point = loss.point(True)
    assert Curvature().value(loss, point) == pytest.approx(float((h**3 * start**2).sum() / (h**2 * start**2).sum()))
    ahead = float((h * (1 - 0.08 * h) ** 2 * start**2).sum() / 2)
    assert LossAfterStep(0.08).value(loss, point) == pytest.approx(ahead)
    (direction,) = LossAfterStep(0.08).direction(loss, point, [w])
    torch.testing.assert_close(direction, h * (1 - 0.08 * h) ** 2 * start)


@pytest.mark.parametrize("over", ["all", "moved"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_step_makes_the_objective_worse_and_the_cap_holds(name, over):
    model, batch = PLAIN.make()
    objective = objective_of(name)
    parameters = [parameter for key, parameter in model.named_parameters() if over == "all" or key[0] != "0"]
    loss = BatchLoss(lambda: cross_entropy(model, batch), parameters)

    def score():
        return objective.score(loss, loss.point(True))

    scores, outputs = [score()], model(batch[0]).detach()
    norm = loss.point(False).norm
    for _ in range(4):
        method = NullSpace(lr=1.0, steps=1, cap=5 * norm, objective=name, objective_params=over)
        report = method(model, [batch], cross_entropy)
        scores.append(score())
        assert report.gradient_norm_after <= 5 * norm
    assert all(later >= earlier for earlier, later in itertools.pairwise(scores))
    assert scores[-1] > scores[0]
    torch.testing.assert_close(model(batch[0]).detach(), outputs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_that_would_overshoot_is_shortened(name):
    """At a rate that leaves the model's scale far behind."""
    model, batch = PLAIN.make()
    objective = objective_of(name)
    loss = BatchLoss(lambda: cross_entropy(model, batch), list(model.parameters()))
    before = objective.score(loss, loss.point(True))
    NullSpace(lr=1e6, steps=3, relative_cap=4.0, objective=name)(model, [batch], cross_entropy)
    assert objective.score(loss, loss.point(True)) >= before


def test_steps_of_one_event_are_those_of_separate_ones():
    """A point that has lost its graph, as the displaced objectives leave it, is made anew."""
    published: dict[str, Any] = {"lr": 0.2, "lr_unit": "absolute", "relative_cap": None}
    for name in OBJECTIVES:
        once, batch = PLAIN.make()
        apart, _ = PLAIN.make()
        NullSpace(steps=3, objective=name, **published)(once, [batch], cross_entropy)
        for _ in range(3):
            NullSpace(steps=1, objective=name, **published)(apart, [batch], cross_entropy)
        for one, other in zip(once.parameters(), apart.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("step", ["cap", "fixed"])
def test_the_squared_norms_path_is_that_of_the_plain_ascent_bit_for_bit(step):
    """The objective's own methods are out of the way where nothing else is asked for."""

    class Plain(TeleportObjective):
        name = "plain"

        def value(self, loss, point):
            return point.norm

        def direction(self, loss, point, moving):
            return loss.ascent_direction(point, moving)

        def slope(self, point):
            return 1.0

    results = []
    for objective in ("squared_gradient_norm", Plain()):
        model, _ = PLAIN.make()
        method = NullSpace(
            forward="each", lr=2.0, steps=5, relative_cap=4.0, step=step, guard="none", objective=objective
        )
        report = method(model, batches_of(3), cross_entropy)
        results.append((list(model.parameters()), [batch.trace for batch in report.batches]))
    assert results[0][1] == results[1][1]
    assert all(torch.equal(one, other) for one, other in zip(results[0][0], results[1][0], strict=True))


def test_log_and_squared_norm_share_their_directions():
    problem = Problem()
    square = SquaredGradientNorm().direction(problem.loss, problem.loss.point(True), problem.parameters)
    log = LogGradientNorm().direction(problem.loss, problem.loss.point(True), problem.parameters)
    norm = problem.loss.point(False).norm
    torch.testing.assert_close([part * norm**2 for part in log], square)


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        ("squared_gradient_norm", None, SquaredGradientNorm()),
        ("log_gradient_norm", None, LogGradientNorm()),
        ("loss_after_step", 0.5, LossAfterStep(0.5)),
        ("curvature", None, Curvature()),
        ("-curvature", None, Curvature(ascended=False)),
        ("sharpness", 0.1, Sharpness(0.1)),
        ("-sharpness", None, Sharpness(ascended=False)),
    ],
)
def test_names(name, scale, expected):
    assert objective_of(name, scale) == expected
    assert objective_of(name, scale).ascended == (name not in ("-curvature", "-sharpness", "loss_after_step"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"objective": "norm"}, "objective must be one of squared_gradient_norm, "),
        ({"objective": "-log_gradient_norm"}, "objective must be one of"),
        ({"objective": "sharpness", "objective_scale": 0.0}, "objective_scale must be above 0"),
        ({"objective": "curvature", "objective_scale": 1.0}, "for loss_after_step and sharpness, not for curvature"),
        ({"objective": Curvature(), "objective_scale": 1.0}, "goes with the name of an objective"),
    ],
)
def test_bad_objectives(arguments, said):
    with pytest.raises(ValueError, match=said):
        NullSpace(**arguments)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_name_has_an_objective_without_a_scale(name):
    objective = objective_of(name)
    assert objective.name == name.lstrip("-")
    assert objective.ascended == (not name.startswith("-") and name != "loss_after_step")
    scales = {
        "loss_after_step": LossAfterStep(0.01),
        "sharpness": Sharpness(0.05),
        "-sharpness": Sharpness(0.05, False),
    }
    assert objective == scales.get(name, objective)
