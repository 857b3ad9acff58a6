"""Changes of basis with teleported activations: several in a row, the way back, other modes of the model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleport import ChangeOfBasis, Teleported, UnsupportedModel, load, save
from teleport._tracing.functions import function_name
from tests.teleport.networks import Calls
from tests.teleport.quivers import stack
from tests.teleport.rescalable import relative_error
from tests.teleport.residual import Residual, images, residual, values


def test_teleports_in_a_row_multiply_and_do_not_nest():
    model, others = residual(nn.Tanh)
    model.eval()
    before = model(others).detach()
    method = ChangeOfBasis(0.5, "inter", activations="teleport")
    first = method(model, images())
    taus = {(each.function, each.call): each.tau.clone() for each in first.model.activations}
    second = method(first.model, images())
    assert second.model is first.model
    assert second.model.module is model
    assert relative_error(second.model(others), before) < 1e-11
    sites = {(function_name(site.function), site.call): site for site in second.change.quiver.sites}
    for each in second.model.activations:
        site = sites[each.function, each.call]
        own = second.change.tau[site.classes]
        own = own.sign() if site.homogeneous else own  # the max pooling's
        torch.testing.assert_close(each.tau, taus[each.function, each.call] * own)
    second.change.inverse().apply(second.model)
    first.change.inverse().apply(second.model)
    assert second.model.activations == []
    assert relative_error(model(others), before) < 1e-11


def test_a_rewritten_model_is_changed_in_place_as_well():
    model, others = residual()
    model.eval()
    before = model(others).detach()
    rewritten = ChangeOfBasis(0.5, "inter", activations="teleport")(model, images()).model
    held = [each.tau.clone() for each in rewritten.activations]
    report = ChangeOfBasis(0.5)(rewritten, images())
    assert report.model is rewritten
    assert not report.no_op
    assert relative_error(rewritten(others), before) < 1e-11
    assert all(torch.equal(each.tau, tau) for each, tau in zip(rewritten.activations, held, strict=True))
    assert {layer.name for layer in report.layers if layer.dimension} <= dict(model.named_parameters()).keys()


def test_undone_by_the_inverse_and_saved(tmp_path):
    model, others = residual(nn.ELU)
    model.eval()
    start, before = values(model), model(others).detach()
    report = ChangeOfBasis(0.9, "inter", activations="teleport")(model, images())
    save(report.model, tmp_path / "model.pt", report.change)
    loaded, change = load(tmp_path / "model.pt", Residual(nn.ELU).double().eval())
    assert torch.equal(loaded(others), report.model(others))
    for teleported, element in ((report.model, report.change), (loaded, change)):
        back = element.inverse().apply(teleported)
        assert relative_error(back(others), before) < 1e-12
        torch.testing.assert_close(values(back.module), start, rtol=1e-13, atol=0)


class WithHead(nn.Module):
    """A net with an auxiliary head that training alone calls."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)
        self.auxiliary, self.activation, self.dropout = nn.Linear(6, 3), activation(), nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Any:
        hidden = self.activation(self.first(x))
        out = self.norm(self.last(self.activation(self.middle(hidden))))
        return (out, self.auxiliary(hidden)) if self.training else out


@pytest.mark.parametrize("activations", ["keep", "teleport"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_what_training_alone_reaches_is_kept_too(activation, activations):
    model = WithHead(activation).double()
    plain, x = copy.deepcopy(model), torch.randn(9, 5).double()
    statistics = [buffer.clone() for buffer in model.buffers()]
    report = ChangeOfBasis(0.9, activations=activations)(model, [x])
    assert report.no_op == (activations == "keep" and activation is nn.Tanh)
    assert all(torch.equal(old, new) for old, new in zip(statistics, model.buffers(), strict=True))
    assert report.model.training
    for expected, value in zip(plain(x), report.model(x), strict=True):
        assert relative_error(value, expected) < 1e-12
    assert relative_error(report.model.eval()(x), plain.eval()(x)) < 1e-12


def test_activations_of_an_auxiliary_head_are_no_guess():
    model = WithHead(nn.Tanh).double()
    model.auxiliary = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    start = values(model)
    with pytest.raises(UnsupportedModel, match="does not make the same ones in training as in evaluation; take"):
        ChangeOfBasis(activations="teleport")(model, [torch.randn(9, 5).double()])
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_activations_are_teleported_only_of_a_model_that_is_called():
    model = Calls(lambda net, x: net.first(x), first=nn.Linear(5, 3)).double()
    batch = (torch.randn(4, 5).double(), torch.arange(4) % 3)
    with pytest.raises(ValueError, match='activations="teleport" needs an evaluation that calls the model itself'):
        ChangeOfBasis(activations="teleport")(
            model, [batch], lambda net, batch: F.cross_entropy(getattr(net, "module", net).first(batch[0]), batch[1])
        )


def _of_parts(model: nn.Module) -> Tensor:
    """Touches the parts of the model in many ways."""
    first = model[0]
    assert len(model) == 5
    assert first in list(model)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert layers[0] is model.get_submodule("0")
    return 1e-3 * sum(layer.bias.square().sum() for layer in layers) * 0 + first.weight.sum() * 0


LOSSES = {
    "parts": lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]) + _of_parts(model),
    "forward": lambda model, batch: F.cross_entropy(model(batch[0]) + 0 * model.forward(batch[0]), batch[1]),
    "class and names": lambda model, batch: F.cross_entropy(
        model(batch[0]) + 0 * dict(model.named_parameters())["4.bias"] if type(model) is nn.Sequential else None,
        batch[1],
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_may_touch_the_parts_of_the_model(loss):
    model, batch = stack(5, 7, 6, 3, activation=nn.Tanh), (torch.randn(4, 5).double(), torch.arange(4) % 3)
    before, forward = model(batch[0]).detach(), vars(model).get("forward")
    report = ChangeOfBasis(0.5, "inter", activations="teleport")(model, [batch], LOSSES[loss])
    assert report.accepted
    assert isinstance(report.model, Teleported)
    assert vars(model).get("forward") is forward
    torch.testing.assert_close(report.model(batch[0]).detach(), before, rtol=1e-10, atol=1e-12)


def test_a_loss_of_parts_goes_on_with_the_teleported_model():
    model, batch = stack(5, 7, 6, 3, activation=nn.Tanh), (torch.randn(4, 5).double(), torch.arange(4) % 3)
    before = float(LOSSES["parts"](model, batch).detach())
    for _ in range(2):
        report = ChangeOfBasis(0.5, "inter", activations="teleport")(model, [batch], LOSSES["parts"])
        model = report.model
        loss = LOSSES["parts"](model, batch)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(before, rel=1e-10)
    assert report.accepted
    assert not report.no_op
