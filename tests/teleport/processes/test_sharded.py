"""Models sharded by ``fully_shard`` in two processes, against the model as a whole in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import (
    Auto,
    ChangeOfBasis,
    LevelSet,
    NullSpace,
    PseudoTeleport,
    RandomNullSpace,
    Rescaling,
    assess,
    preview,
)
from tests.teleport.processes.spawned import results_of_ranks
from tests.teleport.processes.test_together import told_by, whole

pytestmark = pytest.mark.slow


class Block(nn.Module):
    """A transformer's block: attention and a network of two layers, with normalisations and residual sums."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm, self.other = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.network = nn.Sequential(nn.Linear(width, 3 * width), nn.ReLU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.network(self.other(x))


def transformer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), Block(), Block(), nn.Linear(16, 3)).double()


def sharded() -> nn.Module:
    """Each block, and what is left, of this process's part of the rows."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = transformer()
    mesh = init_device_mesh("cpu", (2,))
    for block in (model[1], model[2], model):
        fully_shard(block, mesh=mesh)
    return model


def loss_fn(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0])[:, 0], batch[1])


def sequences(number: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of two sequences of four tokens: fewer positions than the layers are wide."""
    source = torch.Generator().manual_seed(number)
    return [(torch.randn(2, 4, 5, generator=source).double(), torch.tensor([0, 2])) for _ in range(number)]


METHODS: dict[str, Callable[[], Any]] = {
    "null space": NullSpace,
    "random move": RandomNullSpace,
    "change of basis": ChangeOfBasis,
    "change of basis without a loss": ChangeOfBasis,
    "rescaling": Rescaling,
    "level set": lambda: LevelSet(steps=3),
    "pseudo-teleportation": lambda: PseudoTeleport(0.1),
}


def moved_and_trained(name: str, model: nn.Module, part: Callable[[Any], Any]) -> list[Any]:
    """The parameters after a teleport and after two steps of Adam on its other side; what the report says."""
    optimizer, batches, found = torch.optim.Adam(model.parameters(), lr=0.01), part(sequences(2)), list[Any]()

    def train() -> None:
        for batch in batches:
            optimizer.zero_grad()
            loss_fn(model, batch).backward()
            optimizer.step()
        found.append([full(parameter) for parameter in model.parameters()])

    train()
    method = METHODS[name]()
    report = method(model, batches) if "without" in name else method(model, batches, loss_fn)
    found.append([full(parameter) for parameter in model.parameters()])
    if name in ("rescaling", "change of basis"):
        teleport.transport_state(optimizer, report)
    train()
    return [*found, (report.no_op, [(each.steps, str(each.stopped)) for each in report.batches])]


def full(parameter: Tensor) -> Tensor:
    value = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    return value.detach().clone()


def all_of_it(rank: int, size: int) -> dict[str, Any]:
    def part(batches: list[Any]) -> list[Any]:
        return [tuple(tensor.chunk(size)[rank] for tensor in batch) for batch in batches]

    found: dict[str, Any] = {name: moved_and_trained(name, sharded(), part) for name in METHODS}
    found |= {name: after_an_evaluation(name, sharded(), part) for name in AFTER_AN_EVALUATION}
    model, batches = sharded(), part(sequences(4))
    before = [full(parameter) for parameter in model.parameters()]
    found["judged"] = judged(sharded(), part)

    def failing(progress: teleport.Progress) -> None:
        if rank == 1 and progress.step == 1:
            raise KeyError

    found["refused"] = [
        told_by(lambda: NullSpace()(model, batches, loss_fn, process_group="alone")),
        told_by(lambda: NullSpace()(model, batches, loss_fn, callback=failing)),
    ]
    previews = [preview(method(), model, batches, loss_fn) for method in (NullSpace, LevelSet)]
    found["previewed"] = [report.no_op for report in previews]
    after = [full(parameter) for parameter in model.parameters()]
    found["unchanged"] = all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    found["shards"] = all(parameter.to_local().numel() < parameter.numel() for parameter in model.parameters())
    return found


def judged(model: nn.Module, part: Callable[[Any], Any]) -> tuple[list[Tensor], list[float]]:
    """The parameters after an event of Auto, and what it and assess measured."""
    optimizer, batches = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), part(sequences(5))
    report = Auto(optimizer, growth=1.5, horizon=2, tolerance=1.0)(model, batches, loss_fn)
    found = assess(model, batches, loss_fn, optimizer, growth=1.5, horizon=2)
    numbers = [report.trial.without, report.trial.moved, float(report.accepted), found.curvature, *found.rates.values()]
    numbers += [number for each in found.families for number in (each.growth, each.distance, each.drift, each.one_step)]
    return [full(parameter) for parameter in model.parameters()], numbers


AFTER_AN_EVALUATION = {"level set after an evaluation": "level set"}


def after_an_evaluation(name: str, model: nn.Module, part: Callable[[Any], Any]) -> list[Tensor]:
    """The parameters after a teleport; the evaluation before it, without a backward pass, leaves the root whole."""
    with torch.no_grad():
        loss_fn(model, part(sequences(2))[0])
    METHODS[AFTER_AN_EVALUATION[name]]()(model, part(sequences(2)), loss_fn)
    return [full(parameter) for parameter in model.parameters()]


@pytest.fixture(scope="module")
def ranks():
    return results_of_ranks(all_of_it, 2)


@pytest.mark.parametrize("name", METHODS)
def test_a_sharded_model_moves_and_trains_as_the_whole_one(ranks, name):
    one = moved_and_trained(name, transformer(), whole)
    assert not one[-1][0]
    for rank in ranks:
        assert rank[name][-1] == one[-1]
        for found, expected in zip(rank[name][:-1], one[:-1], strict=True):
            for value, right in zip(found, expected, strict=True):
                torch.testing.assert_close(value, right, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", AFTER_AN_EVALUATION)
def test_a_model_that_was_evaluated_moves_as_a_whole(ranks, name):
    one = after_an_evaluation(name, transformer(), whole)
    for rank in ranks:
        for value, right in zip(rank[name], one, strict=True):
            torch.testing.assert_close(value, right, atol=1e-10, rtol=1e-10)


def test_auto_and_assess_judge_shards_as_the_whole_model(ranks):
    one = judged(transformer(), whole)
    for rank in ranks:
        for value, right in zip(rank["judged"][0], one[0], strict=True):
            torch.testing.assert_close(value, right, atol=1e-9, rtol=1e-9)
        assert rank["judged"][1] == pytest.approx(one[1], rel=1e-6, abs=1e-8)


def test_what_needs_whole_parameters_says_so_and_a_failure_changes_nothing(ranks):
    for rank, found in enumerate(ranks):
        alone, failed = found["refused"]
        assert "is sharded over 2 processes, and 1 teleport" in alone
        assert failed.startswith("KeyError" if rank else "EndedElsewhere: rank 1")
        assert found["previewed"] == [False, False]
        assert found["unchanged"]
        assert found["shards"]
