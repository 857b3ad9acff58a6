"""Permutations, rotations and matrices on shards of ``fully_shard``, against one process with the whole model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import teleport
from teleport import ChangeOfBasis
from tests.teleport.processes.spawned import results_of_ranks
from tests.teleport.processes.test_factors_on_shards import samples, sharded, squares
from tests.teleport.processes.test_on_shards import EQUAL, Gathered, batches, loss_fn, near, part_of
from tests.teleport.processes.test_sharded import full
from tests.teleport.processes.uneven import layers, llama

pytestmark = pytest.mark.slow

GROUPS = ("permutation", "orthogonal", "general", "all")

Case = tuple[Callable[[], nn.Module], Callable[[Any], Any], list[Any], Callable[..., Tensor]]

CASES: dict[str, Case] = {
    "llama": (llama, lambda model: model.blocks, batches(), loss_fn),
    "layers": (layers, lambda model: list(model)[:3], samples(), squares),
}


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: full(value) for name, value in model.state_dict().items()}


def evaluated(model: nn.Module, batch: Any) -> Tensor:
    """The outputs in evaluation mode; the modes are as before."""
    modes = [(module, module.training) for module in model.modules()]
    with torch.no_grad():
        found = model.eval()(batch[0])
    for module, mode in modes:
        module.training = mode
    return found


def moved(model: nn.Module, case: str, group: str, given: list[Any], with_loss: bool, folded: bool) -> dict[str, Any]:
    """What an event does: outputs, parameters, the report, and the parameters after the inverse."""
    _, _, joined, loss = CASES[case]
    before, outputs = state_of(model), evaluated(model, joined[0])
    method = ChangeOfBasis(range=0.5, group=group, seed=3, fold_norms=folded)
    report = method(model, given, *([loss] if with_loss else []))
    found: dict[str, Any] = {"moved": state_of(model), "accepted": report.accepted, "memory": report.memory}
    layers = [(each.name, each.parameters, each.reason, each.relative_change) for each in report.layers]
    told = [(each.steps, str(each.stopped), each.accepted) for each in report.batches]
    found["told"] = [layers, told, str(report.symmetries), len(report.change.parts)]
    if with_loss:
        found["told"] += [report.loss_before, report.loss_after]
    found["outputs"] = (outputs, evaluated(model, joined[0]))
    report.change.inverse().apply(model)
    found["undone"] = (before, state_of(model))
    return found


def trained(model: nn.Module, case: str, group: str, given: list[Any], kind: type[torch.optim.Optimizer]) -> Any:
    """The parameters after a step of an optimizer, a move of the parameters and its state, and another step."""
    loss = CASES[case][3]
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {"eps": 1e-3}
    optimizer = kind(model.parameters(), lr=0.01, **options)  # type: ignore[call-arg]

    def train() -> None:
        optimizer.zero_grad()
        loss(model, given[0]).backward()
        optimizer.step()

    train()
    report = ChangeOfBasis(range=0.5, group=group, seed=3)(model, given)
    evaluated(model, given[0])  # after which FSDP keeps the root whole
    teleport.transport_state(optimizer, report)
    train()
    return state_of(model)


def gathered_by(model: nn.Module, call: Callable[[nn.Module], Any]) -> float:
    """What a rank holds gathered at once during a call, in units of all parameters."""
    with Gathered() as seen:
        call(model)
    return seen.most / sum(each.numel() * each.element_size() for each in model.parameters())


VARIANTS = {
    "by loss": (True, False),
    "by outputs": (False, False),
    "folded": (False, True),
}
"""Whether there is a loss, and whether the weights of norms are folded."""

MOVES = [
    *(("llama", group, "by loss") for group in GROUPS),
    *(("layers", group, "by outputs") for group in GROUPS),
    ("llama", "all", "folded"),
    ("llama", "orthogonal", "folded"),
]
STATES = [("permutation", torch.optim.Adam), ("all", torch.optim.SGD)]


def shards_of(case: str, size: int) -> nn.Module:
    make, parts, _, _ = CASES[case]
    model = make()
    return sharded(size, model, parts(model))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def move_by(group: str, given: list[Any], model: nn.Module) -> None:
    ChangeOfBasis(group=group)(model, given)


def all_of_it(rank: int, size: int) -> dict[str, Any]:
    part = part_of(rank, size)
    found: dict[Any, Any] = {}
    for case, group, variant in MOVES:
        given = part(CASES[case][2])
        found[case, group, variant] = moved(shards_of(case, size), case, group, given, *VARIANTS[variant])
    tokens = part(batches())
    for group, kind in STATES:
        found[group, kind.__name__] = trained(shards_of("llama", size), "llama", group, tokens, kind)
    for group in ("permutation", "all"):
        model = llama(6)
        model = sharded(size, model, model.blocks)
        found["gathered", group] = gathered_by(model, partial(move_by, group, tokens))
        element = teleport.find_symmetries(llama(6), batches()[0][0]).sample(group, torch.Generator().manual_seed(0))
        found["element", group] = gathered_by(model, element.apply)
    return found


@pytest.fixture(scope="module")
def ranks():
    return results_of_ranks(all_of_it, 2)


def close(found: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert found.keys() == right.keys()
    for name, value in right.items():
        torch.testing.assert_close(found[name], value, **EQUAL)


@pytest.mark.parametrize(("case", "group", "variant"), MOVES)
def test_shards_move_as_the_whole_model(ranks, case, group, variant):
    make, _, given, _ = CASES[case]
    one = moved(make(), case, group, given, *VARIANTS[variant])
    assert not same(one["undone"][0], one["moved"])
    for rank in ranks:
        found = rank[case, group, variant]
        close(found["moved"], one["moved"])
        assert near(found["told"], one["told"]), (found["told"], one["told"])
        assert found["accepted"]
        assert "sharded parts gathered in turn" in found["memory"]
        torch.testing.assert_close(*found["outputs"], atol=1e-10, rtol=1e-10)
        close(found["undone"][1], found["undone"][0])
        assert group != "permutation" or same(*found["undone"])


@pytest.mark.parametrize(("group", "kind"), STATES)
def test_states_of_optimizers_follow_on_shards(ranks, group, kind):
    one = trained(llama(), "llama", group, batches(), kind)
    for rank in ranks:
        close(rank[group, kind.__name__], one)


@pytest.mark.parametrize("group", ["permutation", "all"])
def test_an_element_gathers_one_parameter_at_a_time(ranks, group):
    """The threads of gloo may hold the last one a little longer."""
    sizes = [each.numel() for each in llama(6).parameters()]
    for rank in ranks:
        assert 0 < rank["element", group] < 2.1 * max(sizes) / sum(sizes)
        assert 0 < rank["gathered", group] < 0.5
