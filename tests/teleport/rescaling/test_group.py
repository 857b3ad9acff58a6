"""The ascent of the gradient norm by general matrices: against autograd, a closed form and the ascent by factors."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from teleport import Rescaling, Stopped
from teleport._rescaling.group_norm import Position, SquaredGradientNormOfGroup
from teleport._symmetry_groups.find_symmetries import find_symmetries
from teleport._symmetry_groups.tangents import TangentSpace
from tests.teleport.symmetry_networks import Attention, Packed, Rotatable

GROUPS = ["general", "all"]


def loss_fn(model, batch):
    outputs = model(batch[0])
    return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), batch[1])


def batch_of(*shape: int, classes: int = 3, seed: int = 0):
    torch.manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64), torch.randint(classes, shape[:-1]).flatten()


def linear_maps() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


NETWORKS = {
    "linear maps": (linear_maps, (7, 5)),
    "attention": (lambda: Attention(norm=False), (2, 3, 5)),
    "rotary, grouped": (lambda: Attention(key_heads=1, rotary=True), (2, 3, 5)),
    "packed": (Packed, (2, 3, 6)),
}


def made(name: str):
    make, shape = NETWORKS[name]
    torch.manual_seed(1)
    return make().double(), batch_of(*shape)


def gradient_norm(model: nn.Module, batch) -> float:
    gradients = torch.autograd.grad(loss_fn(model, batch), list(model.parameters()))
    return math.sqrt(sum(float(each.square().sum()) for each in gradients))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    "name", ["linear maps", *(pytest.param(each, marks=pytest.mark.slow) for each in list(NETWORKS)[1:])]
)
def test_the_closed_form_is_the_norm_of_autograd_and_the_function_stays(name, group):
    """On other data and with several batches in turn, too; each step of each batch raises the norm."""
    model, batch = made(name)
    other = batch_of(*(3, *batch[0].shape[1:]), seed=2)
    before = model(other[0])
    report = Rescaling(group=group, relative_cap=None, steps=15)(model, [batch, other], loss_fn)
    assert (model(other[0]) - before).abs().max() < 1e-12
    assert gradient_norm(model, other) == pytest.approx(report.batches[1].trace[-1].gradient_norm, rel=1e-10)
    for each in report.batches:
        norms = [record.gradient_norm for record in each.trace]
        assert len(norms) > 5
        assert norms == sorted(norms)
        assert each.gradient_norm_after == pytest.approx(norms[-1], rel=1e-10)


def test_one_pair_is_the_closed_form_of_two_gram_matrices():
    """``tr(A P^-1) + tr(B P)`` with the gradients of weight and bias on one side and of the reader on the other."""
    torch.manual_seed(3)
    model, batch = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double(), batch_of(7, 5)
    named = dict(model.named_parameters())
    space = TangentSpace(find_symmetries(model, batch[0]), list(named), compact=False)
    gradients = dict(zip(named, torch.autograd.grad(loss_fn(model, batch), list(named.values())), strict=True))
    norm = SquaredGradientNormOfGroup(space, {each: gradients[each] for each in space.moving}, Position.start(space), 0)
    (variable,) = space.places
    root = torch.linalg.matrix_exp(0.3 * torch.randn(4, 4, dtype=torch.float64))
    symmetric = root @ root.mT
    square = symmetric @ symmetric
    own = torch.cat([gradients["0.weight"], gradients["0.bias"][:, None]], 1)
    expected = (own @ own.mT @ torch.linalg.inv(square)).trace()
    expected += (gradients["1.weight"].mT @ gradients["1.weight"] @ square).trace()
    at = Position(torch.zeros_like(space.sign), {variable: symmetric[None]})
    assert norm.at(at) == pytest.approx(float(expected), rel=1e-12)


def test_the_direction_is_the_derivative_of_the_norm():
    torch.manual_seed(4)
    model, batch = linear_maps().double(), batch_of(7, 5)
    named = dict(model.named_parameters())
    space = TangentSpace(find_symmetries(model, batch[0]), list(named), compact=False)
    gradients = dict(zip(named, torch.autograd.grad(loss_fn(model, batch), list(named.values())), strict=True))
    start = Position.start(space)
    norm = SquaredGradientNormOfGroup(space, {each: gradients[each] for each in space.moving}, start, 0)
    moments = space.moments(norm.gradients_at(start))
    direction = norm.uphill(start, 1e-4, 2.0)
    difference = norm.at(norm.along(start, direction, 0.5, 2.0)) - norm.at(norm.along(start, direction, -0.5, 2.0))
    along = sum(float((each * direction.matrices[variable]).sum()) for variable, each in moments.matrices.items())
    along += float(moments.logarithms @ direction.logarithms)
    assert difference == pytest.approx(-2 * along, rel=1e-5)


def test_without_matrices_all_is_the_ascent_by_factors():
    def network():
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double()

    batch, options = batch_of(7, 5), {"relative_cap": None, "steps": 25}
    one, other = network(), network()
    factors = Rescaling(**options)(one, [batch], loss_fn)
    found = Rescaling(group="all", **options)(other, [batch], loss_fn)
    norms = [[each.gradient_norm for each in report.batches[0].trace] for report in (factors, found)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-10)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_cap_and_the_bound_hold():
    model, batch = made("linear maps")
    report = Rescaling(group="all")(model, [batch], loss_fn)
    assert report.batches[0].stopped == Stopped.CAP_REACHED
    assert 1.96 <= report.gradient_norm_after / report.gradient_norm_before <= 2.0
    model, batch = made("linear maps")
    start = {name: each.clone() for name, each in model.state_dict().items()}
    report = Rescaling(group="general", relative_cap=None, bound=0.7, steps=60)(model, [batch], loss_fn)
    values = torch.cat([each.matrix.flatten(0, 1) for each in report.change.parts[0].actions])
    logarithms = torch.linalg.eigvalsh(values).log()
    assert logarithms.abs().max() == pytest.approx(0.7)
    assert torch.equal(values, values.mT) or (values - values.mT).abs().max() < 1e-14
    report.change.inverse().apply(model)
    for name, each in model.state_dict().items():
        torch.testing.assert_close(each, start[name])


def test_what_rotations_alone_move_stays_by_name():
    """A stream under a norm without weights is rotated, which no gradient norm tells."""
    torch.manual_seed(6)
    model, batch = Rotatable().double(), batch_of(4, 5)
    report = Rescaling(group="general")(model, [batch], loss_fn)
    assert report.batches[0].stopped == Stopped.NOTHING_MOVES
    assert report.no_op
    assert "rotations and permutations keep the gradient norm" in report.reasons()


def test_single_precision_lands_on_the_same_function():
    model, batch = made("linear maps")
    model, batch = model.float(), (batch[0].float(), batch[1])
    before = model(batch[0])
    report = Rescaling(group="all")(model, [batch], loss_fn)
    assert report.accepted
    torch.testing.assert_close(model(batch[0]), before, rtol=1e-5, atol=1e-6)
    assert gradient_norm(model, batch) == pytest.approx(report.batches[0].trace[-1].gradient_norm, rel=1e-4)


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="group must be"):
        Rescaling(group="rotations")
    with pytest.raises(ValueError, match='mode="balance" is of group="scaling" alone'):
        Rescaling(mode="balance", group="all")


def test_an_error_after_the_move_undoes_it():
    model, batch = made("linear maps")
    before = {name: each.clone() for name, each in model.state_dict().items()}
    calls: list[bool] = []

    def failing(model, batch, last=0):
        calls.append(True)
        if len(calls) == last:
            raise RuntimeError("at the end")
        return loss_fn(model, batch)

    Rescaling(group="all")(made("linear maps")[0], [batch], failing)
    last = len(calls)
    calls.clear()
    with pytest.raises(RuntimeError, match="at the end"):
        Rescaling(group="all")(model, [batch], lambda *each: failing(*each, last))
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
