"""Elements of groups on shards of ``fully_shard``: gathered, undone, refused and told; shards of other forms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import teleport
from teleport import ChangeOfBasis, Rescaling, preview
from tests.teleport.processes.spawned import results_of_ranks
from tests.teleport.processes.test_factors_on_shards import samples, sharded, squares
from tests.teleport.processes.test_groups_on_shards import close, moved, same, shards_of, state_of
from tests.teleport.processes.test_on_shards import batches, loss_fn, near, part_of
from tests.teleport.processes.test_together import told_by
from tests.teleport.processes.uneven import Llama, layers, llama, reading

pytestmark = pytest.mark.slow


def failing(model: nn.Module, given: list[Any], rank: int) -> str:
    """What is said on each rank if one ends with an exception after the move."""

    def raising(progress: teleport.Progress) -> None:
        if rank and progress.step == 1:
            raise KeyError

    return told_by(lambda: ChangeOfBasis(group="all")(model, given, loss_fn, callback=raising)).partition(":")[0]


def parted(model: nn.Module, rank: int) -> tuple[str, bool]:
    """What is said if the element is of another model on one rank, and whether the shards are as before."""
    other = Llama(width=12).double() if rank else llama()
    element = teleport.find_symmetries(other, batches()[0][0]).sample("all", torch.Generator().manual_seed(0))
    before = state_of(model)
    told = told_by(lambda: element.apply(model)).partition(":")[0]
    return told, same(before, state_of(model))


def matched() -> Any:
    """The element that takes a permuted network back to the first one."""
    other = llama()
    ChangeOfBasis(group="permutation", seed=5)(other, batches())
    return other, teleport.match(llama(), other, batches(), group="permutation").change


class Gathers(TorchDispatchMode):
    """Counts the tensors that are gathered."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "allgather_base" in str(func)
        return func(*args, **(kwargs or {}))


def gathers_of(model: nn.Module) -> int:
    """How many parameters are gathered for a permutation."""
    element = teleport.find_symmetries(llama(), batches()[0][0]).sample("permutation", torch.Generator().manual_seed(0))
    with Gathers() as seen:
        element.apply(model)
    return seen.count


def on_two_axes(model: nn.Module) -> nn.Module:
    """Shards over a mesh of two axes, which are whole on each rank during an event."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("replicas", "shards"))
    for block in (*model.blocks, model):  # type: ignore[misc, union-attr]
        fully_shard(block, mesh=mesh)
    return model


def with_own_statistics(rank: int) -> nn.Module:
    model = layers()
    model[0][1].running_mean += rank
    return model


def replicas(rank: int, part: Callable[[Any], Any]) -> dict[str, Tensor]:
    """The state of a replica, whose statistics of batch norm are its own, after a move of all."""
    model = with_own_statistics(rank)
    ChangeOfBasis(range=0.5, group="all", seed=3)(model, part(samples()), squares)
    return state_of(model)


def drawn(model: nn.Module, given: list[Any], rank: int) -> dict[str, Tensor]:
    """The parameters after a move by generators that differ between ranks."""
    ChangeOfBasis(group="permutation")(model, given, generator=torch.Generator().manual_seed(rank))
    return state_of(model)


def factors(model: nn.Module, given: list[Any]) -> bool:
    """Whether the change of a move by factors comes back by its inverse."""
    before = state_of(model)
    report = ChangeOfBasis(seed=2)(model, given)
    there = state_of(model)
    report.change.inverse().apply(model)
    back = state_of(model)
    return not same(before, there) and all(torch.allclose(before[name], back[name], rtol=1e-12) for name in before)


def rescaled(model: nn.Module, group: str, given: list[Any]) -> tuple[dict[str, Tensor], list[Any]]:
    """The parameters after a rescaling by matrices, and what its report says."""
    report = Rescaling(group=group, steps=3)(model, given, loss_fn)
    numbers = [report.gradient_norm_before, report.gradient_norm_after, report.loss_before, report.loss_after]
    return state_of(model), [*numbers, [each.steps for each in report.batches]]


def all_of_it(rank: int, size: int) -> dict[Any, Any]:
    part = part_of(rank, size)
    tokens, found = part(batches()), dict[Any, Any]()
    model = shards_of("llama", size)
    before = state_of(model)
    found["failed"] = failing(model, tokens, rank), same(before, state_of(model))
    found["parted"] = parted(model, rank)
    report = preview(ChangeOfBasis(group="all"), model, tokens, loss_fn)
    found["previewed"] = not report.no_op and same(before, state_of(model))
    found["alone"] = told_by(lambda: ChangeOfBasis(group="all")(model, tokens, process_group="alone"))
    found["seeds"] = drawn(model, tokens, rank)
    other, change = matched()
    found["matched"] = state_of(change.apply(sharded(size, copy.deepcopy(other), other.blocks[:0])))
    found["factors"] = factors(model, tokens)
    found["gathers"] = gathers_of(shards_of("llama", size))
    model = reading()
    found["reads"] = ChangeOfBasis(group="permutation")(sharded(size, model, model), part(samples())).value_reads
    for group in ("general", "all"):
        found["rescaled", group] = rescaled(shards_of("llama", size), group, tokens)
        found["replicas", group] = rescaled(llama(), group, tokens)
    found["two axes"] = moved(on_two_axes(llama()), "llama", "all", tokens, True, False)
    found["replicas"] = replicas(rank, part)
    found["shards"] = all(hasattr(parameter, "to_local") for parameter in model.parameters())
    return found


@pytest.fixture(scope="module")
def ranks():
    return results_of_ranks(all_of_it, 2)


def test_rows_whose_columns_are_permuted_are_not_gathered(ranks):
    """Those of the embedding and the head, whose rows are words."""
    assert [rank["gathers"] for rank in ranks] == [len(list(llama().parameters())) - 2] * 2


def test_values_that_the_code_reads_are_told(ranks):
    expected = ChangeOfBasis(group="permutation")(reading(), samples()).value_reads
    assert len(expected) == 1
    assert all(rank["reads"] == expected for rank in ranks)


def test_shards_of_another_form_move_whole(ranks):
    one = moved(llama(), "llama", "all", batches(), True, False)
    for rank in ranks:
        close(rank["two axes"]["moved"], one["moved"])
        close(rank["two axes"]["undone"][1], one["undone"][0])
        assert near(rank["two axes"]["told"], one["told"])


def test_replicas_move_alike_and_keep_statistics_of_their_own(ranks):
    for number, rank in enumerate(ranks):
        model = with_own_statistics(number)
        ChangeOfBasis(range=0.5, group="all", seed=3)(model, samples(), squares)
        close(rank["replicas"], state_of(model))


@pytest.mark.parametrize("group", ["general", "all"])
def test_matrices_rescale_shards_and_replicas(ranks, group):
    parameters, told = rescaled(llama(), group, batches())
    assert told[1] > 1.01 * told[0]
    for rank in ranks:
        for kind in ("rescaled", "replicas"):
            close(rank[kind, group][0], parameters)
            assert near(rank[kind, group][1], told)


def test_an_error_and_a_preview_leave_shards_as_they_were(ranks):
    assert [rank["failed"] for rank in ranks] == [("EndedElsewhere", True), ("KeyError", True)]
    assert [rank["parted"] for rank in ranks] == [("EndedElsewhere", True), ("ValueError", True)]
    for rank in ranks:
        assert rank["previewed"]
        assert rank["shards"]
        assert "is sharded over 2 processes, and 1 teleport" in rank["alone"]


def test_all_draw_as_the_first_rank(ranks):
    assert same(ranks[0]["seeds"], ranks[1]["seeds"])


def test_elements_of_match_and_factors_act_on_shards(ranks):
    other, change = matched()
    right = state_of(change.apply(other))
    for rank in ranks:
        assert same(rank["matched"], right)
        assert rank["factors"]
