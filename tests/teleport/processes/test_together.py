"""What two processes with one teleport agree on, refuse, and undo together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from teleport import Auto, ChangeOfBasis, LevelSet, NullSpace, ProgressLine, PseudoTeleport, RandomNullSpace, assess
from tests.teleport.methods import CLASSES, values
from tests.teleport.processes.spawned import results_of_ranks
from tests.teleport.processes.test_data_parallel import drawn, network, part_of
from tests.terminal import Terminal

pytestmark = pytest.mark.slow


def told_by(call: Callable[[], Any]) -> str:
    """The class and the sentence of an exception, empty without one."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def whole(batches: Iterable[Any]) -> list[Any]:
    return list(batches)


class Mishaps:
    """Each method is one situation in one of two processes; its result is compared in a test below."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.part = part_of(rank, size) if size > 1 else whole
        self.batches = self.part(drawn(2, 0))
        self.last = rank == size - 1

    def failing(self, method: Any, batches: list[Any], **options: Any) -> tuple[str, bool]:
        """What is told, and whether all parameters are as before."""
        model = network()
        before = values(model)
        told = told_by(lambda: method(model, batches, CLASSES.loss_fn, **options))
        return told, all(torch.equal(value, before[name]) for name, value in model.named_parameters())

    def a_callback_raises(self) -> Any:
        def raising(progress: Any) -> None:
            if self.last and progress.step == 1:
                raise KeyError("of the callback")

        return self.failing(NullSpace(), self.batches, callback=raising)

    def a_loss_fails(self) -> Any:
        batches = self.batches if not self.last else [self.batches[0], (self.batches[1][0][:, :5], self.batches[1][1])]
        return self.failing(LevelSet(), batches)

    def batches_are_missing(self) -> Any:
        return self.failing(NullSpace(), [] if self.last else self.batches)

    def numbers_of_batches_differ(self) -> Any:
        return self.failing(NullSpace(), self.batches[: 1 + self.rank])

    def replicas_differ(self) -> Any:
        model = network()
        with torch.no_grad():
            model[2].weight[3, 4] += 1e-12 * self.rank
        return told_by(lambda: NullSpace()(model, self.batches, CLASSES.loss_fn))

    def evaluations_write(self) -> Any:
        model = nn.Sequential(nn.Embedding(5, 8, max_norm=1.0), nn.Flatten(), nn.Linear(16, 3))
        batch = torch.tensor([[0, 1], [2, 3]]), torch.tensor([0, 1])
        return told_by(lambda: NullSpace()(model, [batch], CLASSES.loss_fn))

    def one_callback_stops(self) -> Any:
        model, callback = network(), (lambda progress: progress.step == 1) if self.last else None
        report = NullSpace()(model, self.batches, CLASSES.loss_fn, callback=callback)
        return [(each.steps, str(each.stopped)) for each in report.batches], values(model)

    def lines_on_terminals(self) -> Any:
        """What this process writes on a terminal of its own during an event of all, and during one of its own."""
        terminal, written = Terminal(), []
        for group in (None, "alone"):
            line = ProgressLine(file=terminal.file, interval=0)
            NullSpace(steps=2)(network(), self.batches, CLASSES.loss_fn, callback=line, process_group=group)
            written.append(terminal.read())
        terminal.close()
        return written

    def generators_differ(self) -> Any:
        """Each with a generator of another seed: all draw as the first rank."""
        found = []
        for method in (RandomNullSpace(), ChangeOfBasis(), PseudoTeleport(0.1)):
            model = network()
            method(model, self.batches, CLASSES.loss_fn, generator=torch.Generator().manual_seed(self.rank))
            found.append(values(model))
        return found

    def alone(self) -> Any:
        model = network()
        NullSpace()(model, drawn(1, self.rank), CLASSES.loss_fn, process_group="alone")
        return values(model)

    def group_of_one(self) -> Any:
        groups = [distributed.new_group([rank]) for rank in range(self.size)]
        model = network()
        NullSpace()(model, drawn(1, self.rank), CLASSES.loss_fn, process_group=groups[self.rank])
        other = groups[1 - self.rank]
        return values(model), told_by(lambda: NullSpace()(model, drawn(1, 0), CLASSES.loss_fn, process_group=other))

    def buffers_differ(self) -> Any:
        """Running statistics of each rank's own: those of the first one count, and all come back."""
        model = with_norm()
        model[1].running_mean += self.rank
        before = model[1].running_mean.clone()
        NullSpace()(model, self.batches, CLASSES.loss_fn)
        return values(model), torch.equal(model[1].running_mean, before)

    def wrapped(self) -> Any:
        """A DistributedDataParallel, given itself or as its module, teleported and trained."""
        found = []
        for wrapper_given, options in ((True, {}), (False, {}), (True, {"find_unused_parameters": True})):
            model = with_norm()
            wrapper = nn.parallel.DistributedDataParallel(model, **options) if self.size > 1 else model
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for batch in self.batches:
                NullSpace()(wrapper if wrapper_given else model, [batch], CLASSES.loss_fn)
                optimizer.zero_grad()
                model.eval()  # the statistics of a part of a batch are not those of the batch
                CLASSES.loss_fn(wrapper, batch).backward()
                optimizer.step()
            found.append(values(model))
        return found

    def tried_on_the_training(self) -> Any:
        """Auto and assess, in a wrapper and without."""
        found = []
        for wrap in (True, False):
            model, batches = network(), self.part(drawn(9, 1))
            wrapper = nn.parallel.DistributedDataParallel(model) if wrap and self.size > 1 else model
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            assessment = assess(wrapper, batches, CLASSES.loss_fn, optimizer, horizon=3)
            report = Auto(optimizer, horizon=3)(wrapper, batches, CLASSES.loss_fn)
            trial = report.trial
            found.append(
                (
                    [
                        assessment.go,
                        *assessment.rates.values(),
                        *(each.growth for each in assessment.families),
                        trial.without,
                        trial.moved,
                    ],
                    values(model),
                )
            )
        return found


def with_norm() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3)).double().eval()


NAMES = [name for name in vars(Mishaps) if not name.startswith("_") and name != "failing"]


def all_mishaps(rank: int, size: int) -> dict[str, Any]:
    mishaps = Mishaps(rank, size)
    return {name: getattr(mishaps, name)() for name in NAMES}


@pytest.fixture(scope="module")
def ranks():
    return results_of_ranks(all_mishaps, 2)


ONE = Mishaps(0, 1)
"""One process with the whole batches."""

ELSEWHERE = (
    "EndedElsewhere: rank 1 ended this teleport with an exception, which is told there; the parameters of all ranks "
    "are what they were"
)


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-10, rtol=1e-10)


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("name", ["a_callback_raises", "a_loss_fails", "batches_are_missing"])
def test_an_exception_on_one_rank_ends_and_undoes_it_on_all(ranks, name):
    assert ranks[0][name] == (ELSEWHERE, True)
    told, unchanged = ranks[1][name]
    assert unchanged
    assert told.startswith(
        {
            "a_callback_raises": "KeyError: 'of the callback'",
            "a_loss_fails": "RuntimeError: mat1 and mat2 shapes cannot be multiplied",
            "batches_are_missing": "ValueError: a teleport needs at least one batch",
        }[name]
    )


def test_what_must_be_the_same_is_refused_by_name_on_all_ranks(ranks):
    for rank in ranks:
        told, unchanged = rank["numbers_of_batches_differ"]
        assert told == "ValueError: the ranks of a teleport need the same number of batches: rank 0 has 1, rank 1 has 2"
        assert unchanged
        assert rank["replicas_differ"].startswith("ValueError: '2.weight' is not the same on rank 1 as on rank 0:")
        assert rank["evaluations_write"].startswith("UnsupportedModel: '0' has max_norm")


def test_the_callback_of_one_rank_ends_the_event_for_all(ranks):
    (first, kept), (second, others) = (rank["one_callback_stops"] for rank in ranks)
    assert first == second == [(1, "stopped by the callback")]
    assert equal(others, kept)


def test_ranks_draw_as_the_first_one(ranks):
    for own, other, one in zip(*(rank["generators_differ"] for rank in ranks), ONE.generators_differ(), strict=True):
        assert equal(other, own)
        close(own, one)


def test_a_teleport_of_this_process_takes_no_part_of_the_others(ranks):
    for rank, found in enumerate(ranks):
        model = network()
        NullSpace()(model, drawn(1, rank), CLASSES.loss_fn)
        assert equal(found["alone"], values(model))
        moved, told = found["group_of_one"]
        assert equal(moved, values(model))
        assert told == "ValueError: process_group is a group that this process is not in"


def test_buffers_of_the_first_rank_count_and_each_rank_keeps_its_own(ranks):
    one, restored = ONE.buffers_differ()
    assert restored
    for rank in ranks:
        moved, restored = rank["buffers_differ"]
        assert restored
        close(moved, one)
    assert equal(ranks[1]["buffers_differ"][0], ranks[0]["buffers_differ"][0])


def test_a_wrapper_and_its_module_train_on_as_one_process(ranks):
    for own, other, one in zip(*(rank["wrapped"] for rank in ranks), ONE.wrapped(), strict=True):
        assert equal(other, own)
        close(own, one)


def test_a_move_is_tried_on_the_training_of_all_ranks(ranks):
    ours = (rank["tried_on_the_training"] for rank in ranks)
    for own, other, one in zip(*ours, ONE.tried_on_the_training(), strict=True):
        assert other[0] == own[0]
        assert equal(other[1], own[1])
        assert own[0] == pytest.approx(one[0], rel=1e-10)
        close(own[1], one[1])


def losing_a_rank(rank: int, size: int) -> Any:
    """The second process ends in the middle of an event."""

    def ending(progress: Any) -> None:
        if rank == 1 and progress.step == 1:
            os._exit(0)

    return Mishaps(rank, size).failing(NullSpace(), part_of(rank, size)(drawn(2, 0)), callback=ending)


def test_a_rank_that_is_gone_ends_the_event_and_undoes_it():
    (told, unchanged), gone = results_of_ranks(losing_a_rank, 2)
    assert gone is None
    assert "peer" in told
    assert unchanged


def test_the_first_process_shows_the_line_of_an_event(ranks):
    first, other = (each["lines_on_terminals"] for each in ranks)
    assert all("batch 2/2, step 2/2, gradient norm" in text for text in first)
    assert other == ["", ""]
