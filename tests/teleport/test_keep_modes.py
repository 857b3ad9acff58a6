"""``keep_modes=True``: the loss is evaluated in the modes of the modules, and leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import teleport
from teleport import NullSpace, RandomNullSpace
from tests.teleport.methods import after_it, every_method, inter_teleport, unchanged, values


class Losses(nn.Sequential):
    """Returns its losses in training mode and a list in evaluation mode, as detection models of torchvision do."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        outputs = super().forward(x)
        return {"class": F.cross_entropy(outputs, targets)} if self.training else list(outputs)


def make(*others: nn.Module) -> tuple[nn.Module, Any]:
    torch.manual_seed(3)
    layers = [nn.Linear(6, 24), nn.LeakyReLU(0.1), nn.Linear(24, 24), nn.LeakyReLU(0.1), nn.Linear(24, 3), *others]
    return Losses(*layers).double(), (torch.randn(5, 6).double(), torch.arange(5) % 3)


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    return sum(model(*batch).values())


@every_method
def test_a_model_that_returns_losses_in_training_mode_is_told_and_taken(row):
    model, batch = make()
    start = values(model)
    said = r"the loss fails in evaluation mode, .*'list' object has no attribute 'values'.*pass keep_modes=True"
    with pytest.raises(ValueError, match=said):
        row.make()(model, [batch], loss_fn)
    assert unchanged(model, start)
    report = row.make()(model, [batch], loss_fn, keep_modes=True)
    assert report.accepted
    assert not report.no_op
    assert model.training
    after = after_it(model, report)
    assert report.loss_after == pytest.approx(float(loss_fn(after.train(), batch).detach()), rel=1e-9)
    assert report.loss_after - report.loss_before <= max(row.keeps, 1e-12) * max(1.0, report.loss_before)


def test_a_loss_of_another_kind_in_evaluation_mode_is_told():
    """Auxiliary outputs: the sum of a list of tensors is no scalar."""
    model, batch = make()
    with pytest.raises(ValueError, match=r"not in training mode \(ValueError: loss_fn must return a scalar tensor\)"):
        NullSpace()(model, [batch], lambda net, each: net(*each)["class"] if net.training else net(each[0]))
    assert model.training
    model.eval()
    with pytest.raises(ValueError, match=r"^loss_fn must return a scalar tensor$"):
        NullSpace()(model, [batch], lambda net, each: net(each[0]))


def noisy() -> tuple[nn.Module, Any]:
    """Dropout, batch norm of both kinds and spectral norm, which write to buffers in training mode."""
    torch.manual_seed(3)
    model = nn.Sequential(
        *(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.LeakyReLU(0.1), nn.Dropout(0.3)),
        *(nn.Linear(32, 32), nn.BatchNorm1d(32, momentum=None), nn.LeakyReLU(0.1)),
        *(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(32, 24)), nn.Linear(24, 3)),
    )
    return model.double(), (torch.randn(9, 6).double(), torch.arange(9) % 3)


def plain_loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


METHODS = {
    "null space": lambda: NullSpace(relative_cap=3.0),
    "forward each": lambda: NullSpace(relative_cap=3.0, forward="each"),
    "random": lambda: RandomNullSpace(relative_cap=3.0),
    "level set": lambda: teleport.LevelSet(relative_cap=3.0, steps=5),
    "rescaling": lambda: teleport.Rescaling(relative_cap=3.0),
    "change of basis": teleport.ChangeOfBasis,
    "teleported": inter_teleport,
    "pseudo": teleport.PseudoTeleport,
}


@pytest.mark.parametrize("name", METHODS)
def test_noise_is_fixed_and_buffers_come_back(name):
    model, batch = noisy()
    other = (torch.randn(9, 6).double(), batch[1])
    model[1].eval()  # a module in another mode keeps it
    modes = [module.training for module in model.modules()]
    buffers = copy.deepcopy(dict(model.named_buffers()))
    torch.manual_seed(17)
    state = torch.get_rng_state()
    before = []
    for each in (batch, other):
        torch.set_rng_state(state)
        before.append(float(plain_loss(copy.deepcopy(model), each).detach()))
    torch.set_rng_state(state)
    report = METHODS[name]()(model, [batch, other], plain_loss, keep_modes=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
    assert report.loss_before == pytest.approx(sum(before) / 2, rel=1e-12)
    if name != "pseudo":
        assert report.accepted
        for told in report.batches:
            assert told.loss_after - told.loss_before <= 1e-3 * max(1.0, told.loss_before)
    after = []
    for each in (batch, other):
        torch.set_rng_state(state)
        after.append(float(plain_loss(copy.deepcopy(after_it(model, report)), each).detach()))
    assert report.loss_after == pytest.approx(sum(after) / 2, rel=1e-9)


def test_null_space_keeps_the_loss_with_its_noise_exactly():
    model, batch = noisy()
    torch.manual_seed(17)
    state = torch.get_rng_state()
    before = float(plain_loss(copy.deepcopy(model), batch).detach())
    torch.set_rng_state(state)
    report = NullSpace(relative_cap=3.0)(model, [batch], plain_loss, keep_modes=True)
    assert not report.no_op
    torch.set_rng_state(state)
    assert float(plain_loss(model, batch).detach()) == pytest.approx(before, rel=1e-10)


def test_without_a_loss_outputs_are_compared_in_the_same_modes():
    model, batch = noisy()
    report = teleport.ChangeOfBasis()(model, [batch[0]], keep_modes=True)
    assert report.accepted
    assert report.difference < 1e-10


@every_method
def test_anything_but_a_bool_is_refused(row):
    model, batch = make()
    with pytest.raises(TypeError, match="keep_modes must be True or False, got 'train'"):
        row.make()(model, [batch], loss_fn, keep_modes="train")
