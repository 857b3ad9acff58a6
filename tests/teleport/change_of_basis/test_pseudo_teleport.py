"""The control of a change of basis: as long, in a random direction."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from teleport import ChangeOfBasis, PseudoTeleport
from tests.teleport.networks import CLASSES, cross_entropy
from tests.teleport.quivers import stack

OPTIONS = [("intra", "keep"), ("inter", "keep"), ("inter", "teleport")]


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 5).double(), torch.arange(6) % CLASSES


def move(model: nn.Module, start: nn.Module) -> Tensor:
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    return torch.cat([(new - old).detach().flatten() for new, old in pairs])


@pytest.mark.parametrize(("sampling", "activations"), OPTIONS)
def test_it_goes_as_far_as_the_change_of_basis_and_elsewhere(sampling, activations):
    start = stack(5, 40, 40, CLASSES)
    pseudo, changed = copy.deepcopy(start), copy.deepcopy(start)
    report = PseudoTeleport(0.6, sampling, activations=activations, seed=3)(pseudo, [batch()], cross_entropy)
    ChangeOfBasis(0.6, sampling, activations=activations, seed=3)(changed, [batch()], cross_entropy)
    one, other = move(pseudo, start), move(changed, start)
    assert float(one.norm()) == pytest.approx(float(other.norm()), rel=1e-10)
    assert abs(float(one @ other / (one.norm() * other.norm()))) < 5 / len(one) ** 0.5
    assert report.accepted
    assert report.group is None
    assert report.loss_after != pytest.approx(report.loss_before, rel=1e-3)


def test_only_what_the_change_of_basis_moves_moves():
    model = stack(5, 7, CLASSES)
    start = copy.deepcopy(model)
    PseudoTeleport()(model, [batch()], cross_entropy)
    before = dict(start.named_parameters())
    same = {name for name, parameter in model.named_parameters() if parameter.equal(before[name])}
    assert same == {"2.bias"}  # the output's, which carries 1


def test_the_seed_or_a_generator_decides():
    start, batches = stack(5, 7, CLASSES), [batch()]

    def moved(seed: int, generator: torch.Generator | None = None) -> Tensor:
        model = copy.deepcopy(start)
        PseudoTeleport(seed=seed)(model, batches, cross_entropy, generator=generator)
        return move(model, start)

    assert torch.equal(moved(1), moved(1))
    assert not torch.equal(moved(1), moved(2))
    assert torch.equal(moved(1), moved(2, torch.Generator().manual_seed(1)))


def test_nothing_to_move():
    model = nn.Sequential(nn.Linear(5, CLASSES)).double()
    report = PseudoTeleport()(model, [batch()], cross_entropy)
    assert report.no_op
    assert report.batches[0].stopped == "nothing moves"


def test_nothing_to_move_is_no_step():
    """A tanh between the layers leaves no channel free."""
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, CLASSES)).double()
    start = copy.deepcopy(model)
    report = PseudoTeleport(activations="keep")(model, [batch()], cross_entropy)
    assert not move(model, start).any()
    assert [(each.steps, each.stopped) for each in report.batches] == [(0, "nothing moves")]
    assert (report.steps, report.no_op) == (0, True)
