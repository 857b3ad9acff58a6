"""ChangeOfBasis, Rescaling and Balance on the shards of ``fully_shard``, against one process with the whole model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import Balance, ChangeOfBasis, Rescaling, preview
from tests.teleport.processes import test_on_shards
from tests.teleport.processes.spawned import results_of_ranks
from tests.teleport.processes.test_on_shards import EQUAL, Gathered, batches, loss_fn, near, network, part_of, penalised
from tests.teleport.processes.test_sharded import full

pytestmark = pytest.mark.slow


def regression() -> nn.Module:
    """Layers of which one is zero, and one has a single row, which one of two ranks holds."""
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(7, 7), nn.ReLU()) for _ in range(4)), nn.Linear(7, 1))
    nn.init.zeros_(model[1][0].weight)
    nn.init.constant_(model[1][0].bias, 0.5)
    nn.init.zeros_(model[2][0].weight[:, 3:])
    return model.double()


def sharded(size: int, model: nn.Module, parts: Any) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (size,))
    for module in (*parts, model):
        fully_shard(module, mesh=mesh)
    return model


def squares(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def samples() -> list[Any]:
    source = torch.Generator().manual_seed(5)
    return [tuple(torch.randn(4, size, generator=source).double() for size in (7, 1)) for _ in range(2)]


METHODS: dict[str, tuple[Callable[[], Any], bool]] = {
    "change of basis": (lambda: ChangeOfBasis(seed=2), True),
    "change of basis by outputs": (lambda: ChangeOfBasis(sampling="inter", seed=2), False),
    "rescaling": (lambda: Rescaling(steps=5), True),
    "rescaling, balanced": (lambda: Rescaling(mode="balance", steps=5), True),
    "balance": (Balance, False),
    "balance of equal norms": (lambda: Balance("equal_norm", p=1.0), True),
}
"""And whether they get a loss."""

OF_ROWS = ("change of basis", "rescaling", "balance")
"""Those of :func:`regression`, too."""


def moved(name: str, model: nn.Module, given: list[Any], loss: Callable[..., Tensor]) -> dict[str, Any]:
    """The parameters after an event and a step of Adam on each side of it, and what the report says."""
    make, with_loss = METHODS[name]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=1e-3)  # else steps of rounding, where gradients are 0

    def train() -> None:
        optimizer.zero_grad()
        (loss_fn if loss is penalised else loss)(model, given[0]).backward()  # FSDP trains by what is in modules alone
        optimizer.step()

    train()
    report = make()(model, given, *([loss] if with_loss else []))
    found = [full(parameter) for parameter in model.parameters()]
    names = {parameter: name for name, parameter in model.named_parameters()}
    told: list[Any] = [
        (each.name, each.parameters, each.reason, each.relative_change) for each in sorted(report.layers, key=str)
    ]
    told += [(each.steps, str(each.stopped), each.accepted) for each in report.batches]
    numbers = [getattr(report, name, 0.0) for name in ("criterion_before", "criterion_after", "imbalance_after")]
    if with_loss:
        numbers += [report.loss_before, report.loss_after, report.gradient_norm_before, report.gradient_norm_after]
    factors = {names[each]: full(factor).cpu() for each, factor in report.group.items()}
    teleport.transport_state(optimizer, report)
    train()
    trained = [full(parameter) for parameter in model.parameters()]
    told += [report.no_op, sorted(factors), numbers]
    return {"moved": found, "told": told, "memory": report.memory, "factors": factors, "trained": trained}


def gathered_by(rank: int, size: int, name: str) -> float:
    """What a rank holds gathered at once during an event, in units of all parameters."""
    model = test_on_shards.sharded(size, blocks=6)
    make, with_loss = METHODS[name]
    with Gathered() as seen:
        make()(model, part_of(rank, size)(batches(1)), *([loss_fn] if with_loss else []))
    return seen.most / sum(each.numel() * each.element_size() for each in model.parameters())


def failing(model: nn.Module, given: list[Any], rank: int) -> str:
    """What is said on each rank if the second evaluation of one ends with an exception."""
    calls: list[None] = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        calls.append(None)
        if rank and len(calls) > 4:
            raise KeyError
        return loss_fn(model, batch)

    with pytest.raises(Exception) as raised:  # noqa: PT011  # of another class on each rank
        ChangeOfBasis()(model, given, loss)
    return raised.type.__name__


def all_of_it(rank: int, size: int) -> dict[str, Any]:
    part = part_of(rank, size)
    tokens, values = part(batches()), part(samples())

    def layers() -> nn.Module:
        model = regression()
        return sharded(size, model, list(model)[:3])

    found: dict[str, Any] = {"network": {}, "regression": {}}
    for name in METHODS:
        found["network"][name] = moved(name, test_on_shards.sharded(size), tokens, loss_fn)
    for name in OF_ROWS:
        found["regression"][name] = moved(name, layers(), values, squares)
    found["penalty"] = moved("change of basis", test_on_shards.sharded(size), tokens, penalised)
    found["gathered"] = {name: gathered_by(rank, size, name) for name in ("change of basis", "balance")}
    model = test_on_shards.sharded(size)
    before = [full(parameter) for parameter in model.parameters()]
    found["failed"] = failing(model, tokens, rank)
    report = preview(ChangeOfBasis(), model, tokens, loss_fn)
    found["unchanged"] = not report.no_op and all(map(torch.equal, before, map(full, model.parameters())))
    found["shards"] = all(hasattr(parameter, "to_local") for parameter in model.parameters())
    return found


@pytest.fixture(scope="module")
def ranks():
    return results_of_ranks(all_of_it, 2)


MODELS: dict[str, tuple[Callable[[], nn.Module], list[Any], Callable[..., Tensor]]] = {
    "network": (network, batches(), loss_fn),
    "regression": (regression, samples(), squares),
}


def check(found: dict[str, Any], one: dict[str, Any]) -> None:
    """That parameters, factors and the report are those of one process."""
    for key in ("moved", "trained"):
        for value, right in zip(found[key], one[key], strict=True):
            torch.testing.assert_close(value, right, **EQUAL)
    for told, expected in zip(found["told"], one["told"], strict=True):
        assert near(told, expected), (told, expected)
    for name, right in one["factors"].items():
        torch.testing.assert_close(found["factors"][name], right, **EQUAL)


@pytest.mark.parametrize(
    ("kind", "name"), [*(("network", name) for name in METHODS), *(("regression", name) for name in OF_ROWS)]
)
def test_shards_move_as_the_whole_model(ranks, kind, name):
    make, given, loss = MODELS[kind]
    one = moved(name, make(), given, loss)
    assert one["factors"]
    for found in ranks:
        check(found[kind][name], one)
        assert "sharded parts gathered" in found[kind][name]["memory"]


def test_a_parameter_that_the_loss_reads_is_whole(ranks):
    one = moved("change of basis", network(), batches(), penalised)
    for found in ranks:
        check(found["penalty"], one)
        assert "all parts gathered for each evaluation" in found["penalty"]["memory"]


def test_no_rank_holds_all_parameters_at_once(ranks):
    for found in ranks:
        assert all(0 < share < 0.7 for share in found["gathered"].values()), found["gathered"]


def test_an_exception_and_a_preview_leave_shards_as_they_were(ranks):
    assert [found["failed"] for found in ranks] == ["EndedElsewhere", "KeyError"]
    for found in ranks:
        assert found["unchanged"]
        assert found["shards"]
