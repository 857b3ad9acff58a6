"""Events of a training that another package runs: what becomes of the optimizer's state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from teleport import ChangeOfBasis
from teleport.integrations._events import Events


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> None:
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    optimizer.step()


def trained(make: Any, rule: str) -> tuple[nn.Module, torch.optim.Optimizer, Events]:
    """A network after three steps and an event."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    optimizer, batches = make(model.parameters()), list(torch.randn(3, 12, 5).double())
    for batch in batches:
        step(model, optimizer, batch)
    events = Events(ChangeOfBasis(group="permutation", seed=1), loss_of, [0], 1, rule)
    events.before(0, model, batches, [optimizer])
    return model, optimizer, events


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "Adagrad", "RMSprop", "ASGD"])
def test_an_optimizer_that_is_reset_steps_as_a_new_one(kind):
    """Adagrad, too, which makes its state when it is built."""
    options = {"momentum": 0.9} if kind == "SGD" else {}

    def make(parameters: Any) -> torch.optim.Optimizer:
        return getattr(torch.optim, kind)(parameters, lr=0.01, **options)

    model, optimizer, _ = trained(make, "reset")
    other = copy.deepcopy(model)
    fresh = make(other.parameters())
    for batch in torch.randn(2, 12, 5).double():
        step(model, optimizer, batch)
        step(other, fresh, batch)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def lookahead(parameters: Any) -> Any:
    return pytest.importorskip("pytorch_optimizer").Lookahead(torch.optim.SGD(parameters, 0.01, momentum=0.9), k=2)


def test_slow_weights_are_moved_along_or_start_at_the_weights():
    model, optimizer, events = trained(lookahead, "transported")
    kept, unmoved, _ = trained(lookahead, "keep")
    for name, parameter in events.reports[0].change.apply(copy_of_slow(kept, unmoved)).named_parameters():
        assert torch.equal(parameter, optimizer.state[dict(model.named_parameters())[name]]["slow_params"])
    model, optimizer, _ = trained(lookahead, "reset")
    for parameter in model.parameters():
        assert torch.equal(parameter, optimizer.state[parameter]["slow_params"])
    assert not optimizer.optimizer.state


def copy_of_slow(model: nn.Module, optimizer: Any) -> nn.Module:
    """The network with the slow weights of its optimizer."""
    copied = copy.deepcopy(model)
    for own, parameter in zip(copied.parameters(), model.parameters(), strict=True):
        own.data.copy_(optimizer.state[parameter]["slow_params"])
    return copied
