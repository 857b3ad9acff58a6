"""Parts of a model that no batch reaches: the channels that they may read stay, so that the function stays on all
data."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleport import ChangeOfBasis, Rescaling
from teleport._quiver.find_quiver import trace_quiver

METHODS = {"change of basis": ChangeOfBasis(range=0.5), "rescaling": Rescaling(relative_cap=2.0)}


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


class ByLength(nn.Module):
    """A second head for long inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.head, self.more = nn.Linear(10, 32), nn.Linear(32, 3), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.up(x))
        return self.head(hidden) + (self.more(hidden) if len(x) > 16 else 0)


class WithoutModule(nn.Module):
    """The same with a parameter of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.head = nn.Linear(10, 32), nn.Linear(32, 3)
        self.more = nn.Parameter(torch.randn(3, 32))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.up(x))
        return self.head(hidden) + (F.linear(hidden, self.more) if len(x) > 16 else 0)


class Skipped(nn.Module):
    """A layer in the middle that short inputs skip."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(10 if not i else 32, 32) for i in range(4))
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            if number != 2 or len(x) > 16:
                x = torch.relu(layer(x))
        return self.head(x)


class Experts(nn.Module):
    """One expert per row, whose channels inside are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.head = nn.Linear(10, 32), nn.Linear(10, 4), nn.Linear(32, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU()) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden, chosen = torch.relu(self.up(x)), self.gate(x).argmax(1)
        out = torch.zeros_like(hidden)
        for number, expert in enumerate(self.experts):
            if (rows := chosen == number).any():
                out[rows] = expert(hidden[rows])
        return self.head(out)


class Nested(nn.Sequential):
    """The same inside of a module, which no code outside reads."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(10, 10), ByLength(), nn.Linear(3, 3))


MODELS = [ByLength, WithoutModule, Skipped, Experts, Nested]


def moved(model: nn.Module, inputs: Tensor, before: Tensor) -> float:
    return float((model(inputs).detach() - before).abs().max() / before.abs().max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", MODELS)
def test_outputs_on_other_data_stay(make, method):
    torch.manual_seed(0)
    model, other = make(), torch.randn(256, 10)
    before = model(other).detach()
    METHODS[method](model, [(torch.randn(2, 10), torch.randn(2, 3))], loss_fn)
    assert moved(model, other, before) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_the_reason_names_what_was_not_reached(method):
    report = METHODS[method](ByLength(), [(torch.randn(2, 10), torch.randn(2, 3))], loss_fn)
    assert report.no_op
    assert "'more.weight'" in report.reasons()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [ByLength, WithoutModule, Skipped])
def test_a_batch_that_reaches_it_frees_the_channels(make, method):
    torch.manual_seed(0)
    model, other = make(), torch.randn(256, 10)
    before = model(other).detach()
    batches = [(torch.randn(n, 10), torch.randn(n, 3)) for n in (2, 20)]
    report = METHODS[method](model, batches, loss_fn)
    assert not report.no_op
    assert moved(model, other, before) < 1e-5


def test_channels_inside_a_reached_expert_are_free():
    """Another expert cannot read them: they do not leave the module."""
    torch.manual_seed(0)
    model = Experts()
    report = ChangeOfBasis()(model, [(torch.randn(2, 10), torch.randn(2, 3))], loss_fn)
    free = {layer.name: layer.free for layer in report.layers}
    assert free["up.weight"] == 0
    assert sorted(free[name] for name in free if name.endswith(".0.weight"))[-1] == 16


def test_a_module_reads_what_it_is_given():
    """A hidden value that leaves a module is in reach of the modules beside it."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(10, 32), nn.ReLU())
            self.head, self.spare = nn.Linear(32, 3), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.body(x)
            return self.head(hidden) if len(x) <= 16 else self.spare(hidden)

    torch.manual_seed(0)
    model, other = Outer(), torch.randn(256, 10)
    before = model(other).detach()
    ChangeOfBasis()(model, [(torch.randn(2, 10), torch.randn(2, 3))], loss_fn)
    assert moved(model, other, before) < 1e-5


def test_spare_evaluations_end_where_every_parameter_was_read():
    model, rows = ByLength(), []

    def evaluate(count: int) -> Tensor:
        rows.append(count)
        return model(torch.randn(count, 10))

    spare = [partial(evaluate, count) for count in (8, 32, 5)]
    trace_quiver([partial(evaluate, 4)], dict(model.named_parameters()), True, True, "it is an output", spare)
    assert rows == [4, 8, 32]
